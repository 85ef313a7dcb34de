//! What chunks of the source are called in the target, as far as this run has learnt it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use backup_core::ChunkId;

use crate::repository::index::{IdHasher, Index};

/// Bytes of memory for one chunk: 53 of the entry itself, and the map is more than half empty after it has grown.
const ENTRY_LEN: usize = 124;

/// Chunks met in this run. When it is full, further ones are not taken in: they are read again where they come again.
#[derive(Debug)]
pub(crate) struct Known {
    entries: HashMap<ChunkId, Entry, BuildHasherDefault<IdHasher>>,
    entries_max: usize,
    /// Counts the sessions of the run.
    session: u32,
}

#[derive(Debug)]
struct Entry {
    /// Its id in the target; `None` until it was read.
    to: Option<ChunkId>,
    len: u32,
    /// The session in which it was last asked for and not there.
    session: u32,
}

/// What is to be done for a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing: the target holds it under this id, and the session relies on it.
    There(ChunkId),
    /// Nothing but waiting: it was asked for before in this session.
    UnderWay,
    /// Read it.
    Read,
}

impl Known {
    /// Takes about as many bytes of memory as this at most.
    pub(crate) fn new(memory_len: usize) -> Self {
        Self {
            entries: HashMap::default(),
            entries_max: memory_len / ENTRY_LEN,
            session: 0,
        }
    }

    /// What another session was about to store may not be there.
    pub(crate) fn begin_session(&mut self) {
        self.session += 1;
    }

    /// Asks for a chunk of the source. `index` is what the session may rely on in the target.
    pub(crate) fn ask(&mut self, id: &ChunkId, len: u32, index: &Index) -> Asked {
        let session = self.session;
        let Some(entry) = self.entries.get_mut(id) else {
            if self.entries.len() < self.entries_max {
                let entry = Entry {
                    to: None,
                    len,
                    session,
                };
                self.entries.insert(*id, entry);
            }
            return Asked::Read;
        };
        match entry.to {
            // A list that states another length is found out by reading.
            _ if entry.len != len => Asked::Read,
            _ if entry.session == session => Asked::UnderWay,
            Some(to) if index.rely_on(&to, len) => Asked::There(to),
            _ => {
                entry.session = session;
                Asked::Read
            }
        }
    }

    /// Notes what a chunk that was read is called in the target.
    pub(crate) fn learn(&mut self, id: &ChunkId, to: ChunkId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.to = Some(to);
        }
    }

    /// What a chunk that was under way is called, once the batches before have come.
    pub(crate) fn of(&self, id: &ChunkId) -> Option<ChunkId> {
        self.entries.get(id).and_then(|entry| entry.to)
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Known};
    use crate::repository::index::Index;
    use backup_core::ChunkId;

    fn id(byte: u8) -> ChunkId {
        ChunkId::from_bytes([byte; 20])
    }

    #[test]
    fn a_chunk_is_read_once_in_a_session_and_once_more_when_it_is_not_there() {
        let (mut known, index) = (Known::new(1 << 20), Index::default());
        known.begin_session();
        assert_eq!(known.ask(&id(1), 5, &index), Asked::Read);
        assert_eq!(known.ask(&id(1), 5, &index), Asked::UnderWay);
        assert_eq!(known.ask(&id(1), 6, &index), Asked::Read);
        assert_eq!(known.of(&id(1)), None);
        known.learn(&id(1), id(9));
        assert_eq!(known.of(&id(1)), Some(id(9)));
        known.begin_session();
        assert_eq!(known.ask(&id(1), 5, &index), Asked::Read);
        assert_eq!(known.ask(&id(1), 5, &index), Asked::UnderWay);
    }

    #[test]
    fn what_does_not_fit_is_read_each_time() {
        let (mut known, index) = (Known::new(super::ENTRY_LEN), Index::default());
        known.begin_session();
        assert_eq!(known.ask(&id(1), 5, &index), Asked::Read);
        assert_eq!(known.ask(&id(2), 5, &index), Asked::Read);
        assert_eq!(known.ask(&id(2), 5, &index), Asked::Read);
        known.learn(&id(2), id(9));
        assert_eq!(known.of(&id(2)), None);
    }
}
