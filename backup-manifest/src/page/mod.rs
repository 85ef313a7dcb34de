//! Pages of items: the stream of a snapshot's items, cut into self-contained pieces.
//!
//! ```text
//! page  = level u8 (0) ‖ record count varint ‖ meta length varint ‖ meta ‖ ids (20 B each, in order)
//! meta  = lengths of columns 1 to 8, varints ‖ columns 0 to 9
//!  0 tags     one byte a record: kind (low 4 bits), INLINE, ATTRS
//!  1 times    one byte an item: how mtime (bits 0 and 1) and ctime (bits 2 and 3) are coded
//!  2 shared   varint: how many bytes the path shares with the path before it in the page
//!  3 suffixes varint: how many bytes follow those
//!  4 names    the suffixes
//!  5 lens     varint: length of content of a file, volume or stream; length of an extent
//!  6 mtimes   zigzag varint, as `times` says
//!  7 ctimes   zigzag varint, as `times` says
//!  8 inodes   zigzag varint: difference to the item before
//!  9 extra    what is rare: changed attributes, link targets, device numbers, offset of a continued item
//! ```
//!
//! Columns and not rows, because zstd then finds runs where rows would interleave them with noise; the ids are
//! noise altogether and stand apart. A page holds nothing that depends on records before its first one.

mod check;
mod read;
mod rules;
mod write;

use std::num::NonZeroU64;

use thiserror::Error;

use crate::item::{Extent, Item, ItemView};
use crate::path::{ItemPath, PathError, PathView};
use crate::wire::WireError;

pub use check::{StreamChecker, StreamError};
pub use read::PageReader;
pub use write::{PageWriter, WriteError};

/// The longest page or list that is read or written, in bytes: the longest [`PageParams::len_max`] and the longest
/// record fit.
pub const PAGE_LEN_MAX: usize = 2 * 1024 * 1024;
/// The [`Metadata::len`](crate::Metadata::len) of a stream whose length was not known when it began: its extents tell.
pub const LEN_OPEN: u64 = u64::MAX;

/// The longest piece of content that one data extent can name, in bytes; a chunk cannot be longer.
pub const EXTENT_DATA_LEN_MAX: u32 = 16 * 1024 * 1024;

/// How long pages become, in bytes. They tune; every setting gives valid pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "three sizes and no more: written as a literal"
)]
pub struct PageParams {
    /// No page ends before, but the last.
    pub len_min: usize,
    /// Pages are about this long.
    pub len_target: usize,
    /// A page ends with the record that reaches this. Used up to 512 KiB.
    pub len_max: usize,
}

impl Default for PageParams {
    /// 16, 64 and 256 KiB.
    fn default() -> Self {
        Self {
            len_min: 16 * 1024,
            len_target: 64 * 1024,
            len_max: 256 * 1024,
        }
    }
}

/// A finished page or list: the plaintext of one tree chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Page {
    /// What is stored.
    pub bytes: Vec<u8>,
    /// The path of the first item in it.
    pub first: ItemPath,
    /// 0, or where the content of that item goes on in this page.
    pub first_offset: u64,
}

/// One entry of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a further record is a further format version"
)]
pub enum Record {
    /// The first record of a page whose extents go on where the page before ended.
    Continued {
        /// The item they belong to.
        path: ItemPath,
        /// How many bytes of its content came before; at least 1.
        offset: u64,
    },
    /// An item; its extents follow.
    Item(Item),
    /// The next stretch of the item's content.
    Extent(Extent),
}

/// A borrowed [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "as Record")]
pub enum RecordView<'a> {
    /// See [`Record::Continued`].
    Continued {
        /// The item the extents belong to.
        path: PathView<'a>,
        /// How many bytes of its content came before; at least 1.
        offset: u64,
    },
    /// See [`Record::Item`].
    Item(ItemView<'a>),
    /// See [`Record::Extent`].
    Extent(Extent),
}

impl RecordView<'_> {
    /// Copies the record.
    pub fn to_record(&self) -> Record {
        match *self {
            Self::Continued { path, offset } => Record::Continued {
                path: path.to_path(),
                offset,
            },
            Self::Item(item) => Record::Item(item.to_item()),
            Self::Extent(extent) => Record::Extent(extent),
        }
    }
}

impl Record {
    /// Borrows the record.
    pub fn view(&self) -> RecordView<'_> {
        match self {
            Self::Continued { path, offset } => RecordView::Continued {
                path: path.view(),
                offset: *offset,
            },
            Self::Item(item) => RecordView::Item(item.view()),
            Self::Extent(extent) => RecordView::Extent(*extent),
        }
    }
}

