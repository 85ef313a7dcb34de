//! Looks whether everything that snapshots need is there and is what was written. Findings are values.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use backup_backend::{ObjectMeta, StorageBackend};
use backup_core::{
    BlockOpener, ChunkId, ChunkKind, Directory, DocumentKind, Keys, PackId, RepositoryId,
    SessionId, ShortId, check_pack, check_padding, inspect_slot, open_directory,
};
use backup_manifest::{
    Cell, Extent, ObjectName, SnapshotKind, SnapshotManifest, StreamChecker, Verdict, pack_key,
    slot_key, snapshot_key,
};
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use crate::buffers::Pool;
use crate::env::{blocking, cores};
use crate::repository::blocks::BlockReader;
use crate::repository::decisions::{read_all_fates, verdict_of};
use crate::repository::documents::{open, read_cell};
use crate::repository::index::Index;
use crate::repository::load_index::{list, load_index, read_segment};
use crate::repository::store_key;
use crate::repository::tree::read_pages;
use crate::restore::is_finding;
use crate::{Error, Event, Observer, Repository};

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VerifyLevel {
    /// All small objects and item lists are opened, and every chunk that a snapshot needs is in a listed pack.
    #[default]
    Structure,
    /// As `Structure`; and this many packs, chosen at random, are read whole.
    Sample(u32),
    /// As `Structure`; and every pack is read whole: its name, its directory, every block, every chunk's id.
    AllData,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The object concerned.
    pub object: String,
    /// What is wrong with it.
    pub finding: String,
    /// The snapshots that are hurt.
    pub snapshots: Vec<SessionId>,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs there are.
    pub packs: u64,
    /// Packs read whole.
    pub packs_read: u64,
    /// References to chunks of content that were followed.
    pub chunks: u64,
    /// Bytes of packs read whole.
    pub bytes_read: u64,
    /// Everything found.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Looks at the whole repository as thoroughly as `level` says.
///
/// # Errors
/// When the store cannot be asked. Damage is in the report.
pub async fn verify(
    repo: &Repository,
    level: VerifyLevel,
    observer: &dyn Observer,
) -> Result<VerifyReport, Error> {
    let mut run = Run {
        repo,
        observer,
        report: VerifyReport::default(),
        needed: HashMap::new(),
        bad_chunks: HashMap::new(),
    };
    let objects = list(repo, "").await?;
    let mut names = Names::default();
    for object in &objects {
        run.sort_out(object, &mut names);
    }
    run.small_objects(&names).await?;
    // What only dropped snapshots need may be gone.
    let fates = read_all_fates(repo).await?;
    names
        .snapshots
        .retain(|id| verdict_of(&fates, id) != Verdict::Drop);
    // The index is read first of all by the sessions of others: what is added meanwhile is not ours to judge.
    let index = Arc::new(load_index(repo).await?);
    let blocks = Arc::new(BlockReader::new(repo, index.clone(), TREE_BLOCKS));
    let manifests = run.cells(&names.snapshots).await?;
    for manifest in manifests.values() {
        run.snapshot(&index, &blocks, manifest).await?;
    }
    run.read_packs(level, &names, &index).await?;
    run.name_the_hurt(&blocks, &manifests).await?;
    Ok(run.report)
}

/// Opened blocks of the item stream kept at once.
const TREE_BLOCKS: usize = 4;

/// The objects there are, by kind.
#[derive(Debug, Default)]
struct Names {
    snapshots: Vec<SessionId>,
    packs: BTreeMap<PackId, u64>,
    small: Vec<(ObjectName, String)>,
}

struct Run<'a> {
    repo: &'a Repository,
    observer: &'a dyn Observer,
    report: VerifyReport,
    /// The ids that snapshots name, by the part of them that directories hold.
    needed: HashMap<ShortId, ChunkId>,
    /// Chunks found bad, and the finding each belongs to.
    bad_chunks: HashMap<ShortId, usize>,
}

