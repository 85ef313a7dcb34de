//! Packs anew what is needed of packs that are mostly garbage, or needlessly small. The copies are packs like any others: the
//! next mark prefers them, and its round deletes the old ones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use backup_backend::{Bytes, StorageBackendExt};
use backup_core::{
    BlockOpener, BlockSealer, ChunkKind, Directory, DirectoryChunk, FinishedPack, Keys,
    PackBuilder, PackFooter, PackHeader, RepositoryId, SegmentPack, SessionId, ShortId,
    open_directory,
};
use backup_manifest::pack_key;
use futures::stream::{self, StreamExt};

use crate::env::{blocking, buggify};
use crate::gc::Collector;
use crate::gc::gate::Gate;
use crate::gc::inventory::{Inventory, ListedPack};
use crate::gc::plan::Marked;
use crate::gc::segments;
use crate::repository::put_pack::{NewPack, put_pack};
use crate::repository::store_key;
use crate::{Error, Event, Repository};

/// New packs are about this long, as those of backups are by default.
const PACK_LEN: usize = 32 << 20;

/// Chunks that do not come with their whole block are gathered into blocks of this many bytes, as in backups.
const BLOCK_LEN: usize = 3 << 20;

/// The zstd level of new blocks, as in backups by default.
const LEVEL: i32 = 3;

/// A pack shorter than this is small...
const SMALL_LEN: u64 = PACK_LEN as u64 / 8;

/// ...and as many of a kind are packed together: each costs a request to every session until a segment names it, and more
/// of each listing.
const SMALL_MAX: usize = 32;

/// Packs fetched ahead, and the share of all memory that they may have.
const AHEAD: usize = 2;
const AHEAD_SHARE: usize = 3;

/// The share of all memory for the ids of what is copied, and what one takes in a set, in bytes.
const STAYING_SHARE: usize = 4;
const STAYING_LEN: usize = 40;

