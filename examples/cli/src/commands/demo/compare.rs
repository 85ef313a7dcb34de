//! Compares two trees with nothing of the library: names, types, modes, owners, times, links, content.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup::ItemPath;

/// Differences kept in words; the rest is counted.
const DIFFERENCES_MAX: usize = 100;

/// Bytes read of each file at once.
const BUFFER_LEN: usize = 256 << 10;

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    /// Items known not to be the same.
    pub(crate) left_out: u64,
    pub(crate) differences_count: u64,
    pub(crate) differences: Vec<String>,
}

/// Compares everything below two roots, and the roots, but for what is in `left_out` and below it.
pub(crate) fn compare(source: &Path, restored: &Path, left_out: &BTreeSet<ItemPath>) -> Comparison {
    let mut run = Run {
        source,
        restored,
        left_out,
        links: HashMap::new(),
        owners: rustix::process::geteuid().is_root(),
        buffers: (vec![0; BUFFER_LEN], vec![0; BUFFER_LEN]),
        found: Comparison::default(),
    };
    let mut directories = vec![PathBuf::new()];
    while let Some(path) = directories.pop() {
        match run.item(&path) {
            Ok(true) => directories.extend(run.children(&path)),
            Ok(false) => {}
            Err(error) => run.differs(&path, &error.to_string()),
        }
    }
    run.found
}

struct Run<'a> {
    source: &'a Path,
    restored: &'a Path,
    left_out: &'a BTreeSet<ItemPath>,
    /// Device and inode of files with several names, there and here.
    links: HashMap<(u64, u64), (u64, u64)>,
    owners: bool,
    buffers: (Vec<u8>, Vec<u8>),
    found: Comparison,
}

impl Run<'_> {
    fn differs(&mut self, path: &Path, how: &str) {
        self.found.differences_count += 1;
        if self.found.differences.len() < DIFFERENCES_MAX {
            self.found
                .differences
                .push(format!("{}: {how}", path.display()));
        }
    }

    /// The names of a directory in either tree.
    fn children(&mut self, path: &Path) -> Vec<PathBuf> {
        let mut names: BTreeSet<OsString> = BTreeSet::new();
        for root in [self.source, self.restored] {
            match fs::read_dir(join(root, path)) {
                Ok(entries) => names.extend(entries.flatten().map(|entry| entry.file_name())),
                Err(error) => self.differs(path, &error.to_string()),
            }
        }
        names.into_iter().map(|name| path.join(name)).collect()
    }

    /// Compares one item; true for a directory to be entered.
    fn item(&mut self, path: &Path) -> io::Result<bool> {
        if self.is_left_out(path) {
            self.found.left_out += 1;
            return Ok(false);
        }
        let (there, here) = (join(self.source, path), join(self.restored, path));
        // The root of the source may be a symlink to it.
        let there_is = if path.as_os_str().is_empty() {
            fs::metadata(&there)?
        } else {
            fs::symlink_metadata(&there)?
        };
        let here_is = match fs::symlink_metadata(&here) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.differs(path, "it was not restored");
                return Ok(false);
            }
            found => found?,
        };
        self.found.items += 1;
        for what in self.metadata(&there_is, &here_is) {
            self.differs(path, what);
        }
        if there_is.file_type() != here_is.file_type() {
            return Ok(false);
        }
        if there_is.is_symlink() && fs::read_link(&there)? != fs::read_link(&here)? {
            self.differs(path, "the link points elsewhere");
        }
        if there_is.is_file() && !self.same_content(&there, &here)? {
            self.differs(path, "the content is another");
        }
        Ok(there_is.is_dir())
    }

    fn is_left_out(&self, path: &Path) -> bool {
        let path = ItemPath::from_bytes(path.as_os_str().as_bytes());
        path.is_ok_and(|path| self.left_out.contains(&path))
    }

    fn metadata(&mut self, there: &Metadata, here: &Metadata) -> Vec<&'static str> {
        let time = |found: &Metadata| (found.mtime(), found.mtime_nsec());
        let owner = |found: &Metadata| (found.uid(), found.gid());
        let mut differences = Vec::new();
        let mut check = |is_same: bool, what: &'static str| {
            if !is_same {
                differences.push(what);
            }
        };
        check(there.file_type() == here.file_type(), "the type is another");
        check(there.mode() == here.mode(), "the mode is another");
        check(time(there) == time(here), "the time is another");
        check(
            !self.owners || owner(there) == owner(here),
            "the owner is another",
        );
        check(there.rdev() == here.rdev(), "the device is another");
        if there.is_file() && there.nlink() > 1 {
            let inode = |found: &Metadata| (found.dev(), found.ino());
            let twin = *self.links.entry(inode(there)).or_insert(inode(here));
            check(twin == inode(here), "it is not linked to its other name");
        }
        differences
    }

    fn same_content(&mut self, there: &Path, here: &Path) -> io::Result<bool> {
        let (mut there, mut here) = (File::open(there)?, File::open(here)?);
        let (one, other) = (&mut self.buffers.0, &mut self.buffers.1);
        loop {
            let (read, read_here) = (fill(&mut there, one)?, fill(&mut here, other)?);
            self.found.bytes += read as u64;
            if one[..read] != other[..read_here] {
                return Ok(false);
            }
            if read == 0 {
                return Ok(true);
            }
        }
    }
}

/// Joining an empty path would append a `/`.
fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(path)
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
