//! Reads items of a tree: metadata, attributes, content, cut and named. Runs on the blocking pool.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use backup_core::{ChunkId, ChunkKind, Chunker, Keys};
use backup_manifest::{Extent, Item, ItemKind, ItemPath, Metadata, Xattr};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::Error;
use crate::backup::cut::{Cutter, Follows, Piece};
use crate::backup::walk::{Entry, Stat, Tree, open_beneath};
use crate::buffers::{Pool, Pooled};

/// Bytes that were read, shared by the chunks cut from them.
pub(crate) type Buffer = Arc<Pooled<Vec<u8>>>;

/// What reading gives, in the order of the item stream.
#[derive(Debug)]
pub(crate) enum Output {
    Item {
        item: Item,
        unchanged: bool,
    },
    /// Content that is in the repository already.
    Extent(Extent),
    /// Content that was read: a chunk of the batch's buffer.
    Chunk {
        id: ChunkId,
        start: usize,
        len: u32,
    },
    Skipped {
        path: ItemPath,
        reason: String,
    },
}

/// Outputs, and the bytes that their chunks are pieces of.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) outputs: Vec<Output>,
    pub(crate) buffer: Option<Buffer>,
}

/// What every reading job needs.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) keys: Arc<Keys>,
    pub(crate) chunker: Chunker,
    pub(crate) buffers: Arc<Pool<Vec<u8>>>,
    /// Length of a buffer, in bytes.
    pub(crate) buffer_len: usize,
}

impl Reading {
    /// A buffer of the full length; what it holds is of no meaning.
    pub(crate) fn buffer(&self) -> Pooled<Vec<u8>> {
        self.buffers.take_or(|| vec![0; self.buffer_len])
    }
}

/// An entry to be read, or an item that is known already.
#[derive(Debug)]
pub(crate) enum Slot {
    Read {
        entry: Entry,
        hardlink: Option<ItemPath>,
    },
    Ready(Output),
}

/// Reads entries whose content together fits one buffer.
pub(crate) fn read_batch(reading: &Reading, tree: &Tree, slots: Vec<Slot>) -> Result<Batch, Error> {
    let buffer = reading.buffer();
    let mut batch = BatchReader {
        reading,
        tree,
        directory: None,
        buffer,
        used: 0,
        outputs: Vec::with_capacity(slots.len() * 2),
    };
    for slot in slots {
        match slot {
            Slot::Ready(output) => batch.outputs.push(output),
            Slot::Read { entry, hardlink } => batch.entry(entry, hardlink)?,
        }
    }
    Ok(Batch {
        outputs: batch.outputs,
        buffer: Some(Arc::new(batch.buffer)),
    })
}

struct BatchReader<'a> {
    reading: &'a Reading,
    tree: &'a Tree,
    /// The directory opened last: what follows is mostly in the same.
    directory: Option<(ItemPath, OwnedFd)>,
    buffer: Pooled<Vec<u8>>,
    used: usize,
    outputs: Vec<Output>,
}

