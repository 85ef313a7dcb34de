//! Reads chunks back: finds the block, fetches its record, opens it, and checks the chunk's id. Always.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use backup_backend::{ByteRange, Bytes, StorageBackend};
use backup_core::{BlockOpener, ChunkId, ChunkKind, Keys, OpenError, RepositoryId};
use backup_manifest::pack_key;
use tokio::sync::OnceCell;

use crate::buffers::{Pool, Pooled};
use crate::env::blocking;
use crate::repository::index::{BlockEntry, Index, PackEntry};
use crate::repository::store_key;
use crate::{Error, Repository};

/// Ranged reads are rounded outwards to this many bytes, so that they do not reveal the lengths of records.
const READ_ROUND: u64 = 64 << 10;

/// A block's plaintext.
pub(crate) type Block = Arc<Vec<u8>>;

/// Opened blocks, the last used at the back.
type Cache = VecDeque<(u32, Arc<OnceCell<Block>>)>;

/// Reads chunks through a small cache of opened blocks.
#[derive(Debug)]
pub(crate) struct BlockReader {
    backend: Arc<dyn StorageBackend>,
    keys: Arc<Keys>,
    repository: RepositoryId,
    index: Arc<Index>,
    openers: Arc<Pool<BlockOpener>>,
    cache: Mutex<Cache>,
    cached_max: usize,
}

impl BlockReader {
    /// Keeps up to `cached_max` opened blocks.
    pub(crate) fn new(repo: &Repository, index: Arc<Index>, cached_max: usize) -> Self {
        Self {
            backend: repo.backend().clone(),
            keys: repo.keys().clone(),
            repository: repo.id(),
            index,
            openers: Pool::new(),
            cache: Mutex::new(VecDeque::new()),
            cached_max,
        }
    }

    pub(crate) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The plaintext of one chunk, checked against its id.
    pub(crate) async fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Result<Bytes, Error> {
        let missing = || Error::MissingChunk { chunk: *id };
        let location = self.index.find(id).ok_or_else(missing)?;
        let (entry, pack) = self.index.block(location.block).ok_or_else(missing)?;
        let block = self.block(location.block, entry, pack).await?;
        let start = location.offset as usize;
        let bytes = block
            .get(start..start + location.len as usize)
            .ok_or_else(missing)?;
        if pack.kind != kind || self.keys.chunk_id(kind, bytes) != *id {
            return Err(Error::WrongChunk {
                chunk: *id,
                pack: pack.id,
            });
        }
        Ok(Bytes::copy_from_slice(bytes))
    }

    /// An opened block, from the cache when it is there; readers that ask together fetch it once.
    async fn block(&self, number: u32, entry: BlockEntry, pack: PackEntry) -> Result<Block, Error> {
        let cell = self.cached(number);
        let block = cell
            .get_or_try_init(|| async {
                let record = self.fetch(pack, entry.offset, entry.record_len).await?;
                let (keys, repository) = (self.keys.clone(), self.repository);
                let openers = self.openers.clone();
                let opened = move || {
                    // One that was used before: making one costs as much as opening a small block.
                    let opener = openers.take(|| BlockOpener::new(repository));
                    open_record(&keys, opener, (&entry, &pack), &record)
                };
                blocking(opened).await?
            })
            .await?;
        Ok(block.clone())
    }

    fn cached(&self, number: u32) -> Arc<OnceCell<Block>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = match cache.iter().position(|(known, _)| *known == number) {
            Some(at) => cache.remove(at).map(|(_, cell)| cell).unwrap_or_default(),
            None => Arc::default(),
        };
        cache.push_back((number, cell.clone()));
        while cache.len() > self.cached_max {
            cache.pop_front();
        }
        cell
    }

    /// Reads `len` bytes of a pack at `offset`.
    pub(crate) async fn fetch(
        &self,
        pack: PackEntry,
        offset: u32,
        len: u32,
    ) -> Result<Bytes, Error> {
        let (start, end) = (u64::from(offset), u64::from(offset) + u64::from(len));
        let from = start / READ_ROUND * READ_ROUND;
        let to = (end.div_ceil(READ_ROUND) * READ_ROUND).min(pack.len);
        let name = pack_key(&pack.id);
        if end > to {
            return Err(Error::damaged(
                name,
                "a block lies beyond the end of its pack",
            ));
        }
        let range = ByteRange {
            start: from,
            len: to - from,
        };
        let bytes = self.backend.get(&store_key(&name)?, Some(range)).await?;
        Ok(bytes.slice((start - from) as usize..(end - from) as usize))
    }
}

/// Opens one record; the block's plaintext has the length that the index states.
fn open_record(
    keys: &Keys,
    opener: Result<Pooled<BlockOpener>, OpenError>,
    (entry, pack): (&BlockEntry, &PackEntry),
    record: &[u8],
) -> Result<Block, Error> {
    let damaged = |e| Error::damaged(pack_key(&pack.id), e);
    let mut opener = opener.map_err(damaged)?;
    let opener = opener.get_mut().ok_or(Error::WorkerLost)?;
    opener
        .open(keys, pack.kind, record, entry.plain_len)
        .map(Arc::new)
        .map_err(damaged)
}
