//! Why a verb could not do its work.

use std::path::PathBuf;

use backup_backend::{BackendError, ErrorKind};
use backup_core::{ChunkId, RepositoryId, SessionId};

/// Why a verb could not do its work. Findings (damage, skipped files) are in reports, not here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused or failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// There is no repository at this place.
    #[error("there is no repository here: no object `config` (create one first)")]
    NotARepository,
    /// There is a repository at this place already.
    #[error("there is a repository here already: it is left as it is")]
    RepositoryExists,
    /// No key slot opens with the secret given.
    #[error("the passphrase or key opens none of the {slots} key slots")]
    WrongSecret {
        /// How many slots were tried.
        slots: usize,
    },
    /// The master key does not belong to this repository's configuration.
    #[error("the key does not belong to this repository")]
    WrongKey,
    /// The repository is another than the one expected.
    #[error("this is repository {found}, not {expected}: was the store swapped?")]
    RepositoryMismatch {
        /// The one that the caller or the key slot names.
        expected: RepositoryId,
        /// The one that the store shows.
        found: RepositoryId,
    },
    /// The repository, or an object of it, was written by a newer version.
    #[error(
        "{object} has format version {got}; this program reads up to {supported}: use a newer one"
    )]
    NewerFormat {
        /// Which object.
        object: String,
        /// Its version.
        got: u64,
        /// The highest version that is understood.
        supported: u64,
    },
    /// An object is there, but its bytes are not what was written.
    #[error("{object} is damaged")]
    Damaged {
        /// Its name.
        object: String,
        /// What the check said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A chunk that a snapshot needs is in no pack.
    #[error("chunk {chunk} is in no pack of the repository: run verify to see what is hurt")]
    MissingChunk {
        /// Which one.
        chunk: ChunkId,
    },
    /// The bytes found under a chunk's name are other bytes.
    #[error("pack {pack} holds other bytes under the name of chunk {chunk}")]
    WrongChunk {
        /// Which one was asked for.
        chunk: ChunkId,
        /// Where it was looked for.
        pack: backup_core::PackId,
    },
    /// The keys given cannot do this.
    #[error(transparent)]
    Key(#[from] backup_core::KeyError),
    /// No snapshot has this name.
    #[error("no snapshot matches `{}`", name.escape_debug())]
    SnapshotNotFound {
        /// What was asked for.
        name: String,
    },
    /// More than one snapshot has a name that begins so.
    #[error("`{}` matches {count} snapshots: give more of the name", name.escape_debug())]
    SnapshotAmbiguous {
        /// What was asked for.
        name: String,
        /// How many match.
        count: usize,
    },
    /// The snapshot was given up, and a collector has begun to take what only it needs.
    #[error("snapshot {snapshot} was dropped for good: it is too late to have it back")]
    SnapshotDropped {
        /// Which one.
        snapshot: SessionId,
    },
    /// The snapshot is held.
    #[error("snapshot {snapshot} is held: release it first")]
    SnapshotHeld {
        /// Which one.
        snapshot: SessionId,
    },
    /// It is the last complete snapshot of its source.
    #[error(
        "snapshot {snapshot} is the last complete one of its source: force it if that is meant"
    )]
    LastSnapshot {
        /// Which one.
        snapshot: SessionId,
    },
    /// A policy would give up more than is allowed.
    #[error(
        "{percent} % of the snapshots of {source_name:?} would be given up, more than {percent_max} %: \
         nothing was; allow more or force it if that is meant"
    )]
    TooMuch {
        /// The source.
        source_name: String,
        /// Which share would go.
        percent: u8,
        /// The share allowed.
        percent_max: u8,
    },
    /// What is remembered of the repository cannot be compared with it.
    #[error(transparent)]
    Pins(#[from] backup_manifest::PinsError),
    /// A policy cannot work.
    #[error(transparent)]
    Retention(#[from] backup_manifest::RetentionError),
    /// The snapshot does not hold this path.
    #[error("the snapshot holds no `{path}`")]
    PathNotFound {
        /// What was asked for.
        path: String,
    },
    /// The source could not be read at all.
    #[error("cannot read the source {path:?}")]
    Source {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The target could not be written.
    #[error("cannot {action} {path:?}")]
    Target {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The target holds something already.
    #[error("{path:?} is not empty: name another target, or allow writing into it")]
    TargetNotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// The snapshot cannot be restored to this kind of target.
    #[error("cannot restore this: {reason}")]
    UnsuitableTarget {
        /// Why.
        reason: String,
    },
    /// An option's value cannot work.
    #[error("option {option}: {reason}")]
    BadOption {
        /// Its name.
        option: &'static str,
        /// Why not.
        reason: String,
    },
    /// The observer asked to stop. What was uploaded stays and is found by the next run.
    #[error("stopped as asked; the next run goes on from what was stored")]
    Stopped,
    /// A collector took this session for dead. Nothing is lost: run again, what was stored is found.
    #[error("session {session} was aborted by a collector: run again, what was stored is found")]
    SessionAborted {
        /// Which one.
        session: SessionId,
    },
    /// Garbage collection saw something that it must not decide upon. Nothing was deleted on the ground of it.
    #[error("nothing was deleted: {reason}")]
    Suspicious {
        /// What it saw, and what to do.
        reason: String,
    },
    /// The store does not keep what safe garbage collection needs.
    #[error(
        "this store does not keep {missing}, which collecting garbage beside writers needs: \
         stop every other program that uses the repository and say so (option exclusive)"
    )]
    UnsafeStore {
        /// Which promise.
        missing: &'static str,
    },
    /// The store does not say when it received an object.
    #[error(
        "this store does not say when it received an object, by which snapshots and garbage are given up"
    )]
    NoTimes,
    /// A snapshot could not be copied, since a store refused or failed.
    #[error("cannot copy snapshot {snapshot}")]
    Copy {
        /// Which one.
        snapshot: SessionId,
        /// Why.
        source: Box<Error>,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoEntropy,
    /// A worker thread ended without a result.
    #[error("a worker thread was lost (panic or shutdown of the runtime)")]
    WorkerLost,
}

impl Error {
    pub(crate) fn damaged(
        object: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Damaged {
            object: object.into(),
            source: source.into(),
        }
    }

    pub(crate) fn suspicious(reason: impl Into<String>) -> Self {
        Self::Suspicious {
            reason: reason.into(),
        }
    }

    /// Whether trying again later may help without a change by anybody.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Backend(error) => error.kind().is_retryable(),
            Self::Copy { source, .. } => source.is_retryable(),
            Self::Stopped | Self::SessionAborted { .. } => true,
            _ => false,
        }
    }

    /// The error and its causes, in one line.
    pub(crate) fn explain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// Whether something is not where it was thought to be, as when a collector has moved it.
    pub(crate) fn is_moved(&self) -> bool {
        matches!(self, Self::MissingChunk { .. }) || self.is_not_found()
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Backend(error) if error.kind() == ErrorKind::NotFound)
    }
}
