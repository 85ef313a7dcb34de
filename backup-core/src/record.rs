use std::fmt;

use zeroize::Zeroizing;

use crate::aead::{self, AeadError, NONCE_LEN, TAG_LEN};
use crate::codec::{CompressError, Compressor, DecodeError, Decompressor, INNER_HEADER_LEN};
use crate::ids::RepositoryId;
use crate::keys::{ChunkKind, KeyError, Keys, SealKey};

/// The longest plaintext of a block, in bytes: 16 MiB.
pub const BLOCK_PLAIN_LEN_MAX: u32 = 16 << 20;

/// What a record is longer than its body, in bytes: nonce (24), header of the inner (8), tag (16).
pub const RECORD_OVERHEAD: usize = NONCE_LEN + INNER_HEADER_LEN + TAG_LEN;

/// A block could not be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The plaintext is empty or longer than [`BLOCK_PLAIN_LEN_MAX`].
    #[error("a block of {len} bytes cannot be sealed, allowed are 1 to {BLOCK_PLAIN_LEN_MAX}")]
    Length {
        /// Length of the plaintext, in bytes.
        len: usize,
    },
    /// The key set lacks the key.
    #[error("cannot seal a block")]
    Key {
        /// Which one.
        #[from]
        source: KeyError,
    },
    /// Compression failed.
    #[error("cannot compress a block")]
    Compress {
        /// Why.
        #[from]
        source: CompressError,
    },
}

/// A record could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The record was not sealed as this kind, for this repository, with this key; or its bytes have changed.
    #[error("the block is not authentic")]
    Unauthentic,
    /// The record is shorter than any record, or longer than one of `plain_len` can be.
    #[error("a record of {len} bytes cannot hold a block of {plain_len}")]
    RecordLength {
        /// Length of the record, in bytes.
        len: usize,
        /// The expected length of its plaintext, in bytes.
        plain_len: u32,
    },
    /// The record is authentic, and its plaintext has another length than the directory states.
    #[error("the block holds {got} bytes instead of {expected}")]
    LengthMismatch {
        /// What the directory states, in bytes.
        expected: u32,
        /// What the record states, in bytes.
        got: u32,
    },
    /// The record is authentic, and what it holds is not something that a sealer of ours writes.
    #[error("the block is authentic and malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Memory for the plaintext could not be had.
    #[error("out of memory for a block")]
    OutOfMemory,
    /// The key set lacks the key.
    #[error("cannot open a block")]
    Key {
        /// Which one.
        #[from]
        source: KeyError,
    },
}

/// Compresses and seals blocks of one repository. One per worker: it owns zstd's state.
pub struct BlockSealer {
    repository: RepositoryId,
    compressor: Compressor,
}

impl BlockSealer {
    /// A sealer that compresses at `level` (see [`Compressor::new`]; 3 is what DESIGN.md measured).
    ///
    /// # Errors
    /// [`SealError::Compress`] if the level is out of range or memory is short.
    pub fn new(repository: RepositoryId, level: i32) -> Result<Self, SealError> {
        Ok(Self {
            repository,
            compressor: Compressor::new(level)?,
        })
    }

    /// Appends one record to `out` and returns its length in bytes.
    ///
    /// record = nonce (24 B) ‖ XChaCha20-Poly1305(inner) ‖ tag (16 B), where the nonce is a keyed hash of exactly what is
    /// sealed: the same block gives the same record, a different encoding a different nonce. On an error, `out` is as before.
    ///
    /// # Errors
    /// [`SealError::Length`] for an empty or too long plaintext, [`SealError::Key`] if `keys` cannot seal this kind.
    pub fn seal(
        &mut self,
        keys: &Keys,
        kind: ChunkKind,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, SealError> {
        if plaintext.is_empty() || plaintext.len() > BLOCK_PLAIN_LEN_MAX as usize {
            return Err(SealError::Length {
                len: plaintext.len(),
            });
        }
        let key = keys.block(kind)?;
        let start = out.len();
        let sealed = self.seal_with(key, kind, plaintext, out);
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed.map(|()| out.len() - start)
    }

    fn seal_with(
        &mut self,
        key: &SealKey,
        kind: ChunkKind,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let aad = associated_data(kind, self.repository);
        let start = out.len();
        // The associated data lies in the nonce's place until the nonce is known, so that AAD ‖ inner is one run of
        // bytes: BLAKE3 is fastest on whole buffers.
        out.extend_from_slice(&[0; NONCE_LEN - AAD_LEN]);
        out.extend_from_slice(&aad);
        self.compressor.encode_inner(plaintext, out)?;
        let nonce = aead::synthetic_nonce(&key.nonce, &[&out[start + NONCE_LEN - AAD_LEN..]]);
        let (head, inner) = out[start..].split_at_mut(NONCE_LEN);
        head.copy_from_slice(&nonce);
        let tag = aead::bulk::seal_in_place(&key.encryption, &nonce, &aad, inner).map_err(
            |AeadError| SealError::Length {
                len: plaintext.len(),
            },
        )?;
        out.extend_from_slice(&tag);
        Ok(())
    }
}

impl fmt::Debug for BlockSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockSealer({:?})", self.repository)
    }
}