impl Run<'_> {
    fn found(&mut self, object: impl Into<String>, finding: impl Into<String>) -> usize {
        let (object, finding) = (object.into(), finding.into());
        self.observer.event(&Event::Damage {
            object: &object,
            finding: &finding,
        });
        self.report.damage.push(Damage {
            object,
            finding,
            snapshots: Vec::new(),
        });
        self.report.damage.len() - 1
    }

    fn sort_out(&mut self, object: &ObjectMeta, names: &mut Names) {
        match object.key.as_str().parse() {
            Ok(ObjectName::Snapshot(id)) => names.snapshots.push(id),
            Ok(ObjectName::Pack(id)) => {
                names.packs.insert(id, object.len);
                self.report.packs += 1;
            }
            Ok(name) => names.small.push((name, object.key.as_str().into())),
            Err(_) => {
                self.found(
                    object.key.as_str(),
                    "no object of a repository has this name",
                );
            }
        }
    }

    /// Opens everything but cells and packs.
    async fn small_objects(&mut self, names: &Names) -> Result<(), Error> {
        let repo = self.repo;
        // Owned, here and elsewhere: a closure over references would make the future one that cannot be spawned.
        let mut checks = stream::iter(names.small.clone())
            .map(|(name, key)| async move {
                let checked = check_small(repo, &name, &key).await;
                (key, checked)
            })
            .buffer_unordered(READS_MAX);
        let mut findings = Vec::new();
        while let Some((key, checked)) = checks.next().await {
            match checked {
                Ok(()) => {}
                // Tidied up since it was listed.
                Err(error) if error.is_not_found() => {}
                Err(error) if is_finding(&error) => findings.push((key, error.explain())),
                Err(error) => return Err(error),
            }
        }
        drop(checks);
        for (key, finding) in findings {
            self.found(key, finding);
        }
        Ok(())
    }

    /// Opens the cells; those of snapshots that are sound, with what follows from their chain.
    async fn cells(
        &mut self,
        ids: &[SessionId],
    ) -> Result<BTreeMap<SessionId, SnapshotManifest>, Error> {
        let mut manifests = BTreeMap::new();
        let mut hashes = HashMap::new();
        for id in ids {
            match read_cell(self.repo, id).await {
                Ok((Cell::Snapshot(manifest), hash)) => {
                    hashes.insert(*id, hash);
                    manifests.insert(*id, manifest);
                }
                Ok((Cell::Aborted, _)) => {}
                Err(error) if is_finding(&error) => {
                    let finding = self.found(snapshot_key(id), error.explain());
                    self.report.damage[finding].snapshots.push(*id);
                }
                Err(error) => return Err(error),
            }
        }
        self.report.snapshots = manifests.len() as u64;
        let broken: Vec<SessionId> = manifests
            .values()
            .filter(|manifest| {
                let previous = manifest.previous.as_ref();
                previous.is_some_and(|p| hashes.get(&p.id).is_some_and(|hash| *hash != p.hash))
            })
            .map(|manifest| manifest.session)
            .collect();
        for id in broken {
            self.found(
                snapshot_key(&id),
                "the snapshot before it is not the one it was made after",
            );
        }
        Ok(manifests)
    }

    /// Walks the items of a snapshot, and looks for every chunk they name.
    async fn snapshot(
        &mut self,
        index: &Index,
        blocks: &Arc<BlockReader>,
        manifest: &SnapshotManifest,
    ) -> Result<(), Error> {
        let mut pages = Box::pin(read_pages(blocks.clone(), manifest.root.clone(), None));
        let mut checker = StreamChecker::new();
        let mut missing = 0u64;
        let mut first_missing = None;
        let mut bytes_listed = 0u64;
        let finding = loop {
            let (reference, bytes) = match pages.next().await {
                None => {
                    let (wanted, listed) = (manifest.stats.bytes, bytes_listed);
                    // Only a stream's length is told by the manifest alone.
                    let short =
                        (manifest.kind == SnapshotKind::Stream && wanted != listed).then(|| {
                            format!("its items have {listed} bytes of content instead of {wanted}")
                        });
                    break checker.finish().err().map(|e| e.to_string()).or(short);
                }
                Some(Ok(page)) => page,
                Some(Err(error)) if is_finding(&error) => break Some(error.explain()),
                Some(Err(error)) => return Err(error),
            };
            let read = blocking(move || read_page(checker, &reference, &bytes)).await?;
            match read {
                Ok((back, extents, len)) => {
                    checker = back;
                    bytes_listed = bytes_listed.saturating_add(len);
                    self.report.chunks += extents.len() as u64;
                    for (id, len) in extents {
                        self.needed.insert(id.short(), id);
                        if !index.holds(ChunkKind::Data, &id, len) {
                            missing += 1;
                            first_missing.get_or_insert(id);
                        }
                    }
                }
                Err(why) => break Some(why),
            }
        };
        let lost = first_missing.map(|id| {
            format!("{missing} of the chunks it needs are in no readable pack, the first is {id}")
        });
        for finding in finding.into_iter().chain(lost) {
            let finding = self.found(snapshot_key(&manifest.session), finding);
            self.report.damage[finding].snapshots.push(manifest.session);
        }
        Ok(())
    }

    /// Reads packs whole.
    async fn read_packs(
        &mut self,
        level: VerifyLevel,
        names: &Names,
        index: &Arc<Index>,
    ) -> Result<(), Error> {
        let mut wanted: Vec<(PackId, u64)> =
            names.packs.iter().map(|(id, len)| (*id, *len)).collect();
        match level {
            VerifyLevel::Structure => wanted.clear(),
            VerifyLevel::Sample(count) => {
                // Names are hashes: those that follow a random name are a random choice.
                let pivot = PackId::from_bytes(self.repo.env().random()?);
                let at = wanted.partition_point(|(id, _)| *id < pivot);
                wanted.rotate_left(at);
                wanted.truncate(count as usize);
            }
            VerifyLevel::AllData => {}
        }
        self.observer.event(&Event::Total {
            bytes: wanted.iter().map(|(_, len)| len).sum(),
        });
        let check = Arc::new(PackCheck {
            keys: self.repo.keys().clone(),
            repository: self.repo.id(),
            openers: Pool::new(),
            needed: Arc::new(std::mem::take(&mut self.needed)),
            indexed: index.chunks_by_pack(),
            index: index.clone(),
        });
        let repo = self.repo;
        let mut reads = stream::iter(wanted)
            .map(|(id, _)| {
                let check = check.clone();
                async move {
                    let read = repo.backend().get(&store_key(&pack_key(&id))?, None).await;
                    match read.map_err(Error::from) {
                        Ok(bytes) => blocking(move || check.pack(&id, &bytes)).await,
                        Err(error) if is_finding(&error) => {
                            let findings = vec![(error.explain(), check.chunks_of(&id))];
                            Ok(PackChecked {
                                id,
                                len: 0,
                                findings,
                            })
                        }
                        Err(error) => Err(error),
                    }
                }
            })
            .buffer_unordered((cores() + 1).min(PACKS_READ_MAX));
        let mut all = Vec::new();
        while let Some(checked) = reads.next().await {
            let checked = checked?;
            self.observer.event(&Event::Bytes { bytes: checked.len });
            all.push(checked);
            if self.observer.should_stop() {
                return Err(Error::Stopped);
            }
        }
        drop(reads);
        for PackChecked { id, len, findings } in all {
            self.report.packs_read += 1;
            self.report.bytes_read += len;
            for (finding, chunks) in findings {
                let number = self.found(pack_key(&id), finding);
                // What another pack holds as well, and readers take from there, hurts nobody.
                let holder = |chunk: &ShortId| index.place_of(chunk).map(|(_, _, pack)| pack.id);
                let read_here = |chunk: &ShortId| holder(chunk).is_none_or(|pack| pack == id);
                let chunks = chunks.into_iter().filter(read_here);
                self.bad_chunks.extend(chunks.map(|chunk| (chunk, number)));
            }
        }
        Ok(())
    }

    /// Walks the snapshots once more, if anything was found in packs, to tell which of them it hurts.
    async fn name_the_hurt(
        &mut self,
        blocks: &Arc<BlockReader>,
        manifests: &BTreeMap<SessionId, SnapshotManifest>,
    ) -> Result<(), Error> {
        if self.bad_chunks.is_empty() {
            return Ok(());
        }
        for (id, manifest) in manifests {
            let mut hurt: HashSet<usize> = HashSet::new();
            let mut pages = Box::pin(read_pages(blocks.clone(), manifest.root.clone(), None));
            while let Some(page) = pages.next().await {
                // What cannot be read was told already.
                let Ok((reference, bytes)) = page else { break };
                hurt.extend(self.bad_chunks.get(&reference.id.short()));
                let read = blocking(move || read_page(StreamChecker::new(), &reference, &bytes));
                if let Ok((_, extents, _)) = read.await? {
                    let bad = extents
                        .iter()
                        .filter_map(|(id, _)| self.bad_chunks.get(&id.short()));
                    hurt.extend(bad);
                }
            }
            for finding in hurt {
                self.report.damage[finding].snapshots.push(*id);
            }
        }
        Ok(())
    }
}

