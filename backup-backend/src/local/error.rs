use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::{BackendError, ErrorKind};

/// A file system call that failed, and which step of the work it was.
#[derive(Debug)]
pub(super) struct StepError {
    pub(super) errno: Errno,
    pub(super) kind: ErrorKind,
    step: &'static str,
    source: io::Error,
}

impl StepError {
    pub(super) fn into_backend(self, operation: &'static str, key: &str) -> BackendError {
        BackendError::new(self.kind, operation, key).with_source(self)
    }
}

/// For `map_err`: names the step.
pub(super) fn at(step: &'static str) -> impl Fn(Errno) -> StepError {
    move |errno| StepError {
        errno,
        kind: kind_of(errno),
        step,
        source: errno.into(),
    }
}

/// For `map_err` after fsync: whatever it was, what was written before it is lost, so it is never worth a retry.
pub(super) fn at_sync(step: &'static str) -> impl Fn(Errno) -> StepError {
    move |errno| {
        let full = matches!(errno, Errno::NOSPC | Errno::DQUOT);
        let kind = if full {
            ErrorKind::StorageFull
        } else {
            ErrorKind::Io
        };
        StepError {
            errno,
            kind,
            step,
            source: errno.into(),
        }
    }
}

/// What an error number means to a caller.
pub(super) fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::EXIST => ErrorKind::AlreadyExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::PermissionDenied,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::StorageFull,
        // A symlink, or a way out of the root, where an object or a folder should be.
        Errno::LOOP => ErrorKind::Corrupt,
        Errno::NOTDIR | Errno::ISDIR | Errno::NAMETOOLONG | Errno::FBIG | Errno::INVAL => {
            ErrorKind::InvalidInput
        }
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::BUSY => {
            ErrorKind::Unavailable
        }
        Errno::TIMEDOUT => ErrorKind::TimedOut,
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV => ErrorKind::NotSupported,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.step)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
