//! The first stage of a backup: walks the source, takes over what has not changed, and has the rest read.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use backup_manifest::{Extent, Item, ItemKind, ItemPath, LEN_OPEN, Metadata};
use rustix::fs::{FileType, Mode, OFlags};
use tokio::sync::mpsc::Sender;

use crate::backup::parent::Parent;
use crate::backup::read::{
    Batch, Output, Reading, Slot, check_is_file, item, name_pieces, open_child, read_batch,
    same_content,
};
use crate::backup::read_volume::{Input, Window, WindowReader};
use crate::backup::source::TreeSource;
use crate::backup::walk::{Entry, Stat, Step, Tree, Walk, open_beneath};
use crate::env::{Job, blocking, start};
use crate::repository::index::Index;
use crate::{Error, Observer};

/// A batch that is there, or on its way.
#[derive(Debug)]
pub(crate) enum Pending {
    Ready(Batch),
    Job(Job<Result<Batch, Error>>),
}

/// One job reads at most this many entries.
const BATCH_ENTRIES: usize = 512;

/// An unchanged file of more extents than this is read again rather than held in memory as a list.
const REUSED_EXTENTS_MAX: usize = 1 << 20;

/// The way from the first stage to the second, and what the first needs to know.
pub(crate) struct Producer<'a> {
    pub(crate) reading: Arc<Reading>,
    pub(crate) buffer_len: usize,
    pub(crate) jobs_max: usize,
    pub(crate) index: Arc<Index>,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) batches: Sender<Pending>,
    /// What is read, to be named in errors.
    pub(crate) name: std::path::PathBuf,
}

impl Producer<'_> {
    async fn send(&self, pending: Pending) -> Result<(), Error> {
        // The receiver only goes away when its stage has failed, and then that error is the one to tell.
        self.batches
            .send(pending)
            .await
            .map_err(|_| Error::WorkerLost)
    }

    fn check_stop(&self) -> Result<(), Error> {
        if self.observer.should_stop() {
            Err(Error::Stopped)
        } else {
            Ok(())
        }
    }

    /// Produces one item with the content of a file or device, or of a stream.
    pub(crate) async fn volume(&self, input: Input, kind: ItemKind) -> Result<(), Error> {
        let (len, stat) = match &input {
            Input::File { file, len } => (*len, rustix::fs::fstat(file).map(Stat::from).ok()),
            Input::Stream(_) => (LEN_OPEN, None),
        };
        let path = ItemPath::from_bytes(VOLUME_NAME).unwrap_or_else(|_| ItemPath::root());
        let meta = match stat {
            Some(stat) => Metadata {
                mode: stat.mode & 0o7777,
                uid: stat.uid,
                gid: stat.gid,
                mtime_ns: stat.mtime_ns,
                len,
                ..Metadata::default()
            },
            None => Metadata {
                mode: 0o600,
                len: LEN_OPEN,
                ..Metadata::default()
            },
        };
        let name = path.clone();
        let output = Output::Item {
            item: Item { path, kind, meta },
            unchanged: false,
        };
        self.send(Pending::Ready(Batch {
            outputs: vec![output],
            buffer: None,
        }))
        .await?;
        // A device's times say nothing of its content.
        let before = stat.filter(|stat| stat.file_type() == FileType::RegularFile);
        match self.windows(WindowReader::new(input), None).await? {
            Some(reader) => {
                let is_changed = is_changed(&reader, before);
                drop(reader);
                self.tell_change(&name, is_changed).await
            }
            None => Ok(()),
        }
    }

    /// Reads windows one after the other; their chunks are named in parallel.
    /// The reader comes back at the end, but for a file of a tree that could not be read to its end and was named.
    async fn windows(
        &self,
        mut reader: WindowReader,
        file: Option<&Entry>,
    ) -> Result<Option<WindowReader>, Error> {
        loop {
            self.check_stop()?;
            let reading = self.reading.clone();
            let (back, window) = blocking(move || {
                let window = reader.next(&reading);
                (reader, window)
            })
            .await?;
            reader = back;
            match window {
                Ok(Some(window)) => {
                    let reading = self.reading.clone();
                    self.send(Pending::Job(start(move || name_window(&reading, window))))
                        .await?;
                }
                Ok(None) => break,
                Err(source) => match file {
                    Some(entry) => {
                        let read = reader.produced();
                        drop(reader);
                        self.cut_short(entry, read, source).await?;
                        return Ok(None);
                    }
                    None => {
                        return Err(Error::Source {
                            path: self.name.clone(),
                            source,
                        });
                    }
                },
            }
        }
        Ok(Some(reader))
    }

    async fn tell_change(&self, path: &ItemPath, is_changed: bool) -> Result<(), Error> {
        if !is_changed {
            return Ok(());
        }
        let reason = "it changed while it was read".to_owned();
        let output = Output::Skipped {
            path: path.clone(),
            reason,
        };
        self.send(Pending::Ready(Batch {
            outputs: vec![output],
            buffer: None,
        }))
        .await
    }
}

