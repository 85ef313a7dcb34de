use std::fmt;
use std::ops::Range;

use crate::ids::ShortId;
use crate::pack::{PACK_HEADER_LEN, PackError};
use crate::record::{BLOCK_PLAIN_LEN_MAX, RECORD_OVERHEAD};
use crate::wire::{Reader, WireError, put_varint};

/// Where one block lies in its pack.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockEntry {
    /// Where its record starts, in bytes from the start of the pack.
    pub offset: u32,
    /// Length of its record, in bytes.
    pub record_len: u32,
    /// Length of its plaintext, in bytes: the sum of its chunks.
    pub plain_len: u32,
    /// Which chunks of the directory it holds.
    pub chunks: Range<u32>,
}

/// One chunk of a directory and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryChunk {
    /// The first half of its id.
    pub id: ShortId,
    /// The index of its block in [`Directory::blocks`].
    pub block: u32,
    /// Where it starts in the plaintext of its block, in bytes.
    pub offset: u32,
    /// Its length, in bytes.
    pub len: u32,
}

/// What a pack holds: blocks in order, and the chunks of each block in order. Holding one proves that it is consistent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Directory {
    blocks: Vec<BlockEntry>,
    lens: Vec<u32>,
    ids: Vec<ShortId>,
}

impl Directory {
    /// The blocks, in the order of their offsets; the first starts right after the header.
    #[must_use]
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.blocks
    }

    /// Number of chunks of all blocks.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.ids.len()
    }

    /// Where the records end, in bytes from the start of the pack.
    #[must_use]
    pub fn records_end(&self) -> u64 {
        match self.blocks.last() {
            Some(block) => u64::from(block.offset) + u64::from(block.record_len),
            None => PACK_HEADER_LEN as u64,
        }
    }

    /// All chunks, in order.
    pub fn iter(&self) -> impl Iterator<Item = DirectoryChunk> + '_ {
        (0..self.blocks.len()).flat_map(|block| self.block_chunks(block))
    }

    /// The chunks of the block with this index, in order; none if there is no such block.
    pub fn block_chunks(&self, block: usize) -> impl Iterator<Item = DirectoryChunk> + '_ {
        let range = self.blocks.get(block).map_or(0..0, |entry| {
            entry.chunks.start as usize..entry.chunks.end as usize
        });
        let chunks = self
            .ids
            .get(range.clone())
            .into_iter()
            .flatten()
            .zip(self.lens.get(range).into_iter().flatten());
        // A directory has fewer than 2^32 blocks, since each takes bytes of a pack of at most 1 GiB.
        let block = u32::try_from(block).unwrap_or(u32::MAX);
        chunks.scan(0, move |end, (&id, &len)| {
            let offset = *end;
            *end += len;
            Some(DirectoryChunk {
                id,
                block,
                offset,
                len,
            })
        })
    }

    /// Appends a block; changes nothing if it is not one.
    pub(crate) fn push(
        &mut self,
        record_len: u32,
        chunks: impl ExactSizeIterator<Item = (ShortId, u32)>,
    ) -> Result<(), WireError> {
        let start = self.ids.len();
        let pushed = self.push_unchecked(record_len, chunks);
        if pushed.is_err() {
            self.ids.truncate(start);
            self.lens.truncate(start);
        }
        pushed
    }

    fn push_unchecked(
        &mut self,
        record_len: u32,
        chunks: impl Iterator<Item = (ShortId, u32)>,
    ) -> Result<(), WireError> {
        let offset =
            u32::try_from(self.records_end()).map_err(|_| WireError("the pack is too long"))?;
        if (record_len as usize) < RECORD_OVERHEAD {
            return Err(WireError("a record is shorter than its overhead"));
        }
        let start = self.ids.len() as u32;
        let mut plain_len = 0_u32;
        for (id, len) in chunks {
            plain_len = plain_len.saturating_add(len);
            if len == 0 || plain_len > BLOCK_PLAIN_LEN_MAX {
                return Err(WireError("a chunk is empty or a block is too long"));
            }
            self.ids.push(id);
            self.lens.push(len);
        }
        if plain_len == 0 {
            return Err(WireError("a block has no chunks"));
        }
        let chunks = start..self.ids.len() as u32;
        self.blocks.push(BlockEntry {
            offset,
            record_len,
            plain_len,
            chunks,
        });
        Ok(())
    }

    /// The plaintext of the sealed directory:
    /// block count ‖ per block: record_len, chunk count ‖ per chunk: len ‖ per chunk: short id (16 B); numbers as varints.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(10 + self.blocks.len() * 8 + self.ids.len() * (ShortId::LEN + 3));
        put_varint(&mut out, self.blocks.len() as u64);
        for block in &self.blocks {
            put_varint(&mut out, u64::from(block.record_len));
            put_varint(&mut out, block.chunks.len() as u64);
        }
        for len in &self.lens {
            put_varint(&mut out, u64::from(*len));
        }
        for id in &self.ids {
            out.extend_from_slice(id.as_bytes());
        }
        out
    }

    /// Reads what [`Directory::encode`] wrote; `records_len_max` is the room that the pack has for records, in bytes.
    ///
    /// # Errors
    /// [`PackError::MalformedDirectory`]. Nothing is allocated that the length of `bytes` does not justify.
    pub fn decode(bytes: &[u8], records_len_max: u64) -> Result<Self, PackError> {
        if bytes.len() > DIRECTORY_LEN_MAX {
            return Err(PackError::MalformedDirectory {
                what: "it is too long",
            });
        }
        Self::decode_wire(bytes, records_len_max)
            .map_err(|WireError(what)| PackError::MalformedDirectory { what })
    }

    fn decode_wire(bytes: &[u8], records_len_max: u64) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let block_count = reader.count(BLOCK_BYTES_MIN)?;
        let mut blocks = reader.clone();
        let mut chunk_count = 0_usize;
        for _ in 0..block_count {
            reader.varint_u32()?;
            chunk_count += reader.count(CHUNK_BYTES_MIN)?;
        }
        if chunk_count > reader.remaining() / CHUNK_BYTES_MIN {
            return Err(WireError("a count exceeds what can follow"));
        }
        let mut lens = reader.clone();
        for _ in 0..chunk_count {
            reader.varint_u32()?;
        }
        let (ids, tail) = reader
            .bytes(reader.remaining())?
            .as_chunks::<{ ShortId::LEN }>();
        if ids.len() != chunk_count || !tail.is_empty() {
            return Err(WireError("it does not hold one id for each chunk"));
        }
        let mut ids = ids.iter().map(|id| ShortId::from_bytes(*id));
        let mut directory = Self {
            blocks: Vec::with_capacity(block_count),
            lens: Vec::with_capacity(chunk_count),
            ids: Vec::with_capacity(chunk_count),
        };
        for _ in 0..block_count {
            let record_len = blocks.varint_u32()?;
            let count = blocks.count(0)?;
            let chunks = ids
                .by_ref()
                .take(count)
                .map(|id| (id, lens.varint_u32().unwrap_or(0)));
            directory.push_unchecked(record_len, chunks)?;
            if directory.records_end() > records_len_max.saturating_add(PACK_HEADER_LEN as u64) {
                return Err(WireError("the records do not fit into the pack"));
            }
        }
        Ok(directory)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Directory({} blocks, {} chunks)",
            self.blocks.len(),
            self.ids.len()
        )
    }
}

/// The longest directory plaintext, in bytes: 64 MiB, which is three million chunks.
pub const DIRECTORY_LEN_MAX: usize = 64 << 20;

/// A chunk takes at least one byte of length and an id.
const CHUNK_BYTES_MIN: usize = 1 + ShortId::LEN;
/// A block takes at least two numbers and one chunk.
const BLOCK_BYTES_MIN: usize = 2 + CHUNK_BYTES_MIN;
