//! One try at copying one snapshot into a session of the target, and what all tries of a run share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::PackId;
use backup_manifest::{Cell, Previous, SnapshotManifest, snapshot_key};

use super::before::Before;
use super::choose::Origin;
use super::known::Known;
use super::produce::{Limits, Producer};
use super::{Copied, CopyOptions};
use crate::backup::assemble::Counts;
use crate::backup::stages::{Memory, Packing, Plan, Stages};
use crate::backup::store::Uploaded;
use crate::buffers::Pool;
use crate::repository::blocks::BlockReader;
use crate::repository::documents::{newest_snapshot, read_cell};
use crate::repository::index::Index;
use crate::repository::load_index::load_index;
use crate::repository::session::{Found, Session};
use crate::restore::{Fetcher, is_finding};
use crate::{Error, Observer, Repository};

/// One try at one snapshot.
pub(crate) struct Attempt<'a> {
    pub(crate) from: &'a Repository,
    pub(crate) to: &'a Repository,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) reader: &'a Reader,
    pub(crate) origin: Origin,
    pub(crate) manifest: &'a SnapshotManifest,
    /// What is wrong in the source.
    pub(crate) finding: Mutex<Option<String>>,
}

impl Attempt<'_> {
    pub(crate) async fn store(
        &self,
        session: &Session,
        found: Found,
        before: Option<Copied>,
    ) -> Result<(SnapshotManifest, (Counts, Uploaded)), Error> {
        let (to, reader) = (self.to, self.reader);
        let previous = newest_snapshot(to, &found.survey, &self.manifest.source).await?;
        let before = self.before(session, before).await?;
        let known = &reader.known;
        known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .begin_session();
        let stages = Stages {
            repo: to,
            session,
            plan: reader.plan,
            observer: self.observer,
        };
        let (batches, batches_in) = stages.batches();
        let producer = Producer {
            blocks: reader.blocks.clone(),
            fetcher: &reader.fetcher,
            keys: to.keys().clone(),
            index: session.index.clone(),
            known,
            limits: reader.limits,
            buffers: Pool::new(),
            observer: self.observer,
            batches,
        };
        let producing = async {
            let produced = producer.run(self.manifest.root.clone(), before).await;
            produced.map_err(|error| self.note(error))
        };
        let stored = stages.store(producing, batches_in, found.unnamed).await?;
        let (assembled, uploaded) = stored;
        if assembled.counts.stats() != self.manifest.stats {
            let name = snapshot_key(&self.manifest.session);
            let why = "its sums are not those of its items";
            return Err(self.note(Error::damaged(name, why)));
        }
        let mut manifest = SnapshotManifest {
            session: session.id,
            nonce: session.nonce,
            previous: previous.map(|(previous, hash)| Previous {
                id: previous.session,
                hash,
            }),
            root: assembled.root,
            ..self.manifest.clone()
        };
        self.origin.note(&mut manifest);
        Ok((manifest, (assembled.counts, uploaded)))
    }

    /// Notes an error of reading the source that is a finding.
    fn note(&self, error: Error) -> Error {
        if is_finding(&error) {
            let finding = self.finding.lock();
            *finding.unwrap_or_else(PoisonError::into_inner) = Some(error.explain());
        }
        error
    }

    /// The snapshot copied before and its copy, for what they have in common with this one.
    async fn before(&self, session: &Session, before: Option<Copied>) -> Result<Before, Error> {
        let Some(Copied { from, to }) = before else {
            return Ok(Before::none());
        };
        let mut roots = Vec::new();
        for (repo, id) in [(self.from, from), (self.to, to)] {
            match read_cell(repo, &id).await {
                Ok((Cell::Snapshot(manifest), _)) => roots.push(manifest.root),
                Ok((Cell::Aborted, _)) => return Ok(Before::none()),
                Err(error) if is_finding(&error) => return Ok(Before::none()),
                Err(error) => return Err(error),
            }
        }
        let (Some(to), Some(from)) = (roots.pop(), roots.pop()) else {
            return Ok(Before::none());
        };
        let copies = BlockReader::new(self.to, session.index.clone(), COPY_BLOCKS);
        Ok(Before::new(
            (self.reader.blocks.clone(), from),
            (Arc::new(copies), to),
        ))
    }
}

/// Reads the source, and knows what it has read in this run.
pub(crate) struct Reader {
    blocks: Arc<BlockReader>,
    fetcher: Fetcher,
    plan: Plan,
    limits: Limits,
    known: Mutex<Known>,
}

impl Reader {
    pub(crate) async fn new(from: &Repository, options: &CopyOptions) -> Result<Self, Error> {
        let index = Arc::new(load_index(from).await?);
        let packing = Packing {
            pack_len: options.pack_len,
            block_len: options.block_len,
            zstd_level: options.zstd_level,
            uploads_max: options.uploads_max,
        };
        let memory = Memory {
            len_max: options.memory_len_max,
            for_buffers: FOR_BUFFERS,
        };
        // Not what the source's configuration says: chunks that were copied there have kept the lengths they had.
        let plan = Plan::new(packing, memory, index.data_chunk_len_max() as usize)?;
        let rest = packing.rest_of(options.memory_len_max);
        // Sealed and opened.
        let jobs_max = rest / BLOCKS_PART / (2 * BLOCKS_LEN);
        let blocks = Arc::new(BlockReader::new(from, index, TREE_BLOCKS));
        Ok(Self {
            fetcher: Fetcher::new(from, blocks.clone()),
            blocks,
            limits: Limits {
                jobs_max: jobs_max.clamp(1, plan.jobs_max),
                buffer_len: plan.buffer_len,
                blocks_len: BLOCKS_LEN as u64,
            },
            plan,
            known: Mutex::new(Known::new(rest / KNOWN_PART)),
        })
    }
}

impl Reader {
    /// Looks where chunks are by now: a collector may have moved them since. Says whether anything is elsewhere.
    pub(crate) async fn look_again(&mut self, from: &Repository) -> Result<bool, Error> {
        let index = Arc::new(load_index(from).await?);
        let packs = |index: &Index| -> BTreeSet<PackId> {
            index.packs().iter().map(|pack| pack.id).collect()
        };
        let has_changed = packs(&index) != packs(self.blocks.index());
        self.blocks = Arc::new(BlockReader::new(from, index, TREE_BLOCKS));
        self.fetcher = Fetcher::new(from, self.blocks.clone());
        Ok(has_changed)
    }
}

/// Opened blocks of item streams of the source kept at once: of the one copied and of the one before.
const TREE_BLOCKS: usize = 6;

/// The same for the copy of the one before.
const COPY_BLOCKS: usize = 3;

/// Of what packs leave of the memory: the share of buffers, and the parts that what is known of chunks and opened blocks of
/// the source take; the rest is for blocks being sealed.
const FOR_BUFFERS: (usize, usize) = (3, 8);
const KNOWN_PART: usize = 4;
const BLOCKS_PART: usize = 4;

/// One batch opens this many bytes of the source's blocks: two, by default.
const BLOCKS_LEN: usize = 6 << 20;