impl Collector<'_> {
    /// The packs worth packing anew, the worst first, within the run's budget.
    pub(crate) fn poor_packs(&self, marked: &Marked) -> Vec<u32> {
        let mut poor = Vec::new();
        let mut small: HashMap<ChunkKind, Vec<(u64, u32)>> = HashMap::new();
        for (number, pack) in marked.inventory.packs.iter().enumerate() {
            let sum = |sums: &[u64]| sums.get(number).copied().unwrap_or_default();
            let (live, total) = (sum(&marked.choice.live), sum(&marked.choice.total));
            let is_settled = self.clock.age(pack.modified) >= Some(self.options.pack_age_min)
                && !marked.inventory.damaged.contains(&pack.id);
            if live == 0 || total == 0 || !is_settled {
                continue;
            }
            let dead_percent = (total - live.min(total)).saturating_mul(100) / total;
            if dead_percent >= u64::from(self.options.repack_dead_percent_min) {
                poor.push((dead_percent, number as u32));
            } else if pack.len < SMALL_LEN
                && let Some(kind) = Self::kind_of(marked, number as u32)
            {
                small
                    .entry(kind)
                    .or_default()
                    .push((dead_percent, number as u32));
            }
        }
        poor.extend(
            small
                .into_values()
                .filter(|s| s.len() >= SMALL_MAX)
                .flatten(),
        );
        poor.sort_by(|a, b| b.cmp(a));
        let mut left = self.options.repack_len_max;
        // The ids of what stays are in memory.
        let mut chunks_left = self.options.memory_len_max / STAYING_SHARE / STAYING_LEN;
        let mut fits = |number: &u32| {
            let at = *number as usize;
            let (pack, count) = (
                marked.inventory.packs.get(at)?,
                marked.places.counts.get(at)?,
            );
            left = left.checked_sub(pack.len)?;
            chunks_left = chunks_left.checked_sub(*count as usize)?;
            Some(())
        };
        let poor = poor.into_iter().map(|(_, number)| number);
        poor.take_while(|number| fits(number).is_some()).collect()
    }

    /// Copies what stays of the poor packs; says whether there were any.
    pub(crate) async fn repack(&mut self, marked: Marked) -> Result<bool, Error> {
        let poor: HashSet<u32> = self.poor_packs(&marked).into_iter().collect();
        if poor.is_empty() {
            return Ok(false);
        }
        self.observer.event(&Event::Step {
            name: "packing anew",
        });
        let Marked {
            inventory,
            places,
            refs,
            choice,
            ..
        } = marked;
        let (wanted, sorted) = (poor.clone(), places.sorted);
        let staying = blocking(move || choice.staying_in(&sorted, &refs, &wanted)).await??;
        let mut packs = self.kinds(&inventory, &places.kinds, staying);
        // What was stored together is likely to be read together.
        packs.sort_by_key(|(kind, pack, _)| (kind.as_u8(), pack.modified, pack.id));
        let mut new = Repacker::new(self.repo)?;
        let repo = self.repo;
        let gate = Gate::new(self.options.memory_len_max / AHEAD_SHARE);
        let fetched = stream::iter(packs)
            .then(move |found: (ChunkKind, ListedPack, HashSet<ShortId>)| {
                let gate = gate.clone();
                async move { (gate.enter(found.1.len).await, found) }
            })
            .map(|(room, (kind, pack, staying))| async move {
                let key = store_key(&pack_key(&pack.id))?;
                let bytes = repo.backend().get_opt(&key).await?;
                Ok::<_, Error>((kind, pack, staying, bytes, room?))
            })
            .buffered(AHEAD);
        let mut fetched = fetched.boxed();
        while let Some(read) = fetched.next().await {
            let (kind, pack, staying, bytes, _room) = read?;
            // Another collector packed it anew.
            let Some(bytes) = bytes else { continue };
            match new.take(kind, bytes, staying).await {
                Ok(()) => self.report.packs_repacked += 1,
                // It stays as it is; what of it was copied before is a copy more.
                Err(Error::Damaged { .. }) => {
                    self.report.packs_unreadable.push(pack_key(&pack.id));
                }
                Err(error) => return Err(error),
            }
            if self.observer.should_stop() {
                return Err(Error::Stopped);
            }
        }
        let new = new.finish().await?;
        self.report.repacked_bytes += new.iter().map(|pack| pack.len).sum::<u64>();
        if new.len() >= segments::SMALL_MAX {
            let now = Inventory::take(self.repo).await?;
            segments::rewrite(self, &now, &HashSet::new(), new).await?;
        }
        Ok(true)
    }

    fn kinds(
        &self,
        inventory: &Inventory,
        kinds: &[Option<ChunkKind>],
        staying: HashMap<u32, HashSet<ShortId>>,
    ) -> Vec<(ChunkKind, ListedPack, HashSet<ShortId>)> {
        let known = |(number, staying): (u32, HashSet<ShortId>)| {
            let kind = kinds.get(number as usize).copied().flatten()?;
            Some((kind, *inventory.packs.get(number as usize)?, staying))
        };
        staying.into_iter().filter_map(known).collect()
    }
}

/// Fills new packs.
struct Repacker<'a> {
    repo: &'a Repository,
    /// Names the new packs' maker in their headers, so that no two packs are alike; no session is opened for it.
    session: SessionId,
    counter: u32,
    kind: ChunkKind,
    builder: Option<PackBuilder>,
    plain: Vec<u8>,
    chunks: Vec<(ShortId, u32)>,
    finished: Vec<SegmentPack>,
}

/// What stays of one block.
enum Remains {
    Nothing,
    /// All of it: its record, as it is.
    Whole(Bytes, Vec<(ShortId, u32)>),
    /// Some chunks and their plaintext.
    Part(Vec<u8>, Vec<(ShortId, u32)>),
}

