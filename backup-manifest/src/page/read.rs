use backup_core::ChunkId;

use super::rules::{are_xattrs, is_target};
use super::*;
use crate::item::{KindView, MODE_MAX, MetadataView, XattrsView};
use crate::path::{PATH_LEN_MAX, check_name, rank, shared_len};
use crate::wire::{Cursor, unzigzag};

/// Reads one page, record by record.
///
/// [`PageReader::next_record`] lends records without allocating; as an iterator the reader hands out owned ones. A
/// page can be wrong at any place: what was read before the error is valid, and nothing comes after it. How pages
/// fit together is for [`StreamChecker`] to tell.
#[derive(Debug)]
pub struct PageReader<'a> {
    columns: [Cursor<'a>; COLUMNS],
    ids: Cursor<'a>,
    records: usize,
    before: Before,
    xattrs: &'a [u8],
    path: Vec<u8>,
    /// Where the last component of `path` starts.
    name_start: usize,
    is_directory: bool,
    /// Whether `path` is that of a record of this page.
    has_path: bool,
    link: Vec<u8>,
    content: Content,
    inline: Option<Extent>,
    done: bool,
}

// The columns by number, so that code and format description read alike.
const TAGS: usize = 0;
const TIMES: usize = 1;
const SHARED: usize = 2;
const SUFFIXES: usize = 3;
const NAMES: usize = 4;
const LENS: usize = 5;
const MTIMES: usize = 6;
const CTIMES: usize = 7;
const INODES: usize = 8;
const EXTRA: usize = 9;

impl<'a> PageReader<'a> {
    /// Reads the frame of a page.
    ///
    /// # Errors
    /// [`PageError`] when it is too long, a list, empty, or its parts do not add up.
    pub fn new(bytes: &'a [u8]) -> Result<Self, PageError> {
        if bytes.len() > PAGE_LEN_MAX {
            return Err(PageError::TooLong { len: bytes.len() });
        }
        let mut page = Cursor::new(bytes, "page");
        let level = page.byte()?;
        if level != 0 {
            return Err(PageError::WrongLevel { level, expected: 0 });
        }
        let records = page.count(1)?;
        if records == 0 {
            return Err(PageError::Empty);
        }
        let meta_len = page.len()?;
        let mut meta = Cursor::new(page.bytes(meta_len)?, "meta");
        let mut lens = [records; COLUMNS];
        for len in &mut lens[1..COLUMNS - 1] {
            *len = meta.len()?;
        }
        let mut columns = [meta; COLUMNS];
        for (column, (len, name)) in columns.iter_mut().zip(lens.iter().zip(COLUMN_NAMES)) {
            let len = if name == COLUMN_NAMES[EXTRA] {
                meta.remaining()
            } else {
                *len
            };
            *column = Cursor::new(meta.bytes(len)?, name);
        }
        Ok(Self {
            columns,
            ids: Cursor::new(page.bytes(page.remaining())?, "ids"),
            records,
            before: Before::default(),
            xattrs: &[],
            path: Vec::new(),
            name_start: 0,
            is_directory: false,
            has_path: false,
            link: Vec::new(),
            content: Content::Complete,
            inline: None,
            done: false,
        })
    }

