use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::aead::{self, NONCE_LEN};
use crate::ids::{RepositoryId, SlotId, split_array};
use crate::keys::{MasterKey, context, derive_into};
use crate::slot_object::{SEALED_LEN, SlotKind, SlotObject};

/// What opens a slot.
#[non_exhaustive]
pub enum SlotSecret<'a> {
    /// What a person types, as bytes; it is not normalized. Stretched with Argon2id.
    Passphrase(&'a [u8]),
    /// 32 random bytes that the host keeps. Not stretched.
    Key(&'a [u8; 32]),
}

impl fmt::Debug for SlotSecret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotSecret(..)")
    }
}

/// The cost of guessing a passphrase. Source of the algorithm: RFC 9106.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Params {
    /// Memory, in KiB: 8 per lane to [`Argon2Params::M_KIB_MAX`].
    pub m_kib: u32,
    /// Passes over the memory: 1 to [`Argon2Params::T_MAX`].
    pub t: u32,
    /// Lanes: 1 to [`Argon2Params::P_MAX`].
    pub p: u32,
}

impl Argon2Params {
    /// 256 MiB, 3 passes, 4 lanes: above the second recommendation of RFC 9106, section 4 (64 MiB, 3 passes, 4 lanes).
    pub const DEFAULT: Self = Self {
        m_kib: 256 << 10,
        t: 3,
        p: 4,
    };
    /// 2 GiB, the first recommendation of RFC 9106. A hostile slot must not make a client allocate more.
    pub const M_KIB_MAX: u32 = 2 << 20;
    /// 16 passes.
    pub const T_MAX: u32 = 16;
    /// 16 lanes.
    pub const P_MAX: u32 = 16;

    pub(crate) fn check(&self) -> Result<(), SlotError> {
        let in_bounds = (1..=Self::P_MAX).contains(&self.p)
            && (1..=Self::T_MAX).contains(&self.t)
            && (8 * self.p..=Self::M_KIB_MAX).contains(&self.m_kib);
        let Self { m_kib, t, p } = *self;
        if in_bounds {
            Ok(())
        } else {
            Err(SlotError::ParamsOutOfBounds {
                m_kib: m_kib.into(),
                t: t.into(),
                p: p.into(),
            })
        }
    }
}

impl Default for Argon2Params {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a new slot says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotInfo<'a> {
    /// Its name: the object is `keys/<slot>`.
    pub slot: SlotId,
    /// The repository whose master key it holds.
    pub repository: RepositoryId,
    /// For people: who or what it is for. At most [`SLOT_LABEL_LEN_MAX`] bytes.
    pub label: &'a str,
    /// The cost of a passphrase; ignored for a key.
    pub argon2: Argon2Params,
}

/// Random bytes for a new slot, from the operating system's generator.
pub struct SlotRandom {
    /// For the derivation.
    pub salt: [u8; 32],
    /// For the nonce.
    pub nonce: [u8; 24],
}

impl fmt::Debug for SlotRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotRandom(..)")
    }
}

/// A key slot could not be made or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The slot's bytes have changed since they were written, or never were a slot; no secret opens it.
    #[error("the key slot is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The slot is intact, and this is not its secret.
    #[error("wrong passphrase or key for this slot")]
    WrongSecret,
    /// A passphrase was given for a slot of a key, or the other way round.
    #[error("this slot opens with a {expected}")]
    WrongSecretKind {
        /// "passphrase" or "key".
        expected: &'static str,
    },
    /// It was written by a newer program.
    #[error("the key slot has version {got}, this program reads version {expected}")]
    UnsupportedVersion {
        /// Its version.
        got: u64,
        /// The version understood.
        expected: u64,
    },
    /// It asks for more memory, passes or lanes than this program grants, or for too few. Nothing was allocated.
    #[error(
        "the key slot asks for {m_kib} KiB, {t} passes and {p} lanes of Argon2id, which is out of bounds"
    )]
    ParamsOutOfBounds {
        /// Memory, in KiB.
        m_kib: u64,
        /// Passes.
        t: u64,
        /// Lanes.
        p: u64,
    },
    /// The label of a new slot is too long.
    #[error("the label of a slot is {len} bytes long, allowed are {SLOT_LABEL_LEN_MAX}")]
    LabelTooLong {
        /// Length of the label, in bytes.
        len: usize,
    },
    /// Memory for Argon2id could not be had.
    #[error("out of memory for Argon2id with {m_kib} KiB")]
    OutOfMemory {
        /// What was needed, in KiB.
        m_kib: u32,
    },
    /// Argon2id refused its input, e.g. a passphrase of 4 GiB.
    #[error("the passphrase cannot be stretched")]
    Stretch,
}

/// The longest label, in bytes.
pub const SLOT_LABEL_LEN_MAX: usize = 256;

/// The longest slot object, in bytes.
pub const SLOT_LEN_MAX: usize = 16 << 10;

