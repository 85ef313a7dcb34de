//! Every file system call of `LocalFs`, and nothing else: a virtual file system can take this module's place.
//! No call leaves the root or follows a symlink, and all of them go on after `EINTR`.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{
    self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags,
    Stat,
};
use rustix::fs::{StatxFlags, Timespec};
use rustix::io::{Errno, retry_on_intr};

pub(super) type SysResult<T> = Result<T, Errno>;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The root directory, held open: nothing that happens to its path later matters.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    kernel_resolves: bool,
}

impl Root {
    /// Opens the directory at `path`, which may itself be reached through symlinks.
    pub(super) fn open(path: &Path, allow_openat2: bool) -> SysResult<Self> {
        let fd = retry_on_intr(|| fs::open(path, DIRECTORY, Mode::empty()))?;
        // Linux before 5.6 does not know openat2, and sandboxes forbid what they do not know with ENOSYS or EPERM.
        let kernel_resolves = allow_openat2 && openat2(&fd, ".", DIRECTORY).is_ok();
        Ok(Self {
            fd,
            kernel_resolves,
        })
    }

    /// Opens a directory below the root; `""` is the root itself.
    pub(super) fn open_dir(&self, path: &str) -> SysResult<OwnedFd> {
        self.open_beneath(if path.is_empty() { "." } else { path }, DIRECTORY)
    }

    /// Opens a file below the root for reading. A pipe or device does not block here; the caller looks at its type.
    pub(super) fn open_file(&self, path: &str) -> SysResult<OwnedFd> {
        self.open_beneath(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        )
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> SysResult<OwnedFd> {
        if self.kernel_resolves {
            return openat2(&self.fd, path, flags);
        }
        let Some((folders, leaf)) = path.rsplit_once('/') else {
            return open_at(&self.fd, path, flags);
        };
        let mut dir = None;
        for segment in folders.split('/') {
            dir = Some(open_at(
                dir.as_ref().unwrap_or(&self.fd),
                segment,
                DIRECTORY,
            )?);
        }
        open_at(dir.as_ref().unwrap_or(&self.fd), leaf, flags)
    }
}

fn openat2(root: &OwnedFd, path: &str, flags: OFlags) -> SysResult<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    retry_on_intr(|| fs::openat2(root, path, flags, Mode::empty(), resolve))
}

// One segment, never through a symlink: `ELOOP`, as openat2 says it (open alone says ENOTDIR for directories).
fn open_at(dir: &OwnedFd, name: &str, flags: OFlags) -> SysResult<OwnedFd> {
    match retry_on_intr(|| fs::openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty())) {
        Err(Errno::NOTDIR)
            if stat_at(dir, name).is_ok_and(|stat| file_type(&stat) == FileType::Symlink) =>
        {
            Err(Errno::LOOP)
        }
        other => other,
    }
}

/// Opens a child directory without following a symlink.
pub(super) fn open_child_dir(dir: &OwnedFd, name: &str) -> SysResult<OwnedFd> {
    open_at(dir, name, DIRECTORY)
}

/// Opens a file of `dir` for locking it.
pub(super) fn open_to_lock(dir: &OwnedFd, name: &str) -> SysResult<OwnedFd> {
    open_at(
        dir,
        name,
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
    )
}

/// Creates a new file (0600) for writing.
pub(super) fn create_new(dir: &OwnedFd, name: &str) -> SysResult<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| fs::openat(dir, name, flags, FILE_MODE))
}

/// Makes a directory (0700); `false` if the name is taken.
pub(super) fn make_dir(dir: &OwnedFd, name: &str) -> SysResult<bool> {
    taken_is_false(retry_on_intr(|| fs::mkdirat(dir, name, DIRECTORY_MODE)))
}

/// Makes a directory (0700) at a path outside of any root; `false` if the name is taken.
pub(super) fn make_root_dir(path: &Path) -> SysResult<bool> {
    taken_is_false(retry_on_intr(|| fs::mkdirat(CWD, path, DIRECTORY_MODE)))
}

fn taken_is_false(result: SysResult<()>) -> SysResult<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Writes all bytes, however the kernel cuts them.
pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> SysResult<()> {
    while !bytes.is_empty() {
        bytes = bytes.get(write(file, bytes)?..).unwrap_or_default();
    }
    Ok(())
}

