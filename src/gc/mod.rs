//! Collects garbage: deletes the packs that no snapshot needs, beside any number of writers and other collectors.

mod cache;
mod choose;
mod drops;
mod gate;
mod inventory;
mod mark;
mod places;
mod plan;
mod repack;
mod round;
mod segments;
mod sort;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_backend::{Bytes, Limiting, Limits, StorageBackend};
use backup_core::SessionId;
use backup_manifest::session_beat_key;
use tokio::time::Instant;

use crate::gc::mark::{MarkSpace, Marker};
use crate::gc::sort::Scratch;
use crate::repository::store_key;
use crate::{Error, Observer, Promise, Repository, probe};

/// How garbage is collected. Times only say how long to wait: no time makes a deletion safe or unsafe.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GcOptions {
    /// Change nothing; report what would be done.
    pub dry_run: bool,
    /// Packs younger than this are left, by the store's clock: an interrupted backup goes on from what it stored.
    pub pack_age_min: Duration,
    /// A forgotten snapshot stays this long, by the store's clock, and can be had back.
    pub undelete_window: Duration,
    /// A session that showed no sign of life for so long, by the store's clock, is given up: if it still runs, it goes on in
    /// another session, and repeats what it relied on.
    pub lease: Duration,
    /// How often to look whether a session has answered.
    pub poll: Duration,
    /// A pack of which at least this share is not needed is packed anew, in percent.
    pub repack_dead_percent_min: u8,
    /// Bytes of packs that one run packs anew at most; 0 for none.
    pub repack_len_max: u64,
    /// A plan that deletes more than this share of the bytes of all packs is refused, in percent.
    pub delete_percent_max: u8,
    /// Delete although much would go, no snapshot is left, or chunks that snapshots need are missing already.
    pub force: bool,
    /// No other program uses the repository until this ends: no promise of the store is needed.
    pub exclusive: bool,
    /// Requests to the store per second.
    pub requests_per_second: Option<u64>,
    /// Bytes of memory for sorting; what does not fit goes to `scratch`.
    pub memory_len_max: usize,
    /// A directory for temporary files.
    pub scratch: Option<PathBuf>,
    /// A directory where it is kept what was marked, so that the next run reads only what is new.
    pub cache: Option<PathBuf>,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            pack_age_min: Duration::from_secs(24 * 3600),
            undelete_window: Duration::from_secs(7 * 24 * 3600),
            lease: Duration::from_secs(15 * 60),
            poll: Duration::from_secs(5),
            repack_dead_percent_min: 25,
            repack_len_max: 4 << 30,
            delete_percent_max: 75,
            force: false,
            exclusive: false,
            requests_per_second: Some(100),
            memory_len_max: 256 << 20,
            scratch: None,
            cache: None,
        }
    }
}

/// What a collector did, or, of a dry run, would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// The last round that was carried out, if any.
    pub round: Option<u64>,
    /// Snapshots that were looked at: all that may be needed.
    pub snapshots: u64,
    /// Forgotten snapshots that are gone for good from now on.
    pub snapshots_dropped: Vec<SessionId>,
    /// Forgotten snapshots that can still be had back.
    pub snapshots_forgotten: u64,
    /// Those of them whose time is over and that stay all the same: no other complete one of their source is left.
    pub snapshots_last: u64,
    /// When the first of the others may be dropped, by the store's clock.
    pub undelete_until: Option<SystemTime>,
    /// Packs there were.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that nothing needs and that are too young.
    pub packs_young: u64,
    /// Packs that are gone, as confirmed by the store.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Packs that were to go and that a session or a new snapshot turned out to need.
    pub packs_rescued: u64,
    /// Packs whose chunks were copied to new packs; they go in a round of their own.
    pub packs_repacked: u64,
    /// Bytes of the new packs.
    pub repacked_bytes: u64,
    /// Sessions that a round waited for.
    pub sessions_awaited: u64,
    /// Sessions that were given up.
    pub sessions_aborted: u64,
    /// Index segments written.
    pub segments_written: u64,
    /// Index segments deleted.
    pub segments_deleted: u64,
    /// Small objects deleted that had become useless.
    pub objects_tidied: u64,
    /// Packs that the store did not let go, and why. The round stays open: run again.
    pub undeletable: Vec<(String, String)>,
    /// Packs whose directory cannot be read; they are left as they are.
    pub packs_unreadable: Vec<String>,
}

impl GcReport {
    /// Whether everything was done that was to be done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.undeletable.is_empty() && self.packs_unreadable.is_empty()
    }
}

