//! What earlier runs marked: cells and item lists never change, so what they refer to is read from the store once.
//!
//! A local file, no part of the repository: magic "BKUPMARK" ‖ version u8 ‖ repository id 16 ‖ records ‖ 0 u8 ‖ keyed hash
//! 32. A record is 1 ‖ session id 24 ‖ facts of a cell, or 2 ‖ chunk id 20 ‖ level u8 ‖ count u32 ‖ ids it refers to: 16
//! bytes each for a page, 20 for a list. A file that is not as its hash says is as good as none.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backup_core::{ChunkId, HashAlgorithm, Hasher, Keys, RepositoryId, SessionId};

use crate::gc::mark::CellFacts;

const MAGIC: &[u8; 8] = b"BKUPMARK";
const VERSION: u8 = 1;
const END: u8 = 0;
const CELL: u8 = 1;
const NODE: u8 = 2;
const HASH_LEN: u64 = 32;

/// An id in a list of item pages, or in a list above.
const CHILD_LEN: usize = 20;
/// An id in an item page: as much of it as directories hold.
const CONTENT_LEN: usize = 16;

/// What earlier runs marked, and what this one does.
#[derive(Debug, Default)]
pub(crate) struct MarkCache {
    old: Option<Old>,
    new: Option<New>,
    has_news: bool,
}

#[derive(Debug)]
struct Old {
    file: File,
    cells: HashMap<SessionId, (u64, u32)>,
    nodes: HashMap<(ChunkId, u8), (u64, u32)>,
}

#[derive(Debug)]
struct New {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
}

impl MarkCache {
    /// Opens the cache in `directory`; without one, or when it is not what it should be, it is empty.
    pub(crate) fn open(directory: Option<&Path>, keys: &Keys, repository: RepositoryId) -> Self {
        let Some(directory) = directory else {
            return Self::default();
        };
        let path = directory.join(format!("{repository}.marks"));
        let old = Old::open(&path, keys, repository).ok();
        Self {
            old,
            new: New::create(path, repository).ok(),
            has_news: false,
        }
    }

    /// What is known of a cell.
    pub(crate) fn cell(&mut self, id: &SessionId) -> Option<CellFacts> {
        let old = self.old.as_ref()?;
        let bytes = old.read(*old.cells.get(id)?).ok()?;
        let facts = CellFacts::decode(&bytes)?;
        self.write_cell(id, &bytes);
        Some(facts)
    }

    pub(crate) fn add_cell(&mut self, id: &SessionId, facts: &CellFacts) {
        self.has_news = true;
        self.write_cell(id, &facts.encode());
    }

    /// The ids that a page (level 0) or a list refers to, back to back.
    pub(crate) fn node(&mut self, id: &ChunkId, level: u8) -> Option<Vec<u8>> {
        let old = self.old.as_ref()?;
        let bytes = old.read(*old.nodes.get(&(*id, level))?).ok()?;
        self.write_node(id, level, &bytes);
        Some(bytes)
    }

    pub(crate) fn add_node(&mut self, id: &ChunkId, level: u8, children: &[u8]) {
        self.has_news = true;
        self.write_node(id, level, children);
    }

    fn write_cell(&mut self, id: &SessionId, facts: &[u8]) {
        let len = facts.len() as u32;
        self.write(&[&[CELL], &id.to_bytes(), &len.to_le_bytes(), facts]);
    }

    fn write_node(&mut self, id: &ChunkId, level: u8, children: &[u8]) {
        let count = (children.len() / child_len(level)) as u32;
        let count = count.to_le_bytes();
        self.write(&[&[NODE], id.as_bytes(), &[level], &count, children]);
    }

    /// A cache that cannot be written is given up.
    fn write(&mut self, parts: &[&[u8]]) {
        if let Some(new) = &mut self.new
            && parts.iter().any(|part| new.write(part).is_err())
        {
            self.new = None;
        }
    }

    /// Keeps what this run marked for the next one. That this fails costs the next run time.
    pub(crate) fn keep(mut self, keys: &Keys) {
        if let Some(new) = self.new.take().filter(|_| self.has_news) {
            drop(new.finish(keys));
        }
    }
}

const fn child_len(level: u8) -> usize {
    if level == 0 { CONTENT_LEN } else { CHILD_LEN }
}

