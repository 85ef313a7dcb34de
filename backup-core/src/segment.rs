use std::collections::HashSet;

use crate::directory::Directory;
use crate::document::{DocumentContext, DocumentError, DocumentKind, open_document, seal_document};
use crate::ids::{PackId, RepositoryId, SegmentId};
use crate::keys::{ChunkKind, Keys};
use crate::pack::{PACK_FOOTER_LEN, PACK_HEADER_LEN, PACK_LEN_MAX, PackError};
use crate::wire::{Reader, WireError, put_varint};

/// The longest plaintext of a segment, in bytes: 256 MiB, the limit of every document.
pub const SEGMENT_LEN_MAX: usize = crate::document::DOCUMENT_PLAIN_LEN_MAX;

/// The directories of some packs: what a writer publishes so that others need not fetch them one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The packs, each at most once.
    pub packs: Vec<SegmentPack>,
}

/// One pack of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPack {
    /// Its name.
    pub id: PackId,
    /// What its chunks are.
    pub kind: ChunkKind,
    /// Its length, in bytes, with padding and footer.
    pub len: u64,
    /// What it holds.
    pub directory: Directory,
}

/// A segment could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Its name is not the keyed hash of its plaintext.
    #[error("the segment is named {expected} and its content is {got}")]
    WrongName {
        /// The name.
        expected: SegmentId,
        /// What its plaintext hashes to.
        got: SegmentId,
    },
    /// It names one pack twice.
    #[error("the segment names pack {pack} twice")]
    DuplicatePack {
        /// The pack.
        pack: PackId,
    },
    /// The entry of one pack is not possible.
    #[error("the segment holds an impossible directory for pack {pack}")]
    Pack {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        source: PackError,
    },
    /// It is not a list of packs.
    #[error("the segment is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// It could not be sealed or opened.
    #[error("cannot seal or open the segment")]
    Document {
        /// Why.
        #[from]
        source: DocumentError,
    },
}

impl Segment {
    /// The plaintext: pack count ‖ per pack: id (32 B) ‖ kind u8 ‖ length ‖ directory length ‖ directory; numbers as varints.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            let directory = pack.directory.encode();
            out.extend_from_slice(pack.id.as_bytes());
            out.push(pack.kind.as_u8());
            put_varint(&mut out, pack.len);
            put_varint(&mut out, directory.len() as u64);
            out.extend_from_slice(&directory);
        }
        out
    }

    /// Reads what [`Segment::encode`] wrote.
    ///
    /// # Errors
    /// [`SegmentError::DuplicatePack`], [`SegmentError::Pack`], [`SegmentError::Malformed`]. Nothing is allocated that the
    /// length of `bytes` does not justify.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(PACK_BYTES_MIN)?;
        let mut seen = HashSet::with_capacity(count);
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            let pack = decode_pack(&mut reader)?;
            if !seen.insert(pack.id) {
                return Err(SegmentError::DuplicatePack { pack: pack.id });
            }
            packs.push(pack);
        }
        reader.end()?;
        Ok(Self { packs })
    }

    /// Seals the segment; returns its name and the bytes of the object `index/<name>`.
    ///
    /// # Errors
    /// [`SegmentError::Document`]; [`SegmentError::DuplicatePack`] and the like if it could not be read back.
    pub fn seal(
        &self,
        keys: &Keys,
        repository: RepositoryId,
        random: [u8; 24],
    ) -> Result<(SegmentId, Vec<u8>), SegmentError> {
        let mut seen = HashSet::with_capacity(self.packs.len());
        for pack in &self.packs {
            check_pack_len(pack.len).map_err(|source| SegmentError::Pack {
                pack: pack.id,
                source,
            })?;
            if !seen.insert(pack.id) {
                return Err(SegmentError::DuplicatePack { pack: pack.id });
            }
        }
        let plaintext = self.encode();
        let id = keys.segment_id(&plaintext);
        let name = object_name(&id);
        let context = DocumentContext {
            kind: DocumentKind::Segment,
            repository,
            name: name.as_bytes(),
        };
        Ok((id, seal_document(keys, context, random, &plaintext)?))
    }

    /// Verifies and decodes the object `index/<id>`.
    ///
    /// # Errors
    /// [`SegmentError::Document`] if it is not authentic under this name, [`SegmentError::WrongName`] if its content is not
    /// what the name says, and what [`Segment::decode`] returns.
    pub fn open(
        keys: &Keys,
        repository: RepositoryId,
        id: &SegmentId,
        bytes: &[u8],
    ) -> Result<Self, SegmentError> {
        let name = object_name(id);
        let context = DocumentContext {
            kind: DocumentKind::Segment,
            repository,
            name: name.as_bytes(),
        };
        let plaintext = open_document(keys, &context, bytes, SEGMENT_LEN_MAX)?;
        let got = keys.segment_id(&plaintext);
        if got != *id {
            return Err(SegmentError::WrongName { expected: *id, got });
        }
        Self::decode(&plaintext)
    }
}

fn decode_pack(reader: &mut Reader<'_>) -> Result<SegmentPack, SegmentError> {
    let id = PackId::from_bytes(reader.array()?);
    let kind = ChunkKind::from_u8(reader.u8()?).ok_or(SegmentError::Malformed {
        what: "the kind of a pack is unknown",
    })?;
    let len = reader.varint()?;
    let directory_len = reader.count(1)?;
    let directory = reader.bytes(directory_len)?;
    let directory = check_pack_len(len)
        .and_then(|records_len_max| Directory::decode(directory, records_len_max))
        .map_err(|source| SegmentError::Pack { pack: id, source })?;
    Ok(SegmentPack {
        id,
        kind,
        len,
        directory,
    })
}

/// The room for records in a pack of `len` bytes.
fn check_pack_len(len: u64) -> Result<u64, PackError> {
    match len.checked_sub((PACK_HEADER_LEN + PACK_FOOTER_LEN) as u64) {
        Some(room) if len <= PACK_LEN_MAX * 2 => Ok(room),
        _ => Err(PackError::Malformed {
            what: "its length is impossible",
        }),
    }
}

fn object_name(id: &SegmentId) -> String {
    format!("index/{id}")
}

impl From<WireError> for SegmentError {
    fn from(WireError(what): WireError) -> Self {
        Self::Malformed { what }
    }
}

/// id, kind, length, directory length, and a directory of one byte.
const PACK_BYTES_MIN: usize = 32 + 1 + 1 + 1 + 1;
