use crate::aead::{self, AeadError, NONCE_LEN, TAG_LEN};
use crate::codec::{self, CompressError, Compressor, DecodeError, Decompressor, INNER_HEADER_LEN};
use crate::ids::RepositoryId;
use crate::keys::{KeyError, Keys, SealKey};

/// What a sealed document says it is. The kind is part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum DocumentKind {
    /// A snapshot's cell.
    Snapshot = 2,
    /// An index segment.
    Segment = 3,
    /// The directory at the end of a pack.
    Directory = 4,
    /// A garbage collector's plan.
    GcPlan = 7,
    /// The first object of a session.
    SessionOpen = 8,
    /// A session's answer to a plan.
    SessionAck = 9,
    /// A decision about a snapshot.
    Retired = 11,
}

impl DocumentKind {
    /// The byte that stands for it.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    fn key(self, keys: &Keys) -> Result<&SealKey, KeyError> {
        match self {
            Self::Snapshot | Self::Retired => keys.snapshot(),
            Self::Segment
            | Self::Directory
            | Self::GcPlan
            | Self::SessionOpen
            | Self::SessionAck => keys.index(),
        }
    }
}

/// What a document is bound to: a document opens as this kind, in this repository, under this name, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentContext<'a> {
    /// What it is.
    pub kind: DocumentKind,
    /// Where it belongs.
    pub repository: RepositoryId,
    /// The object's full key (`[0-9a-z/-]` only), e.g. `snapshots/…`; for a directory: the pack's 48-byte header.
    pub name: &'a [u8],
}

/// A document could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The bytes do not begin with `BKUP`, or are too short for any document.
    #[error("this is not a sealed document")]
    NotADocument,
    /// It was written by a newer program.
    #[error("the document has version {got}, this program reads version {expected}")]
    UnsupportedVersion {
        /// Its version.
        got: u8,
        /// The version understood.
        expected: u8,
    },
    /// It says that it is something else.
    #[error("the document is of kind {got} instead of {expected:?}")]
    WrongKind {
        /// What was asked for.
        expected: DocumentKind,
        /// The kind byte found.
        got: u8,
    },
    /// It has flags that this program does not know.
    #[error("the document has unknown flags {flags:#06x}")]
    UnknownFlags {
        /// The flags.
        flags: u16,
    },
    /// It was not sealed as this kind, in this repository, under this name, with this key; or its bytes have changed.
    #[error("the document is not authentic")]
    Unauthentic,
    /// It is longer than allowed.
    #[error("the document is {len} bytes long, allowed are {len_max}")]
    TooLong {
        /// Its length, in bytes: of the object, or of the plaintext that it states.
        len: u64,
        /// The limit, in bytes.
        len_max: u64,
    },
    /// It is authentic, and what it holds is not something that this program writes.
    #[error("the document is authentic and malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The name is not an object's key (or, for a directory, not 48 bytes).
    #[error("a document of kind {kind:?} cannot have this name of {len} bytes")]
    InvalidName {
        /// What was to be sealed or opened.
        kind: DocumentKind,
        /// Length of the name, in bytes.
        len: usize,
    },
    /// Memory could not be had.
    #[error("out of memory for a document")]
    OutOfMemory,
    /// Compression failed.
    #[error("cannot compress a document")]
    Compress {
        /// Why.
        #[from]
        source: CompressError,
    },
    /// The key set lacks the key.
    #[error("no key for a document of this kind")]
    Key {
        /// Which one.
        #[from]
        source: KeyError,
    },
}

/// The longest plaintext of a document, in bytes: 256 MiB. An index segment of 10 million chunks fits.
pub const DOCUMENT_PLAIN_LEN_MAX: usize = 256 << 20;

/// What a sealed document is at most longer than its plaintext, in bytes: header, nonce, header of the inner, tag.
pub const DOCUMENT_OVERHEAD: usize = HEADER_LEN + NONCE_LEN + INNER_HEADER_LEN + TAG_LEN;

/// Compresses (zstd 3) and seals `plaintext`.
///
/// Returns header (8 B) ‖ nonce (24 B) ‖ XChaCha20-Poly1305(inner) ‖ tag (16 B). The nonce is a keyed hash of `random`
/// and of what is sealed: with a stuck generator, the same document gives the same bytes, and different ones never share
/// a nonce.
///
/// # Errors
/// [`DocumentError::TooLong`], [`DocumentError::InvalidName`], [`DocumentError::Key`].
pub fn seal_document(
    keys: &Keys,
    context: DocumentContext<'_>,
    random: [u8; 24],
    plaintext: &[u8],
) -> Result<Vec<u8>, DocumentError> {
    check_len(plaintext.len() as u64, DOCUMENT_PLAIN_LEN_MAX as u64)?;
    let key = context.kind.key(keys)?;
    let aad = associated_data(&context)?;
    let mut out = Vec::with_capacity(DOCUMENT_OVERHEAD + plaintext.len() / 2);
    out.extend_from_slice(&header(context.kind));
    out.extend_from_slice(&[0; NONCE_LEN]);
    Compressor::new(DOCUMENT_LEVEL)?.encode_inner(plaintext, &mut out)?;
    let (head, inner) = out.split_at_mut(HEADER_LEN + NONCE_LEN);
    let nonce = aead::synthetic_nonce(&key.nonce, &[&random, &aad, inner]);
    head[HEADER_LEN..].copy_from_slice(&nonce);
    let tag = aead::seal_in_place(&key.encryption, &nonce, &aad, inner)
        .map_err(|AeadError| DocumentError::OutOfMemory)?;
    out.extend_from_slice(&tag);
    Ok(out)
}

