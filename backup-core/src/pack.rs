use std::fmt;
use std::ops::Range;

use crate::directory::{DIRECTORY_LEN_MAX, Directory};
use crate::document::{DocumentContext, DocumentError, DocumentKind, open_document, seal_document};
use crate::ids::{PackId, RepositoryId, SessionId, ShortId, split_array};
use crate::keys::{ChunkKind, Keys};
use crate::wire::{WireError, varint_len};

/// Length of a pack's header, in bytes.
pub const PACK_HEADER_LEN: usize = 48;
/// Length of a pack's footer, in bytes.
pub const PACK_FOOTER_LEN: usize = 16;
/// The longest pack, in bytes: 1 GiB. DESIGN.md means 32 to 128 MiB; offsets in directories have 32 bits.
pub const PACK_LEN_MAX: u64 = 1 << 30;

/// A pack, a header, a footer or a directory that is not as it must be; or something that cannot become part of a pack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The bytes do not begin like a pack.
    #[error("this is not a pack")]
    NotAPack,
    /// It was written by a newer program.
    #[error("the pack has version {got}, this program reads version {expected}")]
    UnsupportedVersion {
        /// Its version.
        got: u8,
        /// The version understood.
        expected: u8,
    },
    /// Its blocks are sealed in a way that this program does not know.
    #[error("the pack has the unknown key mode {got}")]
    UnknownKeyMode {
        /// The mode.
        got: u8,
    },
    /// Its name is not the hash of its bytes.
    #[error("the pack is named {expected} and hashes to {got}")]
    WrongName {
        /// The name.
        expected: PackId,
        /// What its bytes hash to.
        got: PackId,
    },
    /// Header, padding, footer or length are not what a writer of ours writes.
    #[error("the pack is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The directory is authentic and does not describe a possible pack.
    #[error("the directory of the pack is malformed: {what}")]
    MalformedDirectory {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The directory could not be sealed or opened.
    #[error("cannot seal or open the directory of the pack")]
    Directory {
        /// Why.
        #[from]
        source: DocumentError,
    },
    /// This record and these chunks are not a block.
    #[error("a record of {record_len} bytes with {chunks} chunks cannot be added: {what}")]
    InvalidBlock {
        /// Length of the record, in bytes.
        record_len: usize,
        /// Number of chunks.
        chunks: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The pack would exceed [`PACK_LEN_MAX`].
    #[error("the pack would become {len} bytes long, allowed are {PACK_LEN_MAX}")]
    TooLong {
        /// Its length with the block, in bytes.
        len: u64,
    },
}

/// The 48 bytes at the start of a pack:
/// magic `BKUPPACK` ‖ version u8 ‖ kind u8 ‖ key mode u8 ‖ 0 ‖ counter u32 ‖ session id (24 B) ‖ 8 zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackHeader {
    /// What all chunks of the pack are.
    pub kind: ChunkKind,
    /// The session that wrote it.
    pub session: SessionId,
    /// The number of the pack in its session; it keeps two packs of the same blocks apart.
    pub counter: u32,
}

impl PackHeader {
    /// Reads the header from the first bytes of a pack (48 or more).
    ///
    /// # Errors
    /// [`PackError::NotAPack`], [`PackError::UnsupportedVersion`], [`PackError::UnknownKeyMode`],
    /// [`PackError::Malformed`] for an unknown kind or reserved bytes that are not zero.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let Some((header, _)) = bytes.split_first_chunk::<PACK_HEADER_LEN>() else {
            return Err(PackError::NotAPack);
        };
        let (magic, rest) = split_array::<8>(header);
        let ([version, kind, key_mode, zero], rest) = split_array::<4>(rest);
        let (counter, rest) = split_array::<4>(rest);
        let (session, rest) = split_array::<24>(rest);
        if magic != PACK_MAGIC {
            return Err(PackError::NotAPack);
        }
        if version != PACK_VERSION {
            return Err(PackError::UnsupportedVersion {
                got: version,
                expected: PACK_VERSION,
            });
        }
        if key_mode != KEY_MODE_REPOSITORY {
            return Err(PackError::UnknownKeyMode { got: key_mode });
        }
        let kind = ChunkKind::from_u8(kind).ok_or(PackError::Malformed {
            what: "its kind is unknown",
        })?;
        if zero != 0 || rest.iter().any(|byte| *byte != 0) {
            return Err(PackError::Malformed {
                what: "reserved bytes of the header are not zero",
            });
        }
        Ok(Self {
            kind,
            session: SessionId::from_bytes(session),
            counter: u32::from_le_bytes(counter),
        })
    }

    /// The 48 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PACK_HEADER_LEN] {
        let mut bytes = [0; PACK_HEADER_LEN];
        bytes[..8].copy_from_slice(&PACK_MAGIC);
        bytes[8..12].copy_from_slice(&[PACK_VERSION, self.kind.as_u8(), KEY_MODE_REPOSITORY, 0]);
        bytes[12..16].copy_from_slice(&self.counter.to_le_bytes());
        bytes[16..40].copy_from_slice(&self.session.to_bytes());
        bytes
    }
}

