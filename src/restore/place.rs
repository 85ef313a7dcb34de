//! Puts items into a directory, each beneath it whatever stands there: no symlink is ever followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_manifest::{Item, ItemKind, ItemPath, Metadata, SkippedItem};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::fetch::{Fetched, Piece};
use super::write::{NewContent, write_pieces};
use crate::backup::walk::open_beneath;

/// The directory that items are put into.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: OwnedFd,
    /// Things may stand there already: put items beside them and rename.
    pub(crate) is_shared: bool,
    /// Set owner and group.
    pub(crate) owners: bool,
    /// Distinguishes this run's temporary names.
    pub(crate) run: String,
    pub(crate) temporaries: AtomicU64,
}

/// What could not be done.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Items that are not there.
    pub(crate) skipped: Vec<SkippedItem>,
    /// Items that are there, without something.
    pub(crate) unset: Vec<SkippedItem>,
}

impl Findings {
    pub(crate) fn skip(&mut self, path: &ItemPath, reason: impl Into<String>) {
        self.skipped.push(SkippedItem {
            path: path.clone(),
            reason: reason.into(),
        });
    }

    fn take(&mut self, path: &ItemPath, notes: Notes) {
        for (what, why) in notes.0 {
            let reason = format!("{what} not set: {why}");
            self.unset.push(SkippedItem {
                path: path.clone(),
                reason,
            });
        }
    }
}

/// A new file under a name that is not its own yet, or is.
#[derive(Debug, Clone)]
pub(crate) struct NewFile {
    pub(crate) content: Arc<NewContent>,
    name: Vec<u8>,
}

/// Puts items in, remembering the directory used last.
pub(crate) struct Placer<'a> {
    place: &'a Place,
    parent: Option<(ItemPath, OwnedFd)>,
    pub(crate) findings: Findings,
}

impl<'a> Placer<'a> {
    pub(crate) fn new(place: &'a Place) -> Self {
        Self {
            place,
            parent: None,
            findings: Findings::default(),
        }
    }

    /// Puts in a file whose content is all in `pieces`.
    pub(crate) fn file(&mut self, item: &Item, pieces: &[Piece], fetched: &mut Fetched) -> bool {
        let new = match self.create(item) {
            Ok(new) => new,
            Err(error) => {
                self.findings
                    .skip(&item.path, std::io::Error::from(error).to_string());
                return false;
            }
        };
        let written = write_pieces(&new.content, pieces, fetched).and_then(|()| {
            let data: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
            if data < item.meta.len {
                set_len(&new.content.fd, item.meta.len)
            } else {
                Ok(())
            }
        });
        self.settle(item, new, written)
    }

