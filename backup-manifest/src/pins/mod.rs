mod check;
mod document;

use std::collections::BTreeMap;

use backup_core::{RepositoryId, SessionId};
use thiserror::Error;

pub use check::{ChainCell, PinFinding, PinReport};

/// The longest encoded [`Pins`], in bytes: about 100,000 sources.
pub const PINS_LEN_MAX: usize = 16 * 1024 * 1024;
/// How many ends of one source's chain are remembered.
pub const PINS_PER_SOURCE_MAX: usize = 64;

/// The newest snapshots that a client knows of each source of one repository: a store cannot show it an older state
/// unnoticed.
///
/// Each snapshot names the one before it of its source, and that one's hash. Whoever remembers the end of such a chain
/// notices when it is cut off later, or grew out of something else. Pins are that memory, a file of the client and
/// no object of the repository; [`Pins::check`] compares it with the cells that a store shows today.
///
/// **The newest.** A snapshot that no other names as the one before it is an end of the chain. Which one is newer is
/// never asked of a clock. Two backups at once, or a writer whose clock was wrong, leave more than one end, and ends
/// stay ends for ever: all of them are remembered, up to [`PINS_PER_SOURCE_MAX`].
///
/// **Forks.** Two backups of one source at the same time name the same predecessor, honestly; a store that shows a
/// writer an old state gets the same. That cannot be told apart, so it is a notice ([`PinFinding::TwoSuccessors`]),
/// given once. A cell that is another one than a client or a successor saw cannot happen to honest parties, and is an
/// alarm ([`PinFinding::ForkDetected`]).
///
/// **What is not noticed.** On a first look nothing is known ([`PinFinding::Unpinned`]): newer snapshots may have been
/// withheld. The same holds later for snapshots that this client never saw.
///
/// # The file
/// JSON of at most [`PINS_LEN_MAX`] bytes. Unknown fields are refused, sources and snapshots ascend strictly:
/// ```json
/// {
///   "version": 1,
///   "repository": "<32 hex>",
///   "sources": [ { "source": "home", "newest": [ { "id": "<session id>", "hash": "<64 hex>" } ] } ]
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    repository: RepositoryId,
    /// No source is without a snapshot, none has more than [`PINS_PER_SOURCE_MAX`].
    sources: BTreeMap<String, BTreeMap<SessionId, [u8; 32]>>,
}

/// A snapshot that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal")]
pub struct Pin {
    /// The snapshot.
    pub id: SessionId,
    /// BLAKE3 of its cell as stored.
    pub hash: [u8; 32],
}

/// Why pins cannot be written, read or compared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PinsError {
    /// The document is longer than [`PINS_LEN_MAX`].
    #[error("pins of {len} bytes are longer than {PINS_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The document has a version that this program does not know.
    #[error("pins have version {got}, this program knows version {expected}")]
    UnsupportedVersion {
        /// The version found.
        got: u64,
        /// The version known.
        expected: u64,
    },
    /// The document is not what it should be.
    #[error("pins are malformed: {reason}")]
    Malformed {
        /// The reason, which quotes nothing of the document.
        reason: String,
    },
    /// A field does not have its form, or a list does not ascend.
    #[error("pins have a bad field {field}")]
    BadField {
        /// The field.
        field: &'static str,
    },
    /// The pins are of another repository than the one in front of us.
    #[error("pins are of repository {pinned}, not of {found}")]
    OtherRepository {
        /// The repository that the pins are of.
        pinned: RepositoryId,
        /// The repository that was to be checked.
        found: RepositoryId,
    },
}

impl Pins {
    /// Nothing is known yet.
    pub fn new(repository: RepositoryId) -> Self {
        Self {
            repository,
            sources: BTreeMap::new(),
        }
    }

    /// The repository that these pins are of.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The names of the sources that are known, in order.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// The newest snapshots known of a source, by id.
    pub fn newest(&self, source: &str) -> impl Iterator<Item = Pin> {
        let pins = self.sources.get(source).into_iter().flatten();
        pins.map(|(&id, &hash)| Pin { id, hash })
    }

    /// Forgets a source, so that the next check takes it as it is; returns whether it was known.
    ///
    /// For somebody who found out why there was an alarm, and knows that what is left is what there is.
    pub fn forget(&mut self, source: &str) -> bool {
        self.sources.remove(source).is_some()
    }
}