/// The 16 bytes at the end of a pack: length of the sealed directory u32 ‖ 4 zero ‖ magic `BKUPFOOT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackFooter {
    /// Length of the sealed directory, which ends where the footer starts, in bytes.
    pub directory_len: u32,
}

impl PackFooter {
    /// Reads the footer from the last 16 bytes of a pack.
    ///
    /// # Errors
    /// [`PackError::Malformed`] if it is not a footer.
    pub fn decode(bytes: &[u8; PACK_FOOTER_LEN]) -> Result<Self, PackError> {
        let (directory_len, rest) = split_array::<4>(bytes);
        let (zero, magic) = split_array::<4>(rest);
        if magic != FOOTER_MAGIC {
            return Err(PackError::Malformed {
                what: "it does not end with a footer",
            });
        }
        if zero != [0; 4] {
            return Err(PackError::Malformed {
                what: "reserved bytes of the footer are not zero",
            });
        }
        Ok(Self {
            directory_len: u32::from_le_bytes(directory_len),
        })
    }

    /// The 16 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PACK_FOOTER_LEN] {
        let mut bytes = [0; PACK_FOOTER_LEN];
        bytes[..4].copy_from_slice(&self.directory_len.to_le_bytes());
        bytes[8..].copy_from_slice(&FOOTER_MAGIC);
        bytes
    }

    /// The range of bytes that the sealed directory takes in a pack of `pack_len` bytes.
    ///
    /// # Errors
    /// [`PackError::Malformed`] if there is no room for it.
    pub fn directory_range(&self, pack_len: u64) -> Result<Range<u64>, PackError> {
        let end = pack_len.checked_sub(PACK_FOOTER_LEN as u64);
        let start = end.and_then(|end| end.checked_sub(u64::from(self.directory_len)));
        match (start, end) {
            (Some(start), Some(end)) if start >= PACK_HEADER_LEN as u64 => Ok(start..end),
            _ => Err(PackError::Malformed {
                what: "the directory does not fit into it",
            }),
        }
    }
}

/// A pack that is complete.
#[derive(Debug)]
#[non_exhaustive]
pub struct FinishedPack {
    /// Its name.
    pub id: PackId,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it holds.
    pub directory: Directory,
}

/// Lays records out as a pack.
pub struct PackBuilder {
    header: [u8; PACK_HEADER_LEN],
    bytes: Vec<u8>,
    directory: Directory,
    /// Length of the directory's plaintext but for the count of blocks, in bytes.
    directory_len: usize,
}

impl PackBuilder {
    /// An empty pack; `capacity` is the expected length, in bytes.
    #[must_use]
    pub fn new(kind: ChunkKind, session: SessionId, counter: u32, capacity: usize) -> Self {
        let bytes = Vec::with_capacity(capacity.max(PACK_HEADER_LEN));
        Self::with_buffer(kind, session, counter, bytes)
    }

    /// As [`PackBuilder::new`], laid out in a buffer that was used before; what it holds is of no meaning.
    #[must_use]
    pub fn with_buffer(
        kind: ChunkKind,
        session: SessionId,
        counter: u32,
        mut bytes: Vec<u8>,
    ) -> Self {
        let header = PackHeader {
            kind,
            session,
            counter,
        }
        .encode();
        bytes.clear();
        bytes.extend_from_slice(&header);
        Self {
            header,
            bytes,
            directory: Directory::default(),
            directory_len: 0,
        }
    }