    /// Creates an empty file, and the directories above it.
    pub(crate) fn create(&mut self, item: &Item) -> Result<NewFile, Errno> {
        let name = self.new_name(&item.path);
        let parent = self.parent(&item.path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, &*name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(NewFile {
            content: Arc::new(NewContent::new(fd, item.meta.len)),
            name,
        })
    }

    /// Sets a written file's metadata and gives it its name, or takes it away again.
    pub(crate) fn settle(
        &mut self,
        item: &Item,
        new: NewFile,
        written: Result<(), String>,
    ) -> bool {
        let written = written.and_then(|()| {
            let finished = new.content.finish();
            finished.map_err(|error| std::io::Error::from(error).to_string())
        });
        let settled = match written {
            Ok(()) => {
                self.file_meta(item, new.content.fd.as_fd());
                self.rename(&item.path, &new.name)
                    .map_err(|e| std::io::Error::from(e).to_string())
            }
            Err(why) => Err(why),
        };
        if let Err(why) = settled {
            self.findings.skip(&item.path, why);
            if let Ok(parent) = self.parent(&item.path) {
                // Should it stay behind, it is under a name that says what it is, or in a tree that is not published.
                let _ = rustix::fs::unlinkat(parent, &*new.name, AtFlags::empty());
            }
            return false;
        }
        true
    }

    /// Puts in what has no content: a symlink, a FIFO, a socket, a device.
    pub(crate) fn node(&mut self, item: &Item) -> bool {
        let made = self.make_node(item);
        if let Err(error) = made {
            let why = match (&item.kind, error) {
                (ItemKind::CharDevice { .. } | ItemKind::BlockDevice { .. }, Errno::PERM) => {
                    "a device node can only be made by root".into()
                }
                _ => std::io::Error::from(error).to_string(),
            };
            self.findings.skip(&item.path, why);
            return false;
        }
        true
    }

    fn make_node(&mut self, item: &Item) -> Result<(), Errno> {
        let name = self.new_name(&item.path);
        let parent = self.parent(&item.path)?;
        let mode = Mode::RUSR | Mode::WUSR;
        let device = |major, minor| rustix::fs::makedev(major, minor);
        match &item.kind {
            ItemKind::Symlink { target } => rustix::fs::symlinkat(&**target, parent, &*name)?,
            ItemKind::Fifo => rustix::fs::mknodat(parent, &*name, FileType::Fifo, mode, 0)?,
            ItemKind::Socket => rustix::fs::mknodat(parent, &*name, FileType::Socket, mode, 0)?,
            ItemKind::CharDevice { major, minor } => {
                let device = device(*major, *minor);
                rustix::fs::mknodat(parent, &*name, FileType::CharacterDevice, mode, device)?;
            }
            ItemKind::BlockDevice { major, minor } => {
                let device = device(*major, *minor);
                rustix::fs::mknodat(parent, &*name, FileType::BlockDevice, mode, device)?;
            }
            _ => return Err(Errno::NOTSUP),
        }
        self.node_meta(item, &name)?;
        self.rename(&item.path, &name)
    }

    /// Gives the file at `target` a further name.
    pub(crate) fn link(&mut self, path: &ItemPath, target: &ItemPath) -> bool {
        let made = self.make_link(path, target);
        if let Err(error) = made {
            let why = std::io::Error::from(error);
            self.findings
                .skip(path, format!("cannot be linked to {target}: {why}"));
            return false;
        }
        true
    }

    fn make_link(&mut self, path: &ItemPath, target: &ItemPath) -> Result<(), Errno> {
        let name = self.new_name(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let from = target.parent().unwrap_or_else(ItemPath::root);
        let from = open_beneath(self.place.root.as_fd(), &from, flags)?;
        let parent = self.parent(path)?;
        rustix::fs::linkat(
            from.as_fd(),
            target.name(),
            parent,
            &*name,
            AtFlags::empty(),
        )?;
        self.rename(path, &name)
    }

    /// Makes sure that a directory is there; its metadata is set when all below it is.
    pub(crate) fn directory(&mut self, path: &ItemPath) -> bool {
        match self.open_directory(path) {
            Ok(_) => true,
            Err(error) => {
                self.findings
                    .skip(path, std::io::Error::from(error).to_string());
                false
            }
        }
    }

    /// Sets a directory's metadata.
    pub(crate) fn directory_meta(&mut self, item: &Item) {
        match open_beneath(
            self.place.root.as_fd(),
            &item.path,
            OFlags::RDONLY | OFlags::DIRECTORY,
        ) {
            Ok(fd) => self.file_meta(item, fd.as_fd()),
            Err(error) => {
                let mut notes = Notes::default();
                notes.note("metadata", Err(error));
                self.findings.take(&item.path, notes);
            }
        }
    }

    fn open_directory(&self, path: &ItemPath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match open_beneath(self.place.root.as_fd(), path, flags) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut fd = open_beneath(self.place.root.as_fd(), &ItemPath::root(), flags)?;
        for name in path.view().components() {
            match rustix::fs::mkdirat(&fd, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fd = rustix::fs::openat(&fd, name, flags, Mode::empty())?;
        }
        Ok(fd)
    }

    fn parent(&mut self, path: &ItemPath) -> Result<BorrowedFd<'_>, Errno> {
        let parent = path.parent().unwrap_or_else(ItemPath::root);
        if self.parent.as_ref().is_none_or(|(open, _)| *open != parent) {
            let fd = self.open_directory(&parent)?;
            self.parent = Some((parent, fd));
        }
        match &self.parent {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(Errno::NOENT),
        }
    }

    /// The item's own name, or a temporary one where something may stand under it.
    fn new_name(&self, path: &ItemPath) -> Vec<u8> {
        if !self.place.is_shared {
            return path.name().to_vec();
        }
        let number = self.place.temporaries.fetch_add(1, Ordering::Relaxed);
        format!(".restore-{}-{number}", self.place.run).into_bytes()
    }

    fn rename(&mut self, path: &ItemPath, name: &[u8]) -> Result<(), Errno> {
        if !self.place.is_shared {
            return Ok(());
        }
        let parent = self.parent(path)?;
        let renamed = rustix::fs::renameat(parent, name, parent, path.name());
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
        renamed
    }

    /// Owner first, for that clears set-id bits and capabilities; times last.
    fn file_meta(&mut self, item: &Item, fd: BorrowedFd<'_>) {
        let mut notes = Notes::default();
        let mut is_owned = self.is_own(item);
        if self.place.owners {
            let (uid, gid) = owner(item);
            is_owned = notes.note("owner", rustix::fs::fchown(fd, uid, gid));
        }
        for list in inherited(self.place, item) {
            notes.note(
                "an access list",
                removed(rustix::fs::fremovexattr(fd, list)),
            );
        }
        for xattr in &item.meta.xattrs {
            let set = rustix::fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty());
            notes.note("an extended attribute", set);
        }
        // After the attributes: a mode without the right to write forbids setting those.
        let mode = notes.mode(item, is_owned);
        notes.note("mode", rustix::fs::fchmod(fd, mode));
        notes.note("time", rustix::fs::futimens(fd, &times(&item.meta)));
        self.findings.take(&item.path, notes);
    }

    fn node_meta(&mut self, item: &Item, name: &[u8]) -> Result<(), Errno> {
        use std::os::fd::AsRawFd;
        let (target, mut is_owned) = (self.place, self.is_own(item));
        let owners = target.owners;
        let parent = self.parent(&item.path)?;
        let mut notes = Notes::default();
        if owners {
            let (uid, gid) = owner(item);
            let set = rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            is_owned = notes.note("owner", set);
        }
        if !matches!(item.kind, ItemKind::Symlink { .. }) {
            // Through an open handle: chmod by name would follow a symlink put in the node's place.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = notes.mode(item, is_owned);
            let set = rustix::fs::openat(parent, name, flags, Mode::empty()).and_then(|node| {
                rustix::fs::chmod(format!("/proc/self/fd/{}", node.as_raw_fd()), mode)
            });
            notes.note("mode", set);
        }
        let mut place = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        place.extend_from_slice(name);
        for list in inherited(target, item) {
            notes.note(
                "an access list",
                removed(rustix::fs::lremovexattr(&*place, list)),
            );
        }
        for xattr in &item.meta.xattrs {
            let set =
                rustix::fs::lsetxattr(&*place, &*xattr.name, &xattr.value, XattrFlags::empty());
            notes.note("an extended attribute", set);
        }
        let times = times(&item.meta);
        let set = rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        notes.note("time", set);
        self.findings.take(&item.path, notes);
        Ok(())
    }

    /// Whether what this process creates belongs to the item's owner anyway.
    fn is_own(&self, item: &Item) -> bool {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        item.meta.uid == uid.as_raw() && item.meta.gid == gid.as_raw()
    }
}

/// The attributes that hold access lists: of a thing itself, and what a directory hands down to new entries.
pub(crate) const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Access lists that the item does not have, and that a directory of the target may have handed down to it. (A tree put up
/// beside the target inherits none.)
fn inherited<'i>(place: &Place, item: &'i Item) -> impl Iterator<Item = &'static str> + use<'i> {
    let lists: &[&str] = match &item.kind {
        _ if !place.is_shared => &[],
        ItemKind::Symlink { .. } => &[],
        ItemKind::Directory => &ACCESS_LISTS,
        _ => &ACCESS_LISTS[..1],
    };
    let has = |list: &str| {
        item.meta
            .xattrs
            .iter()
            .any(|xattr| xattr.name == list.as_bytes())
    };
    lists.iter().copied().filter(move |list| !has(list))
}

/// What is not there, or cannot be there, needs no removal.
fn removed(outcome: Result<(), Errno>) -> Result<(), Errno> {
    match outcome {
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

/// What about one item could not be set.
#[derive(Debug, Default)]
struct Notes(Vec<(&'static str, String)>);

impl Notes {
    fn note(&mut self, what: &'static str, done: Result<(), Errno>) -> bool {
        let failed = done
            .err()
            .map(|error| (what, std::io::Error::from(error).to_string()));
        let is_done = failed.is_none();
        self.0.extend(failed);
        is_done
    }

    /// The item's mode; without its set-id bits when it belongs to somebody else than it did, for they would lend that
    /// one's rights.
    fn mode(&mut self, item: &Item, is_owned: bool) -> Mode {
        let set_id = item.meta.mode & 0o6000;
        if is_owned || set_id == 0 || item.kind == ItemKind::Directory {
            return Mode::from_raw_mode(item.meta.mode);
        }
        self.0
            .push(("set-id bits", "the owner is not the one it had".into()));
        Mode::from_raw_mode(item.meta.mode & !0o6000)
    }
}

fn owner(item: &Item) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(item.meta.uid)),
        Some(Gid::from_raw(item.meta.gid)),
    )
}

/// Sets the length of a file that ends with a hole, or has holes.
pub(crate) fn set_len(fd: &OwnedFd, len: u64) -> Result<(), String> {
    rustix::fs::ftruncate(fd, len).map_err(|e| std::io::Error::from(e).to_string())
}

fn times(meta: &Metadata) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: meta.mtime_ns.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
