//! Writes content where it belongs in a new file; that of long files past the page cache, which would only cost a copy of
//! every byte into pages that nobody reads before the file is durable.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::fetch::{Fetched, Piece};
use crate::buffers::Pool;

/// Shorter files go through the cache.
const DIRECT_LEN_MIN: u64 = 8 << 20;

/// What one direct write takes at most.
const DIRECT_LEN: usize = 2 << 20;

/// Memory, place and length of a direct write are multiples of this. Source: open(2); a file system that wants more says so.
const ALIGN: usize = 4096;

/// A file in the making, which several jobs may write at once.
#[derive(Debug)]
pub(crate) struct NewContent {
    pub(crate) fd: OwnedFd,
    /// The same file past the cache.
    direct: Option<OwnedFd>,
    /// Where stretches begin and end within a page: through the cache, and later. A usual write waits until no direct one is
    /// under way, and holds up the next.
    edges: Mutex<Vec<(u64, Vec<u8>)>>,
}

/// So many edges are kept, of less than a page each.
const EDGES_MAX: usize = 1024;

impl NewContent {
    /// A file that will be `len` bytes long.
    pub(crate) fn new(fd: OwnedFd, len: u64) -> Self {
        let reopen = || {
            let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
            let place = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::open(place, flags, Mode::empty()).ok()
        };
        let direct = if len >= DIRECT_LEN_MIN {
            reopen()
        } else {
            None
        };
        Self {
            fd,
            direct,
            edges: Mutex::default(),
        }
    }

    /// Something that stands already: a device, or a file that is written in place.
    pub(crate) fn in_place(fd: OwnedFd) -> Self {
        Self {
            fd,
            direct: None,
            edges: Mutex::default(),
        }
    }

    fn edge(&self, bytes: &[u8], at: u64) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.push((at, bytes.to_vec()));
        if edges.len() < EDGES_MAX {
            return Ok(());
        }
        drop(edges);
        self.finish()
    }

    /// Writes what was kept for later. Without it, the content is not whole.
    pub(crate) fn finish(&self) -> Result<(), Errno> {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        let some = std::mem::take(&mut *edges);
        some.iter()
            .try_for_each(|(at, bytes)| write_at(&self.fd, bytes, *at))
    }
}

/// Writes pieces where they belong. The error says which content is wanting and why.
pub(crate) fn write_pieces(
    file: &NewContent,
    pieces: &[Piece],
    fetched: &mut Fetched,
) -> Result<(), String> {
    let failed = |error: Errno| std::io::Error::from(error).to_string();
    let Some(direct) = &file.direct else {
        for piece in pieces {
            write_at(&file.fd, fetched.bytes(piece)?, piece.at).map_err(failed)?;
        }
        return Ok(());
    };
    let pool = fetched.aligned().clone();
    let mut buffer = pool.take_or(|| vec![0; DIRECT_LEN + ALIGN]);
    let Some(buffer) = buffer.get_mut() else {
        return Err("no buffer".into());
    };
    let start = buffer.as_ptr().align_offset(ALIGN);
    let mut run = Run {
        file,
        direct,
        buffer: &mut buffer[start..start + DIRECT_LEN],
        len: 0,
        end: 0,
    };
    for stretch in pieces.chunk_by(|one, next| end_of(one) == next.at) {
        let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else {
            continue;
        };
        run.begin(first.at, end_of(last));
        for piece in stretch {
            run.push(fetched.bytes(piece)?).map_err(failed)?;
        }
        run.finish().map_err(failed)?;
    }
    Ok(())
}

fn end_of(piece: &Piece) -> u64 {
    piece.at + u64::from(piece.to - piece.from)
}

/// Buffers that begin where direct writes want it.
pub(crate) type Aligned = std::sync::Arc<Pool<Vec<u8>>>;

/// A stretch of a file without gaps. Whole pages go directly; what shares its first or last page with others goes through
/// the cache, so that no page is written both ways.
struct Run<'a> {
    file: &'a NewContent,
    direct: &'a OwnedFd,
    /// Whole pages, to be written.
    buffer: &'a mut [u8],
    len: usize,
    /// Where the next byte of the stretch belongs.
    end: u64,
}