/// Deletes what no snapshot needs.
///
/// Any number of these may run beside each other and beside backups, restores and everything else, and each may be stopped
/// at any point: the next one goes on. Forgotten snapshots go when the time to think again is over.
///
/// # Errors
/// [`Error::UnsafeStore`], [`Error::Suspicious`], [`Error::Damaged`] when a cell or a list cannot be read: nothing is
/// deleted then, but what an earlier round had settled. [`Error::Stopped`], and whatever the store says.
pub async fn gc(
    repo: &Repository,
    options: &GcOptions,
    observer: &dyn Observer,
) -> Result<GcReport, Error> {
    check(options)?;
    if !options.exclusive {
        let probed = probe(repo).await?;
        let missing = match (probed.create_if_absent, probed.consistent_list) {
            (Promise::Kept, Promise::Kept) => None,
            (Promise::Kept, _) => Some("read-after-write listing"),
            _ => Some("create-if-absent"),
        };
        if let Some(missing) = missing {
            return Err(Error::UnsafeStore { missing });
        }
    }
    let mut limits = Limits::default();
    limits.requests_per_second = options.requests_per_second;
    let limited = repo.on(Arc::new(Limiting::new(repo.backend().clone(), limits)));
    let clock = StoreClock::read(&limited, options.dry_run).await?;
    let mut collector = Collector {
        repo: &limited,
        options,
        observer,
        clock,
        report: GcReport::default(),
        seen_open: Vec::new(),
    };
    let ran = collector.run().await;
    let tidied = collector.clock.tidy(&limited).await;
    ran.and(tidied)?;
    Ok(collector.report)
}

fn check(options: &GcOptions) -> Result<(), Error> {
    let bad = |option, reason: &str| {
        let reason = reason.into();
        Err(Error::BadOption { option, reason })
    };
    if options.delete_percent_max > 100 {
        return bad("delete_percent_max", "must be 0 to 100");
    }
    if !(1..=100).contains(&options.repack_dead_percent_min) {
        return bad("repack_dead_percent_min", "must be 1 to 100");
    }
    if options.memory_len_max < MEMORY_MIN {
        return bad("memory_len_max", "must be at least 16 MiB");
    }
    Ok(())
}

const MEMORY_MIN: usize = 16 << 20;

/// The share of all memory of each of two sorters. What else there is at their side, and what the allocator keeps of what
/// was given back, takes more than half (measured with 100 million chunks: `scripts/gc-memory`).
const SORTERS_SHARE: usize = 8;

/// The store's time, by which everything in the store is dated.
#[derive(Debug)]
struct StoreClock {
    /// An object that was written to see what time the store gives it.
    session: Option<SessionId>,
    at: SystemTime,
    since: Instant,
}

impl StoreClock {
    async fn read(repo: &Repository, dry_run: bool) -> Result<Self, Error> {
        let since = Instant::now();
        if dry_run {
            let now_ns = u64::try_from(repo.env().clock.now_ns()).unwrap_or(0);
            let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(now_ns);
            return Ok(Self {
                session: None,
                at,
                since,
            });
        }
        let session = SessionId::new(repo.keys().source_tag(""), 0, repo.env().random()?);
        let name = session_beat_key(&session, 0);
        repo.create_object(&name, Bytes::new()).await?;
        let written = repo.backend().head(&store_key(&name)?).await?.modified;
        Ok(Self {
            session: Some(session),
            at: written.ok_or(Error::NoTimes)?,
            since,
        })
    }

    fn now(&self) -> SystemTime {
        self.at + self.since.elapsed()
    }

    /// How old something is; what has no time, or one in the future, is new.
    fn age(&self, modified: Option<SystemTime>) -> Option<Duration> {
        let modified = modified?;
        Some(self.now().duration_since(modified).unwrap_or_default())
    }

    async fn tidy(&self, repo: &Repository) -> Result<(), Error> {
        if let Some(session) = self.session {
            let key = store_key(&session_beat_key(&session, 0))?;
            repo.backend().delete(&[key]).await?;
        }
        Ok(())
    }
}

/// One run.
struct Collector<'a> {
    repo: &'a Repository,
    options: &'a GcOptions,
    observer: &'a dyn Observer,
    clock: StoreClock,
    report: GcReport,
    /// Sessions that were open when everything was listed.
    seen_open: Vec<SessionId>,
}

impl Collector<'_> {
    fn scratch(&self) -> Scratch {
        Scratch {
            directory: self.options.scratch.clone(),
            env: self.repo.env().clone(),
        }
    }

    async fn run(&mut self) -> Result<(), Error> {
        let space = MarkSpace {
            refs_len_max: self.options.memory_len_max / SORTERS_SHARE,
            scratch: self.scratch(),
            cache: self.options.cache.clone(),
        };
        let mut marker = Marker::new(self.repo, space, self.observer).await?;
        self.rounds(&mut marker).await?;
        if !self.options.dry_run {
            marker.keep().await?;
        }
        Ok(())
    }
}
