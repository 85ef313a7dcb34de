//! Reads chunks back: finds the block, fetches its record, opens it, and checks the chunk's id. Always.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use backup_backend::{ByteRange, Bytes, StorageBackend};
use backup_core::{BlockOpener, ChunkId, ChunkKind, Keys, OpenError, ShortId};
use backup_manifest::pack_key;
use tokio::sync::OnceCell;

use crate::buffers::{Pool, Pooled};
use crate::env::blocking;
use crate::repository::index::{BlockEntry, Index, Location, PackEntry};
use crate::repository::load_index::load_index;
use crate::repository::store_key;
use crate::restore::is_finding;
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
    repo: Repository,
    index: Arc<Index>,
    openers: Arc<Pool<BlockOpener>>,
    cache: Mutex<Cache>,
    cached_max: usize,
    /// How often the index may be read again when something is no longer where it says.
    renewals_left: u8,
    renewed: OnceCell<Arc<Self>>,
}

/// A reader looks again so often: packs may move again while it reads.
const RENEWALS_MAX: u8 = 3;

impl BlockReader {
    /// Keeps up to `cached_max` opened blocks. What is no longer where the index says is missing.
    pub(crate) fn new(repo: &Repository, index: Arc<Index>, cached_max: usize) -> Self {
        Self {
            repo: repo.on(repo.backend().clone()),
            index,
            openers: Pool::new(),
            cache: Mutex::new(VecDeque::new()),
            cached_max,
            renewals_left: 0,
            renewed: OnceCell::new(),
        }
    }

    /// As [`BlockReader::new`], but what a collector moves meanwhile is looked for anew: a reader holds nothing, and finds
    /// the other copy.
    pub(crate) fn following(repo: &Repository, index: Arc<Index>, cached_max: usize) -> Self {
        Self {
            renewals_left: RENEWALS_MAX,
            ..Self::new(repo, index, cached_max)
        }
    }

    pub(crate) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The plaintext of one chunk, checked against its id.
    pub(crate) async fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Result<Bytes, Error> {
        match self.chunk_here(kind, id).await {
            Err(error) if self.renewals_left > 0 && error.is_moved() => {
                let renewed = self.renewed().await?;
                Box::pin(renewed.chunk(kind, id)).await
            }
            other => other,
        }
    }

    async fn chunk_here(&self, kind: ChunkKind, id: &ChunkId) -> Result<Bytes, Error> {
        let missing = || Error::MissingChunk { chunk: *id };
        let location = self.index.find(id).ok_or_else(missing)?;
        let (bytes, pack) = self.bytes_at(location).await?.ok_or_else(missing)?;
        if pack.kind != kind || self.repo.keys().chunk_id(kind, &bytes) != *id {
            return Err(Error::WrongChunk {
                chunk: *id,
                pack: pack.id,
            });
        }
        Ok(bytes)
    }

    async fn bytes_at(&self, location: Location) -> Result<Option<(Bytes, PackEntry)>, Error> {
        let Some((entry, pack)) = self.index.block(location.block) else {
            return Ok(None);
        };
        let block = self.block(location.block, entry, pack).await?;
        let start = location.offset as usize;
        let bytes = block.get(start..start + location.len as usize);
        Ok(bytes.map(|bytes| (Bytes::copy_from_slice(bytes), pack)))
    }

    /// The same, by what the index says now. Read once, whoever asks.
    async fn renewed(&self) -> Result<Arc<Self>, Error> {
        let renew = || async {
            let index = Arc::new(load_index(&self.repo).await?);
            Ok::<_, Error>(Arc::new(Self {
                renewals_left: self.renewals_left - 1,
                ..Self::new(&self.repo, index, self.cached_max)
            }))
        };
        self.renewed.get_or_try_init(renew).await.cloned()
    }

    /// The plaintexts of blocks whose pack is gone, put together from the copies of their chunks. What there is no copy of
    /// is zero: nothing needs it, or whoever does finds by its id that it is not right. `None` for a reader that does
    /// not look again.
    pub(crate) async fn moved_blocks(
        &self,
        kind: ChunkKind,
        numbers: &[u32],
    ) -> Result<Option<HashMap<u32, Vec<u8>>>, Error> {
        if self.renewals_left == 0 {
            return Ok(None);
        }
        let renewed = self.renewed().await?;
        let mut blocks = HashMap::new();
        for (number, chunks) in self.index.chunks_in(numbers) {
            let plain_len = self.index.block(number).map_or(0, |(e, _)| e.plain_len);
            let mut plain = vec![0; plain_len as usize];
            for (id, place) in chunks {
                let start = place.offset as usize;
                let copy = Box::pin(renewed.copy_of(kind, &id, place.len)).await?;
                if let Some(into) = plain.get_mut(start..start + place.len as usize)
                    && let Some(copy) = copy
                {
                    into.copy_from_slice(&copy);
                }
            }
            blocks.insert(number, plain);
        }
        Ok(Some(blocks))
    }

    /// A chunk of which only the first half of the id is known.
    async fn copy_of(
        &self,
        kind: ChunkKind,
        id: &ShortId,
        len: u32,
    ) -> Result<Option<Bytes>, Error> {
        let found = match self.index.find_short(id).filter(|place| place.len == len) {
            Some(place) => self.bytes_at(place).await,
            None => Ok(None),
        };
        match found {
            Ok(Some((bytes, pack)))
                if pack.kind == kind && self.repo.keys().chunk_id(kind, &bytes).short() == *id =>
            {
                Ok(Some(bytes))
            }
            Err(error) if self.renewals_left > 0 && error.is_moved() => {
                let renewed = self.renewed().await?;
                Box::pin(renewed.copy_of(kind, id, len)).await
            }
            Err(error) if !is_finding(&error) => Err(error),
            _ => Ok(None),
        }
    }

    /// An opened block, from the cache when it is there; readers that ask together fetch it once.
    async fn block(&self, number: u32, entry: BlockEntry, pack: PackEntry) -> Result<Block, Error> {
        let cell = self.cached(number);
        let block = cell
            .get_or_try_init(|| async {
                let record = self.fetch(pack, entry.offset, entry.record_len).await?;
                let (keys, repository) = (self.repo.keys().clone(), self.repo.id());
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
        let bytes = self
            .repo
            .backend()
            .get(&store_key(&name)?, Some(range))
            .await?;
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
