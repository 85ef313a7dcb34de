//! The first stage of a copy: goes through the item stream of the source, says each chunk by its id in the target where that
//! is known, and reads the others, a few blocks at a time.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backup_core::{ChunkId, ChunkKind, Keys};
use backup_manifest::{Extent, ItemPath, TreeRoot};
use futures::stream::{self, Stream, TryStreamExt};
use tokio::sync::mpsc::Sender;

use super::before::Before;
use super::known::{Asked, Known};
use crate::backup::produce::Pending;
use crate::backup::read::{Batch, Output};
use crate::buffers::{Pool, Pooled};
use crate::env::blocking;
use crate::repository::blocks::BlockReader;
use crate::repository::index::Index;
use crate::repository::tree::{Part, read_parts};
use crate::restore::{Fetched, Fetcher, Piece};
use crate::{Error, Observer};

/// What bounds the memory of this stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Batches under way at once.
    pub(crate) jobs_max: usize,
    /// Bytes of content that one batch reads, unless a single chunk is longer.
    pub(crate) buffer_len: usize,
    /// Bytes of plaintext of the blocks that one batch opens, unless a single block is longer.
    pub(crate) blocks_len: u64,
}

/// A batch ends with the page in which it has as many slots...
const SLOTS_MIN: usize = 1024;

/// ...or with so many pages, which bound what its items hold.
const PAGES_MAX: usize = 8;

/// What this stage needs.
pub(crate) struct Producer<'a> {
    /// Items of the source.
    pub(crate) blocks: Arc<BlockReader>,
    /// Content of the source.
    pub(crate) fetcher: &'a Fetcher,
    /// Keys of the target.
    pub(crate) keys: Arc<Keys>,
    /// What may be relied on in the target.
    pub(crate) index: Arc<Index>,
    pub(crate) known: &'a Mutex<Known>,
    pub(crate) limits: Limits,
    pub(crate) buffers: Arc<Pool<Vec<u8>>>,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) batches: Sender<Pending>,
}

/// Something that the next stage will be given.
#[derive(Debug)]
enum Slot {
    Ready(Output),
    /// A chunk to be read.
    Read(Piece),
    /// A chunk that a batch before this one, or this one, has read.
    UnderWay {
        id: ChunkId,
        len: u32,
    },
}

/// A batch to be read.
#[derive(Debug)]
struct Draft {
    /// The item that what comes first belongs to, to be named in errors.
    path: ItemPath,
    slots: Vec<Slot>,
    blocks: BTreeSet<u32>,
    /// Bytes of plaintext of the blocks.
    blocks_len: u64,
    /// Bytes of content to be read.
    len: usize,
    pages: usize,
}

/// A batch that was read.
#[derive(Debug)]
struct Read {
    slots: Vec<Slot>,
    buffer: Option<Pooled<Vec<u8>>>,
    /// Ids in the source and in the target.
    learnt: Vec<(ChunkId, ChunkId)>,
}

impl Producer<'_> {
    /// Produces everything that the item stream of `root` says. Errors are those of the source, or that the next stage has
    /// ended.
    pub(crate) async fn run(self, root: TreeRoot, before: Before) -> Result<(), Error> {
        let drafts = self.drafts(root, before);
        let reads = drafts
            .map_ok(|draft| self.read(draft))
            .try_buffered(self.limits.jobs_max);
        let mut reads = pin!(reads);
        while let Some(read) = reads.try_next().await? {
            if self.observer.should_stop() {
                return Err(Error::Stopped);
            }
            let batch = self.settle(read)?;
            let sent = self.batches.send(Pending::Ready(batch)).await;
            // The receiver only goes away when its stage has failed, and then that error is the one to tell.
            sent.map_err(|_| Error::WorkerLost)?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drafts(
        &self,
        root: TreeRoot,
        before: Before,
    ) -> impl Stream<Item = Result<Draft, Error>> + '_ {
        let pages = read_parts(self.blocks.clone(), root, None);
        let drafting = Drafting {
            producer: self,
            before,
            path: ItemPath::root(),
            at: 0,
            draft: Draft::new(ItemPath::root()),
            full: Vec::new(),
        };
        let state = (Box::pin(pages), Some(drafting));
        stream::try_unfold(state, |(mut pages, mut drafting)| async move {
            let Some(mut state) = drafting.take() else {
                return Ok::<_, Error>(None);
            };
            while let Some(parts) = pages.try_next().await? {
                for part in parts {
                    state.part(part).await?;
                }
                state.end_page();
                if !state.full.is_empty() {
                    let full = std::mem::take(&mut state.full);
                    return Ok(Some((full, (pages, Some(state)))));
                }
            }
            state.flush();
            Ok(Some((state.full, (pages, None))))
        })
        .map_ok(|full| stream::iter(full.into_iter().map(Ok)))
        .try_flatten()
    }

    async fn read(&self, draft: Draft) -> Result<Read, Error> {
        if draft.blocks.is_empty() {
            return Ok(Read {
                slots: draft.slots,
                buffer: None,
                learnt: Vec::new(),
            });
        }
        let fetched = self.fetcher.fetch(&draft.blocks).await?;
        let (keys, buffer) = (self.keys.clone(), self.buffers.take_empty());
        blocking(move || draft.read(fetched, &keys, buffer)).await?
    }

    /// Batches come here in their order, so what was under way is known by now.
    fn settle(&self, read: Read) -> Result<Batch, Error> {
        let mut known = self.known();
        for (id, to) in read.learnt {
            known.learn(&id, to);
        }
        let settled = read.slots.into_iter().map(|slot| match slot {
            Slot::Ready(output) => Ok(output),
            Slot::UnderWay { id, len } => {
                let id = known.of(&id).ok_or(Error::WorkerLost)?;
                Ok(Output::Extent(Extent::Data { len, id }))
            }
            Slot::Read(_) => Err(Error::WorkerLost),
        });
        Ok(Batch {
            outputs: settled.collect::<Result<_, _>>()?,
            buffer: read.buffer.map(Arc::new),
        })
    }
}

