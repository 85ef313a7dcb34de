//! Which chunks the repository holds, and where: the usable part of the index.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use backup_core::{ChunkId, ChunkKind, Directory, PackId, ShortId};

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

/// Where every usable chunk is.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<PackEntry>,
    blocks: Vec<BlockEntry>,
    chunks: IdMap<Location>,
}

impl Index {
    /// Takes in a pack's directory. A chunk that is known already keeps its first place.
    pub(crate) fn add_pack(&mut self, pack: PackEntry, directory: &Directory) {
        // 2^32 blocks of a mebibyte are four pebibytes; beyond, packs go unused.
        let (Ok(pack_number), Ok(first_block)) = (
            u32::try_from(self.packs.len()),
            u32::try_from(self.blocks.len()),
        ) else {
            return;
        };
        self.packs.push(pack);
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

    /// Whether the chunk may be relied on.
    pub(crate) fn contains(&self, id: &ChunkId, len: u32) -> bool {
        self.chunks
            .get(&id.short())
            .is_some_and(|known| known.len == len)
    }

    /// Where a stored chunk is, or `None` when no pack holds it.
    pub(crate) fn find(&self, id: &ChunkId) -> Option<Location> {
        self.chunks.get(&id.short()).copied()
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

    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}
