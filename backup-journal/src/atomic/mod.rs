//! Files that are written whole or not at all.
//!
//! A write goes to a hidden temporary file beside the target (`.tmp-<process id>-<32 hex>`), which is synced, renamed
//! and made permanent by syncing the directory. A crash at any point leaves the old file or the new one, and perhaps
//! a temporary for [`sweep`]. Symlinks above the file are followed as everywhere; one in place of the file never is:
//! it is refused with [`AtomicError::NotAFile`].

mod error;
mod read;
mod temp;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

pub use self::error::{AtomicError, Step};
pub use self::read::read_bounded;
use self::temp::Temp;
pub use self::temp::sweep;

/// Writes `bytes` durably to `path`, in place of what is there. `mode` holds the permission bits (`0o600`), whatever
/// the umask; directories that are missing are made with 0700.
///
/// # Errors
/// [`AtomicError::NotAFile`] if a symlink or directory has the name. After any error but one of
/// [`Step::SyncDirectory`] the old file is as it was.
pub fn replace_durable(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), AtomicError> {
    let path = path.as_ref();
    let target = Target::open(path)?;
    match target.file_type() {
        Ok(FileType::RegularFile) | Err(Errno::NOENT) => {}
        Ok(_) => {
            return Err(AtomicError::NotAFile {
                path: path.to_owned(),
            });
        }
        Err(errno) => return Err(target.fail(Step::Publish)(errno)),
    }
    let mut temp = target.written(bytes, mode)?;
    // Something else may have taken the name since; a rename replaces a symlink and does not follow it.
    match retry_on_intr(|| fs::renameat(&target.dir, temp.name(), &target.dir, &target.name)) {
        Ok(()) => temp.renamed(),
        Err(Errno::ISDIR) => {
            return Err(AtomicError::NotAFile {
                path: path.to_owned(),
            });
        }
        Err(errno) => return Err(target.fail(Step::Publish)(errno)),
    }
    target.sync_dir()
}

/// Like [`replace_durable`], but never touches what is there.
///
/// # Errors
/// [`AtomicError::AlreadyExists`] if anything has the name.
pub fn create_durable(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), AtomicError> {
    let path = path.as_ref();
    let target = Target::open(path)?;
    let mut temp = target.written(bytes, mode)?;
    match rename_new(&target, &mut temp) {
        Ok(()) => target.sync_dir(),
        // Whoever was faster has perhaps not synced the directory yet, and our caller may rely on that file now.
        Err(Errno::EXIST) => target.sync_dir().and(Err(AtomicError::AlreadyExists {
            path: path.to_owned(),
        })),
        Err(errno) => Err(target.fail(Step::Publish)(errno)),
    }
}

// Some file systems know no RENAME_NOREPLACE; they have links. There the temporary name goes when `temp` is dropped.
fn rename_new(target: &Target, temp: &mut Temp<'_>) -> Result<(), Errno> {
    let (dir, from, to) = (&target.dir, temp.name(), &*target.name);
    match retry_on_intr(|| fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)) {
        Ok(()) => temp.renamed(),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            retry_on_intr(|| fs::linkat(dir, from, dir, to, AtFlags::empty()))?;
        }
        Err(errno) => return Err(errno),
    }
    Ok(())
}

/// A file to be, in its directory, which is held open.
struct Target {
    path: PathBuf,
    dir: OwnedFd,
    name: PathBuf,
}

impl Target {
    fn open(path: &Path) -> Result<Self, AtomicError> {
        // `file_name` sees through a final "/" or "/.", which would mean a directory.
        let text = path.as_os_str().as_encoded_bytes();
        let is_directory = text.ends_with(b"/") || text.ends_with(b"/.");
        let name = path.file_name().filter(|_| !is_directory);
        let Some(name) = name else {
            return Err(AtomicError::NoFileName {
                path: path.to_owned(),
            });
        };
        let parent = parent_of(path);
        make_dirs(parent).map_err(io_error(path, Step::MakeDirectories))?;
        let dir = open_dir(parent).map_err(io_error(path, Step::OpenDirectory))?;
        Ok(Self {
            path: path.to_owned(),
            dir,
            name: name.into(),
        })
    }

    // Of the name itself, not of what a symlink points to.
    fn file_type(&self) -> Result<FileType, Errno> {
        let stat = retry_on_intr(|| fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    fn written(&self, bytes: &[u8], mode: u32) -> Result<Temp<'_>, AtomicError> {
        let temp = Temp::create(&self.dir).map_err(self.fail(Step::CreateTemporary))?;
        write_all(temp.file(), bytes).map_err(self.fail(Step::Write))?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        retry_on_intr(|| fs::fchmod(temp.file(), mode)).map_err(self.fail(Step::SetMode))?;
        // Never twice on one file: after a failure the kernel may call the lost pages clean.
        retry_on_intr(|| fs::fsync(temp.file())).map_err(self.fail(Step::SyncFile))?;
        Ok(temp)
    }

    fn sync_dir(&self) -> Result<(), AtomicError> {
        retry_on_intr(|| fs::fsync(&self.dir)).map_err(self.fail(Step::SyncDirectory))
    }

    fn fail(&self, step: Step) -> impl Fn(Errno) -> AtomicError {
        io_error(&self.path, step)
    }
}

fn io_error(path: &Path, step: Step) -> impl Fn(Errno) -> AtomicError {
    move |errno| {
        let (path, source) = (path.to_owned(), errno.into());
        match errno {
            Errno::NOSPC | Errno::DQUOT => AtomicError::StorageFull { path, step, source },
            _ => AtomicError::Io { path, step, source },
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry_on_intr(|| fs::openat(CWD, path, flags, Mode::empty()))
}

// From the first directory that exists downwards, each synced into the one above it. Also if somebody else is making
// the same ones: what was missing a moment ago may not be durable yet.
fn make_dirs(dir: &Path) -> Result<(), Errno> {
    let mut missing = Vec::new();
    let mut path = dir;
    while let Err(errno) = open_dir(path) {
        if errno != Errno::NOENT || path == Path::new(".") {
            return Err(errno);
        }
        missing.push(path);
        path = parent_of(path);
    }
    for path in missing.into_iter().rev() {
        match retry_on_intr(|| fs::mkdirat(CWD, path, Mode::RWXU)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let parent = open_dir(parent_of(path))?;
        retry_on_intr(|| fs::fsync(&parent))?;
    }
    Ok(())
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match retry_on_intr(|| rustix::io::write(file, bytes))? {
            0 => return Err(Errno::IO),
            written => bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    Ok(())
}