/// Packs in memory at once: four of 32 MiB, and their blocks, stay well below the usual budget of 256 MiB.
const PACKS_READ_MAX: usize = 4;

/// Small objects read at once.
const READS_MAX: usize = 16;

async fn check_small(repo: &Repository, name: &ObjectName, key: &str) -> Result<(), Error> {
    let kind = match name {
        // Opened and checked with the repository.
        ObjectName::Config => return Ok(()),
        ObjectName::Segment(id) => return read_segment(repo, id).await.map(drop),
        ObjectName::Slot(id) => {
            let bytes = repo.get(key).await?;
            let summary = inspect_slot(&bytes).map_err(|e| Error::damaged(key, e))?;
            if summary.slot != *id || summary.repository != repo.id() {
                return Err(Error::damaged(
                    slot_key(id),
                    "it is another slot's, or another repository's",
                ));
            }
            return Ok(());
        }
        ObjectName::SessionOpen(_) => DocumentKind::SessionOpen,
        ObjectName::SessionAck(..) => DocumentKind::SessionAck,
        ObjectName::GcPlan(_) | ObjectName::GcFinal(_) => DocumentKind::GcPlan,
        ObjectName::Decision(..) => DocumentKind::Retired,
        _ => return Ok(()),
    };
    open(repo, kind, key, &repo.get(key).await?).map(drop)
}

