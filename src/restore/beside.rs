//! What is put up beside its target until it is whole: hidden names, held by a lock, and swept when nobody holds them.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// The hidden name beside `target` of the run `run`.
pub(super) fn hidden_name(target: &Path, run: &str) -> PathBuf {
    let mut name = prefix(target);
    name.push(run);
    above(target).join(name)
}

/// The directory that `target` is in.
pub(super) fn above(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn prefix(target: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or(OsStr::new("target")));
    name.push(".restore-");
    name
}

/// Holds what is being put up, so that another run does not sweep it. The lock goes with the process.
pub(super) fn hold(fd: impl AsFd) -> std::io::Result<()> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        // Without locks nothing is ever swept.
        Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes what died runs left beside `target`. What cannot be removed stays: it is in nobody's way.
pub(super) fn sweep(target: &Path) {
    let (above, prefix) = (above(target), prefix(target));
    let Ok(entries) = std::fs::read_dir(&above) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        let Some(_held) = is_ours.then(|| take_over(&entry.path())).flatten() else {
            continue;
        };
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let _ = if is_directory {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
    }
}

/// The lock on what nobody holds any more.
fn take_over(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(fd)
}