/// Whether something changed while it was read. `before` is what was known of it, where that means something.
fn is_changed(reader: &WindowReader, before: Option<Stat>) -> bool {
    let after = reader
        .file()
        .and_then(|file| rustix::fs::fstat(file).ok())
        .map(Stat::from);
    let same = match (before, after) {
        (Some(before), Some(after)) => same_content(&before, &after),
        (Some(_), None) => false,
        (None, _) => true,
    };
    !same || reader.is_short
}

impl Producer<'_> {
    /// A file that cannot be read to its end: what is missing is recorded as a hole, and the file is named.
    async fn cut_short(
        &self,
        entry: &Entry,
        read: u64,
        error: std::io::Error,
    ) -> Result<(), Error> {
        let missing = entry.stat.len.saturating_sub(read);
        let reason = format!("cannot be read from byte {read} on, recorded as zeros: {error}");
        let mut outputs = Vec::new();
        if missing > 0 {
            outputs.push(Output::Extent(Extent::Hole { len: missing }));
        }
        outputs.push(Output::Skipped {
            path: entry.path.clone(),
            reason,
        });
        self.send(Pending::Ready(Batch {
            outputs,
            buffer: None,
        }))
        .await
    }
}

/// The path of the one item of a volume's or stream's snapshot.
pub(crate) const VOLUME_NAME: &[u8] = b"data";

fn name_window(reading: &Reading, window: Window) -> Result<Batch, Error> {
    let mut outputs = Vec::with_capacity(window.cut.pieces.len());
    if let Some(buffer) = window.buffer.get() {
        name_pieces(&reading.keys, buffer, 0, &window.cut.pieces, &mut outputs);
    }
    Ok(Batch {
        outputs,
        buffer: Some(window.buffer),
    })
}

/// Produces the items of a tree.
pub(crate) async fn produce_tree(
    producer: &Producer<'_>,
    source: TreeSource,
    parent: Parent,
) -> Result<(), Error> {
    let (tree, root) = open_tree(source).await?;
    let mut run = TreeRun {
        producer,
        tree: tree.clone(),
        parent,
        slots: Vec::new(),
        bytes: 0,
        to_read: false,
        links: HashMap::new(),
    };
    run.step(Step::Entry(root)).await?;
    let mut walk = Walk::new(tree, producer.jobs_max * 2);
    loop {
        let steps = walk.next().await?;
        if steps.is_empty() {
            break;
        }
        producer.check_stop()?;
        for step in steps {
            run.step(step).await?;
        }
    }
    run.flush().await
}

async fn open_tree(source: TreeSource) -> Result<(Arc<Tree>, Entry), Error> {
    let path = source.root.clone();
    let failed = move |error: rustix::io::Errno| Error::Source {
        path,
        source: error.into(),
    };
    blocking(move || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&source.root, flags, Mode::empty())?;
        let stat = Stat::from(rustix::fs::fstat(&root)?);
        let tree = Arc::new(Tree {
            root,
            source,
            device: stat.device,
        });
        Ok((
            tree,
            Entry {
                path: ItemPath::root(),
                stat,
            },
        ))
    })
    .await?
    .map_err(failed)
}

