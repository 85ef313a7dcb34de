//! Reads one long file, device or stream window by window, finding its holes without reading them.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::backup::cut::{Cut, Cutter, Follows, HOLE_LEN_MIN, PAGE_LEN, Piece};
use crate::backup::read::{Buffer, Reading};

/// Where the bytes come from.
pub(crate) enum Input {
    /// A file or device of this many bytes, which may have holes.
    File { file: File, len: u64 },
    /// A reader, read to its end.
    Stream(Box<dyn Read + Send>),
}

/// A window that was read and cut; its chunks are not named yet.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) buffer: Buffer,
    pub(crate) cut: Cut,
}

/// Reads an input from start to end.
pub(crate) struct WindowReader {
    input: Input,
    /// Bytes read that belong to the next window.
    rest: Vec<u8>,
    /// Where the next byte comes from.
    offset: u64,
    /// Data is known to reach to here.
    data_end: u64,
    in_hole: bool,
    done: bool,
    produced: u64,
    /// The input ended before its announced length.
    pub(crate) is_short: bool,
}

impl WindowReader {
    pub(crate) fn new(input: Input) -> Self {
        Self {
            input,
            rest: Vec::new(),
            offset: 0,
            data_end: 0,
            in_hole: false,
            done: false,
            produced: 0,
            is_short: false,
        }
    }

    /// Bytes that windows have covered so far.
    pub(crate) fn produced(&self) -> u64 {
        self.produced
    }

    pub(crate) fn file(&self) -> Option<&File> {
        match &self.input {
            Input::File { file, .. } => Some(file),
            Input::Stream(_) => None,
        }
    }

    /// Reads and cuts the next window; `None` after the last.
    pub(crate) fn next(&mut self, reading: &Reading) -> std::io::Result<Option<Window>> {
        if self.done {
            return Ok(None);
        }
        let mut pooled = reading.buffer();
        let Some(buffer) = pooled.get_mut() else {
            return Ok(None);
        };
        let begin = self.offset - self.rest.len() as u64;
        buffer[..self.rest.len()].copy_from_slice(&self.rest);
        let (used, follows) = self.fill(buffer)?;
        let mut cutter = Cutter::new(&reading.chunker, self.in_hole);
        let cut = cutter.cut(&buffer[..used], begin, follows);
        self.in_hole = cutter.in_hole();
        self.produced += cut.pieces.iter().map(Piece::len).sum::<u64>();
        self.rest.clear();
        self.rest.extend_from_slice(&buffer[cut.consumed..used]);
        self.done = follows == Follows::End;
        Ok(Some(Window {
            buffer: Arc::new(pooled),
            cut,
        }))
    }

    /// Fills the buffer behind the rest; stops early at a hole and at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<(usize, Follows)> {
        let mut used = self.rest.len();
        while used < buffer.len() {
            let room = (buffer.len() - used) as u64;
            let (wanted, zeros) = match &self.input {
                Input::Stream(_) => (room, false),
                Input::File { len, .. } if self.offset >= *len => return Ok((used, Follows::End)),
                Input::File { len, .. } => {
                    let len = *len;
                    let (next, is_hole) = self.extent(len)?;
                    if is_hole && next - self.offset >= HOLE_LEN_MIN as u64 {
                        let hole = next - self.offset;
                        self.offset = next;
                        return Ok((used, Follows::Hole(hole)));
                    }
                    (room.min(next - self.offset), is_hole)
                }
            };
            let space = &mut buffer[used..used + wanted as usize];
            let read = if zeros {
                space.fill(0);
                space.len()
            } else {
                self.read(space)?
            };
            if read == 0 {
                return Ok(self.end(used));
            }
            used += read;
            self.offset += read as u64;
        }
        Ok((used, Follows::Data))
    }

    /// The input gives no more. A file that has become shorter is filled up with a hole to what was announced.
    fn end(&mut self, used: usize) -> (usize, Follows) {
        match &self.input {
            Input::File { len, .. } if *len > self.offset => {
                let missing = *len - self.offset;
                self.offset = *len;
                self.is_short = true;
                (used, Follows::Hole(missing))
            }
            _ => (used, Follows::End),
        }
    }

    /// Where the stretch ends that `offset` is in, and whether it is a hole; holes are trimmed to whole pages, so that the
    /// same content gives the same pieces on every file system.
    fn extent(&mut self, len: u64) -> std::io::Result<(u64, bool)> {
        if self.offset < self.data_end {
            return Ok((self.data_end.min(len), false));
        }
        let Input::File { file, .. } = &self.input else {
            return Ok((len, false));
        };
        let page = PAGE_LEN as u64;
        let data = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(self.offset)) {
            Ok(data) => data.min(len),
            // No data up to the end.
            Err(Errno::NXIO) => len,
            // A device or file system that knows no holes.
            Err(_) => {
                self.data_end = len;
                return Ok((len, false));
            }
        };
        let hole_end = if data == len { len } else { data / page * page };
        if hole_end > self.offset && self.offset.is_multiple_of(page) {
            return Ok((hole_end, true));
        }
        let from = data.max(self.offset);
        let end = match rustix::fs::seek(file.as_fd(), SeekFrom::Hole(from)) {
            Ok(end) => end.next_multiple_of(page).min(len),
            Err(_) => len,
        };
        self.data_end = end.max(self.offset + 1).min(len);
        Ok((self.data_end, false))
    }

    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let outcome = match &mut self.input {
                Input::File { file, .. } => {
                    std::os::unix::fs::FileExt::read_at(file, space, self.offset)
                }
                Input::Stream(reader) => reader.read(space),
            };
            match outcome {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}