/// Writes some bytes, at least one, and returns how many.
pub(super) fn write(file: &OwnedFd, bytes: &[u8]) -> SysResult<usize> {
    match retry_on_intr(|| rustix::io::write(file, bytes))? {
        0 => Err(Errno::IO),
        written => Ok(written),
    }
}

/// Sets the flags of an open file that can be set later, and unsets the others of these.
pub(super) fn set_flags(file: &OwnedFd, flags: OFlags) -> SysResult<()> {
    retry_on_intr(|| fs::fcntl_setfl(file, flags))
}

/// Appends to `buffer` until it holds `len` bytes or the file ends. Nothing is zeroed first.
pub(super) fn read_at(
    file: &OwnedFd,
    buffer: &mut Vec<u8>,
    start: u64,
    len: usize,
) -> SysResult<()> {
    while buffer.len() < len {
        let offset = start + buffer.len() as u64;
        if retry_on_intr(|| rustix::io::pread(file, spare_capacity(buffer), offset))? == 0 {
            break;
        }
    }
    // The allocator may have given more room than was asked for.
    buffer.truncate(len);
    Ok(())
}

pub(super) fn sync(file_or_dir: &OwnedFd) -> SysResult<()> {
    retry_on_intr(|| fs::fsync(file_or_dir))
}

/// Makes everything on the root's file system durable, through a descriptor of its own: it reports no error that
/// happened before.
pub(super) fn sync_file_system(root: &Root) -> SysResult<()> {
    let fd = root.open_dir("")?;
    retry_on_intr(|| fs::syncfs(&fd))
}

/// A second name for a file; `EEXIST` if the name is taken.
pub(super) fn link(from: (&OwnedFd, &str), to: (&OwnedFd, &str)) -> SysResult<()> {
    retry_on_intr(|| fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty()))
}

/// Moves a file to a name that must be free; `EEXIST` if it is taken.
pub(super) fn rename_new(from: (&OwnedFd, &str), to: (&OwnedFd, &str)) -> SysResult<()> {
    retry_on_intr(|| fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE))
}

/// Moves a file to a name and replaces what has it.
pub(super) fn rename_over(from: (&OwnedFd, &str), to: (&OwnedFd, &str)) -> SysResult<()> {
    retry_on_intr(|| fs::renameat(from.0, from.1, to.0, to.1))
}

pub(super) fn unlink(dir: &OwnedFd, name: &str) -> SysResult<()> {
    retry_on_intr(|| fs::unlinkat(dir, name, AtFlags::empty()))
}

/// Takes the lock of a file without waiting; it goes when the descriptor is closed, also by a crash.
pub(super) fn try_lock(file: &OwnedFd) -> SysResult<()> {
    retry_on_intr(|| fs::flock(file, FlockOperation::NonBlockingLockExclusive))
}

pub(super) fn stat(file: &OwnedFd) -> SysResult<Stat> {
    retry_on_intr(|| fs::fstat(file))
}

/// The status of a name itself, not of what a symlink points to.
pub(super) fn stat_at(dir: &OwnedFd, name: &str) -> SysResult<Stat> {
    retry_on_intr(|| fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Tells a directory from any other that ever had or will have its path; `None` if the file system does not record
/// births (an inode number alone is used again).
pub(super) fn identity(dir: &OwnedFd) -> Option<Identity> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let statx = retry_on_intr(|| fs::statx(dir, "", AtFlags::EMPTY_PATH, wanted)).ok()?;
    let has_birth = StatxFlags::from_bits_retain(statx.stx_mask).contains(wanted);
    has_birth.then_some(Identity {
        device: (statx.stx_dev_major, statx.stx_dev_minor),
        inode: statx.stx_ino,
        birth: (statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec),
    })
}

/// See [`identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    birth: (i64, u32),
}

/// Calls `each` with every name and type of a directory, in no order.
pub(super) fn read_dir(dir: &OwnedFd, mut each: impl FnMut(&CStr, FileType)) -> SysResult<()> {
    let mut entries = retry_on_intr(|| Dir::read_from(dir))?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        each(entry.file_name(), entry.file_type());
    }
    Ok(())
}

/// The modification time of a status.
pub(super) fn modified(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    }
}
