//! Which chunks the repository holds, and where: the usable part of the index.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

use backup_core::{ChunkId, ChunkKind, PackId, SegmentPack, ShortId};

/// A pack that may be relied on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackEntry {
    pub(crate) id: PackId,
    pub(crate) kind: ChunkKind,
    pub(crate) len: u64,
}

/// A sealed block within a pack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockEntry {
    /// Number of the pack in [`Index::packs`].
    pub(crate) pack: u32,
    /// Offset of the record within the pack, in bytes.
    pub(crate) offset: u32,
    pub(crate) record_len: u32,
    pub(crate) plain_len: u32,
}

/// A chunk within a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    /// Number of the block in [`Index::blocks`].
    pub(crate) block: u32,
    /// Offset within the block's plaintext, in bytes.
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// Chunk ids are keyed hashes: any eight bytes of them are a hash already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks_exact(8) {
            let mut word = [0u8; 8];
            word.copy_from_slice(piece);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

type IdMap<V> = HashMap<ShortId, V, BuildHasherDefault<IdHasher>>;

/// A run relies on something in the pack.
const RELIED_ON: u8 = 1;
/// A collector wants to delete the pack: nothing new may rely on it.
const CONDEMNED: u8 = 2;

/// Where every usable chunk is.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<PackEntry>,
    /// One byte for each pack. A hit and a heartbeat each change it in one step, so that they happen one after the
    /// other: either the heartbeat sees that the pack is relied on, and claims it, or the hit sees that it must not be.
    marks: Vec<AtomicU8>,
    blocks: Vec<BlockEntry>,
    chunks: IdMap<Location>,
}

/// An index in the making. Packs that were set aside as damaged come last: what another pack holds as well is read there.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    index: Index,
    set_aside: HashSet<PackId>,
    last: Vec<SegmentPack>,
}

impl IndexBuilder {
    pub(crate) fn new(set_aside: HashSet<PackId>) -> Self {
        Self {
            set_aside,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, pack: &SegmentPack) {
        if self.set_aside.contains(&pack.id) {
            self.last.push(pack.clone());
        } else {
            self.index.add_pack(pack);
        }
    }

    pub(crate) fn finish(mut self) -> Index {
        for pack in &self.last {
            self.index.add_pack(pack);
        }
        self.index
    }
}

impl Index {
    /// Takes in a pack's directory. A chunk that is known already keeps its first place.
    fn add_pack(&mut self, pack: &SegmentPack) {
        let directory = &pack.directory;
        // 2^32 blocks of a mebibyte are four pebibytes; beyond, packs go unused.
        let (Ok(pack_number), Ok(first_block)) = (
            u32::try_from(self.packs.len()),
            u32::try_from(self.blocks.len()),
        ) else {
            return;
        };
        self.packs.push(PackEntry {
            id: pack.id,
            kind: pack.kind,
            len: pack.len,
        });
        self.marks.push(AtomicU8::new(0));
        self.blocks
            .extend(directory.blocks().iter().map(|block| BlockEntry {
                pack: pack_number,
                offset: block.offset,
                record_len: block.record_len,
                plain_len: block.plain_len,
            }));
        self.chunks.reserve(directory.chunk_count());
        for chunk in directory.iter() {
            let block = first_block + chunk.block;
            let location = Location {
                block,
                offset: chunk.offset,
                len: chunk.len,
            };
            self.chunks.entry(chunk.id).or_insert(location);
        }
    }

    /// Relies on a stored chunk, if there is one that may be relied on: its pack is claimed if a collector asks.
    pub(crate) fn rely_on(&self, id: &ChunkId, len: u32) -> bool {
        let known = self
            .chunks
            .get(&id.short())
            .filter(|known| known.len == len);
        let Some(known) = known else {
            return false;
        };
        let pack = self.blocks.get(known.block as usize);
        pack.and_then(|block| self.marks.get(block.pack as usize))
            .is_some_and(|marks| marks.fetch_or(RELIED_ON, Ordering::SeqCst) & CONDEMNED == 0)
    }

    /// Relies on whole packs; `false` if one of them is not there.
    pub(crate) fn rely_on_packs(&self, wanted: &HashSet<PackId>) -> bool {
        let mut found = 0;
        for (pack, marks) in self.packs.iter().zip(&self.marks) {
            if wanted.contains(&pack.id) {
                marks.fetch_or(RELIED_ON, Ordering::SeqCst);
                found += 1;
            }
        }
        found == wanted.len()
    }

