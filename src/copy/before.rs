//! The snapshot copied before, of the same source: what lies at the same place in both, with the same id, need not be
//! read, since its copy tells what it is called in the target.

use std::pin::Pin;
use std::sync::Arc;

use backup_core::ChunkId;
use backup_manifest::{Extent, ItemPath, TreeRoot};
use futures::stream::{Stream, TryStreamExt};

use crate::Error;
use crate::repository::blocks::BlockReader;
use crate::repository::tree::{Part, Parts, read_parts};
use crate::restore::is_finding;

/// A cursor over a snapshot of the source and its copy, side by side; places must be asked for in ascending order.
pub(crate) struct Before(Option<Pair>);

struct Pair {
    from: Cursor,
    to: Cursor,
    /// The chunk on which both stand; `None` before the first.
    chunk: Option<Chunk>,
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    at: u64,
    len: u32,
    from: ChunkId,
    to: ChunkId,
}

impl Before {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(
        from: (Arc<BlockReader>, TreeRoot),
        to: (Arc<BlockReader>, TreeRoot),
    ) -> Self {
        Self(Some(Pair {
            from: Cursor::new(from.0, from.1),
            to: Cursor::new(to.0, to.1),
            chunk: None,
        }))
    }

    /// What the chunk at this place is called in the target, if it was the same in the snapshot before.
    ///
    /// A pair that cannot be read, or is none, is as good as none.
    pub(crate) async fn find(
        &mut self,
        (path, at): (&ItemPath, u64),
        id: &ChunkId,
        len: u32,
    ) -> Result<Option<ChunkId>, Error> {
        while let Some(pair) = &mut self.0 {
            if let Some(chunk) = pair.chunk
                && (&pair.from.path, chunk.at) >= (path, at)
            {
                let is_it =
                    pair.from.path == *path && (chunk.at, chunk.len, chunk.from) == (at, len, *id);
                return Ok(is_it.then_some(chunk.to));
            }
            match pair.advance().await {
                Ok(Some(chunk)) => pair.chunk = Some(chunk),
                Ok(None) => self.0 = None,
                Err(error) if is_finding(&error) => self.0 = None,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Pair {
    /// The next chunk of both; `None` at the end, or where they are not the same but for their ids.
    async fn advance(&mut self) -> Result<Option<Chunk>, Error> {
        let (Some(from), Some(to)) = (self.from.next().await?, self.to.next().await?) else {
            return Ok(None);
        };
        let same = self.from.path == self.to.path && (from.0, from.1) == (to.0, to.1);
        let ((at, len, from), (_, _, to)) = (from, to);
        Ok(same.then_some(Chunk { at, len, from, to }))
    }
}

type PartStream = Pin<Box<dyn Stream<Item = Result<Parts, Error>> + Send>>;

/// The chunks of one snapshot, in their order.
struct Cursor {
    pages: PartStream,
    parts: std::vec::IntoIter<Part>,
    extents: std::vec::IntoIter<Extent>,
    /// The item that the extents are of, and where the next of them begins in it.
    path: ItemPath,
    at: u64,
}

impl Cursor {
    fn new(blocks: Arc<BlockReader>, root: TreeRoot) -> Self {
        Self {
            pages: Box::pin(read_parts(blocks, root, None)),
            parts: Vec::new().into_iter(),
            extents: Vec::new().into_iter(),
            path: ItemPath::root(),
            at: 0,
        }
    }

    /// Place, length and id of the next chunk.
    async fn next(&mut self) -> Result<Option<(u64, u32, ChunkId)>, Error> {
        loop {
            for extent in self.extents.by_ref() {
                let at = self.at;
                self.at += extent.len();
                if let Extent::Data { len, id } = extent {
                    return Ok(Some((at, len, id)));
                }
            }
            let Some(part) = self.parts.next() else {
                match self.pages.try_next().await? {
                    Some(parts) => self.parts = parts.into_iter(),
                    None => return Ok(None),
                }
                continue;
            };
            if let Some(item) = part.item {
                (self.path, self.at) = (item.path, 0);
            }
            self.extents = part.extents.into_iter();
        }
    }
}