impl BatchReader<'_> {
    fn entry(&mut self, entry: Entry, hardlink: Option<ItemPath>) -> Result<(), Error> {
        let path = entry.path.clone();
        let outputs = self.outputs.len();
        let outcome = match hardlink {
            Some(target) => {
                let kind = ItemKind::Hardlink { target };
                self.push(item(&entry, kind, Vec::new(), entry.stat));
                return Ok(());
            }
            None => self.read(&entry),
        };
        match outcome {
            Ok(()) => {}
            // Gone since it was listed: as if it had gone before.
            Err(ReadError::System(Errno::NOENT)) if entry.stat.nlink < 2 => {
                self.outputs.truncate(outputs);
            }
            Err(ReadError::System(error)) => {
                self.outputs.truncate(outputs);
                let reason = std::io::Error::from(error).to_string();
                self.outputs.push(Output::Skipped { path, reason });
            }
            Err(ReadError::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    fn push(&mut self, item: Item) {
        self.outputs.push(Output::Item {
            item,
            unchanged: false,
        });
    }

    fn read(&mut self, entry: &Entry) -> Result<(), ReadError> {
        let stat = entry.stat;
        match stat.file_type() {
            FileType::RegularFile => return self.file(entry),
            FileType::Directory => {
                self.directory(entry);
                return Ok(());
            }
            FileType::Symlink => {
                let name = entry.path.name().to_vec();
                let parent = self.parent(&entry.path)?;
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes();
                let xattrs = self.xattrs_of_special(&entry.path)?;
                self.push(item(entry, ItemKind::Symlink { target }, xattrs, stat));
                return Ok(());
            }
            _ => {}
        }
        let (major, minor) = (rustix::fs::major(stat.rdev), rustix::fs::minor(stat.rdev));
        let kind = match stat.file_type() {
            FileType::Fifo => ItemKind::Fifo,
            FileType::Socket => ItemKind::Socket,
            FileType::CharacterDevice => ItemKind::CharDevice { major, minor },
            FileType::BlockDevice => ItemKind::BlockDevice { major, minor },
            _ => return Err(Errno::NOTSUP.into()),
        };
        let xattrs = self.xattrs_of_special(&entry.path)?;
        self.push(item(entry, kind, xattrs, stat));
        Ok(())
    }

    /// A directory is always recorded: what was found in it needs it. That it cannot be read is told where its names are
    /// read.
    fn directory(&mut self, entry: &Entry) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = open_beneath(self.tree.root.as_fd(), &entry.path, flags);
        let xattrs = opened
            .map_err(ReadError::from)
            .and_then(|fd| read_xattrs(fd.as_fd()));
        if let Err(ReadError::System(error)) = &xattrs
            && *error != Errno::NOENT
        {
            let reason = format!(
                "its attributes cannot be read: {}",
                std::io::Error::from(*error)
            );
            self.outputs.push(Output::Skipped {
                path: entry.path.clone(),
                reason,
            });
        }
        self.push(item(
            entry,
            ItemKind::Directory,
            xattrs.unwrap_or_default(),
            entry.stat,
        ));
    }

    /// Reads a file that fits the buffer, twice when it changes meanwhile.
    fn file(&mut self, entry: &Entry) -> Result<(), ReadError> {
        let fd = self.open(&entry.path, OFlags::RDONLY | OFlags::NOATIME)?;
        check_is_file(&Stat::from(rustix::fs::fstat(&fd)?))?;
        let mut before = entry.stat;
        let mut tries = 0;
        let (end, after) = loop {
            let end = self.fill(&fd, before.len)?;
            let after = Stat::from(rustix::fs::fstat(&fd)?);
            tries += 1;
            let whole = (end - self.used) as u64 == after.len;
            if (same_content(&before, &after) && whole) || tries == 2 {
                break (end, after);
            }
            before = after;
            rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))?;
        };
        let changed = !same_content(&before, &after) || (end - self.used) as u64 != after.len;
        // What was seen before reading is recorded: had the file changed since, the next run would see a difference.
        let mut stat = before;
        stat.len = (end - self.used) as u64;
        let xattrs = read_xattrs(fd.as_fd())?;
        self.push(item(entry, ItemKind::File, xattrs, stat));
        self.cut(end)?;
        if changed {
            let reason = "it changed while it was read".to_owned();
            self.outputs.push(Output::Skipped {
                path: entry.path.clone(),
                reason,
            });
        }
        Ok(())
    }

    /// Reads from the file into the buffer, at most what was announced.
    fn fill(&mut self, fd: &OwnedFd, len: u64) -> Result<usize, ReadError> {
        let Some(buffer) = self.buffer.get_mut() else {
            return Err(Error::WorkerLost.into());
        };
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        let limit = self.used.saturating_add(wanted).min(buffer.len());
        let mut at = self.used;
        while at < limit {
            match rustix::io::read(fd, &mut buffer[at..limit]) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(at)
    }

    fn cut(&mut self, end: usize) -> Result<(), ReadError> {
        let Some(buffer) = self.buffer.get() else {
            return Err(Error::WorkerLost.into());
        };
        let cut =
            Cutter::new(&self.reading.chunker, false).cut(&buffer[self.used..end], 0, Follows::End);
        name_pieces(
            &self.reading.keys,
            buffer,
            self.used,
            &cut.pieces,
            &mut self.outputs,
        );
        self.used = end;
        Ok(())
    }

    fn parent(&mut self, path: &ItemPath) -> Result<BorrowedFd<'_>, ReadError> {
        let parent = path.parent().unwrap_or_else(ItemPath::root);
        let is_open = self
            .directory
            .as_ref()
            .is_some_and(|(open, _)| *open == parent);
        if !is_open {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = open_beneath(self.tree.root.as_fd(), &parent, flags)?;
            self.directory = Some((parent, fd));
        }
        match &self.directory {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn open(&mut self, path: &ItemPath, flags: OFlags) -> Result<OwnedFd, ReadError> {
        let name = path.name().to_vec();
        let parent = self.parent(path)?;
        Ok(open_child(parent, &name, flags)?)
    }

    /// Attributes of what cannot be opened: through the parent's entry in /proc, whose last name is not followed.
    fn xattrs_of_special(&mut self, path: &ItemPath) -> Result<Vec<Xattr>, ReadError> {
        use std::os::fd::AsRawFd;
        let name = path.name().to_vec();
        let parent = self.parent(path)?;
        let mut place = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        place.extend_from_slice(&name);
        let list = match rustix::fs::llistxattr_query(&*place) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOENT | Errno::PERM) => return Ok(Vec::new()),
            Ok(len) => {
                let mut list = vec![0u8; len];
                let len = rustix::fs::llistxattr(&*place, &mut list)?;
                list.truncate(len);
                list
            }
            Err(error) => return Err(error.into()),
        };
        collect_xattrs(&list, |name| {
            let mut value = vec![0u8; XATTR_VALUE_LEN_MAX];
            let len = rustix::fs::lgetxattr(&*place, name, &mut value)?;
            value.truncate(len);
            Ok(value)
        })
    }
}

