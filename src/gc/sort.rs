//! Sets of records larger than memory: sorted runs in one file on local disk, merged when they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backup_core::ShortId;

use crate::{Env, Error};

/// Bytes of each run that are read at once when runs are merged: less of each when they are many.
const READ_LEN_MIN: usize = 16 << 10;
const READ_LEN_MAX: usize = 256 << 10;

/// Gathers records of `N` bytes and sorts them by bytes.
#[derive(Debug)]
pub(crate) struct Sorter<const N: usize> {
    records: Vec<[u8; N]>,
    records_max: usize,
    scratch: Scratch,
    file: Option<File>,
    /// Where each run begins and ends in the file, in bytes.
    runs: Vec<(u64, u64)>,
}

/// Where what does not fit into memory goes.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) env: Env,
}

impl Scratch {
    /// A file without a name: it is gone when it is closed, whatever happens.
    fn file(&self) -> Result<File, Error> {
        let Some(directory) = &self.directory else {
            return Err(Error::BadOption {
                option: "scratch",
                reason: "this repository needs more than memory_len_max: name a directory for temporary files".into(),
            });
        };
        let name = format!(".backup-{:032x}", u128::from_le_bytes(self.env.random()?));
        let path = directory.join(name);
        let open = || {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create_new(true).mode(0o600);
            let file = options.open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        open().map_err(|e| failed(directory, e))
    }
}

fn failed(directory: &Path, source: io::Error) -> Error {
    Error::Target {
        action: "use temporary files in",
        path: directory.to_owned(),
        source,
    }
}

impl<const N: usize> Sorter<N> {
    /// Holds up to `len_max` bytes in memory.
    pub(crate) fn new(len_max: usize, scratch: Scratch) -> Self {
        Self {
            records: Vec::new(),
            records_max: (len_max / N).max(16),
            scratch,
            file: None,
            runs: Vec::new(),
        }
    }

    /// Takes a record. A full sorter must be spilled before it takes more.
    pub(crate) fn push(&mut self, record: [u8; N]) {
        if self.records.len() == self.records.capacity() {
            // Twice as many, but never more than are allowed.
            let left = self.records_max.saturating_sub(self.records.len());
            let more = self.records.len().max(16).min(left).max(1);
            self.records.reserve_exact(more);
        }
        self.records.push(record);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= self.records_max
    }

    /// Writes what is in memory to disk, as a run.
    pub(crate) fn spill(&mut self) -> Result<(), Error> {
        self.records.sort_unstable();
        self.records.dedup();
        if self.file.is_none() {
            self.file = Some(self.scratch.file()?);
        }
        let directory = self.scratch.directory.clone().unwrap_or_default();
        let Some(file) = &self.file else {
            return Ok(());
        };
        let start = self.runs.last().map_or(0, |(_, end)| *end);
        file.write_all_at(self.records.as_flattened(), start)
            .map_err(|e| failed(&directory, e))?;
        let end = start + (self.records.len() * N) as u64;
        self.runs.push((start, end));
        self.records.clear();
        Ok(())
    }

    /// Everything taken, ready to be read in order. If some of it is on disk, all of it is: others need the memory.
    pub(crate) fn finish(mut self) -> Result<Sorted<N>, Error> {
        if self.runs.is_empty() {
            self.records.sort_unstable();
            self.records.dedup();
        } else {
            self.spill()?;
            self.records = Vec::new();
        }
        Ok(Sorted(self))
    }
}

/// Sorted records, each once; may be read again and again.
#[derive(Debug)]
pub(crate) struct Sorted<const N: usize>(Sorter<N>);

impl<const N: usize> Sorted<N> {
    /// Reads all records in ascending order. To be used where blocking is allowed.
    pub(crate) fn read(&self) -> Result<Merge<'_, N>, Error> {
        let Sorter { runs, records, .. } = &self.0;
        let memory_len = self.0.records_max.saturating_mul(N);
        let read_len = memory_len / 4 / runs.len().max(1);
        let cursor = |(start, end): &(u64, u64)| Cursor {
            next: *start,
            end: *end,
            read_len: read_len.clamp(READ_LEN_MIN, READ_LEN_MAX) / N * N,
            buffer: Vec::new(),
            at: 0,
        };
        let mut merge = Merge {
            sources: Sources {
                sorted: &self.0,
                memory: records.iter(),
                cursors: runs.iter().map(cursor).collect(),
            },
            heads: BinaryHeap::with_capacity(runs.len() + 1),
            last: None,
        };
        for source in 0..=runs.len() {
            let first = merge.sources.next(source)?;
            let head = first.map(|record| Reverse((record, source)));
            merge.heads.extend(head);
        }
        Ok(merge)
    }
}

#[derive(Debug)]
struct Cursor {
    next: u64,
    end: u64,
    read_len: usize,
    buffer: Vec<u8>,
    at: usize,
}

/// Reads several runs as one.
#[derive(Debug)]
pub(crate) struct Merge<'a, const N: usize> {
    sources: Sources<'a, N>,
    /// The next record of each source.
    heads: BinaryHeap<Reverse<([u8; N], usize)>>,
    last: Option<[u8; N]>,
}