impl<'a> Repacker<'a> {
    fn new(repo: &'a Repository) -> Result<Self, Error> {
        let unix_ms = u64::try_from(repo.env().clock.now_ns() / 1_000_000).unwrap_or(0);
        let tag = repo.keys().source_tag("");
        Ok(Self {
            repo,
            session: SessionId::new(tag, unix_ms, repo.env().random()?),
            counter: 0,
            kind: ChunkKind::Data,
            builder: None,
            plain: Vec::new(),
            chunks: Vec::new(),
            finished: Vec::new(),
        })
    }

    /// Takes what stays of a pack, block by block: opened, a pack may be many times as long. Nothing is copied unverified.
    async fn take(
        &mut self,
        kind: ChunkKind,
        bytes: Bytes,
        staying: HashSet<ShortId>,
    ) -> Result<(), Error> {
        if kind != self.kind {
            self.end_kind().await?;
            self.kind = kind;
        }
        let (keys, repository) = (self.repo.keys().clone(), self.repo.id());
        let opened = blocking(move || OldPack::open(keys, repository, bytes, staying));
        let mut pack = opened.await?.map_err(|why| Error::damaged("pack", why))?;
        for number in 0..pack.directory.blocks().len() {
            let remains;
            (pack, remains) = blocking(move || {
                let remains = pack.remains(number);
                (pack, remains)
            })
            .await?;
            match remains.map_err(|why| Error::damaged("pack", why))? {
                Remains::Nothing => {}
                Remains::Whole(record, chunks) => self.push(&record, &chunks).await?,
                Remains::Part(plain, chunks) => {
                    self.plain.extend(plain);
                    self.chunks.extend(chunks);
                }
            }
            if self.plain.len() >= BLOCK_LEN {
                self.seal().await?;
            }
        }
        Ok(())
    }

    /// Makes blocks of the chunks gathered.
    async fn seal(&mut self) -> Result<(), Error> {
        let (plain, chunks) = (
            std::mem::take(&mut self.plain),
            std::mem::take(&mut self.chunks),
        );
        if chunks.is_empty() {
            return Ok(());
        }
        let (keys, repository, kind) = (self.repo.keys().clone(), self.repo.id(), self.kind);
        let sealed = blocking(move || seal_blocks(&keys, repository, kind, &plain, &chunks));
        let sealed = sealed.await?.map_err(|e| Error::damaged("new block", e))?;
        for (record, chunks) in sealed {
            self.push(&record, &chunks).await?;
        }
        Ok(())
    }

    async fn push(&mut self, record: &[u8], chunks: &[(ShortId, u32)]) -> Result<(), Error> {
        let is_full = |b: &PackBuilder| !b.is_empty() && b.len() + record.len() > PACK_LEN;
        if self.builder.as_ref().is_some_and(is_full) {
            self.end_pack().await?;
        }
        let (session, kind) = (self.session, self.kind);
        let counter = &mut self.counter;
        let builder = self.builder.get_or_insert_with(|| {
            *counter += 1;
            PackBuilder::new(kind, session, *counter, 0)
        });
        builder
            .push(record, chunks)
            .map_err(|e| Error::damaged("new pack", e))
    }

    async fn end_pack(&mut self) -> Result<(), Error> {
        let Some(builder) = self.builder.take() else {
            return Ok(());
        };
        let (keys, repository) = (self.repo.keys().clone(), self.repo.id());
        let random = self.repo.env().random()?;
        let finished = blocking(move || builder.finish(&keys, repository, random)).await?;
        let FinishedPack {
            id,
            bytes,
            directory,
            ..
        } = finished.map_err(|e| Error::damaged("new pack", e))?;
        let pack = NewPack {
            kind: self.kind,
            id,
            bytes: bytes.into(),
            directory,
        };
        buggify("gc: packed anew, before the upload").await;
        // Nobody relies on it before a mark has chosen it: no session has to claim it.
        self.finished.push(put_pack(self.repo, pack, |_| ()).await?);
        Ok(())
    }

    async fn end_kind(&mut self) -> Result<(), Error> {
        self.seal().await?;
        self.end_pack().await
    }

    async fn finish(mut self) -> Result<Vec<SegmentPack>, Error> {
        self.end_kind().await?;
        Ok(self.finished)
    }
}