/// Source: Linux `XATTR_SIZE_MAX`.
const XATTR_VALUE_LEN_MAX: usize = 64 << 10;

/// Why an entry could not be read: its own fault, or ours.
#[derive(Debug)]
pub(crate) enum ReadError {
    System(Errno),
    Fatal(Error),
}

impl From<Errno> for ReadError {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// Opens an entry of a directory; a symlink is refused. Without the right to leave the access time alone, with it.
pub(crate) fn open_child(
    parent: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    // NONBLOCK: should a FIFO have taken the file's place, opening it must not wait for a writer.
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => {
            rustix::fs::openat(parent, name, flags - OFlags::NOATIME, Mode::empty())
        }
        other => other,
    }
}

/// Something else may have taken the file's place since it was listed.
pub(crate) fn check_is_file(stat: &Stat) -> Result<(), Errno> {
    if stat.file_type() == FileType::RegularFile {
        Ok(())
    } else {
        Err(Errno::STALE)
    }
}

/// Whether nothing happened to a file between two looks at it.
pub(crate) fn same_content(a: &Stat, b: &Stat) -> bool {
    a.len == b.len && a.mtime_ns == b.mtime_ns && a.ctime_ns == b.ctime_ns && a.inode == b.inode
}

pub(crate) fn item(entry: &Entry, kind: ItemKind, xattrs: Vec<Xattr>, stat: Stat) -> Item {
    let len = if kind.has_content() { stat.len } else { 0 };
    let meta = Metadata {
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        mtime_ns: stat.mtime_ns,
        ctime_ns: stat.ctime_ns,
        inode: stat.inode,
        device: 0,
        len,
        xattrs,
    };
    Item {
        path: entry.path.clone(),
        kind,
        meta,
    }
}

/// Computes the ids of pieces and says them as outputs; `base` is where the pieces' window begins in the buffer.
pub(crate) fn name_pieces(
    keys: &Keys,
    buffer: &[u8],
    base: usize,
    pieces: &[Piece],
    outputs: &mut Vec<Output>,
) {
    for piece in pieces {
        outputs.push(match *piece {
            Piece::Hole { len } => Output::Extent(Extent::Hole { len }),
            Piece::Data { start, len } => {
                let start = base + start;
                let id = keys.chunk_id(ChunkKind::Data, &buffer[start..start + len]);
                Output::Chunk {
                    id,
                    start,
                    len: len as u32,
                }
            }
        });
    }
}

/// All extended attributes of an open file, ascending by name.
pub(crate) fn read_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<Xattr>, ReadError> {
    let mut list = [0u8; 1024];
    let list = match rustix::fs::flistxattr(fd, &mut list[..]) {
        Ok(0) | Err(Errno::NOTSUP | Errno::PERM) => return Ok(Vec::new()),
        Ok(len) => list[..len].to_vec(),
        Err(Errno::RANGE) => {
            // Linux: XATTR_LIST_MAX.
            let mut list = vec![0u8; 64 << 10];
            let len = rustix::fs::flistxattr(fd, &mut list)?;
            list.truncate(len);
            list
        }
        Err(error) => return Err(error.into()),
    };
    collect_xattrs(&list, |name| {
        let mut value = vec![0u8; XATTR_VALUE_LEN_MAX];
        let len = rustix::fs::fgetxattr(fd, name, &mut value)?;
        value.truncate(len);
        Ok(value)
    })
}

fn collect_xattrs(
    list: &[u8],
    read: impl Fn(&[u8]) -> Result<Vec<u8>, Errno>,
) -> Result<Vec<Xattr>, ReadError> {
    let mut xattrs = Vec::new();
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        match read(name) {
            Ok(value) => xattrs.push(Xattr {
                name: name.to_vec(),
                value,
            }),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}
