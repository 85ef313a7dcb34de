//! What a process does with a repository, and what may come of it.

use std::fmt;
use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup::backup_backend::{Bytes, ErrorKind};
use backup::{
    BackupOptions, Error, Event, GcOptions, Repository, RestoreOptions, RestoreTarget, SessionId,
    Source, VerifyLevel, backup, gc, restore, verify,
};

use super::decide::Decide;
use super::model::Content;
use super::plan::Profile;
use super::random::Random;
use super::scenario::Run;

/// Something that a process can do.
pub(crate) enum Action {
    Backup {
        source: &'static str,
        content: Content,
    },
    Restore(SessionId),
    Verify(VerifyLevel),
    Gc,
    Decide(Decide),
}

/// What was found to be wrong: a property of the contract does not hold.
pub(crate) type Broken = String;

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backup { source, content } => write!(f, "backup {source} {}", content.len()),
            Self::Restore(snapshot) => write!(f, "restore {snapshot}"),
            Self::Verify(level) => write!(f, "verify {level:?}"),
            Self::Gc => f.write_str("gc"),
            Self::Decide(decide) => write!(f, "{decide:?}"),
        }
    }
}

const SOURCES: [&str; 3] = ["home", "mail", "base"];

impl Action {
    /// Each kind by its weight, in percent.
    pub(crate) fn draw(run: &Run, random: &mut Random) -> Self {
        let promised = run.model.promised();
        let decide = Decide::draw(run, random);
        match (random.below(100), decide) {
            (0..45, _) => Self::Backup {
                source: random.one_of::<&str>(&SOURCES),
                content: run.contents.draw(random),
            },
            (45..65, _) if !promised.is_empty() => Self::Restore(*random.one_of(&promised)),
            (65..80, _) if run.collects => Self::Gc,
            (80..94, Some(decide)) => Self::Decide(decide),
            (94..98, _) => Self::Verify(VerifyLevel::Structure),
            _ => Self::Verify(VerifyLevel::AllData),
        }
    }

    /// Does it. An error of the store is no failure of the run, unless it cannot be the store's.
    pub(crate) async fn perform(
        self,
        run: &Run,
        repo: &Repository,
        random: &mut Random,
    ) -> Result<(), Broken> {
        match self {
            Self::Backup { source, content } => {
                let options = backup_options(random);
                let done = back_up(run, repo, (source, content), &options).await;
                judge(run, "backup", done)
            }
            Self::Restore(snapshot) => {
                let done = bring_back(repo, &snapshot).await;
                // Given up meanwhile: then it may be gone.
                let is_promised = run.model.is_promised(&snapshot);
                match judge_restore(run, &snapshot, done) {
                    Err(broken) if is_promised => Err(broken),
                    _ => Ok(()),
                }
            }
            Self::Verify(level) => {
                let report = verify(repo, level, &()).await;
                if let (Profile::Honest, Ok(report)) = (run.plan.profile, &report)
                    && !report.is_sound()
                    && !run.collects
                {
                    return Err(format!("verify finds {:?}", report.damage));
                }
                judge(run, "verify", report.map(drop))
            }
            Self::Decide(decide) => decide.perform(run, repo, random).await,
            Self::Gc => {
                let report = gc(repo, &gc_options(random), &()).await;
                judge(run, "gc", report.map(drop))
            }
        }
    }
}

/// The smallest limits there are, so that little data crosses many of them.
pub(crate) fn backup_options(random: &mut Random) -> BackupOptions {
    let mut options = BackupOptions::default();
    options.pack_len = 64 << 10;
    options.block_len = *random.one_of(&[4 << 10, 4 << 10, 64 << 10]);
    options.memory_len_max = *random.one_of(&[9 << 20, 16 << 20]);
    options.uploads_max = 1 + random.below(3) as usize;
    options.zstd_level = 1;
    options.beat = random.time(300_000, 14_400_000);
    options
}

/// Impatient ones: no time makes a deletion safe or unsafe.
pub(crate) fn gc_options(random: &mut Random) -> GcOptions {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut options = GcOptions::default();
    options.pack_age_min = HOUR * *random.one_of(&[0, 0, 1, 24]);
    options.undelete_window = HOUR * *random.one_of(&[0, 1, 48]);
    options.lease = random.time(60_000, 5 * 86_400_000);
    options.poll = options.lease / 3;
    options.repack_dead_percent_min = *random.one_of(&[1, 25, 60]);
    options.repack_len_max = *random.one_of(&[0, 1 << 20, 1 << 30]);
    options.delete_percent_max = 100;
    options.requests_per_second = None;
    options.memory_len_max = 16 << 20;
    options
}

