use backup_core::ChunkId;

use crate::path::{ItemPath, PathView};
use crate::wire::Cursor;

/// The bits of [`Metadata::mode`] that are kept: permissions, set-id and sticky bits.
pub const MODE_MAX: u32 = 0o7777;
/// The longest target of a symbolic link, in bytes.
pub const TARGET_LEN_MAX: usize = 64 * 1024;
/// The longest name of an extended attribute, in bytes. Source: Linux `XATTR_NAME_MAX`.
pub const XATTR_NAME_LEN_MAX: usize = 255;
/// The longest value of an extended attribute, in bytes. Source: Linux `XATTR_SIZE_MAX`.
pub const XATTR_VALUE_LEN_MAX: usize = 64 * 1024;
/// The longest all extended attributes of one item may be together, names and values, in bytes.
pub const XATTRS_LEN_MAX: usize = 1024 * 1024;

/// One thing in a snapshot: a file, a directory, a link, a device, or a volume or stream as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it stands below the root of the snapshot.
    pub path: ItemPath,
    /// What it is.
    pub kind: ItemKind,
    /// What is known about it besides its content.
    pub meta: Metadata,
}

/// What an item is, with what only this kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a further kind is a further format version, and a restore must not overlook it"
)]
pub enum ItemKind {
    /// A regular file; extents follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points: any bytes but NUL, not empty, at most [`TARGET_LEN_MAX`].
        target: Vec<u8>,
    },
    /// A further name of a file that comes earlier in the same snapshot.
    Hardlink {
        /// The first name; ordered before this item's.
        target: ItemPath,
    },
    /// A named pipe.
    Fifo,
    /// A socket in the file system.
    Socket,
    /// A character device.
    CharDevice {
        /// The driver.
        major: u32,
        /// The unit.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The driver.
        major: u32,
        /// The unit.
        minor: u32,
    },
    /// The bytes of a whole volume; extents follow.
    Volume,
    /// The bytes of a stream; extents follow.
    Stream,
}

/// What is known about an item besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits only, at most [`MODE_MAX`].
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When anything changed last, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// The inode number.
    pub inode: u64,
    /// The device the item was on.
    pub device: u64,
    /// Bytes of content, holes included; 0 for kinds without content.
    pub len: u64,
    /// Extended attributes, strictly ascending by name.
    pub xattrs: Vec<Xattr>,
}

/// One extended attribute. `Debug` shows no value, which may be a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// 1 to [`XATTR_NAME_LEN_MAX`] bytes without NUL, with the name space: `user.comment`.
    pub name: Vec<u8>,
    /// At most [`XATTR_VALUE_LEN_MAX`] bytes.
    pub value: Vec<u8>,
}

/// A stretch of content. The extents of an item follow each other without gap from its start, and their lengths
/// add up to [`Metadata::len`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a further kind is a further format version"
)]
pub enum Extent {
    /// Bytes kept as one chunk.
    Data {
        /// How many, 1 or more.
        len: u32,
        /// The chunk.
        id: ChunkId,
    },
    /// Zeros that are kept nowhere.
    Hole {
        /// How many, 1 or more.
        len: u64,
    },
}

/// A borrowed [`Item`]: what a page reader hands out and a page writer takes, without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemView<'a> {
    /// See [`Item::path`].
    pub path: PathView<'a>,
    /// See [`Item::kind`].
    pub kind: KindView<'a>,
    /// See [`Item::meta`].
    pub meta: MetadataView<'a>,
}

/// A borrowed [`ItemKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "as ItemKind, whose variants these are"
)]
#[expect(missing_docs, reason = "as ItemKind, whose variants these are")]
pub enum KindView<'a> {
    File,
    Directory,
    Symlink { target: &'a [u8] },
    Hardlink { target: PathView<'a> },
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Volume,
    Stream,
}

/// Borrowed [`Metadata`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "as Metadata, whose fields these are")]
pub struct MetadataView<'a> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub inode: u64,
    pub device: u64,
    pub len: u64,
    pub xattrs: XattrsView<'a>,
}

/// Borrowed extended attributes, strictly ascending by name.
#[derive(Clone, Copy)]
pub struct XattrsView<'a>(Xattrs<'a>);

#[derive(Clone, Copy)]
enum Xattrs<'a> {
    List(&'a [Xattr]),
    /// Checked by the reader: per attribute name length, name, value length, value.
    Encoded(&'a [u8]),
}

impl Item {
    /// Borrows the item.
    pub fn view(&self) -> ItemView<'_> {
        ItemView {
            path: self.path.view(),
            kind: self.kind.view(),
            meta: self.meta.view(),
        }
    }
}

