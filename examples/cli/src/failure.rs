//! Why a command failed: in words, with every cause once, with a stable kind for machines and a hint for people.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use backup::Error;
use backup::backup_backend::{BackendError, ErrorKind};
use backup_journal::atomic::AtomicError;
use serde_json::{Value, json};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Library(#[from] Error),
    #[error("cannot use the place of the repository")]
    Place { source: BackendError },
    #[error("cannot use the store")]
    S3 {
        source: backup_backend_s3::ConfigError,
    },
    #[error("{path:?} holds no policies")]
    Policy {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("cannot make the cache directory {path:?}")]
    CacheDirectory { path: PathBuf, source: io::Error },
    #[error("packs are locked for longer than they stay at least: none could be deleted")]
    LockedLonger,
    #[error("cannot read or write the file of pins")]
    PinsFile { source: AtomicError },
    #[error("there is no place for the file of pins")]
    NoPinsFile,
    #[error("there is no access key for the store")]
    NoCredentials,
    #[error("the store took the wish to lock `config` and does not keep it")]
    LockIgnored,
    #[error("`{scheme}://` names a kind of store that this program does not know")]
    UnknownScheme { scheme: String },
    #[error("{place:?} holds something else already: {found:?}")]
    PlaceTaken { place: PathBuf, found: String },
    #[error("the key file {path:?} can be read by others (its mode is {mode:04o})")]
    KeyFileExposed { path: PathBuf, mode: u32 },
    #[error("{path:?} is no key file: it must hold 32 bytes, or 64 hexadecimal digits")]
    NotAKey { path: PathBuf },
    #[error("cannot write the key file")]
    WriteKey { source: AtomicError },
    #[error("cannot read {what} {path:?}")]
    Read {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot run the passphrase command")]
    RunCommand { source: io::Error },
    #[error("the passphrase command failed: {status}")]
    CommandFailed { status: String },
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    #[error("the two passphrases differ")]
    PassphrasesDiffer,
    #[error("the passphrase cannot be asked for: there is no terminal")]
    NoTerminal { source: io::Error },
    #[error("bad exclude pattern `{pattern}`")]
    Pattern {
        pattern: String,
        source: ignore::Error,
    },
    #[error("{path:?} is a {what}, which cannot be backed up by itself")]
    UnsuitableSource { path: PathBuf, what: &'static str },
    #[error("bad path {path:?}")]
    Path {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot restore this to {target:?}: {reason}")]
    UnsuitableTarget {
        target: PathBuf,
        reason: &'static str,
    },
    #[error("{count} key slots have a name that begins with `{slot}`")]
    SlotNotFound { slot: String, count: usize },
    #[error("no directory of 20 to 500 MB was found to show the work on")]
    NothingToShow,
    #[error("{path:?} has room for {free} bytes only; about {wanted} are needed")]
    NoRoom {
        path: PathBuf,
        free: u64,
        wanted: u64,
    },
    #[error("what was restored differs from the source in {count} places")]
    Differs { count: u64 },
    #[error("cannot write the output")]
    Output { source: io::Error },
    #[error("cannot start")]
    Runtime { source: io::Error },
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// The message and its causes, without repetition.
    pub(crate) fn messages(&self) -> Vec<String> {
        let mut messages = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !messages.iter().any(|said| said.contains(&text)) {
                messages.push(text);
            }
            cause = error.source();
        }
        messages
    }

    /// The failure for machines. `kind` is stable.
    pub(crate) fn document(&self) -> Value {
        let mut messages = self.messages().into_iter();
        json!({
            "error": {
                "kind": self.kind(),
                "message": messages.next(),
                "causes": messages.collect::<Vec<_>>(),
                "hint": self.hint(),
            }
        })
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Library(error) => library_kind(error),
            Self::Place { source } => store_kind(source.kind()),
            Self::S3 { .. } => "store_configuration",
            Self::Policy { .. } => "bad_policy",
            Self::CacheDirectory { .. } => "cache_directory",
            Self::LockedLonger => "locked_longer",
            Self::PinsFile { .. } | Self::NoPinsFile => "pins_file",
            Self::NoCredentials => "no_credentials",
            Self::LockIgnored => "lock_ignored",
            Self::UnknownScheme { .. } => "unknown_scheme",
            Self::PlaceTaken { .. } => "place_taken",
            Self::KeyFileExposed { .. } => "key_file_exposed",
            Self::NotAKey { .. } => "not_a_key",
            Self::WriteKey { .. } => "key_file_not_written",
            Self::Read { .. } => "unreadable",
            Self::RunCommand { .. } | Self::CommandFailed { .. } => "passphrase_command",
            Self::EmptyPassphrase => "empty_passphrase",
            Self::PassphrasesDiffer => "passphrases_differ",
            Self::NoTerminal { .. } => "no_terminal",
            Self::Pattern { .. } => "bad_pattern",
            Self::UnsuitableSource { .. } => "unsuitable_source",
            Self::Path { .. } => "bad_path",
            Self::UnsuitableTarget { .. } => "unsuitable_target",
            Self::SlotNotFound { .. } => "slot_not_found",
            Self::NothingToShow => "nothing_to_show",
            Self::NoRoom { .. } => "no_room",
            Self::Differs { .. } => "differs",
            Self::Output { .. } => "output",
            Self::Runtime { .. } => "runtime",
            Self::Interrupted => "interrupted",
        }
    }

    /// What to do, where the message does not say it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Library(error) => return library_hint(error),
            Self::Place { source } if source.kind() == ErrorKind::NoSuchBucket => {
                "make a repository with `backup --repo PATH init`, or correct the path"
            }
            Self::NoCredentials => {
                "name a file with --s3-credentials, set BACKUP_S3_KEY_ID and BACKUP_S3_SECRET, or use --s3-aws-env"
            }
            Self::Policy { .. } => "`backup forget --help` shows what FILE may hold",
            Self::CacheDirectory { .. } => "name another --cache-dir, or go without: --no-cache",
            Self::LockedLonger => "give a --pack-age-min of at least the days of --s3-lock",
            Self::PinsFile { .. } | Self::NoPinsFile => "name another --file",
            Self::LockIgnored => "make the bucket with object lock, or go without --s3-lock",
            Self::UnknownScheme { .. } => "give a directory, or s3://BUCKET/PREFIX",
            Self::PlaceTaken { .. } => "name a directory that is empty or does not exist",
            Self::KeyFileExposed { .. } => "take the rights of others away: chmod 600 FILE",
            Self::NotAKey { .. } => "make one with `backup key generate FILE`",
            Self::WriteKey {
                source: AtomicError::AlreadyExists { .. },
            } => "name another file; a key that exists is never overwritten",
            Self::NoTerminal { .. } => {
                "use --key-file, --passphrase-file or --passphrase-command, or set BACKUP_KEY_FILE or BACKUP_PASSPHRASE"
            }
            Self::UnsuitableSource { .. } => "pipe its content in: `backup backup --name NAME -`",
            Self::SlotNotFound { .. } => "`backup key list` shows them",
            Self::NothingToShow => "name one: `backup demo DIR`",
            Self::NoRoom { .. } => "name another place with --dir, or a smaller directory",
            _ => return None,
        })
    }
}

