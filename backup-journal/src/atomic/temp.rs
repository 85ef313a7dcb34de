use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{AtomicError, Step, io_error, open_dir};

// A temporary is taken away while it is made only by a sweep that runs at that very moment.
const ATTEMPTS_MAX: usize = 8;

/// A temporary file, open for writing and locked. Dropping it removes its name.
#[derive(Debug)]
pub(super) struct Temp<'a> {
    dir: &'a OwnedFd,
    name: String,
    file: OwnedFd,
    named: bool,
}

impl<'a> Temp<'a> {
    pub(super) fn create(dir: &'a OwnedFd) -> Result<Self, Errno> {
        for _ in 0..ATTEMPTS_MAX {
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
            let name = format!(
                ".tmp-{}-{:032x}",
                std::process::id(),
                u128::from_le_bytes(random)
            );
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let created = retry_on_intr(|| fs::openat(dir, &name, flags, Mode::RUSR | Mode::WUSR));
            let file = match created {
                Err(Errno::EXIST) => continue,
                created => created?,
            };
            let temp = Self {
                dir,
                name,
                file,
                named: true,
            };
            if temp.lock()? {
                return Ok(temp);
            }
        }
        Err(Errno::BUSY)
    }

    // `false` if a sweep was faster: it has the lock, or had it and removed the name.
    fn lock(&self) -> Result<bool, Errno> {
        match try_lock(&self.file) {
            Ok(()) => Ok(retry_on_intr(|| fs::fstat(&self.file))?.st_nlink > 0),
            Err(Errno::AGAIN) => Ok(false),
            // No locks here, so no sweep either.
            Err(_) => Ok(true),
        }
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn renamed(&mut self) {
        self.named = false;
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if self.named {
            // Nothing to do if it fails: the next sweep finds it.
            let _ = retry_on_intr(|| fs::unlinkat(self.dir, &self.name, AtFlags::empty()));
        }
    }
}

/// Removes the temporary files that crashed writers left in `dir` and returns how many. Those of live writers, which
/// hold their lock, stay; where the file system has no locks all stay.
///
/// # Errors
/// Those of listing and removing; a directory that does not exist has no leftovers.
pub fn sweep(dir: impl AsRef<Path>) -> Result<usize, AtomicError> {
    let path = dir.as_ref();
    let dir = match open_dir(path) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(0),
        Err(errno) => return Err(io_error(path, Step::OpenDirectory)(errno)),
    };
    let mut removed = 0;
    for name in temp_names(&dir).map_err(io_error(path, Step::List))? {
        match sweep_one(&dir, &name) {
            Ok(true) => removed += 1,
            Ok(false) => {}
            Err(errno) => return Err(io_error(&path.join(name), Step::Remove)(errno)),
        }
    }
    Ok(removed)
}

fn sweep_one(dir: &OwnedFd, name: &str) -> Result<bool, Errno> {
    let flags =
        OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match retry_on_intr(|| fs::openat(dir, name, flags, Mode::empty())) {
        Ok(file) => file,
        // Renamed meanwhile, or nothing that we made.
        Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    if try_lock(&file).is_err() {
        return Ok(false);
    }
    match retry_on_intr(|| fs::unlinkat(dir, name, AtFlags::empty())) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn temp_names(dir: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    let mut entries = retry_on_intr(|| Dir::read_from(dir))?;
    while let Some(entry) = entries.read() {
        if let Ok(name) = entry?.file_name().to_str()
            && is_temp_name(name)
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn is_temp_name(name: &str) -> bool {
    let parts = name
        .strip_prefix(".tmp-")
        .and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(pid, random)| {
        !pid.is_empty()
            && pid.bytes().all(|byte| byte.is_ascii_digit())
            && random.len() == 32
            && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

// The lock goes when the descriptor is closed, also by a crash.
fn try_lock(file: &OwnedFd) -> Result<(), Errno> {
    retry_on_intr(|| fs::flock(file, FlockOperation::NonBlockingLockExclusive))
}
