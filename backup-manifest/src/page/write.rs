use thiserror::Error;

use super::rules::{encode_xattrs, follows, is_target};
use super::*;
use crate::cut;
use crate::item::{KindView, MODE_MAX, MetadataView};
use crate::path::{rank, shared_len};
use crate::wire::{put_varint, zigzag};

/// Bytes that an item takes on average, its id included; only tunes how long pages become.
const ITEM_LEN_TYPICAL: usize = 52;
/// Bytes that a data extent takes: its id, its length and its tag.
const EXTENT_LEN_TYPICAL: usize = 36;
/// The longest [`PageParams::len_max`] that is used; leaves room in [`PAGE_LEN_MAX`] for one record of any length.
const LEN_MAX_MAX: usize = 512 * 1024;

/// Turns items and extents into pages.
///
/// Items come in ascending order of their paths, a directory before what it holds; after an item with content its
/// extents follow. Where a page ends is decided by paths and chunk ids, so that unchanged stretches of two streams
/// give the same pages.
///
/// A refused push leaves the writer as it was.
#[derive(Debug)]
pub struct PageWriter {
    len_min: usize,
    len_max: usize,
    item_threshold: u64,
    extent_threshold: u64,

    // The page being written.
    columns: [Vec<u8>; COLUMNS],
    ids: Vec<u8>,
    before: Before,
    /// The encoded attributes of the item before; empty at the start of a page.
    xattrs: Vec<u8>,
    /// The encoded attributes of the item being pushed.
    xattrs_next: Vec<u8>,
    first: Option<(ItemPath, u64)>,

    // The stream so far.
    path: Vec<u8>,
    is_directory: bool,
    /// How long the path of the stream's first item is; `None` before it.
    top_len: Option<usize>,
    content: Content,
    len: u64,
}

/// Why an item or an extent is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The path does not come after the one before it.
    #[error("{path} does not come after {before}")]
    OutOfOrder {
        /// The item pushed.
        path: ItemPath,
        /// The item before it.
        before: ItemPath,
    },
    /// The directory of the item is not in the stream.
    #[error("the directory of {path} is not in the stream")]
    ParentMissing {
        /// The item pushed.
        path: ItemPath,
    },
    /// The target of a hard link does not come before it.
    #[error("{path} is a hard link to {target}, which does not come before it")]
    HardlinkForward {
        /// The item pushed.
        path: ItemPath,
        /// Its target.
        target: ItemPath,
    },
    /// Part of the metadata has no valid form.
    #[error("bad {what} of {path}")]
    BadMetadata {
        /// The item pushed.
        path: ItemPath,
        /// Which part of its metadata.
        what: &'static str,
    },
    /// The item before lacks content.
    #[error("{missing} bytes of the content of {path} are missing")]
    ContentMissing {
        /// The item that is not complete.
        path: ItemPath,
        /// How many bytes its extents fall short.
        missing: u64,
    },
    /// The extent is empty, too long, or past the end of the item's content.
    #[error("extent of {len} bytes does not fit the content of {path}")]
    BadExtent {
        /// The item it would belong to.
        path: ItemPath,
        /// The length of the extent.
        len: u64,
    },
}

impl PageWriter {
    /// An empty stream.
    pub fn new(params: PageParams) -> Self {
        let len_max = params.len_max.clamp(1, LEN_MAX_MAX);
        let len_min = params.len_min.min(len_max);
        // Cuts are tried after len_min only.
        let span = params.len_target.saturating_sub(len_min);
        Self {
            len_min,
            len_max,
            item_threshold: cut::threshold(span / ITEM_LEN_TYPICAL),
            extent_threshold: cut::threshold(span / EXTENT_LEN_TYPICAL),
            columns: Default::default(),
            ids: Vec::new(),
            before: Before::default(),
            xattrs: Vec::new(),
            xattrs_next: Vec::new(),
            first: None,
            path: Vec::new(),
            is_directory: false,
            top_len: None,
            content: Content::Complete,
            len: 0,
        }
    }