/// Opens blocks of one repository. One per worker: it owns zstd's state and a buffer.
pub struct BlockOpener {
    repository: RepositoryId,
    decompressor: Decompressor,
    /// Where the record is decrypted; kept, so that its memory is not fetched anew for every block.
    scratch: Zeroizing<Vec<u8>>,
}

impl BlockOpener {
    /// An opener for the blocks of `repository`.
    ///
    /// # Errors
    /// [`OpenError::OutOfMemory`] if zstd cannot allocate its state.
    pub fn new(repository: RepositoryId) -> Result<Self, OpenError> {
        let decompressor = Decompressor::new().map_err(|_| OpenError::OutOfMemory)?;
        Ok(Self {
            repository,
            decompressor,
            scratch: Zeroizing::new(Vec::new()),
        })
    }

    /// Verifies `record` and returns its plaintext, which is `plain_len` bytes long.
    ///
    /// The plaintext is not yet known to be the chunks that were asked for: recompute each id with [`Keys::chunk_id`].
    ///
    /// # Errors
    /// [`OpenError::Unauthentic`] before anything is decoded; the others tell how an authentic record is wrong.
    pub fn open(
        &mut self,
        keys: &Keys,
        kind: ChunkKind,
        record: &[u8],
        plain_len: u32,
    ) -> Result<Vec<u8>, OpenError> {
        let mut plaintext = Vec::new();
        self.open_into(keys, (kind, plain_len), record, &mut plaintext)?;
        Ok(plaintext)
    }

    /// As [`BlockOpener::open`], into memory that is there already: the plaintext takes the place of what it holds. On an
    /// error, what it holds is of no meaning.
    ///
    /// # Errors
    /// Those of [`BlockOpener::open`].
    pub fn open_into(
        &mut self,
        keys: &Keys,
        (kind, plain_len): (ChunkKind, u32),
        record: &[u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let key = keys.block(kind)?;
        let len_max = RECORD_OVERHEAD + plain_len.min(BLOCK_PLAIN_LEN_MAX) as usize;
        let bad_len = OpenError::RecordLength {
            len: record.len(),
            plain_len,
        };
        let in_bounds = (1..=BLOCK_PLAIN_LEN_MAX).contains(&plain_len)
            && (RECORD_OVERHEAD + 1..=len_max).contains(&record.len());
        let (true, Some((nonce, sealed))) = (in_bounds, record.split_first_chunk::<NONCE_LEN>())
        else {
            return Err(bad_len);
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(sealed);
        let aad = associated_data(kind, self.repository);
        let inner = aead::bulk::open_in_place(&key.encryption, nonce, &aad, &mut self.scratch)
            .map_err(|AeadError| OpenError::Unauthentic)?;
        self.decompressor
            .decode_inner(inner, plain_len, plaintext)
            .map_err(|error| match error {
                DecodeError::OutOfMemory => OpenError::OutOfMemory,
                DecodeError::LengthMismatch { stated } => OpenError::LengthMismatch {
                    expected: plain_len,
                    got: stated,
                },
                DecodeError::Malformed(what) => OpenError::Malformed { what },
            })
    }
}

impl fmt::Debug for BlockOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockOpener({:?})", self.repository)
    }
}

/// kind u8 ‖ version u8 ‖ repository id (16 B). Source: SECURITY.md, section 3.
fn associated_data(kind: ChunkKind, repository: RepositoryId) -> [u8; AAD_LEN] {
    let mut aad = [0; AAD_LEN];
    aad[0] = kind.as_u8();
    aad[1] = RECORD_VERSION;
    aad[2..].copy_from_slice(repository.as_bytes());
    aad
}

const AAD_LEN: usize = 18;
const RECORD_VERSION: u8 = 1;