/// A stable word for each error of the library.
fn library_kind(error: &Error) -> &'static str {
    match error {
        Error::Backend(error) => store_kind(error.kind()),
        Error::NotARepository => "not_a_repository",
        Error::RepositoryExists => "repository_exists",
        Error::WrongSecret { .. } => "wrong_secret",
        Error::WrongKey => "wrong_key",
        Error::RepositoryMismatch { .. } => "repository_mismatch",
        Error::NewerFormat { .. } => "newer_format",
        Error::Damaged { .. } => "damaged",
        Error::MissingChunk { .. } => "missing_chunk",
        Error::WrongChunk { .. } => "wrong_chunk",
        Error::Key(_) => "key",
        Error::SnapshotNotFound { .. } => "snapshot_not_found",
        Error::SnapshotAmbiguous { .. } => "snapshot_ambiguous",
        Error::SnapshotDropped { .. } => "snapshot_dropped",
        Error::SnapshotHeld { .. } => "snapshot_held",
        Error::LastSnapshot { .. } => "last_snapshot",
        Error::TooMuch { .. } => "too_much",
        Error::Retention(_) => "bad_policy",
        Error::Suspicious { .. } => "suspicious",
        Error::UnsafeStore { .. } => "unsafe_store",
        Error::NoTimes => "no_times",
        Error::PathNotFound { .. } => "path_not_found",
        Error::Source { .. } => "source",
        Error::Target { .. } => "target",
        Error::TargetNotEmpty { .. } => "target_not_empty",
        Error::UnsuitableTarget { .. } => "unsuitable_target",
        Error::BadOption { .. } => "bad_option",
        Error::Stopped => "stopped",
        Error::SessionAborted { .. } => "session_aborted",
        Error::Copy { source, .. } => library_kind(source),
        Error::NoEntropy => "no_entropy",
        Error::WorkerLost => "worker_lost",
        _ => "other",
    }
}