    /// Appends an item, owned or borrowed; returns a page when one became complete.
    ///
    /// # Errors
    /// [`WriteError`], any variant but `BadExtent`.
    pub fn push_item<'i>(
        &mut self,
        item: impl Into<ItemView<'i>>,
    ) -> Result<Option<Page>, WriteError> {
        let item = item.into();
        let shared = self.check_place(&item)?;
        check_metadata(&item)?;
        self.encode_xattrs(&item)?;

        let has_content = item.kind.has_content();
        self.start_page(item.path, 0);
        // The first path of a page stands complete.
        let shared = if self.tags().is_empty() { 0 } else { shared };
        self.put_item(&item, shared);

        self.path.truncate(shared);
        self.path
            .extend_from_slice(item.path.as_bytes().get(shared..).unwrap_or_default());
        self.is_directory = matches!(item.kind, KindView::Directory);
        self.top_len.get_or_insert(self.path.len());
        self.len = item.meta.len;
        self.content = Content::of(if has_content { item.meta.len } else { 0 });
        if self.content != Content::Complete {
            // Never cut here: with its extent the item may take no record more.
            return Ok(None);
        }
        Ok(self.cut(Identity::Path))
    }

    /// Appends the next stretch of content of the item pushed last; returns a page when one became complete.
    ///
    /// # Errors
    /// [`WriteError::BadExtent`].
    pub fn push_extent(&mut self, extent: Extent) -> Result<Option<Page>, WriteError> {
        let len = extent.len();
        let too_long = match extent {
            Extent::Data { len, .. } => len > EXTENT_DATA_LEN_MAX,
            Extent::Hole { .. } => false,
        };
        let next = match self.content.after(len) {
            Some(next) if len > 0 && !too_long => next,
            _ => return Err(self.bad_extent(len)),
        };
        let done = match self.content {
            Content::Started(left) => self.len.saturating_sub(left.get()),
            Content::Open(done) => done,
            _ => 0,
        };
        let unstarted = matches!(self.content, Content::Unstarted(_));
        self.content = next;
        match extent {
            Extent::Data { id, .. } if unstarted && next == Content::Complete => {
                if let Some(tag) = self.columns[0].last_mut() {
                    *tag |= TAG_INLINE;
                }
                self.ids.extend_from_slice(id.as_bytes());
                Ok(self.cut(Identity::Path))
            }
            Extent::Data { id, .. } => {
                self.put_extent(KIND_DATA, len, done);
                self.ids.extend_from_slice(id.as_bytes());
                let first8 = id.as_bytes().first_chunk().copied().unwrap_or_default();
                Ok(self.cut(Identity::Hash(u64::from_le_bytes(first8))))
            }
            Extent::Hole { .. } => {
                self.put_extent(KIND_HOLE, len, done);
                Ok(self.cut(Identity::None))
            }
        }
    }

    /// Ends the stream; returns the last page, or `None` when nothing is left over.
    ///
    /// # Errors
    /// [`WriteError::ContentMissing`].
    pub fn finish(mut self) -> Result<Option<Page>, WriteError> {
        self.check_complete()?;
        Ok(self.take_page())
    }

    fn tags(&self) -> &[u8] {
        &self.columns[0]
    }

    fn last_path(&self) -> ItemPath {
        PathView::trusted(&self.path).to_path()
    }

    #[cold]
    fn bad_extent(&self, len: u64) -> WriteError {
        WriteError::BadExtent {
            path: self.last_path(),
            len,
        }
    }

    fn check_complete(&self) -> Result<(), WriteError> {
        match self.content {
            Content::Unstarted(left) | Content::Started(left) => Err(WriteError::ContentMissing {
                path: self.last_path(),
                missing: left.get(),
            }),
            Content::Complete | Content::Unknown(_) | Content::Open(_) => Ok(()),
        }
    }

    /// Whether the item may come next; returns how much of its path it shares with the one before.
    fn check_place(&self, item: &ItemView<'_>) -> Result<usize, WriteError> {
        self.check_complete()?;
        let Some(top_len) = self.top_len else {
            return Ok(0);
        };
        let path = item.path.as_bytes();
        let shared = shared_len(&self.path, path);
        if rank(self.path.get(shared)) >= rank(path.get(shared)) {
            return Err(WriteError::OutOfOrder {
                path: item.path.to_path(),
                before: self.last_path(),
            });
        }
        if !follows(&self.path, self.is_directory, path, shared, top_len) {
            return Err(WriteError::ParentMissing {
                path: item.path.to_path(),
            });
        }
        Ok(shared)
    }

    /// Encodes the attributes of the item into `xattrs_next`.
    fn encode_xattrs(&mut self, item: &ItemView<'_>) -> Result<(), WriteError> {
        self.xattrs_next.clear();
        if let Some(encoded) = item.meta.xattrs.as_encoded() {
            self.xattrs_next.extend_from_slice(encoded);
            return Ok(());
        }
        encode_xattrs(&mut self.xattrs_next, item.meta.xattrs).ok_or_else(|| bad(item, "xattrs"))
    }

    fn start_page(&mut self, path: PathView<'_>, offset: u64) {
        if self.first.is_none() {
            self.first = Some((path.to_path(), offset));
        }
    }

    fn put_path(&mut self, path: &[u8], shared: usize) {
        let [_, _, shareds, suffixes, names, ..] = &mut self.columns;
        let suffix = path.get(shared..).unwrap_or_default();
        put_varint(shareds, shared as u64);
        put_varint(suffixes, suffix.len() as u64);
        names.extend_from_slice(suffix);
    }

    fn put_item(&mut self, item: &ItemView<'_>, shared: usize) {
        let kind = kind_tag(&item.kind);
        let changed = self.put_attrs(&item.meta, kind);
        self.columns[0].push(if changed { kind | TAG_ATTRS } else { kind });
        self.put_path(item.path.as_bytes(), shared);
        self.put_times(&item.meta);
        let [_, _, _, _, _, lens, _, _, inodes, extra] = &mut self.columns;
        let delta = item.meta.inode.wrapping_sub(self.before.inode) as i64;
        put_varint(inodes, zigzag(delta));
        self.before.inode = item.meta.inode;
        match item.kind {
            KindView::File | KindView::Volume | KindView::Stream => put_varint(lens, item.meta.len),
            KindView::Symlink { target } => {
                put_varint(extra, target.len() as u64);
                extra.extend_from_slice(target);
            }
            KindView::Hardlink { target } => {
                // Against the item's own path, most often in the same directory.
                let shared = shared_len(item.path.as_bytes(), target.as_bytes());
                let suffix = target.as_bytes().get(shared..).unwrap_or_default();
                put_varint(extra, shared as u64);
                put_varint(extra, suffix.len() as u64);
                extra.extend_from_slice(suffix);
            }
            KindView::CharDevice { major, minor } | KindView::BlockDevice { major, minor } => {
                put_varint(extra, u64::from(major));
                put_varint(extra, u64::from(minor));
            }
            KindView::Directory | KindView::Fifo | KindView::Socket => {}
        }
    }

    /// Writes the attributes that differ from the item before; false when none does.
    fn put_attrs(&mut self, meta: &MetadataView<'_>, kind: u8) -> bool {
        let before = &mut self.before;
        let mode_before = &mut before.modes[usize::from(kind & TAG_KIND)];
        let mut changed = 0;
        for (differs, bit) in [
            (meta.mode != *mode_before, ATTR_MODE),
            (meta.uid != before.uid, ATTR_UID),
            (meta.gid != before.gid, ATTR_GID),
            (meta.device != before.device, ATTR_DEVICE),
            (self.xattrs != self.xattrs_next, ATTR_XATTRS),
        ] {
            if differs {
                changed |= bit;
            }
        }
        if changed == 0 {
            return false;
        }
        let extra = &mut self.columns[9];
        extra.push(changed);
        for (bit, value) in [
            (ATTR_MODE, u64::from(meta.mode)),
            (ATTR_UID, u64::from(meta.uid)),
            (ATTR_GID, u64::from(meta.gid)),
            (ATTR_DEVICE, meta.device),
        ] {
            if changed & bit != 0 {
                put_varint(extra, value);
            }
        }
        if changed & ATTR_XATTRS != 0 {
            put_varint(extra, self.xattrs_next.len() as u64);
            extra.extend_from_slice(&self.xattrs_next);
            std::mem::swap(&mut self.xattrs, &mut self.xattrs_next);
        }
        *mode_before = meta.mode;
        before.uid = meta.uid;
        before.gid = meta.gid;
        before.device = meta.device;
        true
    }

    fn put_times(&mut self, meta: &MetadataView<'_>) {
        let [_, times, _, _, _, _, mtimes, ctimes, ..] = &mut self.columns;
        let before = &mut self.before;
        let mtime = if meta.mtime_ns == before.mtime_ns {
            MTIME_SAME
        } else if meta.mtime_ns % SECOND_NS == 0 {
            let seconds = meta.mtime_ns / SECOND_NS - before.mtime_ns.div_euclid(SECOND_NS);
            put_varint(mtimes, zigzag(seconds));
            MTIME_SECONDS
        } else {
            put_varint(mtimes, zigzag(meta.mtime_ns.wrapping_sub(before.mtime_ns)));
            MTIME_NANOS
        };
        let after = zigzag(meta.ctime_ns.wrapping_sub(meta.mtime_ns));
        let nanos = zigzag(meta.ctime_ns.wrapping_sub(before.ctime_ns));
        let ctime = if nanos == 0 {
            CTIME_SAME
        } else if after == 0 {
            CTIME_MTIME
        } else if nanos <= after {
            put_varint(ctimes, nanos);
            CTIME_NANOS
        } else {
            put_varint(ctimes, after);
            CTIME_AFTER
        };
        times.push(mtime | ctime);
        before.mtime_ns = meta.mtime_ns;
        before.ctime_ns = meta.ctime_ns;
    }

    fn put_extent(&mut self, kind: u8, len: u64, done: u64) {
        if self.first.is_none() {
            let path = std::mem::take(&mut self.path);
            self.first = Some((PathView::trusted(&path).to_path(), done));
            self.columns[0].push(KIND_CONTINUED);
            self.put_path(&path, 0);
            put_varint(&mut self.columns[9], done);
            self.path = path;
        }
        self.columns[0].push(kind);
        put_varint(&mut self.columns[5], len);
    }

    /// Ends the page when its length and the record just written say so.
    fn cut(&mut self, identity: Identity) -> Option<Page> {
        let len = self.ids.len() + self.columns.iter().map(Vec::len).sum::<usize>();
        let here = len >= self.len_max
            || len >= self.len_min
                && match identity {
                    Identity::Path => cut::hash(&self.path) <= self.item_threshold,
                    Identity::Hash(hash) => hash <= self.extent_threshold,
                    Identity::None => false,
                };
        if here { self.take_page() } else { None }
    }

    fn take_page(&mut self) -> Option<Page> {
        let (first, first_offset) = self.first.take()?;
        let mut lens = Vec::with_capacity(3 * COLUMNS);
        for column in &self.columns[1..COLUMNS - 1] {
            put_varint(&mut lens, column.len() as u64);
        }
        let meta_len = lens.len() + self.columns.iter().map(Vec::len).sum::<usize>();
        let mut bytes = Vec::with_capacity(1 + 10 + 10 + meta_len + self.ids.len());
        bytes.push(0);
        put_varint(&mut bytes, self.tags().len() as u64);
        put_varint(&mut bytes, meta_len as u64);
        bytes.extend_from_slice(&lens);
        for column in &mut self.columns {
            bytes.extend_from_slice(column);
            column.clear();
        }
        bytes.extend_from_slice(&self.ids);
        self.ids.clear();
        self.before = Before::default();
        self.xattrs.clear();
        Some(Page {
            bytes,
            first,
            first_offset,
        })
    }
}

