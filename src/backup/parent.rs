//! The snapshot before: items are looked up in it in the order of the walk.

use std::pin::Pin;
use std::sync::Arc;

use backup_manifest::{Extent, Item, ItemPath, SnapshotManifest};
use futures::stream::{Stream, StreamExt};

use crate::Error;
use crate::repository::blocks::BlockReader;
use crate::repository::tree::{Part, Parts, read_parts};

type PartStream = Pin<Box<dyn Stream<Item = Result<Parts, Error>> + Send>>;

/// A cursor over the parent's items; without a parent it finds nothing.
pub(crate) struct Parent {
    pages: Option<PartStream>,
    parts: std::iter::Peekable<std::vec::IntoIter<Part>>,
    /// When the parent's run began, in nanoseconds since the epoch.
    started_ns: i64,
}

/// A file changed this shortly before the parent's run, in nanoseconds, may have changed again unseen: clocks of file
/// systems tick in 1 to 10 ms (the kernel's jiffy)...
const TICK_NS: i64 = 20_000_000;

/// ...or in seconds, where times have no fraction (ext3, HFS+; FAT: 2 s).
const COARSE_TICK_NS: i64 = 2_000_000_000;

impl Parent {
    pub(crate) fn none() -> Self {
        Self {
            pages: None,
            parts: Vec::new().into_iter().peekable(),
            started_ns: 0,
        }
    }

    pub(crate) fn new(blocks: Arc<BlockReader>, manifest: &SnapshotManifest) -> Self {
        let pages = read_parts(blocks, manifest.root.clone(), None);
        Self {
            pages: Some(Box::pin(pages)),
            parts: Vec::new().into_iter().peekable(),
            started_ns: manifest.started_ns,
        }
    }

    /// Whether a file whose status last changed at `ctime_ns` cannot have changed again, unseen, since the parent read it.
    pub(crate) fn is_settled(&self, ctime_ns: i64) -> bool {
        let tick = if ctime_ns % 1_000_000_000 == 0 {
            COARSE_TICK_NS
        } else {
            TICK_NS
        };
        ctime_ns < self.started_ns.saturating_sub(tick)
    }

    /// The parent's item of this path and its content, when it has no more than `extents_max` extents. Paths must be asked
    /// for in ascending order.
    ///
    /// A parent that cannot be read is as good as none: what it would have saved is read again.
    pub(crate) async fn find(
        &mut self,
        path: &ItemPath,
        extents_max: usize,
    ) -> Result<Option<(Item, Vec<Extent>)>, Error> {
        loop {
            if !self.fill().await? {
                return Ok(None);
            }
            let is_before = |part: &Part| match &part.item {
                Some(item) => item.path < *path,
                None => true,
            };
            if self.parts.next_if(is_before).is_some() {
                continue;
            }
            let is_it = |part: &Part| part.item.as_ref().is_some_and(|item| item.path == *path);
            let Some(part) = self.parts.next_if(is_it) else {
                return Ok(None);
            };
            let Part {
                item: Some(item),
                mut extents,
                ..
            } = part
            else {
                return Ok(None);
            };
            while self.fill().await? {
                let Some(more) = self.parts.next_if(|part| part.item.is_none()) else {
                    break;
                };
                extents.extend(more.extents);
                if extents.len() > extents_max {
                    return Ok(None);
                }
            }
            // Cut short when the rest of the parent could not be read.
            let whole = extents.iter().map(Extent::len).sum::<u64>() == item.meta.len;
            return Ok(whole.then_some((item, extents)));
        }
    }

    /// Makes sure that there is a next part; `false` at the end.
    async fn fill(&mut self) -> Result<bool, Error> {
        while self.parts.peek().is_none() {
            let Some(pages) = &mut self.pages else {
                return Ok(false);
            };
            match pages.next().await {
                Some(Ok(parts)) => self.parts = parts.into_iter().peekable(),
                Some(Err(
                    Error::Damaged { .. } | Error::MissingChunk { .. } | Error::WrongChunk { .. },
                ))
                | None => self.pages = None,
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(true)
    }
}
