//! Brings content back: which blocks hold it, their bytes, opened; every chunk checked against its id.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use backup_backend::{Bytes, ErrorKind};
use backup_core::{BlockOpener, ChunkId, ChunkKind, Keys, RepositoryId};
use backup_manifest::pack_key;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::write::Aligned;
use crate::Error;
use crate::buffers::{Pool, Pooled};
use crate::repository::blocks::BlockReader;
use crate::repository::index::{BlockEntry, Index, PackEntry};

/// A chunk, or a part of it, and where it belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    /// Number of the block in the index.
    pub(crate) block: u32,
    /// Where the chunk begins in the block, and its length, in bytes.
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) id: ChunkId,
    /// The part of the chunk that is wanted.
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Where that part belongs in the target, in bytes.
    pub(crate) at: u64,
}

/// Blocks further apart than this within a pack are fetched by requests of their own: a request costs about as much time
/// as this many bytes (8 ms at 16 MB/s).
const GAP_MAX: u32 = 128 << 10;

/// One request fetches at most this many bytes.
const FETCH_LEN_MAX: u32 = 8 << 20;

/// Requests that one batch has under way.
const FETCHES_MAX: usize = 4;

/// Opened blocks kept for later batches: those of which only a part was used.
const KEPT_MAX: usize = 8;

/// Fetches and opens blocks of content.
#[derive(Debug)]
pub(crate) struct Fetcher {
    blocks: Arc<BlockReader>,
    opening: Arc<Opening>,
}

/// What opening needs; shared with the blocking pool.
#[derive(Debug)]
struct Opening {
    keys: Arc<Keys>,
    repository: RepositoryId,
    openers: Arc<Pool<BlockOpener>>,
    plaintexts: Arc<Pool<Vec<u8>>>,
    aligned: Aligned,
    kept: Mutex<VecDeque<(u32, Block)>>,
    /// Records that batches under way have, or are fetching: neighbours share a block, which is not fetched twice.
    shared: Mutex<HashMap<u32, Awaited>>,
}

/// A record that another batch has, or is fetching.
type Awaited = watch::Receiver<Option<Bytes>>;

/// A block's plaintext, in memory that is used again.
type Block = Arc<Pooled<Vec<u8>>>;

/// The blocks of one batch, on their way into a job.
#[derive(Debug)]
pub(crate) struct Fetched {
    opening: Arc<Opening>,
    blocks: HashMap<u32, State>,
    /// Those that this batch fetches, for the others.
    sharing: HashMap<u32, watch::Sender<Option<Bytes>>>,
}

#[derive(Debug)]
enum State {
    Sealed {
        record: Bytes,
        entry: BlockEntry,
        pack: PackEntry,
    },
    Opened {
        block: Block,
        used: u32,
    },
    Bad(String),
}

impl Fetcher {
    pub(crate) fn new(repo: &crate::Repository, blocks: Arc<BlockReader>) -> Self {
        let opening = Opening {
            keys: repo.keys().clone(),
            repository: repo.id(),
            openers: Pool::new(),
            plaintexts: Pool::new(),
            aligned: Pool::new(),
            kept: Mutex::default(),
            shared: Mutex::default(),
        };
        Self {
            blocks,
            opening: Arc::new(opening),
        }
    }

    fn index(&self) -> &Index {
        self.blocks.index()
    }

    /// Where a chunk of content is; `None` when no pack of content holds it.
    pub(crate) fn locate(&self, id: &ChunkId, len: u32) -> Option<Piece> {
        let found = self.index().find(id).filter(|found| found.len == len)?;
        let (_, pack) = self.index().block(found.block)?;
        (pack.kind == ChunkKind::Data).then_some(Piece {
            block: found.block,
            start: found.offset,
            len,
            id: *id,
            from: 0,
            to: len,
            at: 0,
        })
    }

    /// Bytes of plaintext of a block.
    pub(crate) fn block_len(&self, block: u32) -> u32 {
        let found = self.index().block(block);
        found.map_or(0, |(entry, _)| entry.plain_len)
    }

