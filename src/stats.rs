//! Counts what a repository holds.

use std::collections::BTreeSet;

use backup_core::ChunkKind;
use backup_manifest::{INDEX_PREFIX, ObjectName, PACKS_PREFIX};

use crate::repository::load_index::{list, load_index};
use crate::{Error, Repository, StoreProbe, probe};

/// What a repository holds. Bytes are as stored, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryStats {
    /// Cells of snapshots, aborted ones included.
    pub snapshots: u64,
    /// Sources that have snapshots.
    pub sources: u64,
    /// Packs of content and of items.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs of content.
    pub data_packs: u64,
    /// Packs of items.
    pub tree_packs: u64,
    /// Index segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// All objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks of content and of items, each once.
    pub chunks: u64,
    /// Their bytes, of plaintext.
    pub chunk_bytes: u64,
    /// What the store was seen to do.
    pub probe: StoreProbe,
}

/// Counts what the repository holds, from listings and the index, and [probes](probe) the store.
///
/// # Errors
/// Whatever the store says.
pub async fn stats(repo: &Repository) -> Result<RepositoryStats, Error> {
    let index = load_index(repo).await?;
    let count = |kind| {
        index
            .packs()
            .iter()
            .filter(|pack| pack.kind == kind)
            .count() as u64
    };
    let mut stats = RepositoryStats {
        snapshots: 0,
        sources: 0,
        packs: 0,
        pack_bytes: 0,
        data_packs: count(ChunkKind::Data),
        tree_packs: count(ChunkKind::Tree),
        segments: 0,
        segment_bytes: 0,
        objects: 0,
        bytes: 0,
        chunks: index.chunk_count() as u64,
        chunk_bytes: index.chunk_bytes(),
        probe: probe(repo).await?,
    };
    let mut sources = BTreeSet::new();
    for object in list(repo, "").await? {
        let key = object.key.as_str();
        stats.objects += 1;
        stats.bytes += object.len;
        if key.starts_with(PACKS_PREFIX) {
            stats.packs += 1;
            stats.pack_bytes += object.len;
        } else if key.starts_with(INDEX_PREFIX) {
            stats.segments += 1;
            stats.segment_bytes += object.len;
        } else if let Ok(ObjectName::Snapshot(id)) = key.parse() {
            stats.snapshots += 1;
            sources.insert(*id.tag().as_bytes());
        }
    }
    stats.sources = sources.len() as u64;
    Ok(stats)
}