impl Old {
    fn open(path: &Path, keys: &Keys, repository: RepositoryId) -> io::Result<Self> {
        let file = File::open(path)?;
        let records_len = file.metadata()?.len().saturating_sub(HASH_LEN);
        let mut old = Self {
            file: file.try_clone()?,
            cells: HashMap::new(),
            nodes: HashMap::new(),
        };
        let mut reader = Hashing {
            inner: BufReader::with_capacity(1 << 20, file.take(records_len)),
            hasher: Hasher::new(HashAlgorithm::Blake3),
            at: 0,
        };
        let header: [u8; 25] = reader.array()?;
        let wanted = [&MAGIC[..], &[VERSION], repository.as_bytes()].concat();
        if header[..] != wanted[..] {
            return Err(io::ErrorKind::InvalidData.into());
        }
        loop {
            match reader.array::<1>()? {
                [END] => break,
                [CELL] => {
                    let id = SessionId::from_bytes(reader.array()?);
                    let len = u32::from_le_bytes(reader.array()?);
                    old.cells.insert(id, (reader.at, len));
                    reader.skip(len)?;
                }
                [NODE] => {
                    let id = ChunkId::from_bytes(reader.array()?);
                    let [level] = reader.array()?;
                    let count = u32::from_le_bytes(reader.array()?);
                    let len = count.saturating_mul(child_len(level) as u32);
                    old.nodes.insert((id, level), (reader.at, len));
                    reader.skip(len)?;
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let mut hash = [0; HASH_LEN as usize];
        old.file.read_exact_at(&mut hash, records_len)?;
        if reader.at != records_len || authenticate(keys, reader.hasher) != hash {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(old)
    }

    fn read(&self, (offset, len): (u64, u32)) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    at: u64,
}

impl<R: Read> Hashing<R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.hasher.update(&bytes);
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, len: u32) -> io::Result<()> {
        let mut left = len as usize;
        let mut buffer = [0; 16 << 10];
        while left > 0 {
            let piece = left.min(buffer.len());
            let part = buffer.get_mut(..piece).unwrap_or_default();
            self.inner.read_exact(part)?;
            self.hasher.update(part);
            left -= piece;
        }
        self.at += u64::from(len);
        Ok(())
    }
}

impl New {
    fn create(path: PathBuf, repository: RepositoryId) -> io::Result<Self> {
        let temporary = path.with_extension("marks-new");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&temporary)?;
        let mut new = Self {
            path,
            temporary,
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: Hasher::new(HashAlgorithm::Blake3),
        };
        new.write(MAGIC)?;
        new.write(&[VERSION])?;
        new.write(repository.as_bytes())?;
        Ok(new)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn finish(mut self, keys: &Keys) -> io::Result<()> {
        self.write(&[END])?;
        let hash = authenticate(keys, self.hasher.clone());
        self.file.write_all(&hash)?;
        self.file.flush()?;
        std::fs::rename(&self.temporary, &self.path)
    }
}

impl Drop for New {
    /// Renamed, it is no longer there.
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.temporary));
    }
}

/// The hash of the records under a key of the repository: nobody else can have marked what is in the file. The name of a
/// segment comes from the same key; no segment begins with these letters, since 98 packs do not fit into so few bytes.
fn authenticate(keys: &Keys, hasher: Hasher) -> [u8; 32] {
    let digest = hasher.finish();
    let text = [&b"backup marks"[..], digest.as_bytes()].concat();
    *keys.segment_id(&text).as_bytes()
}

#[cfg(test)]
mod tests {
    use backup_core::MasterKey;

    use super::*;

    const REPOSITORY: [u8; 16] = [3; 16];

    fn keys(byte: u8) -> Keys {
        Keys::all(&MasterKey::from_bytes([byte; 32].into()))
    }

    fn open(directory: &Path, keys: &Keys) -> MarkCache {
        MarkCache::open(Some(directory), keys, RepositoryId::from_bytes(REPOSITORY))
    }

    fn page() -> ChunkId {
        ChunkId::from_bytes([1; 20])
    }

    fn session() -> SessionId {
        SessionId::from_bytes([4; 24])
    }

    fn facts() -> CellFacts {
        CellFacts::Snapshot {
            complete: true,
            previous: Some(SessionId::from_bytes([5; 24])),
            level: 1,
            top: vec![page(), ChunkId::from_bytes([2; 20])],
        }
    }