    /// Relies on all packs there are.
    pub(crate) fn rely_on_all(&self) {
        for marks in &self.marks {
            marks.fetch_or(RELIED_ON, Ordering::SeqCst);
        }
    }

    /// Lets nothing new rely on the packs of a plan, which is sorted; returns those that are relied on already.
    pub(crate) fn condemn(&self, plan: &[PackId]) -> Vec<PackId> {
        let mut claims = Vec::new();
        for (pack, marks) in self.packs.iter().zip(&self.marks) {
            if plan.binary_search(&pack.id).is_ok()
                && marks.fetch_or(CONDEMNED, Ordering::SeqCst) & RELIED_ON != 0
            {
                claims.push(pack.id);
            }
        }
        claims
    }

    /// The packs that are relied on.
    pub(crate) fn relied_on(&self) -> impl Iterator<Item = PackId> + '_ {
        let marked = |marks: &AtomicU8| marks.load(Ordering::SeqCst) & RELIED_ON != 0;
        let packs = self.packs.iter().zip(&self.marks);
        packs.filter_map(move |(pack, marks)| marked(marks).then_some(pack.id))
    }

    /// Where a stored chunk is, or `None` when no pack holds it.
    pub(crate) fn find(&self, id: &ChunkId) -> Option<Location> {
        self.chunks.get(&id.short()).copied()
    }

    /// As [`Index::find`], by the part of the id that directories hold.
    pub(crate) fn find_short(&self, id: &ShortId) -> Option<Location> {
        self.chunks.get(id).copied()
    }

    /// The chunks of blocks. Looks through the whole index.
    pub(crate) fn chunks_in(&self, blocks: &[u32]) -> HashMap<u32, Vec<(ShortId, Location)>> {
        let mut found: HashMap<u32, Vec<(ShortId, Location)>> = HashMap::new();
        for (id, place) in &self.chunks {
            if blocks.contains(&place.block) {
                found.entry(place.block).or_default().push((*id, *place));
            }
        }
        found
    }

    pub(crate) fn block(&self, number: u32) -> Option<(BlockEntry, PackEntry)> {
        let block = *self.blocks.get(number as usize)?;
        Some((block, *self.packs.get(block.pack as usize)?))
    }

    pub(crate) fn packs(&self) -> &[PackEntry] {
        &self.packs
    }

    /// Whether a pack of this kind holds the chunk.
    pub(crate) fn holds(&self, kind: ChunkKind, id: &ChunkId, len: u32) -> bool {
        let found = self.find(id).filter(|found| found.len == len);
        found
            .and_then(|found| self.block(found.block))
            .is_some_and(|(_, pack)| pack.kind == kind)
    }

    /// Everything that is known of where a chunk is.
    pub(crate) fn place_of(&self, id: &ShortId) -> Option<(Location, BlockEntry, PackEntry)> {
        let location = *self.chunks.get(id)?;
        let (block, pack) = self.block(location.block)?;
        Some((location, block, pack))
    }

    /// How many chunks are to be read from each pack.
    pub(crate) fn chunks_by_pack(&self) -> HashMap<PackId, u64> {
        let mut counts = HashMap::new();
        for location in self.chunks.values() {
            if let Some((_, pack)) = self.block(location.block) {
                *counts.entry(pack.id).or_default() += 1;
            }
        }
        counts
    }

    /// The chunks that are to be read from a pack.
    pub(crate) fn chunks_of(&self, pack: &PackId) -> BTreeSet<ShortId> {
        let is_in = |location: &Location| {
            self.block(location.block)
                .is_some_and(|(_, holder)| holder.id == *pack)
        };
        self.chunks
            .iter()
            .filter(|(_, location)| is_in(location))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Bytes of plaintext of all chunks.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunks
            .values()
            .map(|location| u64::from(location.len))
            .sum()
    }

    /// The longest chunk of content, in bytes.
    pub(crate) fn data_chunk_len_max(&self) -> u32 {
        let is_data = |location: &&Location| {
            self.block(location.block)
                .is_some_and(|(_, pack)| pack.kind == ChunkKind::Data)
        };
        let data = self.chunks.values().filter(is_data);
        data.map(|location| location.len).max().unwrap_or(0)
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}