/// The runs, and after them what is in memory.
#[derive(Debug)]
struct Sources<'a, const N: usize> {
    sorted: &'a Sorter<N>,
    memory: std::slice::Iter<'a, [u8; N]>,
    cursors: Vec<Cursor>,
}

impl<const N: usize> Merge<'_, N> {
    /// The next record, each once; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<[u8; N]>, Error> {
        while let Some(mut head) = self.heads.peek_mut() {
            let Reverse((record, source)) = *head;
            match self.sources.next(source)? {
                Some(next) => *head = Reverse((next, source)),
                None => drop(PeekMut::pop(head)),
            }
            if self.last != Some(record) {
                self.last = Some(record);
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

impl<const N: usize> Sources<'_, N> {
    fn next(&mut self, source: usize) -> Result<Option<[u8; N]>, Error> {
        match self.cursors.get_mut(source) {
            Some(cursor) => cursor.next(self.sorted),
            None => Ok(self.memory.next().copied()),
        }
    }
}

impl Cursor {
    fn next<const N: usize>(&mut self, sorted: &Sorter<N>) -> Result<Option<[u8; N]>, Error> {
        if self.at == self.buffer.len() {
            let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            self.buffer.resize(self.read_len.min(left), 0);
            self.at = 0;
            if let Some(file) = &sorted.file {
                let directory = sorted.scratch.directory.clone().unwrap_or_default();
                file.read_exact_at(&mut self.buffer, self.next)
                    .map_err(|e| failed(&directory, e))?;
            }
            self.next += self.buffer.len() as u64;
        }
        let record = self
            .buffer
            .get(self.at..)
            .and_then(|rest| rest.first_chunk())
            .copied();
        self.at += N;
        Ok(record)
    }
}

/// A chunk in a pack: id 16 ‖ number of the pack u32 ‖ length u32, big-endian, so that bytes sort like numbers.
pub(crate) type PlaceRecord = [u8; 24];

/// A chunk that is needed: its id.
pub(crate) type RefRecord = [u8; 16];

pub(crate) fn place_record(id: &ShortId, pack: u32, len: u32) -> PlaceRecord {
    let mut record = [0; 24];
    let (start, end) = record.split_at_mut(16);
    start.copy_from_slice(id.as_bytes());
    let (first, second) = end.split_at_mut(4);
    first.copy_from_slice(&pack.to_be_bytes());
    second.copy_from_slice(&len.to_be_bytes());
    record
}

/// Id, pack, length.
pub(crate) fn read_place(record: &PlaceRecord) -> (RefRecord, u32, u32) {
    let (mut id, mut pack, mut len) = ([0; 16], [0; 4], [0; 4]);
    id.copy_from_slice(&record[..16]);
    pack.copy_from_slice(&record[16..20]);
    len.copy_from_slice(&record[20..]);
    (id, u32::from_be_bytes(pack), u32::from_be_bytes(len))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn scratch(directory: Option<&Path>) -> Scratch {
        Scratch {
            directory: directory.map(Path::to_owned),
            env: Env::default(),
        }
    }

    fn all<const N: usize>(sorted: &Sorted<N>) -> Vec<[u8; N]> {
        let mut merge = sorted.read().unwrap();
        std::iter::from_fn(|| merge.next().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn records_come_back_in_order_and_each_once(
            numbers in vec(0_u16..2000, 0..3000),
            len_max in 0_usize..8192,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::new(len_max, scratch(Some(directory.path())));
            let mut wanted = BTreeSet::new();
            for number in numbers {
                // The last bytes count too.
                let record = place_record(&ShortId::from_bytes([(number >> 8) as u8; 16]), 7, number.into());
                wanted.insert(record);
                sorter.push(record);
                if sorter.is_full() {
                    sorter.spill().unwrap();
                }
                prop_assert!(sorter.records.capacity() <= sorter.records_max.max(16));
            }
            let sorted = sorter.finish().unwrap();
            let wanted: Vec<_> = wanted.into_iter().collect();
            prop_assert_eq!(&all(&sorted), &wanted);
            prop_assert_eq!(&all(&sorted), &wanted);
            // Nothing is left behind, whatever happens to the process.
            prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn runs_longer_than_a_read_are_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::<16>::new(2 << 20, scratch(Some(directory.path())));
        let record = |number: u32| {
            let mut record = [0; 16];
            record[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
            record
        };
        for number in 0..400_000 {
            sorter.push(record(number));
            if sorter.is_full() {
                sorter.spill().unwrap();
            }
        }
        assert_eq!(sorter.runs.len(), 3);
        let mut wanted: Vec<_> = (0..400_000).map(record).collect();
        wanted.sort_unstable();
        assert!(all(&sorter.finish().unwrap()) == wanted);
    }

    #[test]
    fn without_a_directory_what_does_not_fit_is_an_error() {
        let mut sorter = Sorter::<16>::new(0, scratch(None));
        sorter.push([1; 16]);
        assert!(matches!(
            sorter.spill(),
            Err(Error::BadOption {
                option: "scratch",
                ..
            })
        ));
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let record = place_record(&ShortId::from_bytes([5; 16]), 1 << 31, 77);
        assert_eq!(read_place(&record), ([5; 16], 1 << 31, 77));
    }
}
