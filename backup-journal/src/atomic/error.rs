use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a file could not be written, read or swept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AtomicError {
    /// A create found something under this name; it is as durable as if it had been written now.
    #[error("{path:?} exists already")]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file to read.
    #[error("{path:?} does not exist")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// A symlink, a directory or a special file is in the place of the file; it was left as it is.
    #[error("{path:?} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The path does not end with a file name.
    #[error("{path:?} does not name a file")]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// The file is longer than the reader allows.
    #[error("{path:?} is longer than {len_max} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        len_max: u64,
    },
    /// No space or no quota left. The file is as it was before.
    #[error("no space left to {step} for {path:?}")]
    StorageFull {
        /// The file.
        path: PathBuf,
        /// What was being done.
        step: Step,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure.
    #[error("cannot {step} for {path:?}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        step: Step,
        /// What the system said.
        source: io::Error,
    },
}

/// The steps of the work, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Making the directories above the file, and making them durable.
    MakeDirectories,
    /// Opening the directory.
    OpenDirectory,
    /// Creating the temporary file.
    CreateTemporary,
    /// Writing the temporary file.
    Write,
    /// Setting the permissions of the temporary file.
    SetMode,
    /// Syncing the temporary file. It is discarded; writing again begins with a new one.
    SyncFile,
    /// Giving the file its name.
    Publish,
    /// Syncing the directory. The new file is visible, but a loss of power may undo it.
    SyncDirectory,
    /// Opening or reading the file.
    Read,
    /// Listing the directory.
    List,
    /// Removing a leftover.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MakeDirectories => "make the directories",
            Self::OpenDirectory => "open the directory",
            Self::CreateTemporary => "create a temporary file",
            Self::Write => "write the temporary file",
            Self::SetMode => "set the permissions",
            Self::SyncFile => "sync the temporary file",
            Self::Publish => "put the file in its place",
            Self::SyncDirectory => "sync the directory",
            Self::Read => "read the file",
            Self::List => "list the directory",
            Self::Remove => "remove a leftover",
        })
    }
}