struct TreeRun<'a, 'p> {
    producer: &'a Producer<'p>,
    tree: Arc<Tree>,
    parent: Parent,
    slots: Vec<Slot>,
    /// Bytes of content that the slots will read.
    bytes: u64,
    to_read: bool,
    /// The first name of each inode that has several, until all its names were met.
    links: HashMap<(u64, u64), (ItemPath, u64)>,
}

impl TreeRun<'_, '_> {
    async fn step(&mut self, step: Step) -> Result<(), Error> {
        let entry = match step {
            Step::Entry(entry) => entry,
            Step::Skipped { path, reason } => {
                self.slots
                    .push(Slot::Ready(Output::Skipped { path, reason }));
                return Ok(());
            }
        };
        let hardlink = self.first_name(&entry);
        if let Some((item, extents)) = self.unchanged(&entry, hardlink.as_ref()).await? {
            self.slots.push(Slot::Ready(Output::Item {
                item,
                unchanged: true,
            }));
            self.slots
                .extend(extents.into_iter().map(|e| Slot::Ready(Output::Extent(e))));
        } else if hardlink.is_none()
            && entry.stat.file_type() == FileType::RegularFile
            && entry.stat.len > self.producer.buffer_len as u64
        {
            self.flush().await?;
            return self.large_file(entry).await;
        } else {
            let reads = if hardlink.is_some() {
                0
            } else {
                content_len(&entry)
            };
            if self.bytes + reads > self.producer.buffer_len as u64 {
                self.flush().await?;
            }
            self.bytes += reads;
            self.to_read = true;
            self.slots.push(Slot::Read { entry, hardlink });
        }
        if self.slots.len() >= BATCH_ENTRIES {
            self.flush().await?;
        }
        Ok(())
    }

    /// The path under which this very file was met before.
    fn first_name(&mut self, entry: &Entry) -> Option<ItemPath> {
        if entry.stat.nlink < 2 || entry.stat.file_type() == FileType::Directory {
            return None;
        }
        let inode = (entry.stat.device, entry.stat.inode);
        if let Some((path, missing)) = self.links.get_mut(&inode) {
            *missing -= 1;
            let path = path.clone();
            if *missing == 0 {
                self.links.remove(&inode);
            }
            return Some(path);
        }
        self.links
            .insert(inode, (entry.path.clone(), entry.stat.nlink - 1));
        None
    }

    /// The parent's item, when nothing has happened to the entry since and all its chunks may be relied on.
    async fn unchanged(
        &mut self,
        entry: &Entry,
        hardlink: Option<&ItemPath>,
    ) -> Result<Option<(Item, Vec<Extent>)>, Error> {
        let Some((item, extents)) = self.parent.find(&entry.path, REUSED_EXTENTS_MAX).await? else {
            return Ok(None);
        };
        let same_kind = match (&item.kind, hardlink) {
            (ItemKind::Hardlink { target }, Some(first)) => target == first,
            (ItemKind::Hardlink { .. }, None) | (_, Some(_)) => false,
            (kind, None) => same_type(kind, &entry.stat),
        };
        let known = |extent: &Extent| match extent {
            Extent::Data { len, id } => self.producer.index.rely_on(id, *len),
            Extent::Hole { .. } => true,
        };
        let same = same_kind
            && self.parent.is_settled(entry.stat.ctime_ns)
            && same_meta(&item.meta, &entry.stat, item.kind.has_content())
            && extents.iter().all(known);
        Ok(same.then_some((item, extents)))
    }

    async fn flush(&mut self) -> Result<(), Error> {
        if self.slots.is_empty() {
            return Ok(());
        }
        let slots = std::mem::take(&mut self.slots);
        let to_read = std::mem::replace(&mut self.to_read, false);
        self.bytes = 0;
        let pending = if to_read {
            let (reading, tree) = (self.producer.reading.clone(), self.tree.clone());
            Pending::Job(start(move || read_batch(&reading, &tree, slots)))
        } else {
            let outputs = slots.into_iter().filter_map(|slot| match slot {
                Slot::Ready(output) => Some(output),
                Slot::Read { .. } => None,
            });
            Pending::Ready(Batch {
                outputs: outputs.collect(),
                buffer: None,
            })
        };
        self.producer.send(pending).await
    }