    /// Appends a record and says which chunks, with which lengths in bytes, its plaintext consists of.
    ///
    /// # Errors
    /// [`PackError::InvalidBlock`], [`PackError::TooLong`]; the pack is unchanged then.
    pub fn push(&mut self, record: &[u8], chunks: &[(ShortId, u32)]) -> Result<(), PackError> {
        let block_len: usize = varint_len(record.len() as u64)
            + varint_len(chunks.len() as u64)
            + chunks
                .iter()
                .map(|(_, len)| ShortId::LEN + varint_len(u64::from(*len)))
                .sum::<usize>();
        let len = (self.len() + record.len() + block_len) as u64;
        if len > PACK_LEN_MAX || self.directory_len + block_len > DIRECTORY_LEN_MAX - COUNT_LEN_MAX
        {
            return Err(PackError::TooLong { len });
        }
        let invalid = |what| PackError::InvalidBlock {
            record_len: record.len(),
            chunks: chunks.len(),
            what,
        };
        let record_len =
            u32::try_from(record.len()).map_err(|_| invalid("the record is too long"))?;
        self.directory
            .push(record_len, chunks.iter().copied())
            .map_err(|WireError(what)| invalid(what))?;
        self.directory_len += block_len;
        self.bytes.extend_from_slice(record);
        Ok(())
    }

    /// Length if it were finished now, in bytes: an upper bound, without padding.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
            + COUNT_LEN_MAX
            + self.directory_len
            + crate::DOCUMENT_OVERHEAD
            + PACK_FOOTER_LEN
    }

    /// Whether no record has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.blocks().is_empty()
    }

    /// Appends padding, sealed directory and footer.
    ///
    /// The padding stands before the directory, so that the footer is the end of the object: a reader fetches directory
    /// and footer with one request for the tail, and needs no index to find them.
    ///
    /// # Errors
    /// [`PackError::Directory`] if the directory cannot be sealed.
    pub fn finish(
        mut self,
        keys: &Keys,
        repository: RepositoryId,
        random: [u8; 24],
    ) -> Result<FinishedPack, PackError> {
        let context = DocumentContext {
            kind: DocumentKind::Directory,
            repository,
            name: &self.header,
        };
        let sealed = seal_document(keys, context, random, &self.directory.encode())?;
        let tail_len = sealed.len() + PACK_FOOTER_LEN;
        // Below 2 GiB, since `push` bounds the sum.
        let len = padme((self.bytes.len() + tail_len) as u64) as usize;
        self.bytes.reserve_exact(len - self.bytes.len());
        self.bytes.resize(len - tail_len, 0);
        self.bytes.extend_from_slice(&sealed);
        self.bytes.extend_from_slice(
            &PackFooter {
                directory_len: sealed.len() as u32,
            }
            .encode(),
        );
        let id = PackId::from_bytes(*blake3::hash(&self.bytes).as_bytes());
        Ok(FinishedPack {
            id,
            bytes: self.bytes,
            directory: self.directory,
        })
    }
}

/// The same blocks as a pack of another name: `counter`, which must be new, makes the name a new one.
///
/// A pack whose put may or may not have had an effect is put again under another name. Under its own name the first put could
/// still be on its way, and bring the pack back after it was deleted.
///
/// # Errors
/// [`PackError`] if `bytes` are not the pack with this directory.
pub fn rename_pack(
    keys: &Keys,
    repository: RepositoryId,
    pack: (&[u8], &Directory),
    counter: u32,
    random: [u8; 24],
) -> Result<FinishedPack, PackError> {
    let (bytes, directory) = pack;
    let header = PackHeader::decode(bytes)?;
    let mut builder = PackBuilder::new(header.kind, header.session, counter, bytes.len());
    for (number, block) in directory.blocks().iter().enumerate() {
        let start = block.offset as usize;
        let record = bytes
            .get(start..start + block.record_len as usize)
            .ok_or(PackError::NotAPack)?;
        let chunks: Vec<(ShortId, u32)> = directory
            .block_chunks(number)
            .map(|chunk| (chunk.id, chunk.len))
            .collect();
        builder.push(record, &chunks)?;
    }
    builder.finish(keys, repository, random)
}

