//! What to show the work on, and where there is room for it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Directories that most machines have and everybody may read, the more telling ones first.
const CANDIDATES: [&str; 9] = [
    "/usr/share/doc",
    "/usr/include",
    "/usr/lib/python3",
    "/usr/share/perl",
    "/usr/share/man",
    "/usr/share/locale",
    "/usr/local",
    "/usr/share",
    "/usr/lib",
];
const LEN_MIN: u64 = 20_000_000;
const LEN_MAX: u64 = 500_000_000;

/// Room that is to stay free.
const ROOM_SPARE: u64 = 100_000_000;

/// What a directory holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
}

/// The first candidate of a telling size.
pub(crate) fn source() -> Result<PathBuf, Failure> {
    let fits =
        |path: &&&str| (LEN_MIN..=LEN_MAX).contains(&measure(Path::new(path), LEN_MAX).bytes);
    CANDIDATES
        .iter()
        .find(fits)
        .map(PathBuf::from)
        .ok_or(Failure::NothingToShow)
}

/// Adds up what is below `root`, until it is more than `enough`. What cannot be read counts nothing.
pub(crate) fn measure(root: &Path, enough: u64) -> Size {
    let mut size = Size::default();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.is_dir() {
                directories.push(entry.path());
            } else if found.is_file() {
                size.bytes = size.bytes.saturating_add(found.len());
            }
        }
        if size.bytes > enough {
            break;
        }
    }
    size
}

/// There must be room for the repository and the restored files.
pub(crate) fn check_room(dir: &Path, bytes: u64) -> Result<(), Failure> {
    let failed = |e: rustix::io::Errno| Failure::Read {
        what: "the directory",
        path: dir.to_owned(),
        source: e.into(),
    };
    let system = rustix::fs::statvfs(dir).map_err(failed)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let wanted = bytes.saturating_mul(2).saturating_add(ROOM_SPARE);
    if free < wanted {
        return Err(Failure::NoRoom {
            path: dir.to_owned(),
            free,
            wanted,
        });
    }
    Ok(())
}

/// Lets the owner into all directories below `root`.
pub(crate) fn make_writable(root: &Path) {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let is_directory = fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir());
        if !is_directory || fs::set_permissions(&directory, Permissions::from_mode(0o700)).is_err()
        {
            continue;
        }
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        let below = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.extend(below.map(|entry| entry.path()));
    }
}
