use backup_core::ChunkId;
use thiserror::Error;

use crate::cut;
use crate::page::{PAGE_LEN_MAX, Page, PageParams};
use crate::path::{ItemPath, PATH_LEN_MAX, PathError, rank, shared_len};
use crate::wire::{Cursor, WireError, put_varint};

/// The highest level of a list: 16 entries or more a list and about 800 in practice: more than anyone can store.
pub const LEVEL_MAX: u8 = 8;
/// The paths of one list together, in bytes, past which it is refused: front coding could make them far longer than
/// the list itself.
const PATHS_LEN_MAX: usize = 16 * 1024 * 1024;
/// A list with so many bytes of paths is ended; leaves room for one more path.
const PATHS_LEN_CUT: usize = 4 * 1024 * 1024;
/// No list but the last of its level has fewer entries, so that levels shrink whatever the paths are.
const ENTRIES_MIN: usize = 16;
/// An id and four varints.
const ENTRY_LEN_MIN: usize = ChunkId::LEN + 4;
/// Bytes that an entry takes on average; only tunes how long lists become.
const ENTRY_LEN_TYPICAL: usize = 72;

/// Names one stored page or list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "what a caller knows of a stored page: written as a literal"
)]
pub struct TreeRef {
    /// The tree chunk.
    pub id: ChunkId,
    /// Its plaintext in bytes; 1 to [`PAGE_LEN_MAX`].
    pub len: u32,
    /// [`Page::first`] of it.
    pub first: ItemPath,
    /// [`Page::first_offset`] of it.
    pub first_offset: u64,
}

/// Why a list cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ListError {
    /// The list is longer than allowed.
    #[error("list of {len} bytes is longer than {len_max}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest allowed.
        len_max: usize,
    },
    /// The list is of another level than the one above promises, or of a level that does not exist.
    #[error("list of level {level} where one of level {expected} belongs")]
    WrongLevel {
        /// The level found.
        level: u8,
        /// The level wanted.
        expected: u8,
    },
    /// The list has no entries.
    #[error("list without entries")]
    Empty,
    /// The bytes do not add up.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A path is not valid.
    #[error("bad path after {after}")]
    BadPath {
        /// The path before it.
        after: ItemPath,
        /// What is wrong with it.
        source: PathError,
    },
    /// An entry does not come after the one before it.
    #[error("entry out of order after {after}")]
    OutOfOrder {
        /// The path before it.
        after: ItemPath,
    },
    /// An entry states a length that no page has.
    #[error("entry for {path} states a length of {len} bytes")]
    BadLength {
        /// Its first path.
        path: ItemPath,
        /// The length stated.
        len: u64,
    },
    /// The paths of the list are too long together.
    #[error("paths of a list are longer than {PATHS_LEN_MAX} bytes together")]
    PathsTooLong,
}

/// Turns the references to one level's pages into the lists of the level above.
#[derive(Debug)]
pub struct ListWriter {
    pub(crate) level: u8,
    len_min: usize,
    len_max: usize,
    threshold: u64,
    entries: Entries,
    /// Where the entry pushed last starts, so that order is checked from list to list too.
    last: Option<(ItemPath, u64)>,
}

impl ListWriter {
    /// A writer of lists of `level`, whose entries are pages of items (1) or lists of `level` - 1.
    ///
    /// # Errors
    /// [`ListError::WrongLevel`] when it is not 1 to [`LEVEL_MAX`].
    pub fn new(level: u8, params: PageParams) -> Result<Self, ListError> {
        check_level(level, LEVEL_MAX)?;
        let len_max = params.len_max.min(PAGE_LEN_MAX / 4);
        let len_min = params.len_min.min(len_max);
        let span = params.len_target.saturating_sub(len_min);
        Ok(Self {
            level,
            len_min,
            len_max,
            threshold: cut::threshold(span / ENTRY_LEN_TYPICAL),
            entries: Entries::default(),
            last: None,
        })
    }

    /// Appends an entry; returns a list when one became complete.
    ///
    /// # Errors
    /// [`ListError`] when the entry does not come after the one before it, or its length is none.
    pub fn push(&mut self, entry: &TreeRef) -> Result<Option<Page>, ListError> {
        if let Some((path, offset)) = &self.last
            && (path, *offset) >= (&entry.first, entry.first_offset)
        {
            let after = path.clone();
            return Err(ListError::OutOfOrder { after });
        }
        self.entries.push(entry)?;
        self.last = Some((entry.first.clone(), entry.first_offset));
        let len = self.entries.bytes.len();
        let first8 = entry.id.as_bytes().first_chunk().copied();
        let here = len >= self.len_max
            || self.entries.paths_len >= PATHS_LEN_CUT
            || len >= self.len_min
                && u64::from_le_bytes(first8.unwrap_or_default()) <= self.threshold;
        if here && self.entries.count >= ENTRIES_MIN {
            return Ok(self.take());
        }
        Ok(None)
    }

    /// Ends the level; returns the last list, or `None` when nothing is left over.
    ///
    /// # Errors
    /// None today.
    pub fn finish(mut self) -> Result<Option<Page>, ListError> {
        Ok(self.take())
    }

    /// Ends the list.
    pub(crate) fn take(&mut self) -> Option<Page> {
        let (first, first_offset) = self.entries.first.take()?;
        Some(Page {
            bytes: self.entries.take(self.level),
            first,
            first_offset,
        })
    }

    /// Whether entries wait for their list to become complete.
    pub(crate) fn is_pending(&self) -> bool {
        self.entries.count > 0
    }

    /// The list as it would be if it ended here.
    pub(crate) fn pending(&self) -> Vec<u8> {
        self.entries.clone().take(self.level)
    }
}