/// A pack of which something stays.
struct OldPack {
    keys: Arc<Keys>,
    kind: ChunkKind,
    bytes: Bytes,
    directory: Directory,
    staying: HashSet<ShortId>,
    opener: BlockOpener,
}

impl OldPack {
    fn open(
        keys: Arc<Keys>,
        repository: RepositoryId,
        bytes: Bytes,
        staying: HashSet<ShortId>,
    ) -> Result<Self, String> {
        let text = |e: backup_core::PackError| e.to_string();
        let header_bytes = bytes.first_chunk().ok_or("it is too short")?;
        let footer_bytes = bytes.last_chunk().ok_or("it is too short")?;
        let header = PackHeader::decode(header_bytes).map_err(text)?;
        let footer = PackFooter::decode(footer_bytes).map_err(text)?;
        let len = bytes.len() as u64;
        let place = footer.directory_range(len).map_err(text)?;
        let sealed = bytes
            .get(place.start as usize..place.end as usize)
            .ok_or("it is too short")?;
        let directory =
            open_directory(&keys, repository, header_bytes, sealed, len).map_err(text)?;
        Ok(Self {
            keys,
            kind: header.kind,
            bytes,
            directory,
            staying,
            opener: BlockOpener::new(repository).map_err(|e| e.to_string())?,
        })
    }

    /// Opens a block and takes out what stays, every chunk checked against its id.
    fn remains(&mut self, number: usize) -> Result<Remains, String> {
        let chunks: Vec<_> = self.directory.block_chunks(number).collect();
        let stays = |chunk: &&DirectoryChunk| self.staying.contains(&chunk.id);
        let (Some(block), true) = (
            self.directory.blocks().get(number),
            chunks.iter().any(|chunk| stays(&chunk)),
        ) else {
            return Ok(Remains::Nothing);
        };
        let start = block.offset as usize;
        let record = self.bytes.slice(start..start + block.record_len as usize);
        let plain = self
            .opener
            .open(&self.keys, self.kind, &record, block.plain_len)
            .map_err(|e| format!("block at {start}: {e}"))?;
        let bytes_of = |chunk: &DirectoryChunk| {
            let start = chunk.offset as usize;
            plain.get(start..start + chunk.len as usize)
        };
        for chunk in &chunks {
            let id = bytes_of(chunk).map(|bytes| self.keys.chunk_id(self.kind, bytes).short());
            if id != Some(chunk.id) {
                return Err(format!("it holds other bytes under chunk {}", chunk.id));
            }
        }
        let names = chunks.iter().filter(stays);
        let names: Vec<_> = names.map(|chunk| (chunk.id, chunk.len)).collect();
        if names.len() == chunks.len() {
            return Ok(Remains::Whole(record, names));
        }
        let parts = chunks.iter().filter(stays).filter_map(bytes_of);
        Ok(Remains::Part(parts.collect::<Vec<_>>().concat(), names))
    }
}

type SealedBlock = (Vec<u8>, Vec<(ShortId, u32)>);

fn seal_blocks(
    keys: &Keys,
    repository: RepositoryId,
    kind: ChunkKind,
    plain: &[u8],
    chunks: &[(ShortId, u32)],
) -> Result<Vec<SealedBlock>, backup_core::SealError> {
    let mut sealer = BlockSealer::new(repository, LEVEL)?;
    let mut sealed = Vec::new();
    let (mut start, mut end, mut first) = (0, 0, 0);
    for (number, (_, len)) in chunks.iter().enumerate() {
        end += *len as usize;
        let is_last = number + 1 == chunks.len();
        if end - start < BLOCK_LEN && !is_last {
            continue;
        }
        let mut record = Vec::new();
        let bytes = plain.get(start..end).unwrap_or_default();
        sealer.seal(keys, kind, bytes, &mut record)?;
        let chunks = chunks.get(first..=number).unwrap_or_default().to_vec();
        sealed.push((record, chunks));
        (start, first) = (end, number + 1);
    }
    Ok(sealed)
}