    /// How many records the page states, without the extents that are part of their item's record; a hint only.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The next record; `None` at the end of the page, which was wholly read and checked then.
    ///
    /// # Errors
    /// [`PageError`] says what is wrong. Afterwards the reader is at its end.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<RecordView<'_>>, PageError> {
        if let Some(extent) = self.inline.take() {
            return Ok(Some(RecordView::Extent(extent)));
        }
        if self.done {
            return Ok(None);
        }
        // Until this record proves good.
        self.done = true;
        if self.columns[TAGS].remaining() == 0 {
            self.finish()?;
            return Ok(None);
        }
        let tag = self.columns[TAGS].byte()?;
        let record = match tag & TAG_KIND {
            KIND_DATA | KIND_HOLE => RecordView::Extent(self.read_extent(tag)?),
            KIND_CONTINUED => {
                let offset = self.read_continued(tag)?;
                RecordView::Continued {
                    path: PathView::trusted(&self.path),
                    offset,
                }
            }
            kind if kind < KIND_DATA && tag & !(TAG_KIND | TAG_INLINE | TAG_ATTRS) == 0 => {
                let read = self.read_item(tag)?;
                RecordView::Item(read.view(&self.path, &self.link))
            }
            _ => return Err(self.unknown_tag(tag)),
        };
        self.done = false;
        Ok(Some(record))
    }

    /// At the end of the tags: nothing may be left anywhere.
    fn finish(&self) -> Result<(), PageError> {
        // An item stands in one page with its first extent.
        if matches!(self.content, Content::Unstarted(_)) {
            return Err(self.content_mismatch());
        }
        for column in &self.columns {
            column.finish()?;
        }
        Ok(self.ids.finish()?)
    }

    fn read_extent(&mut self, tag: u8) -> Result<Extent, PageError> {
        let len = self.columns[LENS].varint()?;
        let extent = match tag {
            KIND_DATA => Extent::Data {
                len: self.data_len(len)?,
                id: ChunkId::from_bytes(*self.ids.array()?),
            },
            KIND_HOLE if len > 0 => Extent::Hole { len },
            KIND_HOLE => return Err(self.content_mismatch()),
            _ => return Err(self.unknown_tag(tag)),
        };
        match self.content.after(len) {
            Some(content) => self.content = content,
            None => return Err(self.content_mismatch()),
        }
        Ok(extent)
    }

    fn data_len(&self, len: u64) -> Result<u32, PageError> {
        match u32::try_from(len) {
            Ok(len @ 1..=EXTENT_DATA_LEN_MAX) => Ok(len),
            _ => Err(self.content_mismatch()),
        }
    }

    /// Returns the offset; the path is in `self.path`.
    fn read_continued(&mut self, tag: u8) -> Result<u64, PageError> {
        if tag != KIND_CONTINUED {
            return Err(self.unknown_tag(tag));
        }
        if self.has_path {
            return Err(self.bad_continuation());
        }
        self.read_path()?;
        self.is_directory = false;
        let offset = self.columns[EXTRA].varint()?;
        // The next record must be an extent, as a continued item has one at least.
        let Some(room) = NonZeroU64::new(u64::MAX - offset) else {
            return Err(self.bad_continuation());
        };
        let next_is_extent = self.columns[TAGS]
            .peek()
            .is_some_and(|tag| matches!(tag, KIND_DATA | KIND_HOLE));
        if offset == 0 || !next_is_extent {
            return Err(self.bad_continuation());
        }
        self.content = Content::Unknown(room.get());
        Ok(offset)
    }

    fn read_item(&mut self, tag: u8) -> Result<ItemRead<'a>, PageError> {
        if !self.content.may_end() {
            return Err(self.content_mismatch());
        }
        self.read_path()?;
        let kind = tag & TAG_KIND;
        if tag & TAG_ATTRS != 0 {
            self.read_attrs(kind)?;
        }
        self.read_times()?;
        let delta = unzigzag(self.columns[INODES].varint()?);
        self.before.inode = self.before.inode.wrapping_add(delta as u64);
        let mut read = ItemRead {
            kind,
            before: self.before,
            xattrs: self.xattrs,
            len: 0,
            target: &[],
            device: (0, 0),
        };
        self.is_directory = kind == KIND_DIRECTORY;
        match kind {
            KIND_FILE | KIND_VOLUME | KIND_STREAM => read.len = self.columns[LENS].varint()?,
            KIND_SYMLINK => {
                let len = self.columns[EXTRA].len()?;
                read.target = self.columns[EXTRA].bytes(len)?;
                if !is_target(read.target) {
                    return Err(self.bad_metadata("link target"));
                }
            }
            KIND_HARDLINK => self.read_link()?,
            KIND_CHAR_DEVICE | KIND_BLOCK_DEVICE => {
                let extra = &mut self.columns[EXTRA];
                read.device = (extra.varint_u32()?, extra.varint_u32()?);
            }
            _ => {}
        }
        if read.len == LEN_OPEN && kind != KIND_STREAM {
            return Err(self.bad_metadata("length"));
        }
        self.content = Content::of(read.len);
        if tag & TAG_INLINE != 0 {
            let len = self.data_len(read.len)?;
            let id = ChunkId::from_bytes(*self.ids.array()?);
            self.inline = Some(Extent::Data { len, id });
            self.content = Content::Complete;
        }
        Ok(read)
    }

    /// Reads a path into `self.path`.
    #[inline]
    fn read_path(&mut self) -> Result<(), PageError> {
        let shared = self.columns[SHARED].varint_max(self.path.len() as u64)? as usize;
        let len = self.columns[SUFFIXES].varint_max(PATH_LEN_MAX as u64)? as usize;
        let suffix = self.columns[NAMES].bytes(len)?;
        if shared + len > PATH_LEN_MAX {
            let len = shared + len;
            return Err(self.bad_path(PathError::TooLong { len }));
        }
        if !self.has_path {
            PathView::from_bytes(suffix).map_err(|source| self.bad_path(source))?;
            self.path.extend_from_slice(suffix);
            self.name_start = start_of_name(suffix);
            self.has_path = true;
            return Ok(());
        }
        // The order also proves that no more bytes are shared.
        if rank(self.path.get(shared)) >= rank(suffix.first()) {
            return Err(PageError::OutOfOrder {
                after: self.last_path(),
            });
        }
        let inside = shared == self.path.len() && (shared == 0 || suffix.first() == Some(&b'/'));
        if inside {
            if !self.is_directory {
                return Err(self.parent_missing());
            }
            self.name_start = if shared == 0 { 0 } else { shared + 1 };
        } else if shared < self.name_start {
            self.name_start = start_of_name(self.path.get(..shared).unwrap_or_default());
        }
        let skip = self.name_start.saturating_sub(shared);
        if suffix.iter().skip(skip).any(|&byte| byte == b'/') {
            return Err(self.parent_missing());
        }
        self.path.truncate(shared);
        self.path.extend_from_slice(suffix);
        let name = self.path.get(self.name_start..).unwrap_or_default();
        check_name(name, self.name_start).map_err(|source| self.bad_path(source))
    }

    fn read_attrs(&mut self, kind: u8) -> Result<(), PageError> {
        let extra = &mut self.columns[EXTRA];
        let changed = extra.byte()?;
        if changed & ATTR_MODE != 0 {
            let mode = extra.varint_max(u64::from(MODE_MAX))? as u32;
            self.before.modes[usize::from(kind & TAG_KIND)] = mode;
        }
        if changed & ATTR_UID != 0 {
            self.before.uid = extra.varint_u32()?;
        }
        if changed & ATTR_GID != 0 {
            self.before.gid = extra.varint_u32()?;
        }
        if changed & ATTR_DEVICE != 0 {
            self.before.device = extra.varint()?;
        }
        if changed & ATTR_XATTRS != 0 {
            let len = extra.len()?;
            self.xattrs = extra.bytes(len)?;
            if !are_xattrs(self.xattrs) {
                return Err(self.bad_metadata("xattrs"));
            }
        }
        if changed == 0 || changed & !ATTR_BITS != 0 {
            return Err(self.bad_metadata("attribute flags"));
        }
        Ok(())
    }

    #[inline]
    fn read_times(&mut self) -> Result<(), PageError> {
        let coding = self.columns[TIMES].byte()?;
        let before = &mut self.before;
        match coding & MTIME_BITS {
            MTIME_SAME => {}
            MTIME_SECONDS => {
                let delta = unzigzag(self.columns[MTIMES].varint()?);
                let seconds = before.mtime_ns.div_euclid(SECOND_NS).checked_add(delta);
                match seconds.and_then(|seconds| seconds.checked_mul(SECOND_NS)) {
                    Some(mtime) => before.mtime_ns = mtime,
                    None => return Err(self.bad_metadata("mtime")),
                }
            }
            MTIME_NANOS => {
                let delta = unzigzag(self.columns[MTIMES].varint()?);
                before.mtime_ns = before.mtime_ns.wrapping_add(delta);
            }
            _ => return Err(self.bad_metadata("mtime")),
        }
        match coding & !MTIME_BITS {
            CTIME_SAME => {}
            CTIME_MTIME => before.ctime_ns = before.mtime_ns,
            CTIME_NANOS => {
                let delta = unzigzag(self.columns[CTIMES].varint()?);
                before.ctime_ns = before.ctime_ns.wrapping_add(delta);
            }
            CTIME_AFTER => {
                let delta = unzigzag(self.columns[CTIMES].varint()?);
                before.ctime_ns = before.mtime_ns.wrapping_add(delta);
            }
            _ => return Err(self.bad_metadata("ctime")),
        }
        Ok(())
    }

    /// Reads the target of a hard link into `self.link`.
    fn read_link(&mut self) -> Result<(), PageError> {
        let extra = &mut self.columns[EXTRA];
        let shared = extra.varint_max(self.path.len() as u64)? as usize;
        let len = extra.len()?;
        let suffix = extra.bytes(len)?;
        self.link.clear();
        self.link
            .extend_from_slice(self.path.get(..shared).unwrap_or_default());
        self.link.extend_from_slice(suffix);
        let valid = PathView::from_bytes(&self.link).is_ok_and(|link| {
            shared_len(&self.link, &self.path) == shared && link < PathView::trusted(&self.path)
        });
        if valid {
            Ok(())
        } else {
            Err(self.bad_metadata("link target"))
        }
    }

    fn last_path(&self) -> ItemPath {
        PathView::trusted(&self.path).to_path()
    }

    #[cold]
    fn unknown_tag(&self, tag: u8) -> PageError {
        PageError::UnknownTag {
            tag,
            after: self.last_path(),
        }
    }

    #[cold]
    fn bad_path(&self, source: PathError) -> PageError {
        PageError::BadPath {
            after: self.last_path(),
            source,
        }
    }

    #[cold]
    fn parent_missing(&self) -> PageError {
        PageError::ParentMissing {
            after: self.last_path(),
        }
    }

    #[cold]
    fn bad_metadata(&self, what: &'static str) -> PageError {
        PageError::BadMetadata {
            path: self.last_path(),
            what,
        }
    }

    #[cold]
    fn content_mismatch(&self) -> PageError {
        PageError::ContentMismatch {
            path: self.last_path(),
        }
    }

    #[cold]
    fn bad_continuation(&self) -> PageError {
        PageError::BadContinuation {
            path: self.last_path(),
        }
    }
}