fn library_hint(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::NotARepository => "make one with `backup --repo PATH init`, or correct the path",
        Error::WrongSecret { .. } => "give another --key-file or passphrase",
        Error::Damaged { .. } | Error::WrongChunk { .. } | Error::MissingChunk { .. } => {
            "`backup verify --data` tells which snapshots are hurt"
        }
        Error::SnapshotNotFound { .. } | Error::SnapshotAmbiguous { .. } => {
            "`backup snapshots` shows them, with --forgotten those that were given up"
        }
        Error::SnapshotDropped { .. } => "`backup snapshots` shows what there is",
        Error::SnapshotHeld { .. } => "`backup release SNAPSHOT` ends the hold",
        Error::LastSnapshot { .. } => "--force gives it up all the same",
        Error::TooMuch { .. } => {
            "--dry-run --force shows what would go; --max-forget-percent allows more, --force any number"
        }
        Error::Retention(_) => {
            "give each source a rule that keeps something, or name the only one that is meant with --source"
        }
        Error::Suspicious { .. } => {
            "`backup verify` tells what is hurt, `backup gc --dry-run --force` what would go; if all is as it should be, \
             --max-delete-percent allows a larger share, and --force leaves out the question"
        }
        Error::UnsafeStore { .. } => {
            "stop everything that uses the repository, then run `backup gc --exclusive`"
        }
        Error::PathNotFound { .. } => "`backup ls SNAPSHOT` shows what it holds",
        Error::TargetNotEmpty { .. } => "--into-existing allows it",
        Error::Copy { source, .. } => return library_hint(source),
        Error::Stopped => "run the same command again",
        _ => return None,
    })
}

fn store_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "store_not_found",
        ErrorKind::AlreadyExists => "store_already_exists",
        ErrorKind::PermissionDenied => "store_permission_denied",
        ErrorKind::Unauthenticated => "store_unauthenticated",
        ErrorKind::NoSuchBucket => "store_no_such_bucket",
        ErrorKind::Throttled => "store_throttled",
        ErrorKind::TimedOut => "store_timed_out",
        ErrorKind::Unavailable => "store_unavailable",
        ErrorKind::StorageFull => "store_full",
        ErrorKind::Corrupt => "store_corrupt",
        ErrorKind::InvalidRange => "store_invalid_range",
        ErrorKind::InvalidInput => "store_invalid_input",
        ErrorKind::NotSupported => "store_not_supported",
        ErrorKind::ClockSkew => "store_clock_skew",
        ErrorKind::Io => "store_io",
        _ => "store",
    }
}
