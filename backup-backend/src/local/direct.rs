//! Writes long files past the page cache. They are synced before anybody may see them, so the cache would only cost a copy
//! of every byte into pages that nobody reads, and push out of memory what somebody does.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::sys::{self, SysResult};

/// Shorter files go through the cache: they may be read soon, and cost little.
const DIRECT_LEN_MIN: usize = 8 << 20;

/// What one write takes. Source: measured, 1 to 4 MiB reach what the disk can do.
const PIECE_LEN: usize = 2 << 20;

/// Memory, place and length of a direct write are multiples of this. Source: open(2); no file system asks for more than its
/// block, and those that do refuse, which is seen.
const ALIGN: usize = 4096;

/// Buffers that begin where direct writes want it, used again and again.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; PIECE_LEN + ALIGN])
    }

    fn give(&self, buffer: Vec<u8>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}

/// Writes all of a new file.
pub(super) fn write_new(file: &OwnedFd, bytes: &[u8], buffers: &Buffers) -> SysResult<()> {
    let mut rest = bytes;
    if bytes.len() >= DIRECT_LEN_MIN && sys::set_flags(file, OFlags::DIRECT).is_ok() {
        let mut buffer = buffers.take();
        let written = write_pieces(file, bytes, &mut buffer);
        buffers.give(buffer);
        rest = bytes.get(written?..).unwrap_or_default();
        sys::set_flags(file, OFlags::empty())?;
    }
    sys::write_all(file, rest)
}

/// Writes whole pieces as long as that goes well, and returns how many bytes that were.
fn write_pieces(file: &OwnedFd, bytes: &[u8], buffer: &mut [u8]) -> SysResult<usize> {
    let start = buffer.as_ptr().align_offset(ALIGN);
    let mut done = 0;
    loop {
        let rest = bytes.get(done..).unwrap_or_default();
        let len = rest.len().min(PIECE_LEN) / ALIGN * ALIGN;
        let (Some(piece), Some(from)) = (buffer.get_mut(start..start + len), rest.get(..len))
        else {
            return Ok(done);
        };
        if len == 0 {
            return Ok(done);
        }
        piece.copy_from_slice(from);
        match sys::write(file, piece) {
            Ok(written) => done += written,
            // The file system wants other multiples.
            Err(Errno::INVAL) => return Ok(done),
            Err(errno) => return Err(errno),
        }
        // Cut within a page, as at the end of the room: the rest is written the usual way, which says why.
        if done % ALIGN != 0 {
            return Ok(done);
        }
    }
}
