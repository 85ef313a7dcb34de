use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{AtomicError, Step, io_error};

/// Reads a whole file of at most `len_max` bytes.
///
/// # Errors
/// [`AtomicError::NotFound`]; [`AtomicError::TooLong`]; [`AtomicError::NotAFile`] for a symlink, directory or special
/// file (a pipe does not block).
pub fn read_bounded(path: impl AsRef<Path>, len_max: u64) -> Result<Vec<u8>, AtomicError> {
    let path = path.as_ref();
    let fail = io_error(path, Step::Read);
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match retry_on_intr(|| fs::openat(CWD, path, flags, Mode::empty())) {
        Ok(file) => file,
        Err(Errno::NOENT) => {
            return Err(AtomicError::NotFound {
                path: path.to_owned(),
            });
        }
        // A symlink, or a socket.
        Err(Errno::LOOP | Errno::NXIO) => {
            return Err(AtomicError::NotAFile {
                path: path.to_owned(),
            });
        }
        Err(errno) => return Err(fail(errno)),
    };
    let stat = retry_on_intr(|| fs::fstat(&file)).map_err(&fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(AtomicError::NotAFile {
            path: path.to_owned(),
        });
    }
    let too_long = || AtomicError::TooLong {
        path: path.to_owned(),
        len_max,
    };
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    if len > len_max {
        return Err(too_long());
    }
    let len = usize::try_from(len).map_err(|_| too_long())?;
    let mut bytes = Vec::new();
    // One more than the file has, so that its end is seen without growing.
    bytes
        .try_reserve_exact(len.saturating_add(1))
        .map_err(|_| fail(Errno::NOMEM))?;
    while retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut bytes))).map_err(&fail)? > 0
    {
        if bytes.len() as u64 > len_max {
            return Err(too_long());
        }
        // It grows while it is read.
        if bytes.len() == bytes.capacity() {
            bytes.try_reserve(4096).map_err(|_| fail(Errno::NOMEM))?;
        }
    }
    Ok(bytes)
}