impl Iterator for PageReader<'_> {
    type Item = Result<Record, PageError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_record() {
            Ok(record) => record.map(|record| Ok(record.to_record())),
            Err(error) => Some(Err(error)),
        }
    }
}

/// What was read of an item, but its paths, which stand in buffers of the reader.
struct ItemRead<'a> {
    kind: u8,
    before: Before,
    xattrs: &'a [u8],
    len: u64,
    target: &'a [u8],
    device: (u32, u32),
}

impl<'a> ItemRead<'a> {
    fn view(self, path: &'a [u8], link: &'a [u8]) -> ItemView<'a> {
        let (major, minor) = self.device;
        let target = self.target;
        let before = &self.before;
        ItemView {
            path: PathView::trusted(path),
            kind: match self.kind {
                KIND_FILE => KindView::File,
                KIND_DIRECTORY => KindView::Directory,
                KIND_SYMLINK => KindView::Symlink { target },
                KIND_HARDLINK => KindView::Hardlink {
                    target: PathView::trusted(link),
                },
                KIND_FIFO => KindView::Fifo,
                KIND_SOCKET => KindView::Socket,
                KIND_CHAR_DEVICE => KindView::CharDevice { major, minor },
                KIND_BLOCK_DEVICE => KindView::BlockDevice { major, minor },
                KIND_VOLUME => KindView::Volume,
                _ => KindView::Stream,
            },
            meta: MetadataView {
                mode: before.modes[usize::from(self.kind & TAG_KIND)],
                uid: before.uid,
                gid: before.gid,
                mtime_ns: before.mtime_ns,
                ctime_ns: before.ctime_ns,
                inode: before.inode,
                device: before.device,
                len: self.len,
                xattrs: XattrsView::encoded(self.xattrs),
            },
        }
    }
}

fn start_of_name(path: &[u8]) -> usize {
    path.iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |at| at + 1)
}
