//! Writes the index anew, without packs that go, and in fewer and larger segments.

use std::collections::HashSet;

use backup_core::{PackId, SegmentPack};
use backup_manifest::segment_key;

use crate::Error;
use crate::env::buggify;
use crate::gc::Collector;
use crate::gc::inventory::Inventory;
use crate::repository::load_index::{read_segment, usable};
use crate::repository::segments::{SEGMENT_CHUNKS, SegmentWriter};

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
    let mut writing = SegmentWriter::default();
    let many = inventory.segments.len() + unnamed.len() >= SMALL_MAX;
    for pack in unnamed {
        writing.take(collector.repo, pack).await?;
    }
    for (id, _) in &inventory.segments {
        // Damaged ones are left for `verify` to name: their packs' directories are read instead.
        let Some(segment) = usable(read_segment(collector.repo, id).await)? else {
            continue;
        };
        let chunks: usize = segment
            .packs
            .iter()
            .map(|pack| pack.directory.chunk_count())
            .sum();
        let all_stay = segment.packs.iter().all(stays);
        if all_stay && (chunks >= SMALL_CHUNKS || !many) {
            continue;
        }
        old.push(*id);
        for pack in segment.packs.into_iter().filter(stays) {
            writing.take(collector.repo, pack).await?;
        }
    }
    writing.flush(collector.repo).await?;
    buggify("gc: new segments, before the old ones go").await;
    old.retain(|id| !writing.written.contains(id));
    collector.report.segments_written += writing.written.len() as u64;
    collector.report.segments_deleted += old.len() as u64;
    collector
        .delete_objects(old.iter().map(segment_key).collect())
        .await
}