/// References to content, with lengths in bytes.
type Extents = Vec<(ChunkId, u32)>;

fn read_page(
    mut checker: StreamChecker,
    reference: &backup_manifest::TreeRef,
    bytes: &[u8],
) -> Result<(StreamChecker, Extents, u64), String> {
    let failed = |e: &dyn std::fmt::Display| format!("item page {}: {e}", reference.id);
    let mut reader = backup_manifest::PageReader::new(bytes).map_err(|e| failed(&e))?;
    checker.page(reference);
    let (mut extents, mut bytes_listed) = (Vec::new(), 0u64);
    while let Some(record) = reader.next_record().map_err(|e| failed(&e))? {
        checker.record(&record).map_err(|e| failed(&e))?;
        if let backup_manifest::RecordView::Extent(extent) = record {
            bytes_listed = bytes_listed.saturating_add(extent.len());
            if let Extent::Data { len, id } = extent {
                extents.push((id, len));
            }
        }
    }
    Ok((checker, extents, bytes_listed))
}

/// What checking packs needs.
#[derive(Debug)]
struct PackCheck {
    keys: Arc<Keys>,
    repository: RepositoryId,
    openers: Arc<Pool<BlockOpener>>,
    needed: Arc<HashMap<ShortId, ChunkId>>,
    index: Arc<Index>,
    /// How many chunks the index says are in each pack.
    indexed: HashMap<PackId, u64>,
}

/// What was found in a pack: each finding with the chunks it concerns.
#[derive(Debug)]
struct PackChecked {
    id: PackId,
    len: u64,
    findings: Vec<(String, BTreeSet<ShortId>)>,
}

impl PackCheck {
    fn pack(&self, id: &PackId, bytes: &Bytes) -> PackChecked {
        let mut findings = Vec::new();
        if let Err(error) = self.whole(id, bytes, &mut findings) {
            findings.push((error, self.chunks_of(id)));
        }
        PackChecked {
            id: *id,
            len: bytes.len() as u64,
            findings,
        }
    }