impl ItemKind {
    /// Borrows the kind.
    pub fn view(&self) -> KindView<'_> {
        match self {
            Self::File => KindView::File,
            Self::Directory => KindView::Directory,
            Self::Symlink { target } => KindView::Symlink { target },
            Self::Hardlink { target } => KindView::Hardlink {
                target: target.view(),
            },
            Self::Fifo => KindView::Fifo,
            Self::Socket => KindView::Socket,
            &Self::CharDevice { major, minor } => KindView::CharDevice { major, minor },
            &Self::BlockDevice { major, minor } => KindView::BlockDevice { major, minor },
            Self::Volume => KindView::Volume,
            Self::Stream => KindView::Stream,
        }
    }

    /// Whether extents follow: a file, a volume or a stream.
    pub fn has_content(&self) -> bool {
        self.view().has_content()
    }
}

impl Metadata {
    /// Borrows the metadata.
    pub fn view(&self) -> MetadataView<'_> {
        MetadataView {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            inode: self.inode,
            device: self.device,
            len: self.len,
            xattrs: XattrsView(Xattrs::List(&self.xattrs)),
        }
    }
}

impl Extent {
    /// How many bytes of content this is.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Data { len, .. } => u64::from(len),
            Self::Hole { len } => len,
        }
    }

    /// Whether this is no byte of content, which no valid extent is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ItemView<'_> {
    /// Copies the item.
    pub fn to_item(&self) -> Item {
        Item {
            path: self.path.to_path(),
            kind: self.kind.to_kind(),
            meta: self.meta.to_metadata(),
        }
    }
}

impl KindView<'_> {
    /// Copies the kind.
    pub fn to_kind(&self) -> ItemKind {
        match *self {
            Self::File => ItemKind::File,
            Self::Directory => ItemKind::Directory,
            Self::Symlink { target } => ItemKind::Symlink {
                target: target.to_vec(),
            },
            Self::Hardlink { target } => ItemKind::Hardlink {
                target: target.to_path(),
            },
            Self::Fifo => ItemKind::Fifo,
            Self::Socket => ItemKind::Socket,
            Self::CharDevice { major, minor } => ItemKind::CharDevice { major, minor },
            Self::BlockDevice { major, minor } => ItemKind::BlockDevice { major, minor },
            Self::Volume => ItemKind::Volume,
            Self::Stream => ItemKind::Stream,
        }
    }

    /// Whether extents follow: a file, a volume or a stream.
    pub fn has_content(&self) -> bool {
        matches!(self, Self::File | Self::Volume | Self::Stream)
    }
}

impl MetadataView<'_> {
    /// Copies the metadata.
    pub fn to_metadata(&self) -> Metadata {
        Metadata {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            inode: self.inode,
            device: self.device,
            len: self.len,
            xattrs: self
                .xattrs
                .iter()
                .map(|(name, value)| Xattr {
                    name: name.to_vec(),
                    value: value.to_vec(),
                })
                .collect(),
        }
    }
}

impl<'a> XattrsView<'a> {
    /// For bytes that the page reader has checked.
    pub(crate) fn encoded(bytes: &'a [u8]) -> Self {
        Self(Xattrs::Encoded(bytes))
    }

    /// The encoded form, when this view came from a page.
    pub(crate) fn as_encoded(&self) -> Option<&'a [u8]> {
        match self.0 {
            Xattrs::List(_) => None,
            Xattrs::Encoded(bytes) => Some(bytes),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        match self.0 {
            Xattrs::List(list) => list.is_empty(),
            Xattrs::Encoded(bytes) => bytes.is_empty(),
        }
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (list, encoded) = match self.0 {
            Xattrs::List(list) => (list, &[][..]),
            Xattrs::Encoded(bytes) => (&[][..], bytes),
        };
        let mut cursor = Cursor::new(encoded, "xattrs");
        list.iter()
            .map(|xattr| (xattr.name.as_slice(), xattr.value.as_slice()))
            .chain(std::iter::from_fn(move || {
                let len = cursor.len().ok()?;
                let name = cursor.bytes(len).ok()?;
                let len = cursor.len().ok()?;
                Some((name, cursor.bytes(len).ok()?))
            }))
    }
}

impl std::fmt::Debug for Xattr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}=<{} bytes>",
            PathView::trusted(&self.name),
            self.value.len()
        )
    }
}

impl Default for XattrsView<'_> {
    fn default() -> Self {
        Self(Xattrs::List(&[]))
    }
}

impl PartialEq for XattrsView<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Xattrs::Encoded(one), Xattrs::Encoded(other)) => one == other,
            _ => self.iter().eq(other.iter()),
        }
    }
}

impl Eq for XattrsView<'_> {}

impl std::fmt::Debug for XattrsView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets or long; the names tell enough.
        let names = self.iter().map(|(name, _)| PathView::trusted(name));
        f.debug_list().entries(names).finish()
    }
}

impl<'a> From<&'a Item> for ItemView<'a> {
    fn from(item: &'a Item) -> Self {
        item.view()
    }
}

impl<'a> From<&ItemView<'a>> for ItemView<'a> {
    fn from(item: &ItemView<'a>) -> Self {
        *item
    }
}

impl From<ItemView<'_>> for Item {
    fn from(item: ItemView<'_>) -> Self {
        item.to_item()
    }
}