impl Run<'_> {
    /// Begins a stretch, and asks for its room at once: direct writes into room that is there already do not wait for each
    /// other. (Measured on ext4, where each takes the file's lock for itself otherwise.)
    fn begin(&mut self, start: u64, end: u64) {
        let pages = start.next_multiple_of(ALIGN as u64)..end / ALIGN as u64 * ALIGN as u64;
        if let Some(len) = pages.end.checked_sub(pages.start).filter(|len| *len > 0) {
            let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
            // Where that cannot be, writing asks for the room.
            let _ = rustix::fs::fallocate(&self.file.fd, flags, pages.start, len);
        }
        self.end = start;
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let into_page = (self.end % ALIGN as u64) as usize;
            if self.len == 0 && into_page != 0 {
                let (head, rest) = bytes.split_at((ALIGN - into_page).min(bytes.len()));
                self.file.edge(head, self.end)?;
                self.end += head.len() as u64;
                bytes = rest;
                continue;
            }
            let room = self.buffer.len() - self.len;
            let (some, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer[self.len..self.len + some.len()].copy_from_slice(some);
            self.len += some.len();
            self.end += some.len() as u64;
            bytes = rest;
            if self.len == self.buffer.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is in the buffer, whose length is one of whole pages.
    fn flush(&mut self) -> Result<(), Errno> {
        let (mut bytes, mut at) = (&self.buffer[..self.len], self.end - self.len as u64);
        self.len = 0;
        while !bytes.is_empty() {
            let written = match rustix::io::pwrite(self.direct, bytes, at) {
                Err(Errno::INTR) => continue,
                // The file system wants other multiples.
                Err(Errno::INVAL) => 0,
                other => other?,
            };
            bytes = &bytes[written..];
            at += written as u64;
            if written % ALIGN != 0 || written == 0 {
                return write_at(&self.file.fd, bytes, at);
            }
        }
        Ok(())
    }

    /// The stretch ends: the page that it ends in may go on with other content.
    fn finish(&mut self) -> Result<(), Errno> {
        let tail = self.len % ALIGN;
        let (len, end) = (self.len, self.end);
        self.len -= tail;
        self.end -= tail as u64;
        self.flush()?;
        let tail = &self.buffer[len - tail..len];
        self.file.edge(tail, end - tail.len() as u64)
    }
}

fn write_at(fd: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// Content written in stretches of all kinds, out of order, is where it belongs.
    #[test]
    fn stretches_of_all_kinds_end_where_they_belong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let len = 3 * DIRECT_LEN + 5_000;
        let content: Vec<u8> = (0..len).map(|n| (n * n / 7) as u8).collect();
        let content_fd = OwnedFd::from(file.reopen().unwrap());
        rustix::fs::ftruncate(&content_fd, len as u64).unwrap();
        let new = NewContent::new(content_fd, 1 << 40);
        // Where the temporary directory knows no direct writes, the usual ones are tested.
        let direct = new.direct.as_ref().unwrap_or(&new.fd);
        let cuts = [
            0,
            1,
            ALIGN,
            ALIGN + 1,
            3 * ALIGN - 1,
            100_000,
            100_000 + DIRECT_LEN,
            2 * DIRECT_LEN + 7,
            len - 1,
            len,
        ];
        let mut stretches: Vec<(usize, usize)> = cuts.windows(2).map(|w| (w[0], w[1])).collect();
        stretches.reverse();
        let mut memory = vec![0; DIRECT_LEN + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        for (from, to) in stretches {
            let mut run = Run {
                file: &new,
                direct,
                buffer: &mut memory[start..start + DIRECT_LEN],
                len: 0,
                end: 0,
            };
            run.begin(from as u64, to as u64);
            for piece in content[from..to].chunks(33_333) {
                run.push(piece).unwrap();
            }
            run.finish().unwrap();
        }
        new.finish().unwrap();
        assert!(std::fs::read(file.path()).unwrap() == content);
    }
}