/// Why a page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PageError {
    /// The page is longer than [`PAGE_LEN_MAX`].
    #[error("page of {len} bytes is longer than {PAGE_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The page is a list, or a list of another level.
    #[error("page of level {level} where one of level {expected} belongs")]
    WrongLevel {
        /// The level it states.
        level: u8,
        /// The level wanted.
        expected: u8,
    },
    /// The page holds nothing.
    #[error("page without records")]
    Empty,
    /// The bytes do not add up.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A record starts with a tag that has no meaning.
    #[error("unknown tag {tag:#04x} after {after}")]
    UnknownTag {
        /// The tag.
        tag: u8,
        /// The path before it.
        after: ItemPath,
    },
    /// A path is not valid.
    #[error("bad path after {after}")]
    BadPath {
        /// The path before it.
        after: ItemPath,
        /// What is wrong with it.
        source: PathError,
    },
    /// A path does not come after the one before it, or shares more with it than is said.
    #[error("path out of order after {after}")]
    OutOfOrder {
        /// The path before it.
        after: ItemPath,
    },
    /// An item follows one that is neither its directory nor inside its directory.
    #[error("item after {after} is not in a directory of this stream")]
    ParentMissing {
        /// The path before it.
        after: ItemPath,
    },
    /// The metadata of an item is not valid.
    #[error("bad {what} of {path}")]
    BadMetadata {
        /// The item.
        path: ItemPath,
        /// Which part of its metadata.
        what: &'static str,
    },
    /// The extents of an item do not add up to its length, or an extent stands where none belongs.
    #[error("extents of {path} do not add up to its length")]
    ContentMismatch {
        /// The item.
        path: ItemPath,
    },
    /// A continued item stands anywhere but at the start of a page, or at offset 0.
    #[error("{path} is continued in the wrong place")]
    BadContinuation {
        /// The item.
        path: ItemPath,
    },
}

/// Low four bits of a tag.
const TAG_KIND: u8 = 0x0f;
/// The content is one data extent: its id stands among the ids, and no extent record follows.
const TAG_INLINE: u8 = 0x10;
/// Some of mode, owner, group, device, xattrs differ from the item before; `extra` tells.
const TAG_ATTRS: u8 = 0x20;

const KIND_FILE: u8 = 0;
const KIND_DIRECTORY: u8 = 1;
const KIND_SYMLINK: u8 = 2;
const KIND_HARDLINK: u8 = 3;
const KIND_FIFO: u8 = 4;
const KIND_SOCKET: u8 = 5;
const KIND_CHAR_DEVICE: u8 = 6;
const KIND_BLOCK_DEVICE: u8 = 7;
const KIND_VOLUME: u8 = 8;
const KIND_STREAM: u8 = 9;
const KIND_DATA: u8 = 10;
const KIND_HOLE: u8 = 11;
const KIND_CONTINUED: u8 = 12;

/// The mtime is that of the item before.
const MTIME_SAME: u8 = 0;
/// Whole seconds, as difference to the seconds of the item before.
const MTIME_SECONDS: u8 = 1;
/// Nanoseconds, as difference to the item before.
const MTIME_NANOS: u8 = 2;
const MTIME_BITS: u8 = 0b11;

/// The ctime is that of the item before.
const CTIME_SAME: u8 = 0 << 2;
/// The ctime is the mtime.
const CTIME_MTIME: u8 = 1 << 2;
/// Nanoseconds, as difference to the item before.
const CTIME_NANOS: u8 = 2 << 2;
/// Nanoseconds, as difference to the item's own mtime.
const CTIME_AFTER: u8 = 3 << 2;

const ATTR_MODE: u8 = 1;
const ATTR_UID: u8 = 2;
const ATTR_GID: u8 = 4;
const ATTR_DEVICE: u8 = 8;
const ATTR_XATTRS: u8 = 16;
const ATTR_BITS: u8 = 31;

const COLUMNS: usize = 10;
/// For errors, and in the order of the columns.
const COLUMN_NAMES: [&str; COLUMNS] = [
    "tags", "times", "shared", "suffixes", "names", "lens", "mtimes", "ctimes", "inodes", "extra",
];

const SECOND_NS: i64 = 1_000_000_000;

/// What the next record is coded against; all zero at the start of a page.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// One per kind, since directories and files differ.
    modes: [u32; 16],
    uid: u32,
    gid: u32,
    device: u64,
    inode: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// What is still to come of an item's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing: the next record is an item.
    Complete,
    /// The item has just been named, this many bytes must follow.
    Unstarted(NonZeroU64),
    /// This many bytes must follow.
    Started(NonZeroU64),
    /// The page started in the middle of an item: up to this many bytes may follow.
    Unknown(u64),
    /// A stream whose length its extents tell: this many bytes came.
    Open(u64),
}

impl Content {
    fn of(len: u64) -> Self {
        if len == LEN_OPEN {
            return Self::Open(0);
        }
        NonZeroU64::new(len).map_or(Self::Complete, Self::Unstarted)
    }

    /// What is left after `len` bytes more; `None` when that is too much.
    fn after(self, len: u64) -> Option<Self> {
        match self {
            Self::Complete => None,
            Self::Unstarted(left) | Self::Started(left) => {
                let left = left.get().checked_sub(len)?;
                Some(NonZeroU64::new(left).map_or(Self::Complete, Self::Started))
            }
            Self::Unknown(room) => Some(Self::Unknown(room.checked_sub(len)?)),
            // Beyond LEN_OPEN no length could be told from an open one.
            Self::Open(done) => Some(Self::Open(
                done.checked_add(len).filter(|done| *done < LEN_OPEN)?,
            )),
        }
    }

    /// Whether the item has all its content.
    fn is_complete(self) -> bool {
        matches!(self, Self::Complete | Self::Open(_))
    }

    /// Whether an item may follow.
    fn may_end(self) -> bool {
        matches!(self, Self::Complete | Self::Unknown(_) | Self::Open(_))
    }
}