/// Backs up; on success the snapshot is promised.
pub(crate) async fn back_up(
    run: &Run,
    repo: &Repository,
    (source, content): (&str, Content),
    options: &BackupOptions,
) -> Result<(), Error> {
    let (model, tried) = (run.model.clone(), content.clone());
    let observer = move |event: &Event<'_>| {
        if let Event::SessionOpened { session } = event {
            model.attempt(*session, tried.clone());
        }
    };
    let stream = Source::stream(Cursor::new(content));
    let report = backup(repo, source, stream, options, &observer).await?;
    assert!(report.is_complete());
    run.model.ack(report.snapshot);
    Ok(())
}

/// The bytes of a snapshot; `None` when not all could be had.
pub(crate) async fn bring_back(
    repo: &Repository,
    snapshot: &SessionId,
) -> Result<Option<Vec<u8>>, Error> {
    let sink = Sink::default();
    let target = RestoreTarget::Writer(Box::new(sink.clone()));
    let report = restore(repo, snapshot, target, &RestoreOptions::default(), &()).await?;
    let bytes = std::mem::take(&mut *sink.0.lock().unwrap());
    Ok(report.is_complete().then_some(bytes))
}

/// What comes back is what was stored, whatever the store is like; from an honest one it does come back.
pub(crate) fn judge_restore(
    run: &Run,
    snapshot: &SessionId,
    done: Result<Option<Vec<u8>>, Error>,
) -> Result<(), Broken> {
    match done {
        Ok(Some(bytes)) => {
            let stored = run.model.content(snapshot);
            if stored.as_ref().map(Bytes::as_ref) != Some(bytes.as_slice()) {
                return Err(format!("{snapshot} comes back as other bytes"));
            }
            judge(run, "restore", Ok(()))
        }
        Ok(None) if run.plan.profile == Profile::Honest => {
            Err(format!("{snapshot} comes back incomplete"))
        }
        Ok(None) => judge(run, "restore in part", Ok(())),
        Err(error) => judge(run, "restore", Err(error)),
    }
}

/// Whether something is not, or no more, where it was.
fn is_missing(error: &Error) -> bool {
    match error {
        Error::MissingChunk { .. } | Error::Damaged { .. } => true,
        Error::Backend(error) => error.kind() == ErrorKind::NotFound,
        _ => false,
    }
}

/// Whether an error can be the store's.
pub(crate) fn judge(run: &Run, verb: &'static str, done: Result<(), Error>) -> Result<(), Broken> {
    let Err(error) = done else {
        run.model.count(verb, true);
        return Ok(());
    };
    run.model.count(verb, false);
    let is_simulated = match &error {
        Error::Backend(error) => matches!(
            error.kind(),
            ErrorKind::TimedOut
                | ErrorKind::Unavailable
                | ErrorKind::Throttled
                | ErrorKind::PermissionDenied
                | ErrorKind::Unauthenticated
                | ErrorKind::Io
        ),
        Error::SessionAborted { .. } | Error::UnsafeStore { .. } => true,
        Error::Suspicious { .. } => {
            run.model.count("gc with doubts", false);
            true
        }
        _ => false,
    };
    // A collector was faster: what is looked for is elsewhere now, or needed no more.
    let is_outrun = run.collects && is_missing(&error);
    match verb {
        "restore" if is_outrun => run.model.count("restore overtaken by gc", false),
        "gc" if is_outrun => run.model.count("gc overtaken by gc", false),
        _ => {}
    }
    let is_listing = match &error {
        Error::Backend(error) => error.kind() == ErrorKind::Corrupt && error.operation() == "list",
        // What is in a pack that was not listed.
        Error::MissingChunk { .. } | Error::Damaged { .. } => true,
        // A snapshot that was listed twice.
        Error::Retention(_) => true,
        _ => false,
    };
    match run.plan.profile {
        Profile::Honest if is_simulated || is_outrun => Ok(()),
        Profile::Weak if is_simulated || is_listing || is_outrun => Ok(()),
        Profile::Hostile => Ok(()),
        _ => Err(format!("{verb} fails by itself: {error:?}")),
    }
}

/// A writer whose bytes can be had afterwards.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