/// Reads a list of `level` `expected_level` (1 or more). Its entries are of the level below, so a reader that counts
/// down ends after [`LEVEL_MAX`] steps whatever the lists say.
///
/// # Errors
/// [`ListError`] says what is wrong.
pub fn decode_list(bytes: &[u8], expected_level: u8) -> Result<Vec<TreeRef>, ListError> {
    check_len(bytes, PAGE_LEN_MAX)?;
    let level = bytes.first().copied().unwrap_or_default();
    if level != expected_level {
        return Err(ListError::WrongLevel {
            level,
            expected: expected_level,
        });
    }
    check_level(level, LEVEL_MAX)?;
    let refs = decode_entries(bytes)?;
    if refs.is_empty() {
        return Err(ListError::Empty);
    }
    Ok(refs)
}

/// Entries of a list on their way into bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    count: usize,
    bytes: Vec<u8>,
    path: Vec<u8>,
    offset: u64,
    paths_len: usize,
    first: Option<(ItemPath, u64)>,
}

impl Entries {
    /// Appends an entry:
    /// `id 20 ‖ len varint ‖ shared varint ‖ suffix length varint ‖ suffix ‖ first_offset varint`.
    pub(crate) fn push(&mut self, entry: &TreeRef) -> Result<(), ListError> {
        if entry.len == 0 || entry.len as usize > PAGE_LEN_MAX {
            return Err(ListError::BadLength {
                path: entry.first.clone(),
                len: u64::from(entry.len),
            });
        }
        let path = entry.first.as_bytes();
        let shared = shared_len(&self.path, path);
        let suffix = path.get(shared..).unwrap_or_default();
        let ordered = self.count == 0
            || is_ordered(&self.path, shared, suffix, entry.first_offset > self.offset);
        if !ordered {
            return Err(ListError::OutOfOrder {
                after: ItemPath::from_bytes(self.path.as_slice()).unwrap_or_default(),
            });
        }
        self.bytes.extend_from_slice(entry.id.as_bytes());
        put_varint(&mut self.bytes, u64::from(entry.len));
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, suffix.len() as u64);
        self.bytes.extend_from_slice(suffix);
        put_varint(&mut self.bytes, entry.first_offset);
        if self.count == 0 {
            self.first = Some((entry.first.clone(), entry.first_offset));
        }
        self.count += 1;
        self.path.truncate(shared);
        self.path.extend_from_slice(suffix);
        self.offset = entry.first_offset;
        self.paths_len += path.len();
        Ok(())
    }

    /// The whole list; nothing is pending afterwards.
    pub(crate) fn take(&mut self, level: u8) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 10 + self.bytes.len());
        bytes.push(level);
        put_varint(&mut bytes, self.count as u64);
        bytes.extend_from_slice(&self.bytes);
        self.count = 0;
        self.bytes.clear();
        self.path.clear();
        self.offset = 0;
        self.paths_len = 0;
        self.first = None;
        bytes
    }
}

pub(crate) fn decode_entries(bytes: &[u8]) -> Result<Vec<TreeRef>, ListError> {
    let mut cursor = Cursor::new(bytes, "list");
    cursor.byte()?;
    let count = cursor.count(ENTRY_LEN_MIN)?;
    let mut refs = Vec::with_capacity(count);
    let mut before = ItemPath::root();
    let mut offset_before = 0;
    let mut paths_len = 0;
    for index in 0..count {
        let id = ChunkId::from_bytes(*cursor.array()?);
        let len = cursor.varint()?;
        let shared = cursor.varint_max(before.as_bytes().len() as u64)? as usize;
        let suffix_len = cursor.varint_max(PATH_LEN_MAX as u64)? as usize;
        let suffix = cursor.bytes(suffix_len)?;
        let first_offset = cursor.varint()?;
        paths_len += shared + suffix.len();
        if paths_len > PATHS_LEN_MAX {
            return Err(ListError::PathsTooLong);
        }
        let further = first_offset > offset_before;
        if index > 0 && !is_ordered(before.as_bytes(), shared, suffix, further) {
            return Err(ListError::OutOfOrder { after: before });
        }
        let mut path = Vec::with_capacity(shared + suffix.len());
        path.extend_from_slice(before.as_bytes().get(..shared).unwrap_or_default());
        path.extend_from_slice(suffix);
        let first = match ItemPath::from_bytes(path) {
            Ok(first) => first,
            Err(source) => {
                return Err(ListError::BadPath {
                    after: before,
                    source,
                });
            }
        };
        let len = match u32::try_from(len) {
            Ok(len) if len > 0 && len as usize <= PAGE_LEN_MAX => len,
            _ => return Err(ListError::BadLength { path: first, len }),
        };
        before.clone_from(&first);
        offset_before = first_offset;
        refs.push(TreeRef {
            id,
            len,
            first,
            first_offset,
        });
    }
    cursor.finish()?;
    Ok(refs)
}

/// Whether `shared` bytes of `before` and `suffix` make a later path, or the same one when its offset is `further`;
/// and no more bytes than `shared` are the same.
fn is_ordered(before: &[u8], shared: usize, suffix: &[u8], further: bool) -> bool {
    match before.get(shared) {
        None if suffix.is_empty() => further,
        byte => rank(byte) < rank(suffix.first()),
    }
}

pub(crate) fn check_level(level: u8, expected: u8) -> Result<(), ListError> {
    if (1..=LEVEL_MAX).contains(&level) {
        Ok(())
    } else {
        Err(ListError::WrongLevel { level, expected })
    }
}

pub(crate) fn check_len(bytes: &[u8], len_max: usize) -> Result<(), ListError> {
    if bytes.len() > len_max {
        return Err(ListError::TooLong {
            len: bytes.len(),
            len_max,
        });
    }
    Ok(())
}
