use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What went wrong in a store, as far as a caller would act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object has this key.
    NotFound,
    /// A create found an object under its key; that object is as durable as a finished put.
    AlreadyExists,
    /// The store knows who asks and refuses.
    PermissionDenied,
    /// The store does not know who asks: credentials are missing, wrong or expired.
    Unauthenticated,
    /// The bucket, or the root directory, is not there.
    NoSuchBucket,
    /// Too many requests; see [`BackendError::retry_after`].
    Throttled,
    /// No answer in time. The effect may have happened, or may still happen.
    TimedOut,
    /// The store cannot serve now: a 5xx answer, a lost connection, no file descriptors left.
    Unavailable,
    /// No space or no quota left.
    StorageFull,
    /// What the store holds or returned is not what it said: a short read, a symlink among the objects.
    Corrupt,
    /// The range does not lie within the object.
    InvalidRange,
    /// The store can never do this: an object too large, a key that is also a folder.
    InvalidInput,
    /// The store lacks the operation.
    NotSupported,
    /// The store refuses because the clocks differ too much.
    ClockSkew,
    /// Any other failure, as of the disk; the source says which.
    Io,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::TimedOut | Self::Unavailable)
    }

    // What happened, and what the reader of the message can do about it.
    fn remedy(self) -> &'static str {
        match self {
            Self::NotFound => "no such object",
            Self::AlreadyExists => {
                "an object with this key exists; choose another key or delete it first"
            }
            Self::PermissionDenied => {
                "permission denied; check the rights of the account or of the directory"
            }
            Self::Unauthenticated => "not authenticated; renew the credentials",
            Self::NoSuchBucket => {
                "the bucket or root directory does not exist; create it or correct its name"
            }
            Self::Throttled => "too many requests; try again later or lower the rate",
            Self::TimedOut => "timed out; try again, or check the connection",
            Self::Unavailable => "the store is not available now; try again later",
            Self::StorageFull => "no space left; free space or raise the quota",
            Self::Corrupt => "the store holds or returned something damaged; check the store",
            Self::InvalidRange => "the range does not lie within the object",
            Self::InvalidInput => "the store cannot accept this; change the request",
            Self::NotSupported => "the store does not support this operation; choose another store",
            Self::ClockSkew => "the clocks differ too much; set the clock of this machine",
            Self::Io => "input or output failed; check the disk and the system log",
        }
    }
}

/// One failed call: its kind, operation and key. The cause, if there is one, is the error's `source` and is not
/// repeated in its text.
pub struct BackendError {
    kind: ErrorKind,
    operation: &'static str,
    key: String,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BackendError {
    /// An error of `operation` (`"put"`, `"list"`) on a key or prefix.
    pub fn new(kind: ErrorKind, operation: &'static str, key: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            key: key.into(),
            retry_after: None,
            source: None,
        }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Keeps how long the store asked to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The key or prefix it was about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How long the store asked to be left alone, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} {:?}: {}",
            self.operation,
            self.key,
            self.kind.remedy()
        )
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("BackendError");
        debug
            .field("kind", &self.kind)
            .field("operation", &self.operation)
            .field("key", &self.key);
        if let Some(delay) = &self.retry_after {
            debug.field("retry_after", delay);
        }
        if let Some(source) = &self.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn Error + 'static))
    }
}
