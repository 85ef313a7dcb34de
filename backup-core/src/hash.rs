use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use sha2::Digest as _;

/// The two public hash functions that files, packs and receipts are named and checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// SHA-256, for what other programs must be able to check. Source: FIPS 180-4.
    Sha256,
    /// BLAKE3, unkeyed, for everything of our own. Source: github.com/BLAKE3-team/BLAKE3-specs.
    Blake3,
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest {
        algorithm: HashAlgorithm::Sha256,
        bytes: sha2::Sha256::digest(bytes).into(),
    }
}

/// BLAKE3 of `bytes`, without a key.
#[must_use]
pub fn blake3(bytes: &[u8]) -> Digest {
    Digest {
        algorithm: HashAlgorithm::Blake3,
        bytes: *::blake3::hash(bytes).as_bytes(),
    }
}

/// A hash that is fed piece by piece.
///
/// ```
/// use backup_core::{HashAlgorithm, Hasher, sha256};
/// let mut hasher = Hasher::new(HashAlgorithm::Sha256);
/// hasher.update(b"ab").update(b"c");
/// assert_eq!(hasher.finish(), sha256(b"abc"));
/// ```
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Blake3(Box<::blake3::Hasher>),
}

impl Hasher {
    /// Starts an empty hash.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self(match algorithm {
            HashAlgorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            HashAlgorithm::Blake3 => State::Blake3(Box::default()),
        })
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Blake3(state) => {
                state.update(bytes);
            }
        }
        self
    }

    /// The hash of everything appended.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest {
                algorithm: HashAlgorithm::Sha256,
                bytes: state.finalize().into(),
            },
            State::Blake3(state) => Digest {
                algorithm: HashAlgorithm::Blake3,
                bytes: *state.finalize().as_bytes(),
            },
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

/// The result of a hash: 32 bytes and the function that made them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: HashAlgorithm,
    bytes: [u8; 32],
}

/// Content that does not have the hash it should have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("content has the hash {got} instead of {expected}")]
pub struct HashMismatch {
    /// What the content should hash to.
    pub expected: Digest,
    /// What it does hash to.
    pub got: Digest,
}

impl Digest {
    /// Takes 32 bytes that `algorithm` made.
    #[must_use]
    pub const fn from_bytes(algorithm: HashAlgorithm, bytes: [u8; 32]) -> Self {
        Self { algorithm, bytes }
    }

    /// The function that made it.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// 64 lower-case hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.bytes)
    }

    /// The first 8 hex digits, for people: enough to tell a few thousand things apart, never for a check.
    #[must_use]
    pub fn first8(&self) -> String {
        HEXLOWER.encode(&self.bytes[..4])
    }

    /// 44 characters of standard base64 with padding, as S3 checksum headers want it.
    #[must_use]
    pub fn base64(&self) -> String {
        BASE64.encode(&self.bytes)
    }

    /// Hashes `content` with the same function and compares.
    ///
    /// # Errors
    /// [`HashMismatch`] with both digests.
    pub fn verify(&self, content: &[u8]) -> Result<(), HashMismatch> {
        let got = match self.algorithm {
            HashAlgorithm::Sha256 => sha256(content),
            HashAlgorithm::Blake3 => blake3(content),
        };
        if got == *self {
            Ok(())
        } else {
            Err(HashMismatch {
                expected: *self,
                got,
            })
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:?} {}..)", self.algorithm, self.first8())
    }
}