/// What decides whether a page ends behind a record.
enum Identity {
    /// The path of the item.
    Path,
    /// The id of the chunk, which is a uniform hash already.
    Hash(u64),
    /// Nothing: a hole looks like every other.
    None,
}

fn kind_tag(kind: &KindView<'_>) -> u8 {
    match kind {
        KindView::File => KIND_FILE,
        KindView::Directory => KIND_DIRECTORY,
        KindView::Symlink { .. } => KIND_SYMLINK,
        KindView::Hardlink { .. } => KIND_HARDLINK,
        KindView::Fifo => KIND_FIFO,
        KindView::Socket => KIND_SOCKET,
        KindView::CharDevice { .. } => KIND_CHAR_DEVICE,
        KindView::BlockDevice { .. } => KIND_BLOCK_DEVICE,
        KindView::Volume => KIND_VOLUME,
        KindView::Stream => KIND_STREAM,
    }
}

fn check_metadata(item: &ItemView<'_>) -> Result<(), WriteError> {
    if item.meta.mode > MODE_MAX {
        return Err(bad(item, "mode"));
    }
    if item.meta.len != 0 && !item.kind.has_content() {
        return Err(bad(item, "length"));
    }
    if item.meta.len == LEN_OPEN && !matches!(item.kind, KindView::Stream) {
        return Err(bad(item, "length"));
    }
    match item.kind {
        KindView::Symlink { target } if !is_target(target) => Err(bad(item, "link target")),
        KindView::Hardlink { target } if target >= item.path => Err(WriteError::HardlinkForward {
            path: item.path.to_path(),
            target: target.to_path(),
        }),
        _ => Ok(()),
    }
}

#[cold]
fn bad(item: &ItemView<'_>, what: &'static str) -> WriteError {
    WriteError::BadMetadata {
        path: item.path.to_path(),
        what,
    }
}