    async fn large_file(&mut self, entry: Entry) -> Result<(), Error> {
        let (tree, wanted) = (self.tree.clone(), entry.clone());
        let opened = blocking(move || open_large(&tree, &wanted)).await?;
        let (file, entry, xattrs) = match opened {
            Ok(opened) => opened,
            Err(crate::backup::read::ReadError::Fatal(error)) => return Err(error),
            Err(crate::backup::read::ReadError::System(rustix::io::Errno::NOENT))
                if entry.stat.nlink < 2 =>
            {
                return Ok(());
            }
            Err(crate::backup::read::ReadError::System(error)) => {
                let reason = std::io::Error::from(error).to_string();
                self.slots.push(Slot::Ready(Output::Skipped {
                    path: entry.path,
                    reason,
                }));
                return Ok(());
            }
        };
        let item = item(&entry, ItemKind::File, xattrs, entry.stat);
        let output = Output::Item {
            item,
            unchanged: false,
        };
        self.producer
            .send(Pending::Ready(Batch {
                outputs: vec![output],
                buffer: None,
            }))
            .await?;
        let input = Input::File {
            file,
            len: entry.stat.len,
        };
        match self
            .producer
            .windows(WindowReader::new(input), Some(&entry))
            .await?
        {
            Some(reader) => {
                let is_changed = is_changed(&reader, Some(entry.stat));
                drop(reader);
                self.producer.tell_change(&entry.path, is_changed).await
            }
            None => Ok(()),
        }
    }
}

type OpenedLarge = (File, Entry, Vec<backup_manifest::Xattr>);

fn open_large(tree: &Tree, entry: &Entry) -> Result<OpenedLarge, crate::backup::read::ReadError> {
    use std::os::fd::AsFd;
    let parent = entry.path.parent().unwrap_or_else(ItemPath::root);
    let parent = open_beneath(tree.root.as_fd(), &parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags = OFlags::RDONLY | OFlags::NOATIME;
    let fd = open_child(parent.as_fd(), entry.path.name(), flags)?;
    let stat = Stat::from(rustix::fs::fstat(&fd)?);
    check_is_file(&stat)?;
    let xattrs = crate::backup::read::read_xattrs(fd.as_fd())?;
    Ok((
        File::from(fd),
        Entry {
            path: entry.path.clone(),
            stat,
        },
        xattrs,
    ))
}

fn content_len(entry: &Entry) -> u64 {
    if entry.stat.file_type() == FileType::RegularFile {
        entry.stat.len
    } else {
        0
    }
}

fn same_type(kind: &ItemKind, stat: &Stat) -> bool {
    let recorded = match kind {
        ItemKind::File => FileType::RegularFile,
        ItemKind::Directory => FileType::Directory,
        ItemKind::Symlink { .. } => FileType::Symlink,
        ItemKind::Fifo => FileType::Fifo,
        ItemKind::Socket => FileType::Socket,
        ItemKind::CharDevice { .. } => FileType::CharacterDevice,
        ItemKind::BlockDevice { .. } => FileType::BlockDevice,
        ItemKind::Hardlink { .. } | ItemKind::Volume | ItemKind::Stream => return false,
    };
    recorded == stat.file_type()
}

fn same_meta(meta: &Metadata, stat: &Stat, has_content: bool) -> bool {
    meta.ctime_ns == stat.ctime_ns
        && meta.mtime_ns == stat.mtime_ns
        && meta.inode == stat.inode
        && meta.mode == stat.mode & 0o7777
        && (!has_content || meta.len == stat.len)
}

/// Opens a file or device to be backed up as a volume; a device's length is where its end is.
pub(crate) fn open_volume(path: &Path) -> std::io::Result<Input> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(std::io::Error::other(
            "it is a directory: back it up as a tree",
        ));
    }
    let len = file.seek(SeekFrom::End(0))?;
    Ok(Input::File { file, len })
}