impl Draft {
    fn new(path: ItemPath) -> Self {
        Self {
            path,
            slots: Vec::new(),
            blocks: BTreeSet::new(),
            blocks_len: 0,
            len: 0,
            pages: 0,
        }
    }

    /// Takes the chunks out of their blocks, each checked against its id, and names them anew. Runs on the blocking pool.
    fn read(
        self,
        mut fetched: Fetched,
        keys: &Keys,
        mut buffer: Pooled<Vec<u8>>,
    ) -> Result<Read, Error> {
        let mut path = self.path;
        let mut slots = Vec::with_capacity(self.slots.len());
        let mut learnt = Vec::new();
        let bytes = buffer.get_mut().ok_or(Error::WorkerLost)?;
        bytes.reserve(self.len);
        for slot in self.slots {
            slots.push(match slot {
                Slot::Read(piece) => {
                    let chunk = fetched
                        .bytes(&piece)
                        .map_err(|why| Error::damaged(content_of(&path), why))?;
                    let id = keys.chunk_id(ChunkKind::Data, chunk);
                    learnt.push((piece.id, id));
                    let (start, len) = (bytes.len(), piece.len);
                    bytes.extend_from_slice(chunk);
                    Slot::Ready(Output::Chunk { id, start, len })
                }
                Slot::Ready(output) => {
                    if let Output::Item { item, .. } = &output {
                        path = item.path.clone();
                    }
                    Slot::Ready(output)
                }
                other => other,
            });
        }
        Ok(Read {
            slots,
            buffer: Some(buffer),
            learnt,
        })
    }
}

fn content_of(path: &ItemPath) -> String {
    format!("content of {path}")
}

/// Makes batches of the item stream.
struct Drafting<'a> {
    producer: &'a Producer<'a>,
    before: Before,
    /// The item whose content is coming in, and where the next extent begins in it.
    path: ItemPath,
    at: u64,
    draft: Draft,
    full: Vec<Draft>,
}

impl Drafting<'_> {
    async fn part(&mut self, part: Part) -> Result<(), Error> {
        if let Some(item) = part.item {
            (self.path, self.at) = (item.path.clone(), 0);
            let unchanged = false;
            let output = Output::Item { item, unchanged };
            self.draft.slots.push(Slot::Ready(output));
        }
        for extent in part.extents {
            let at = self.at;
            self.at += extent.len();
            match extent {
                Extent::Hole { .. } => {
                    let slot = Slot::Ready(Output::Extent(extent));
                    self.draft.slots.push(slot);
                }
                Extent::Data { len, id } => self.chunk(at, id, len).await?,
            }
        }
        Ok(())
    }

    async fn chunk(&mut self, at: u64, id: ChunkId, len: u32) -> Result<(), Error> {
        let there = |id| Slot::Ready(Output::Extent(Extent::Data { len, id }));
        let index = &self.producer.index;
        let before = self.before.find((&self.path, at), &id, len).await?;
        if let Some(to) = before
            && index.rely_on(&to, len)
        {
            self.draft.slots.push(there(to));
            return Ok(());
        }
        let asked = self.producer.known().ask(&id, len, index);
        match asked {
            Asked::There(to) => self.draft.slots.push(there(to)),
            Asked::UnderWay => self.draft.slots.push(Slot::UnderWay { id, len }),
            Asked::Read => {
                let fetcher = self.producer.fetcher;
                let piece = fetcher.locate(&id, len).ok_or_else(|| {
                    let why = format!("its chunk {id} is in no pack");
                    Error::damaged(content_of(&self.path), why)
                })?;
                self.piece(piece);
            }
        }
        Ok(())
    }

    /// Takes a chunk that must be read. A batch ends where that saves opening a block twice.
    fn piece(&mut self, piece: Piece) {
        let Limits {
            buffer_len,
            blocks_len,
            ..
        } = self.producer.limits;
        let block_len = u64::from(self.producer.fetcher.block_len(piece.block));
        let draft = &self.draft;
        let begins_block = !draft.blocks.contains(&piece.block);
        let is_full = if begins_block {
            draft.blocks_len + block_len > blocks_len
                || draft.len as u64 + block_len > buffer_len as u64
        } else {
            draft.len + piece.len as usize > buffer_len
        };
        if is_full && !draft.blocks.is_empty() {
            self.flush();
        }
        if self.draft.blocks.insert(piece.block) {
            self.draft.blocks_len += block_len;
        }
        self.draft.len += piece.len as usize;
        self.draft.slots.push(Slot::Read(piece));
    }

    fn end_page(&mut self) {
        self.draft.pages += 1;
        if self.draft.slots.len() >= SLOTS_MIN || self.draft.pages >= PAGES_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let next = Draft::new(self.path.clone());
        let draft = std::mem::replace(&mut self.draft, next);
        if !draft.slots.is_empty() {
            self.full.push(draft);
        }
    }
}
