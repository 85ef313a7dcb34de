//! Walks trees and compares them with nothing of the library: names, types, modes, owners, times, links, attributes,
//! device numbers, content.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What there is to know of an item but for its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Type and permissions, set-id and sticky bits.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Seconds and nanoseconds; may be before 1970.
    pub(crate) mtime: (i64, i64),
    /// Of what is no directory.
    pub(crate) len: u64,
    pub(crate) rdev: u64,
    pub(crate) nlink: u64,
    /// The first path, in the order of bytes, that is the same inode.
    pub(crate) twin: Vec<u8>,
    pub(crate) link_target: Option<Vec<u8>>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything below a root and the root itself, by path; the root's is empty.
pub(crate) fn walk(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut inodes: HashMap<(u64, u64), Vec<Vec<u8>>> = HashMap::new();
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let place = join(root, &path);
        // What may not be looked at is as if it were not there.
        let Some(stat) = allowed(fs::symlink_metadata(&place)) else {
            continue;
        };
        if stat.is_dir() {
            for entry in allowed(fs::read_dir(&place)).into_iter().flatten() {
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(entry.unwrap().file_name().as_bytes());
                todo.push(child);
            }
        } else {
            let inode = (stat.dev(), stat.ino());
            inodes.entry(inode).or_default().push(path.clone());
        }
        found.insert(path.clone(), look(&place, path, &stat));
    }
    for paths in inodes.into_values() {
        let first = paths.iter().min().unwrap().clone();
        for path in paths {
            found.get_mut(&path).unwrap().twin = first.clone();
        }
    }
    found
}

fn allowed<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        other => Some(other.unwrap()),
    }
}

fn look(place: &Path, path: Vec<u8>, stat: &Metadata) -> Seen {
    let target = stat.is_symlink().then(|| fs::read_link(place).unwrap());
    Seen {
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        mtime: (stat.mtime(), stat.mtime_nsec()),
        len: if stat.is_dir() { 0 } else { stat.len() },
        rdev: stat.rdev(),
        nlink: if stat.is_dir() { 0 } else { stat.nlink() },
        twin: path,
        link_target: target.map(|target| target.as_os_str().as_bytes().to_vec()),
        xattrs: xattrs(place),
    }
}

fn xattrs(place: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; 64 << 10];
    let len = match rustix::fs::llistxattr(place, &mut list) {
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::ACCESS) => 0,
        len => len.unwrap(),
    };
    let names = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut xattrs: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = match rustix::fs::lgetxattr(place, name, &mut value) {
                Err(rustix::io::Errno::ACCESS) => 0,
                len => len.unwrap(),
            };
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect();
    xattrs.sort();
    xattrs
}

/// What differs between two trees, in words.
pub(crate) fn differences(one: &Path, other: &Path) -> Vec<String> {
    let (mut there, mut here) = (walk(one), walk(other));
    let mut found = Vec::new();
    for (path, seen) in &mut there {
        let name = String::from_utf8_lossy(path);
        match here.get_mut(path) {
            None => found.push(format!("{name}: missing")),
            Some(twin) if seen != twin => found.push(format!("{name}: {seen:?}\n is {twin:?}")),
            Some(_) if is_file(seen) && seen.twin == *path => {
                if !same_content(&join(one, path), &join(other, path)) {
                    found.push(format!("{name}: other content"));
                }
            }
            Some(_) => {}
        }
    }
    let more = here.keys().filter(|path| !there.contains_key(*path));
    found.extend(more.map(|path| format!("{}: not in the source", String::from_utf8_lossy(path))));
    found
}

/// Fails unless two trees are the same.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let found = differences(one, other);
    let shown = found.len().min(20);
    assert!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        found[..shown].join("\n")
    );
}

fn is_file(seen: &Seen) -> bool {
    seen.mode & 0o170_000 == 0o100_000
}

/// Whether two files hold the same bytes.
pub(crate) fn same_content(one: &Path, other: &Path) -> bool {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let (mut there, mut here) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    loop {
        let (read, twin) = (fill(&mut one, &mut there), fill(&mut other, &mut here));
        if there[..read] != here[..twin] {
            return false;
        }
        if read == 0 {
            return true;
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).unwrap() {
            0 => break,
            read => filled += read,
        }
    }
    filled
}

/// Bytes that a file takes on the disk.
pub(crate) fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

pub(crate) fn join(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        return root.to_owned();
    }
    root.join(OsStr::from_bytes(path))
}
