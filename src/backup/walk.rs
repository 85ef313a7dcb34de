//! Walks a tree in the order of the item stream, looking ahead: directories are read on the blocking pool while what they
//! hold is waited for.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use backup_manifest::ItemPath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::Error;
use crate::backup::source::TreeSource;
use crate::env::{Job, start};

/// What the file system says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) len: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    pub(crate) inode: u64,
    pub(crate) device: u64,
    pub(crate) nlink: u64,
    pub(crate) rdev: u64,
}

impl Stat {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

impl From<rustix::fs::Stat> for Stat {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "widths differ between systems"
    )]
    fn from(stat: rustix::fs::Stat) -> Self {
        let ns = |seconds: i64, part: u64| {
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add_unsigned(part)
        };
        Self {
            mode: stat.st_mode as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
            nlink: stat.st_nlink as u64,
            rdev: stat.st_rdev as u64,
        }
    }
}

/// An entry of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: ItemPath,
    pub(crate) stat: Stat,
}

/// What the walk comes upon, in the order of paths.
#[derive(Debug)]
pub(crate) enum Step {
    Entry(Entry),
    /// Something could not be looked at.
    Skipped {
        path: ItemPath,
        reason: String,
    },
}

#[derive(Debug)]
enum Event {
    Step(Step),
    Later(Work),
    Started(Job<Vec<Event>>),
}

/// A part of the walk that is not done yet.
#[derive(Debug)]
enum Work {
    Directory(ItemPath),
    /// Entries of a directory too large to look at in one go.
    Names {
        directory: ItemPath,
        names: Vec<Box<[u8]>>,
    },
}

/// Entries that one job looks at before it leaves further directories for other jobs.
const JOB_ENTRIES: usize = 1024;

/// A directory with more names than this is looked at in several jobs.
const DIRECTORY_NAMES_MAX: usize = 4 * JOB_ENTRIES;

/// Directories within directories that one job enters: each costs an open file and some stack.
const JOB_DEPTH_MAX: usize = 32;

/// The walk of one tree.
#[derive(Debug)]
pub(crate) struct Walk {
    tree: Arc<Tree>,
    /// Events in order; the next one is at the end of the last.
    frames: Vec<VecDeque<Event>>,
    jobs_max: usize,
}

/// The tree's root, open, and what to leave out.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: OwnedFd,
    pub(crate) source: TreeSource,
    pub(crate) device: u64,
}

impl Walk {
    /// Starts with the children of the root.
    pub(crate) fn new(tree: Arc<Tree>, jobs_max: usize) -> Self {
        let first = VecDeque::from([Event::Later(Work::Directory(ItemPath::root()))]);
        Self {
            tree,
            frames: vec![first],
            jobs_max,
        }
    }

    /// The next steps; empty when the walk is over.
    pub(crate) async fn next(&mut self) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        while steps.is_empty() && !self.frames.is_empty() {
            self.look_ahead();
            let Some(frame) = self.frames.last_mut() else {
                break;
            };
            match frame.pop_front() {
                None => drop(self.frames.pop()),
                Some(Event::Step(step)) => {
                    steps.push(step);
                    while let Some(Event::Step(_)) = frame.front() {
                        if let Some(Event::Step(step)) = frame.pop_front() {
                            steps.push(step);
                        }
                    }
                }
                Some(Event::Later(work)) => {
                    frame.push_front(Event::Started(start_scan(&self.tree, work)));
                }
                Some(Event::Started(job)) => {
                    let events = job.finish().await?;
                    self.frames.push(VecDeque::from(events));
                }
            }
        }
        Ok(steps)
    }

    /// Starts the next directories in line, so that they are read when they are come upon.
    fn look_ahead(&mut self) {
        let mut under_way = 0;
        for frame in (0..self.frames.len()).rev() {
            for at in 0..self.frames[frame].len() {
                if under_way >= self.jobs_max {
                    return;
                }
                match &self.frames[frame][at] {
                    Event::Step(_) => {}
                    Event::Started(_) => under_way += 1,
                    Event::Later(_) => {
                        let placeholder = Event::Step(Step::Skipped {
                            path: ItemPath::root(),
                            reason: String::new(),
                        });
                        let event = std::mem::replace(&mut self.frames[frame][at], placeholder);
                        if let Event::Later(work) = event {
                            self.frames[frame][at] = Event::Started(start_scan(&self.tree, work));
                        }
                        under_way += 1;
                    }
                }
            }
        }
    }
}