    /// Fetches the records of blocks. What is missing or damaged in the store is told when its bytes are asked for.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub(crate) async fn fetch(&self, wanted: &BTreeSet<u32>) -> Result<Fetched, Error> {
        let mut fetched = Fetched {
            opening: self.opening.clone(),
            blocks: HashMap::with_capacity(wanted.len()),
            sharing: HashMap::new(),
        };
        let missing = fetched.take_kept(wanted);
        let (mine, theirs) = fetched.share(&missing);
        self.fetch_into(&mut fetched, &mine).await?;
        let mut left = Vec::new();
        for (number, mut record) in theirs {
            let told = record.wait_for(Option::is_some).await;
            match (
                told.ok().and_then(|record| record.clone()),
                self.index().block(number),
            ) {
                (Some(record), Some((entry, pack))) => {
                    let sealed = State::Sealed {
                        record,
                        entry,
                        pack,
                    };
                    fetched.blocks.insert(number, sealed);
                }
                // Whoever fetched it did not get it, or was dropped.
                _ => left.push(number),
            }
        }
        self.fetch_into(&mut fetched, &left).await?;
        Ok(fetched)
    }

    async fn fetch_into(&self, fetched: &mut Fetched, wanted: &[u32]) -> Result<(), Error> {
        let mut fetches = stream::iter(self.spans(wanted))
            .map(|span| async move {
                let len = span.end - span.start;
                let got = self.blocks.fetch(span.pack, span.start, len).await;
                (span, got)
            })
            .buffer_unordered(FETCHES_MAX);
        while let Some((span, got)) = fetches.next().await {
            match got {
                Ok(bytes) => fetched.sealed(&span, &bytes),
                Err(error) if error.is_not_found() => self.fetch_moved(fetched, &span).await?,
                Err(error) if is_finding(&error) => {
                    let why = format!("{} cannot be read: {error}", pack_key(&span.pack.id));
                    let bad = |(number, _): &(u32, BlockEntry)| (*number, State::Bad(why.clone()));
                    fetched.blocks.extend(span.blocks.iter().map(bad));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The blocks of a pack that is gone, from the copies that a collector made of what is needed of them.
    async fn fetch_moved(&self, fetched: &mut Fetched, span: &Span) -> Result<(), Error> {
        let numbers: Vec<u32> = span.blocks.iter().map(|(number, _)| *number).collect();
        let moved = self.blocks.moved_blocks(ChunkKind::Data, &numbers).await?;
        let mut moved = moved.unwrap_or_default();
        for number in numbers {
            let state = match moved.remove(&number) {
                Some(plain) => State::Opened {
                    block: Arc::new(self.opening.plaintexts.give(plain)),
                    used: 0,
                },
                None => State::Bad(format!("{} is gone", pack_key(&span.pack.id))),
            };
            fetched.blocks.insert(number, state);
        }
        Ok(())
    }

    /// Gathers blocks that lie close to each other into requests.
    fn spans(&self, blocks: &[u32]) -> Vec<Span> {
        let mut entries: Vec<(u32, BlockEntry, PackEntry)> = blocks
            .iter()
            .filter_map(|number| self.index().block(*number).map(|(e, p)| (*number, e, p)))
            .collect();
        entries.sort_unstable_by_key(|(_, entry, _)| (entry.pack, entry.offset));
        let mut spans: Vec<Span> = Vec::new();
        for (number, entry, pack) in entries {
            let end = entry.offset.saturating_add(entry.record_len);
            if let Some(span) = spans.last_mut()
                && span.pack.id == pack.id
                && entry.offset <= span.end.saturating_add(GAP_MAX)
                && end - span.start <= FETCH_LEN_MAX
            {
                span.end = end;
                span.blocks.push((number, entry));
                continue;
            }
            spans.push(Span {
                pack,
                start: entry.offset,
                end,
                blocks: vec![(number, entry)],
            });
        }
        spans
    }
}

/// A stretch of a pack to be fetched by one request.
#[derive(Debug)]
struct Span {
    pack: PackEntry,
    start: u32,
    end: u32,
    blocks: Vec<(u32, BlockEntry)>,
}

/// Whether an error means that the store's object is not what it should be, rather than that it cannot be asked.
pub(crate) fn is_finding(error: &Error) -> bool {
    match error {
        Error::Damaged { .. }
        | Error::NewerFormat { .. }
        | Error::MissingChunk { .. }
        | Error::WrongChunk { .. } => true,
        Error::Backend(error) => matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::InvalidRange
        ),
        _ => false,
    }
}

impl Fetched {
    /// Takes what was opened before; returns what was not.
    fn take_kept(&mut self, wanted: &BTreeSet<u32>) -> Vec<u32> {
        let opening = self.opening.clone();
        let kept = opening.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        for number in wanted {
            match kept.iter().find(|(known, _)| known == number) {
                Some((_, block)) => {
                    let block = block.clone();
                    self.blocks
                        .insert(*number, State::Opened { block, used: 0 });
                }
                None => missing.push(*number),
            }
        }
        missing
    }

    /// Parts what is wanted into what this batch fetches, for others too, and what others are fetching.
    fn share(&mut self, wanted: &[u32]) -> (Vec<u32>, Vec<(u32, Awaited)>) {
        let opening = self.opening.clone();
        let mut shared = opening
            .shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for number in wanted {
            if let Some(record) = shared.get(number) {
                theirs.push((*number, record.clone()));
                continue;
            }
            let (sender, receiver) = watch::channel(None);
            shared.insert(*number, receiver);
            self.sharing.insert(*number, sender);
            mine.push(*number);
        }
        (mine, theirs)
    }

    /// Takes the records of a stretch.
    fn sealed(&mut self, span: &Span, bytes: &Bytes) {
        for (number, entry) in &span.blocks {
            let start = (entry.offset - span.start) as usize;
            let record = bytes.slice(start..start + entry.record_len as usize);
            if let Some(sharing) = self.sharing.get(number) {
                sharing.send_replace(Some(record.clone()));
            }
            let sealed = State::Sealed {
                record,
                entry: *entry,
                pack: span.pack,
            };
            self.blocks.insert(*number, sealed);
        }
    }

    /// Buffers to write from.
    pub(crate) fn aligned(&self) -> &Aligned {
        &self.opening.aligned
    }

    /// The bytes of a piece, checked; or why they cannot be had.
    pub(crate) fn bytes(&mut self, piece: &Piece) -> Result<&[u8], String> {
        let opening = self.opening.clone();
        let state = self
            .blocks
            .get_mut(&piece.block)
            .ok_or("its block is in no pack")?;
        if let State::Sealed {
            record,
            entry,
            pack,
        } = state
        {
            *state = match opening.open(record, entry, pack) {
                Ok(block) => State::Opened {
                    block: Arc::new(block),
                    used: 0,
                },
                Err(why) => State::Bad(why),
            };
        }
        match state {
            State::Opened { block, used } => {
                let start = piece.start as usize;
                let block = Pooled::as_ref(block);
                let chunk = block.get(start..start + piece.len as usize);
                let chunk = chunk.ok_or("its chunk lies beyond the end of its block")?;
                if opening.keys.chunk_id(ChunkKind::Data, chunk) != piece.id {
                    return Err(format!("a pack holds other bytes under chunk {}", piece.id));
                }
                *used += piece.len;
                chunk
                    .get(piece.from as usize..piece.to as usize)
                    .ok_or_else(|| "an impossible part of a chunk".into())
            }
            State::Bad(why) => Err(why.clone()),
            State::Sealed { .. } => Err("its block is in no pack".into()),
        }
    }
}

impl Opening {
    fn open(
        &self,
        record: &[u8],
        entry: &BlockEntry,
        pack: &PackEntry,
    ) -> Result<Pooled<Vec<u8>>, String> {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", pack_key(&pack.id));
        let opener = self.openers.take(|| BlockOpener::new(self.repository));
        let mut opener = opener.map_err(|e| failed(&e))?;
        let mut plaintext = self.plaintexts.take_empty();
        let (Some(opener), Some(into)) = (opener.get_mut(), plaintext.get_mut()) else {
            return Err(failed(&"no opener"));
        };
        let wanted = (ChunkKind::Data, entry.plain_len);
        opener
            .open_into(&self.keys, wanted, record, into)
            .map_err(|e| failed(&e))?;
        Ok(plaintext)
    }
}

impl Drop for Fetched {
    /// Keeps the blocks of which more may be wanted.
    fn drop(&mut self) {
        {
            let shared = self.opening.shared.lock();
            let mut shared = shared.unwrap_or_else(PoisonError::into_inner);
            for number in self.sharing.keys() {
                shared.remove(number);
            }
        }
        let mut kept = self
            .opening
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (number, state) in self.blocks.drain() {
            if let State::Opened { block, used } = state
                && (used as usize) < Pooled::as_ref(&block).len()
                && !kept.iter().any(|(known, _)| *known == number)
            {
                kept.push_back((number, block));
            }
        }
        while kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }
}