    /// A cell, a page and a list in `directory`; returns where the file is.
    fn filled(directory: &Path) -> PathBuf {
        let mut cache = open(directory, &keys(1));
        cache.add_cell(&session(), &facts());
        cache.add_node(&page(), 0, &[7; 48]);
        cache.add_node(&page(), 1, &[8; 40]);
        cache.keep(&keys(1));
        let mut files = std::fs::read_dir(directory).unwrap();
        let path = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        path
    }

    fn knows(cache: &mut MarkCache) -> [bool; 3] {
        let (cell, pages, list) = (
            cache.cell(&session()),
            cache.node(&page(), 0),
            cache.node(&page(), 1),
        );
        // Whatever it knows is right.
        assert!(cell.is_none() || cell == Some(facts()));
        assert!(pages.is_none() || pages == Some(vec![7; 48]));
        assert!(list.is_none() || list == Some(vec![8; 40]));
        assert_eq!(cache.node(&ChunkId::from_bytes([2; 20]), 0), None);
        [cell.is_some(), pages.is_some(), list.is_some()]
    }

    #[test]
    fn what_was_marked_is_known_to_the_next_run_and_the_one_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = filled(directory.path());
        let mut cache = open(directory.path(), &keys(1));
        assert_eq!(knows(&mut cache), [true; 3]);
        // Nothing new: the file stays.
        let before = std::fs::read(&path).unwrap();
        cache.keep(&keys(1));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        // What was not asked for is forgotten.
        let mut cache = open(directory.path(), &keys(1));
        assert!(cache.node(&page(), 1).is_some());
        cache.add_cell(&SessionId::from_bytes([6; 24]), &CellFacts::Aborted);
        cache.keep(&keys(1));
        let mut cache = open(directory.path(), &keys(1));
        assert_eq!(
            cache.cell(&SessionId::from_bytes([6; 24])),
            Some(CellFacts::Aborted)
        );
        assert_eq!(knows(&mut cache), [false, false, true]);
    }

    #[test]
    fn a_file_that_was_changed_anywhere_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = filled(directory.path());
        let whole = std::fs::read(&path).unwrap();
        let expect_empty = |bytes: &[u8], what: String| {
            std::fs::write(&path, bytes).unwrap();
            let mut cache = open(directory.path(), &keys(1));
            assert_eq!(knows(&mut cache), [false; 3], "{what}");
        };
        for at in 0..whole.len() {
            for bit in [1, 128] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                expect_empty(&bytes, format!("byte {at} ^ {bit}"));
            }
            expect_empty(&whole[..at], format!("cut at {at}"));
            expect_empty(
                &[&whole[..at], &[0], &whole[at..]].concat(),
                format!("a byte more at {at}"),
            );
        }
        expect_empty(&[&whole[..], &[0]].concat(), "a byte more".into());
        expect_empty(&[&whole[..], &whole].concat(), "twice".into());
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(knows(&mut open(directory.path(), &keys(1))), [true; 3]);
    }

    #[test]
    fn a_file_of_another_repository_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = filled(directory.path());
        assert_eq!(knows(&mut open(directory.path(), &keys(2))), [false; 3]);
        let other = RepositoryId::from_bytes([9; 16]);
        std::fs::rename(&path, directory.path().join(format!("{other}.marks"))).unwrap();
        let mut cache = MarkCache::open(Some(directory.path()), &keys(1), other);
        assert_eq!(knows(&mut cache), [false; 3]);
    }

    #[test]
    fn without_a_directory_or_with_one_that_cannot_be_used_nothing_is_kept() {
        for directory in [None, Some(Path::new("/nonexistent/cache"))] {
            let id = RepositoryId::from_bytes(REPOSITORY);
            let mut cache = MarkCache::open(directory, &keys(1), id);
            cache.add_node(&page(), 0, &[7; 48]);
            assert_eq!(knows(&mut cache), [false; 3]);
            cache.keep(&keys(1));
        }
    }

    #[test]
    fn facts_of_cells_are_read_as_they_were_written() {
        let bare = CellFacts::Snapshot {
            complete: false,
            previous: None,
            level: 0,
            top: Vec::new(),
        };
        for facts in [facts(), bare, CellFacts::Aborted] {
            assert_eq!(CellFacts::decode(&facts.encode()), Some(facts));
        }
    }
}