/// Opens a directory of the tree without following a symlink anywhere on the way.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &ItemPath,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let name: &[u8] = if path.is_root() {
        b"."
    } else {
        path.as_bytes()
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
            // The kernel gives up when a rename anywhere interferes with the check.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn start_scan(tree: &Arc<Tree>, work: Work) -> Job<Vec<Event>> {
    let tree = tree.clone();
    start(move || scan(&tree, work))
}

fn scan(tree: &Tree, work: Work) -> Vec<Event> {
    let mut scan = Scan {
        tree,
        events: Vec::new(),
    };
    match work {
        Work::Directory(path) => {
            match open_beneath(tree.root.as_fd(), &path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) => {
                    // The root's children are dealt out at once, so that all cores have work from the start.
                    let depth = if path.is_root() { JOB_DEPTH_MAX } else { 0 };
                    scan.directory(fd.as_fd(), &path, depth);
                }
                // Gone since it was listed: as if it had gone before.
                Err(Errno::NOENT) => {}
                Err(error) => scan.skip(path, error),
            }
        }
        Work::Names { directory, names } => {
            match open_beneath(
                tree.root.as_fd(),
                &directory,
                OFlags::RDONLY | OFlags::DIRECTORY,
            ) {
                Ok(fd) => scan.names(fd.as_fd(), &directory, &names, 0),
                Err(Errno::NOENT) => {}
                Err(error) => scan.skip(directory, error),
            }
        }
    }
    scan.events
}

struct Scan<'a> {
    tree: &'a Tree,
    events: Vec<Event>,
}

impl Scan<'_> {
    fn directory(&mut self, fd: BorrowedFd<'_>, path: &ItemPath, depth: usize) {
        let names = match read_names(fd) {
            Ok(names) => names,
            Err(error) => return self.skip(path.clone(), error),
        };
        if names.len() <= DIRECTORY_NAMES_MAX {
            return self.names(fd, path, &names, depth);
        }
        let mut names = names.into_iter();
        loop {
            let some: Vec<_> = names.by_ref().take(JOB_ENTRIES).collect();
            if some.is_empty() {
                return;
            }
            self.events.push(Event::Later(Work::Names {
                directory: path.clone(),
                names: some,
            }));
        }
    }

    fn names(
        &mut self,
        fd: BorrowedFd<'_>,
        directory: &ItemPath,
        names: &[Box<[u8]>],
        depth: usize,
    ) {
        for name in names {
            let stat = match rustix::fs::statat(fd, &**name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Stat::from(stat),
                // Gone since the directory was read: it is as if it had gone before.
                Err(Errno::NOENT) => continue,
                Err(error) => match directory.join(name) {
                    Ok(path) => {
                        self.skip(path, error);
                        continue;
                    }
                    Err(_) => continue,
                },
            };
            let is_directory = stat.file_type() == FileType::Directory;
            let path = match directory.join(name) {
                Ok(path) => path,
                Err(error) => {
                    let reason = format!("its name cannot be recorded: {error}");
                    self.events.push(Event::Step(Step::Skipped {
                        path: directory.clone(),
                        reason,
                    }));
                    continue;
                }
            };
            if self.tree.source.is_excluded(&path, is_directory) {
                continue;
            }
            self.events.push(Event::Step(Step::Entry(Entry {
                path: path.clone(),
                stat,
            })));
            let other_device = self.tree.source.one_file_system && stat.device != self.tree.device;
            if is_directory && !other_device {
                self.enter(fd, name, path, depth);
            }
        }
    }

    fn enter(&mut self, fd: BorrowedFd<'_>, name: &[u8], path: ItemPath, depth: usize) {
        if self.events.len() >= JOB_ENTRIES || depth >= JOB_DEPTH_MAX {
            self.events.push(Event::Later(Work::Directory(path)));
            return;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(fd, name, flags, Mode::empty()) {
            Ok(child) => self.directory(child.as_fd(), &path, depth + 1),
            Err(Errno::NOENT) => {}
            Err(error) => self.skip(path, error),
        }
    }

    fn skip(&mut self, path: ItemPath, error: Errno) {
        let reason = std::io::Error::from(error).to_string();
        self.events
            .push(Event::Step(Step::Skipped { path, reason }));
    }
}

/// The names in a directory, sorted by their bytes.
fn read_names(fd: BorrowedFd<'_>) -> Result<Vec<Box<[u8]>>, Errno> {
    let mut names = Vec::new();
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(Box::from(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}