impl fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PackBuilder({:?}, {} bytes)",
            self.directory,
            self.bytes.len()
        )
    }
}

/// Verifies and decodes the sealed directory of a pack with this header and this length in bytes.
///
/// # Errors
/// [`PackError::Directory`] if it is not authentic or belongs to another pack; [`PackError::MalformedDirectory`].
pub fn open_directory(
    keys: &Keys,
    repository: RepositoryId,
    header: &[u8; PACK_HEADER_LEN],
    sealed: &[u8],
    pack_len: u64,
) -> Result<Directory, PackError> {
    PackHeader::decode(header)?;
    let around = (PACK_HEADER_LEN + PACK_FOOTER_LEN + sealed.len()) as u64;
    let records_len_max = pack_len.checked_sub(around).ok_or(PackError::Malformed {
        what: "the directory does not fit into it",
    })?;
    let context = DocumentContext {
        kind: DocumentKind::Directory,
        repository,
        name: header,
    };
    let plaintext = open_document(keys, &context, sealed, DIRECTORY_LEN_MAX)?;
    Directory::decode(&plaintext, records_len_max)
}

/// Checks without a key that `bytes` are the pack `id`: the name, header and footer, and the padded length.
///
/// That the padding is zero can only be told with the directory: see [`check_padding`].
///
/// # Errors
/// [`PackError::WrongName`] first, then what is malformed.
pub fn check_pack(bytes: &[u8], id: &PackId) -> Result<PackHeader, PackError> {
    let got = PackId::from_bytes(*blake3::hash(bytes).as_bytes());
    if got != *id {
        return Err(PackError::WrongName { expected: *id, got });
    }
    let header = PackHeader::decode(bytes)?;
    let footer = bytes
        .last_chunk::<PACK_FOOTER_LEN>()
        .ok_or(PackError::NotAPack)?;
    let len = bytes.len() as u64;
    PackFooter::decode(footer)?.directory_range(len)?;
    if padme(len) != len {
        return Err(PackError::Malformed {
            what: "its length is not a padded one",
        });
    }
    Ok(header)
}

/// Checks that nothing but zero bytes lies between the last record and the directory, and that there are as many as
/// padding takes.
///
/// # Errors
/// [`PackError::Malformed`].
pub fn check_padding(bytes: &[u8], directory: &Directory) -> Result<(), PackError> {
    let footer = bytes
        .last_chunk::<PACK_FOOTER_LEN>()
        .ok_or(PackError::NotAPack)?;
    let len = bytes.len() as u64;
    let sealed = PackFooter::decode(footer)?.directory_range(len)?;
    let records_end = directory.records_end();
    let padding = usize::try_from(records_end)
        .ok()
        .zip(usize::try_from(sealed.start).ok())
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or(PackError::Malformed {
            what: "the records run into the directory",
        })?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(PackError::Malformed {
            what: "the padding is not zero",
        });
    }
    if padme(len - padding.len() as u64) != len {
        return Err(PackError::Malformed {
            what: "the padding has another length than it should",
        });
    }
    Ok(())
}

/// The Padmé length for `len` bytes: at most 12 % more, and only O(log log len) bits of the length remain visible.
///
/// Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (2019),
/// section 4.
#[must_use]
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let mantissa_bits = exponent.checked_ilog2().unwrap_or(0) + 1;
    let mask = (1_u64 << exponent.saturating_sub(mantissa_bits)) - 1;
    // Near 2^64 there is no longer length to pad to.
    len.checked_add(mask).map_or(len, |sum| sum & !mask)
}

const PACK_MAGIC: [u8; 8] = *b"BKUPPACK";
const FOOTER_MAGIC: [u8; 8] = *b"BKUPFOOT";
const PACK_VERSION: u8 = 1;
/// Blocks are sealed under the repository's own keys; others are for packs that only some readers can open.
const KEY_MODE_REPOSITORY: u8 = 0;
/// The count of blocks of a pack takes at most so many bytes.
const COUNT_LEN_MAX: usize = 5;
