//! Writes the index anew, without packs that go, and in fewer and larger segments.

use std::collections::HashSet;

use backup_core::{PackId, Segment, SegmentId, SegmentPack};
use backup_manifest::segment_key;
use bytes::Bytes;

use crate::Error;
use crate::env::buggify;
use crate::gc::Collector;
use crate::gc::inventory::Inventory;
use crate::gc::round::create;
use crate::repository::load_index::{read_segment, usable};

/// A segment names packs of about so many chunks: some 16 MiB to read at once.
const SEGMENT_CHUNKS: usize = 1 << 20;

/// A segment with fewer chunks is merged with others, when there are enough such.
pub(crate) const SMALL_CHUNKS: usize = SEGMENT_CHUNKS / 4;

/// As many small segments, or packs that none names, are merged.
pub(crate) const SMALL_MAX: usize = 16;

/// Writes what old segments and `unnamed` say of packs that stay into new segments, then deletes the old ones. A segment is
/// left as it is when it is large and all its packs stay. All of it is a hint: whatever is lost on the way costs time.
pub(crate) async fn rewrite(
    collector: &mut Collector<'_>,
    inventory: &Inventory,
    gone: &HashSet<PackId>,
    unnamed: Vec<SegmentPack>,
) -> Result<(), Error> {
    let stays = |pack: &SegmentPack| {
        inventory.pack(&pack.id).map(|listed| listed.len) == Some(pack.len)
            && !gone.contains(&pack.id)
    };
    let mut old = Vec::new();
    let mut writing = Writing {
        packs: Vec::new(),
        chunks: 0,
        seen: HashSet::new(),
        written: HashSet::new(),
    };
    let many = inventory.segments.len() + unnamed.len() >= SMALL_MAX;
    for pack in unnamed {
        writing.take(collector, pack).await?;
    }
    for id in &inventory.segments {
        // Damaged ones are left for `verify` to name: their packs' directories are read instead.
        let Some(segment) = usable(read_segment(collector.repo, id).await)? else {
            continue;
        };
        let chunks: usize = segment.packs.iter().map(chunk_count).sum();
        let all_stay = segment.packs.iter().all(stays);
        if all_stay && (chunks >= SMALL_CHUNKS || !many) {
            continue;
        }
        old.push(*id);
        for pack in segment.packs.into_iter().filter(stays) {
            writing.take(collector, pack).await?;
        }
    }
    writing.flush(collector).await?;
    buggify("gc: new segments, before the old ones go").await;
    old.retain(|id| !writing.written.contains(id));
    collector.report.segments_written += writing.written.len() as u64;
    collector.report.segments_deleted += old.len() as u64;
    collector
        .delete_objects(old.iter().map(segment_key).collect())
        .await
}

fn chunk_count(pack: &SegmentPack) -> usize {
    pack.directory.chunk_count()
}

struct Writing {
    packs: Vec<SegmentPack>,
    chunks: usize,
    seen: HashSet<PackId>,
    written: HashSet<SegmentId>,
}

impl Writing {
    async fn take(&mut self, collector: &Collector<'_>, pack: SegmentPack) -> Result<(), Error> {
        if !self.seen.insert(pack.id) {
            return Ok(());
        }
        self.chunks += chunk_count(&pack);
        self.packs.push(pack);
        if self.chunks >= SEGMENT_CHUNKS {
            self.flush(collector).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, collector: &Collector<'_>) -> Result<(), Error> {
        if self.packs.is_empty() {
            return Ok(());
        }
        self.chunks = 0;
        let repo = collector.repo;
        let segment = Segment {
            packs: std::mem::take(&mut self.packs),
        };
        let (id, sealed) = segment
            .seal(repo.keys(), repo.id(), repo.env().random()?)
            .map_err(|e| Error::damaged("segment", e))?;
        // A segment of this name says the same.
        create(repo, &segment_key(&id), Bytes::from(sealed)).await?;
        self.written.insert(id);
        Ok(())
    }
}
