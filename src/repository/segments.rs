//! Writes index segments.

use std::collections::HashSet;

use backup_core::{PackId, Segment, SegmentId, SegmentPack};
use backup_manifest::segment_key;
use bytes::Bytes;

use crate::{Error, Repository};

/// A segment names packs of about so many chunks: some 5 MB, of which four are in memory while one is sealed or opened.
pub(crate) const SEGMENT_CHUNKS: usize = 1 << 18;

/// Names packs in a segment; returns its name and its length in bytes.
pub(crate) async fn put_segment(
    repo: &Repository,
    packs: Vec<SegmentPack>,
) -> Result<(SegmentId, u64), Error> {
    let segment = Segment { packs };
    let (keys, id, random) = (repo.keys().clone(), repo.id(), repo.env().random()?);
    let sealed = crate::env::blocking(move || segment.seal(&keys, id, random)).await?;
    let (id, sealed) = sealed.map_err(|e| Error::damaged("new segment", e))?;
    let len = sealed.len() as u64;
    // A segment of this name says the same, whoever wrote it: only the nonce in it may be another.
    repo.create_unless_there(&segment_key(&id), Bytes::from(sealed))
        .await?;
    Ok((id, len))
}

/// Names any number of packs, each once, in segments of a good size.
#[derive(Debug, Default)]
pub(crate) struct SegmentWriter {
    packs: Vec<SegmentPack>,
    chunks: usize,
    seen: HashSet<PackId>,
    pub(crate) written: HashSet<SegmentId>,
}

impl SegmentWriter {
    pub(crate) async fn take(&mut self, repo: &Repository, pack: SegmentPack) -> Result<(), Error> {
        if !self.seen.insert(pack.id) {
            return Ok(());
        }
        self.chunks += pack.directory.chunk_count();
        self.packs.push(pack);
        if self.chunks >= SEGMENT_CHUNKS {
            self.flush(repo).await?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub(crate) async fn flush(&mut self, repo: &Repository) -> Result<(), Error> {
        if self.packs.is_empty() {
            return Ok(());
        }
        self.chunks = 0;
        let (id, _) = put_segment(repo, std::mem::take(&mut self.packs)).await?;
        self.written.insert(id);
        Ok(())
    }
}