/// Wraps the master key under a passphrase or a key of the host; returns the JSON of the object `keys/<slot>`.
///
/// # Errors
/// [`SlotError::ParamsOutOfBounds`], [`SlotError::LabelTooLong`], [`SlotError::OutOfMemory`].
pub fn create_slot(
    secret: &SlotSecret<'_>,
    master: &MasterKey,
    info: &SlotInfo<'_>,
    random: SlotRandom,
) -> Result<Vec<u8>, SlotError> {
    if info.label.len() > SLOT_LABEL_LEN_MAX {
        return Err(SlotError::LabelTooLong {
            len: info.label.len(),
        });
    }
    let argon2id = match secret {
        SlotSecret::Passphrase(_) => Some(info.argon2),
        SlotSecret::Key(_) => None,
    };
    let mut slot = SlotObject {
        kind: secret.kind(),
        slot: info.slot,
        repository: info.repository,
        label: info.label.to_owned(),
        argon2id,
        salt: random.salt,
        commitment: [0; 32],
        nonce: [0; NONCE_LEN],
        sealed: [0; SEALED_LEN],
    };
    let okm = stretch(secret, argon2id, &random.salt)?;
    let (commitment, wrapping) = halves(&okm);
    let aad = slot.associated_data();
    slot.commitment = commitment;
    // Hedged like every nonce: with a stuck generator, two master keys never meet under one nonce.
    let mut nonce_key = Zeroizing::new([0; 32]);
    derive_into(context::SLOT_NONCE, &[&*wrapping], &mut *nonce_key);
    slot.nonce = aead::synthetic_nonce(&nonce_key, &[&random.nonce, &aad, master.as_bytes()]);
    let mut sealed = Zeroizing::new(*master.as_bytes());
    let tag = aead::seal_in_place(&wrapping, &slot.nonce, &aad, &mut *sealed)
        .map_err(|_| SlotError::Stretch)?;
    slot.sealed[..32].copy_from_slice(&*sealed);
    slot.sealed[32..].copy_from_slice(&tag);
    slot.to_json()
}

/// Opens the object `keys/<slot>` and returns the master key and the repository that the slot says it belongs to.
///
/// The check value is compared first, then the bounds, then half of the derivation as a commitment: so a wrong secret
/// is told from a damaged slot, and one slot cannot open under two passphrases.
///
/// # Errors
/// See [`SlotError`].
pub fn open_slot(
    bytes: &[u8],
    secret: &SlotSecret<'_>,
) -> Result<(MasterKey, RepositoryId), SlotError> {
    let slot = SlotObject::from_json(bytes)?;
    if slot.kind != secret.kind() {
        return Err(SlotError::WrongSecretKind {
            expected: slot.kind.name(),
        });
    }
    let okm = stretch(secret, slot.argon2id, &slot.salt)?;
    let (commitment, wrapping) = halves(&okm);
    // blake3::Hash compares in constant time.
    if blake3::Hash::from_bytes(commitment) != blake3::Hash::from_bytes(slot.commitment) {
        return Err(SlotError::WrongSecret);
    }
    let mut master = Zeroizing::new([0; 32]);
    aead::open_into(
        &wrapping,
        &slot.nonce,
        &slot.associated_data(),
        &slot.sealed,
        &mut *master,
    )
    .map_err(|_| SlotError::Damaged {
        what: "the sealed key is not authentic",
    })?;
    Ok((MasterKey::from_bytes(master), slot.repository))
}

/// What a slot shows to whoever has no secret for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotSummary {
    /// Its name.
    pub slot: SlotId,
    /// The repository that it says it belongs to.
    pub repository: RepositoryId,
    /// What it was labelled with.
    pub label: String,
    /// The cost of a passphrase; `None` when it opens with a key.
    pub argon2: Option<Argon2Params>,
}

/// Reads what the object `keys/<slot>` says of itself, without opening it.
///
/// # Errors
/// [`SlotError::Damaged`], [`SlotError::UnsupportedVersion`], [`SlotError::ParamsOutOfBounds`].
pub fn inspect_slot(bytes: &[u8]) -> Result<SlotSummary, SlotError> {
    let SlotObject {
        slot,
        repository,
        label,
        argon2id,
        ..
    } = SlotObject::from_json(bytes)?;
    Ok(SlotSummary {
        slot,
        repository,
        label,
        argon2: argon2id,
    })
}

impl SlotSecret<'_> {
    const fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::Key(_) => SlotKind::Key,
        }
    }
}

/// 64 bytes of key material: commitment (32 B) ‖ wrapping key (32 B).
fn stretch(
    secret: &SlotSecret<'_>,
    params: Option<Argon2Params>,
    salt: &[u8; 32],
) -> Result<Zeroizing<[u8; 64]>, SlotError> {
    let mut okm = Zeroizing::new([0; 64]);
    match secret {
        SlotSecret::Key(key) => derive_into(context::SLOT_KEY, &[&key[..], salt], &mut *okm),
        SlotSecret::Passphrase(passphrase) => {
            let params = params.unwrap_or_default();
            params.check()?;
            let Argon2Params { m_kib, t, p } = params;
            let params =
                Params::new(m_kib, t, p, Some(okm.len())).map_err(|_| SlotError::Stretch)?;
            // The memory is ours and not argon2's, so that it is erased: the last block tells the key.
            let mut memory = Zeroizing::new(Vec::new());
            memory
                .try_reserve_exact(params.block_count())
                .map_err(|_| SlotError::OutOfMemory { m_kib })?;
            memory.resize(params.block_count(), Block::new());
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into_with_memory(passphrase, salt, &mut *okm, &mut *memory)
                .map_err(|_| SlotError::Stretch)?;
        }
    }
    Ok(okm)
}

fn halves(okm: &[u8; 64]) -> ([u8; 32], Zeroizing<[u8; 32]>) {
    let (commitment, rest) = split_array::<32>(okm);
    (commitment, Zeroizing::new(split_array::<32>(rest).0))
}
