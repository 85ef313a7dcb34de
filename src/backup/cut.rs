//! Cuts a window of a file into chunks and holes. Pure; the same bytes give the same pieces however they are windowed,
//! and whether their zeros are stored or are holes of a sparse file.

use backup_core::Chunker;

/// Zero runs are looked for in aligned pages of this many bytes: file systems store holes in such pages.
pub(crate) const PAGE_LEN: usize = 4096;

/// Shorter zero runs stay data: ending a chunk at each would cost more ids than the zeros do, compressed.
pub(crate) const HOLE_LEN_MIN: usize = 64 << 10;

/// A piece of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A chunk: where it begins in the window, and its length.
    Data { start: usize, len: usize },
    /// A run of zeros.
    Hole { len: u64 },
}

impl Piece {
    /// Bytes of the file that it stands for.
    pub(crate) fn len(&self) -> u64 {
        match *self {
            Self::Data { len, .. } => len as u64,
            Self::Hole { len } => len,
        }
    }
}

/// What follows a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// More bytes, not read yet.
    Data,
    /// A hole of the file, this long.
    Hole(u64),
    /// Nothing.
    End,
}

/// Cuts one file, window by window.
#[derive(Debug)]
pub(crate) struct Cutter<'a> {
    chunker: &'a Chunker,
    /// The window begins within a run of zeros that is a hole already.
    in_hole: bool,
}

/// What became of a window: its pieces, and how many of its bytes they cover. The rest goes into the next window.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) consumed: usize,
}

impl<'a> Cutter<'a> {
    pub(crate) fn new(chunker: &'a Chunker, in_hole: bool) -> Self {
        Self { chunker, in_hole }
    }

    pub(crate) fn in_hole(&self) -> bool {
        self.in_hole
    }

    /// Cuts a window that begins `offset` bytes into the file.
    pub(crate) fn cut(&mut self, window: &[u8], offset: u64, follows: Follows) -> Cut {
        let mut cut = Cut::default();
        let into_page = (offset % PAGE_LEN as u64) as usize;
        let first_page = (PAGE_LEN - into_page) % PAGE_LEN;
        while cut.consumed < window.len() {
            let at = cut.consumed;
            if self.in_hole {
                let run = zero_prefix(&window[at..], follows != Follows::Data);
                push_hole(&mut cut.pieces, run as u64);
                cut.consumed += run;
                // A run that reaches the end of the window may go on in the next.
                let reaches_end = window.len() - cut.consumed < PAGE_LEN
                    && window[cut.consumed..].iter().all(|b| *b == 0);
                if reaches_end {
                    break;
                }
                self.in_hole = false;
                continue;
            }
            let run = find_run(window, page_from(at, first_page), follows);
            let consumed = self.cut_data(&mut cut.pieces, window, (at, run.start), run.is_hole);
            cut.consumed = consumed;
            if !run.is_hole {
                break;
            }
            self.in_hole = true;
        }
        self.end(&mut cut, window.len(), follows);
        cut
    }

    fn end(&mut self, cut: &mut Cut, window_len: usize, follows: Follows) {
        match follows {
            Follows::Hole(len) => {
                push_hole(&mut cut.pieces, len + (window_len - cut.consumed) as u64);
                cut.consumed = window_len;
                self.in_hole = true;
            }
            Follows::End => {
                // Only a rest of zeros of a run, shorter than a page, can be left here.
                push_hole(&mut cut.pieces, (window_len - cut.consumed) as u64);
                cut.consumed = window_len;
            }
            Follows::Data => {}
        }
    }

    /// Cuts `window[from..to]`; with `end` the last chunk ends at `to`. Returns where it stopped.
    fn cut_data(
        &self,
        pieces: &mut Vec<Piece>,
        window: &[u8],
        (from, to): (usize, usize),
        end: bool,
    ) -> usize {
        let mut at = from;
        while let Some(len) = self.chunker.cut(&window[at..to], end) {
            pieces.push(Piece::Data { start: at, len });
            at += len;
        }
        at
    }
}

/// Where data ends: at a run of zeros that is a hole, or where it cannot be told yet (or never: the end).
#[derive(Debug, Clone, Copy)]
struct Run {
    start: usize,
    /// Data certainly ends at `start`.
    is_hole: bool,
}

/// Looks for the first run of at least [`HOLE_LEN_MIN`] zeros in whole pages; `page` is where a page begins.
fn find_run(window: &[u8], mut page: usize, follows: Follows) -> Run {
    let mut start = None;
    while page < window.len() {
        let end = (page + PAGE_LEN).min(window.len());
        let whole = end - page == PAGE_LEN || follows == Follows::End;
        if whole && is_zero(&window[page..end]) {
            let first = *start.get_or_insert(page);
            if end - first >= HOLE_LEN_MIN {
                return Run {
                    start: first,
                    is_hole: true,
                };
            }
        } else if whole {
            start = None;
        }
        page = end;
    }
    match (start, follows) {
        // Zeros before a hole of the file belong to it.
        (Some(first), Follows::Hole(_)) => Run {
            start: first,
            is_hole: true,
        },
        (None, Follows::Hole(_)) | (_, Follows::End) => Run {
            start: window.len(),
            is_hole: true,
        },
        // They may be the beginning of a run.
        (Some(first), Follows::Data) => Run {
            start: first,
            is_hole: false,
        },
        (None, Follows::Data) => Run {
            start: window.len(),
            is_hole: false,
        },
    }
}

/// The first page boundary at or after `at`, when boundaries are at `first_page` and every [`PAGE_LEN`] from there.
fn page_from(at: usize, first_page: usize) -> usize {
    first_page + at.saturating_sub(first_page).next_multiple_of(PAGE_LEN)
}

/// The length of the run of zeros at the start, in whole pages, or to the end when the file ends there.
fn zero_prefix(bytes: &[u8], to_the_end: bool) -> usize {
    let mut len = 0;
    while len < bytes.len() {
        let end = (len + PAGE_LEN).min(bytes.len());
        let whole = end - len == PAGE_LEN || to_the_end;
        if !whole || !is_zero(&bytes[len..end]) {
            break;
        }
        len = end;
    }
    len
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Most pages differ from zero in their first words.
    let (head, rest) = bytes.split_at(bytes.len().min(64));
    head.iter().all(|b| *b == 0)
        && rest
            .chunks(256)
            .all(|piece| piece.iter().fold(0, |all, b| all | b) == 0)
}

fn push_hole(pieces: &mut Vec<Piece>, more: u64) {
    if more == 0 {
        return;
    }
    if let Some(Piece::Hole { len }) = pieces.last_mut() {
        *len += more;
    } else {
        pieces.push(Piece::Hole { len: more });
    }
}