    /// The chunks that the index says are in a pack.
    fn chunks_of(&self, id: &PackId) -> BTreeSet<ShortId> {
        self.index.chunks_of(id)
    }

    fn whole(
        &self,
        id: &PackId,
        bytes: &[u8],
        findings: &mut Vec<(String, BTreeSet<ShortId>)>,
    ) -> Result<(), String> {
        let text = |e: backup_core::PackError| e.to_string();
        let name = check_pack(bytes, id);
        // A pack of another name may still hold most of its blocks: say which do not open.
        let header_bytes = bytes.first_chunk().ok_or("it is too short")?;
        let footer_bytes = bytes.last_chunk().ok_or("it is too short")?;
        let header = backup_core::PackHeader::decode(header_bytes).map_err(text)?;
        let footer = backup_core::PackFooter::decode(footer_bytes).map_err(text)?;
        let len = bytes.len() as u64;
        let place = footer.directory_range(len).map_err(text)?;
        let sealed = &bytes[place.start as usize..place.end as usize];
        let directory =
            open_directory(&self.keys, self.repository, header_bytes, sealed, len).map_err(text)?;
        for (number, block) in directory.blocks().iter().enumerate() {
            let start = block.offset as usize;
            let record = &bytes[start..start + block.record_len as usize];
            let chunks = directory
                .block_chunks(number)
                .map(|chunk| chunk.id)
                .collect();
            match self.block(header.kind, record, block.plain_len) {
                Ok(plain) => {
                    for chunk in directory.block_chunks(number) {
                        let start = chunk.offset as usize;
                        let bytes = &plain[start..start + chunk.len as usize];
                        let id = self.keys.chunk_id(header.kind, bytes);
                        let is_it = id.short() == chunk.id
                            && self
                                .needed
                                .get(&chunk.id)
                                .is_none_or(|needed| *needed == id);
                        if !is_it {
                            let finding = format!("it holds other bytes under chunk {}", chunk.id);
                            findings.push((finding, BTreeSet::from([chunk.id])));
                        }
                    }
                }
                Err(why) => findings.push((format!("block at {start}: {why}"), chunks)),
            }
        }
        self.index_entries(id, &directory, findings);
        name.map_err(text)?;
        check_padding(bytes, &directory).map_err(text)
    }

    /// Readers go by the index: what it says of this pack must be what the pack's own directory says.
    fn index_entries(
        &self,
        id: &PackId,
        directory: &Directory,
        findings: &mut Vec<(String, BTreeSet<ShortId>)>,
    ) {
        let mut wrong = BTreeSet::new();
        let mut agreeing = 0;
        for chunk in directory.iter() {
            let Some((location, block, pack)) = self.index.place_of(&chunk.id) else {
                continue;
            };
            if pack.id != *id {
                continue;
            }
            let own = directory.blocks().get(chunk.block as usize);
            let agrees = (location.offset, location.len) == (chunk.offset, chunk.len)
                && own.is_some_and(|own| {
                    (own.offset, own.record_len, own.plain_len)
                        == (block.offset, block.record_len, block.plain_len)
                });
            if agrees {
                agreeing += 1;
            } else {
                wrong.insert(chunk.id);
            }
        }
        let indexed = self.indexed.get(id).copied().unwrap_or_default();
        if !wrong.is_empty() || indexed > agreeing {
            let finding = format!(
                "{} of its chunks are not where the index says",
                indexed - agreeing
            );
            findings.push((finding, wrong));
        }
    }

    fn block(&self, kind: ChunkKind, record: &[u8], plain_len: u32) -> Result<Vec<u8>, String> {
        let opener = self.openers.take(|| BlockOpener::new(self.repository));
        let mut opener = opener.map_err(|e| e.to_string())?;
        let opener = opener.get_mut().ok_or("no opener")?;
        opener
            .open(&self.keys, kind, record, plain_len)
            .map_err(|e| e.to_string())
    }
}
