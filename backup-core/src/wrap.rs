use std::fmt;

use zeroize::Zeroizing;

use crate::aead::{self, NONCE_LEN, TAG_LEN};
use crate::ids::split_array;
use crate::keys::{SealKey, context};

/// Where in a database a wrapped secret belongs. It opens there and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapContext<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The primary key of the row, as text.
    pub row: &'a str,
}

/// A secret could not be wrapped or unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrapError {
    /// The bytes are not a wrapped secret.
    #[error("this is not a wrapped secret")]
    NotWrapped,
    /// It was written by a newer program.
    #[error("the wrapped secret has version {got}, this program reads version {expected}")]
    UnsupportedVersion {
        /// Its version.
        got: u8,
        /// The version understood.
        expected: u8,
    },
    /// It was wrapped under another key.
    #[error("the secret was wrapped under the key {got:02x?} instead of {expected:02x?}")]
    WrongKey {
        /// The id of the key at hand.
        expected: [u8; 8],
        /// The id of the key that is needed.
        got: [u8; 8],
    },
    /// It was wrapped for another row, column or table, or its bytes have changed.
    #[error("the wrapped secret is not authentic in this place")]
    Unauthentic,
    /// The secret is longer than [`WRAP_LEN_MAX`].
    #[error("a secret of {len} bytes cannot be wrapped, allowed are {WRAP_LEN_MAX}")]
    TooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// A key that lives elsewhere (a TPM, a key service) could not be used.
    #[error("the wrapping key cannot be used")]
    KeyUnavailable {
        /// Why.
        source: KeyUnavailable,
    },
}

/// Why a key that lives elsewhere could not be used, in the words of whoever implements [`KeyWrap`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyUnavailable(pub String);

/// The longest secret that can be wrapped, in bytes.
pub const WRAP_LEN_MAX: usize = 64 << 10;

/// Wraps small secrets (credentials of a store, master keys) for a database that may leak.
///
/// Implement it to keep the wrapping key in a TPM or a key service; [`LocalKeyWrap`] holds it in memory.
pub trait KeyWrap: Send + Sync + fmt::Debug {
    /// Wraps `secret` for one place; `random` is 24 bytes from the operating system's generator.
    ///
    /// # Errors
    /// [`WrapError::TooLong`], [`WrapError::KeyUnavailable`].
    fn wrap(
        &self,
        context: &WrapContext<'_>,
        random: [u8; 24],
        secret: &[u8],
    ) -> Result<Vec<u8>, WrapError>;

    /// Verifies that `wrapped` was made for this place and returns the secret.
    ///
    /// # Errors
    /// See [`WrapError`].
    fn unwrap(
        &self,
        context: &WrapContext<'_>,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, WrapError>;
}

/// A wrapping key in memory, and its id, by which a rotation tells old from new.
///
/// Bytes: magic `BKUPWRAP` ‖ version u8 ‖ key id (8 B) ‖ nonce (24 B) ‖ XChaCha20-Poly1305(secret) ‖ tag (16 B). The first 17
/// bytes and the place, each part preceded by its length as u64, are the associated data.
pub struct LocalKeyWrap {
    key_id: [u8; 8],
    key: SealKey,
}

impl LocalKeyWrap {
    /// Takes 32 random bytes and a name for them.
    #[must_use]
    pub fn new(key_id: [u8; 8], key: &Zeroizing<[u8; 32]>) -> Self {
        Self {
            key_id,
            key: SealKey::derive(context::KEY_WRAP, &**key),
        }
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&WRAP_MAGIC);
        header[8] = WRAP_VERSION;
        header[9..].copy_from_slice(&self.key_id);
        header
    }
}

impl KeyWrap for LocalKeyWrap {
    fn wrap(
        &self,
        context: &WrapContext<'_>,
        random: [u8; 24],
        secret: &[u8],
    ) -> Result<Vec<u8>, WrapError> {
        if secret.len() > WRAP_LEN_MAX {
            return Err(WrapError::TooLong { len: secret.len() });
        }
        let header = self.header();
        let aad = associated_data(&header, context);
        // The length of the place is bound by the lengths in it, so that AAD ‖ secret divides in one way only.
        let nonce = aead::synthetic_nonce(&self.key.nonce, &[&random, &aad, secret]);
        // Room for all of it at once: growing would leave a copy of the secret behind.
        let mut out = Vec::with_capacity(HEADER_LEN + NONCE_LEN + secret.len() + TAG_LEN);
        out.extend_from_slice(&header);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(secret);
        let tag = aead::seal_in_place(
            &self.key.encryption,
            &nonce,
            &aad,
            &mut out[HEADER_LEN + NONCE_LEN..],
        )
        .map_err(|_| WrapError::TooLong { len: secret.len() })?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    fn unwrap(
        &self,
        context: &WrapContext<'_>,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let (header, rest) = wrapped
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(WrapError::NotWrapped)?;
        let (magic, fields) = split_array::<8>(header);
        let ([version], fields) = split_array::<1>(fields);
        let (got, _) = split_array::<8>(fields);
        if magic != WRAP_MAGIC {
            return Err(WrapError::NotWrapped);
        }
        if version != WRAP_VERSION {
            return Err(WrapError::UnsupportedVersion {
                got: version,
                expected: WRAP_VERSION,
            });
        }
        if got != self.key_id {
            return Err(WrapError::WrongKey {
                expected: self.key_id,
                got,
            });
        }
        let (nonce, sealed) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(WrapError::NotWrapped)?;
        let len = sealed
            .len()
            .checked_sub(TAG_LEN)
            .ok_or(WrapError::NotWrapped)?;
        if len > WRAP_LEN_MAX {
            return Err(WrapError::TooLong { len });
        }
        let mut secret = Zeroizing::new(vec![0; len]);
        aead::open_into(
            &self.key.encryption,
            nonce,
            &associated_data(header, context),
            sealed,
            &mut secret,
        )
        .map_err(|_| WrapError::Unauthentic)?;
        Ok(secret)
    }
}

impl fmt::Debug for LocalKeyWrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalKeyWrap(..)")
    }
}

fn associated_data(header: &[u8; HEADER_LEN], context: &WrapContext<'_>) -> Vec<u8> {
    let mut aad = header.to_vec();
    for part in [context.table, context.column, context.row] {
        // 64 bits, so that no length is cut off.
        aad.extend_from_slice(&(part.len() as u64).to_le_bytes());
        aad.extend_from_slice(part.as_bytes());
    }
    aad
}

const WRAP_MAGIC: [u8; 8] = *b"BKUPWRAP";
const WRAP_VERSION: u8 = 1;
const HEADER_LEN: usize = 8 + 1 + 8;