/// Verifies a document and returns its plaintext, at most `len_max` bytes.
///
/// # Errors
/// See [`DocumentError`]; magic, version, kind and flags are told apart before, everything else after the seal is verified.
pub fn open_document(
    keys: &Keys,
    context: &DocumentContext<'_>,
    bytes: &[u8],
    len_max: usize,
) -> Result<Vec<u8>, DocumentError> {
    let len_max = len_max.min(DOCUMENT_PLAIN_LEN_MAX);
    let sealed = check_header(context.kind, bytes)?;
    check_len(bytes.len() as u64, (len_max + DOCUMENT_OVERHEAD) as u64)?;
    let key = context.kind.key(keys)?;
    let aad = associated_data(context)?;
    let (nonce, sealed) = sealed
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(DocumentError::NotADocument)?;
    let inner_len = sealed
        .len()
        .checked_sub(TAG_LEN)
        .ok_or(DocumentError::NotADocument)?;
    let mut inner = Vec::new();
    inner
        .try_reserve_exact(inner_len)
        .map_err(|_| DocumentError::OutOfMemory)?;
    inner.resize(inner_len, 0);
    aead::open_into(&key.encryption, nonce, &aad, sealed, &mut inner)
        .map_err(|AeadError| DocumentError::Unauthentic)?;
    let plain_len = codec::stated_len(&inner)?;
    check_len(u64::from(plain_len), len_max as u64)?;
    let mut plaintext = Vec::new();
    Decompressor::for_one().decode_inner(&inner, plain_len, &mut plaintext)?;
    Ok(plaintext)
}

fn check_header(kind: DocumentKind, bytes: &[u8]) -> Result<&[u8], DocumentError> {
    let (head, sealed) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(DocumentError::NotADocument)?;
    let [m0, m1, m2, m3, got_kind, version, f0, f1] = *head;
    if [m0, m1, m2, m3] != DOCUMENT_MAGIC {
        return Err(DocumentError::NotADocument);
    }
    if version != DOCUMENT_VERSION {
        return Err(DocumentError::UnsupportedVersion {
            got: version,
            expected: DOCUMENT_VERSION,
        });
    }
    if got_kind != kind.as_u8() {
        return Err(DocumentError::WrongKind {
            expected: kind,
            got: got_kind,
        });
    }
    match u16::from_le_bytes([f0, f1]) {
        0 => Ok(sealed),
        flags => Err(DocumentError::UnknownFlags { flags }),
    }
}

fn check_len(len: u64, len_max: u64) -> Result<(), DocumentError> {
    if len > len_max {
        Err(DocumentError::TooLong { len, len_max })
    } else {
        Ok(())
    }
}

fn header(kind: DocumentKind) -> [u8; HEADER_LEN] {
    let [m0, m1, m2, m3] = DOCUMENT_MAGIC;
    [m0, m1, m2, m3, kind.as_u8(), DOCUMENT_VERSION, 0, 0]
}

/// header (8 B) ‖ repository id (16 B) ‖ name.
///
/// Names are checked since the nonce hashes AAD ‖ inner: an inner begins with byte 0 or 1, which no key holds, and a
/// directory's name has a fixed length. So the two parts cannot be divided in two ways.
fn associated_data(context: &DocumentContext<'_>) -> Result<Vec<u8>, DocumentError> {
    let name = context.name;
    let valid = match context.kind {
        DocumentKind::Directory => name.len() == DIRECTORY_NAME_LEN,
        _ => {
            (1..=NAME_LEN_MAX).contains(&name.len())
                && name
                    .iter()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'/' | b'-'))
        }
    };
    if !valid {
        return Err(DocumentError::InvalidName {
            kind: context.kind,
            len: name.len(),
        });
    }
    Ok([
        &header(context.kind)[..],
        context.repository.as_bytes(),
        name,
    ]
    .concat())
}

impl From<DecodeError> for DocumentError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::OutOfMemory => Self::OutOfMemory,
            DecodeError::LengthMismatch { .. } => Self::Malformed {
                what: "it states two lengths",
            },
            DecodeError::Malformed(what) => Self::Malformed { what },
        }
    }
}

const DOCUMENT_MAGIC: [u8; 4] = *b"BKUP";
const DOCUMENT_VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
/// The header of a pack, which is what its directory is named by.
const DIRECTORY_NAME_LEN: usize = 48;
/// Keys of S3 objects are at most this long, in bytes.
const NAME_LEN_MAX: usize = 1024;
/// Documents are small and read often; level 3 is zstd's default.
const DOCUMENT_LEVEL: i32 = 3;
