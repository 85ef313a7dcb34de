//! Writes the index anew, from the packs alone.

use backup_backend::StorageBackend;
use backup_manifest::{INDEX_PREFIX, ObjectName, PACKS_PREFIX, pack_key, segment_key};
use futures::stream::{self, StreamExt};

use crate::repository::load_index::{list, read_directory, usable};
use crate::repository::segments::SegmentWriter;
use crate::repository::store_key;
use crate::{Error, Event, Observer, Repository};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuildReport {
    /// Packs whose directories were read.
    pub packs: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Packs whose directories cannot be read: what they hold is not in the index.
    pub unreadable: Vec<String>,
    /// Segments written.
    pub segments_written: u64,
    /// Segments that there were before and that are gone.
    pub segments_deleted: u64,
}

/// Directories read at once.
const READS_MAX: usize = 8;

/// Reads the directory of every pack, whatever the index says, and writes new index segments in place of all that there
/// were. The index is a hint: losing it, or this half way, costs others time and nothing else.
///
/// # Errors
/// Whatever the store says; [`Error::Stopped`].
pub async fn rebuild_index(
    repo: &Repository,
    observer: &dyn Observer,
) -> Result<RebuildReport, Error> {
    let mut report = RebuildReport::default();
    let mut old = Vec::new();
    for object in list(repo, INDEX_PREFIX).await? {
        if let Ok(ObjectName::Segment(id)) = object.key.as_str().parse() {
            old.push(id);
        }
    }
    let mut packs = Vec::new();
    for object in list(repo, PACKS_PREFIX).await? {
        if let Ok(ObjectName::Pack(id)) = object.key.as_str().parse() {
            packs.push((id, object.len));
        }
    }
    observer.event(&Event::Total {
        bytes: packs.iter().map(|(_, len)| len).sum(),
    });
    let mut writer = SegmentWriter::default();
    let mut reads = stream::iter(packs)
        .map(|(id, len)| async move { (id, len, read_directory(repo, &id, len).await) })
        .buffered(READS_MAX);
    while let Some((id, len, read)) = reads.next().await {
        observer.event(&Event::Bytes { bytes: len });
        let Some(pack) = usable(read)? else {
            report.unreadable.push(pack_key(&id));
            continue;
        };
        report.packs += 1;
        report.chunks += pack.directory.chunk_count() as u64;
        writer.take(repo, pack).await?;
        if observer.should_stop() {
            return Err(Error::Stopped);
        }
    }
    drop(reads);
    writer.flush(repo).await?;
    report.segments_written = writer.written.len() as u64;
    old.retain(|id| !writer.written.contains(id));
    let keys: Result<Vec<_>, Error> = old.iter().map(|id| store_key(&segment_key(id))).collect();
    for result in repo.backend().delete(&keys?).await? {
        report.segments_deleted += u64::from(result.is_ok());
    }
    Ok(report)
}
