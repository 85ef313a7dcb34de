use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::ids::{ParseIdError, RepositoryId, SlotId, parse_hex, split_array};
use crate::slot::{Argon2Params, SLOT_LABEL_LEN_MAX, SLOT_LEN_MAX, SlotError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SlotKind {
    Passphrase,
    Key,
}

impl SlotKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Key => "key",
        }
    }
}

/// A slot whose shape, version, check value and parameters are in order.
pub(crate) struct SlotObject {
    pub(crate) kind: SlotKind,
    pub(crate) slot: SlotId,
    pub(crate) repository: RepositoryId,
    pub(crate) label: String,
    pub(crate) argon2id: Option<Argon2Params>,
    pub(crate) salt: [u8; 32],
    pub(crate) commitment: [u8; 32],
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) sealed: [u8; SEALED_LEN],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotWire {
    version: u64,
    kind: SlotKind,
    slot: SlotId,
    repository: RepositoryId,
    label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2id: Option<Argon2Wire>,
    salt: String,
    commitment: String,
    nonce: String,
    sealed: String,
    check: String,
}

/// Wider than the parameters, so that absurd ones are told as out of bounds and not as damage.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argon2Wire {
    m_kib: u64,
    t: u64,
    p: u64,
}

#[derive(Deserialize)]
struct VersionWire {
    version: u64,
}

impl SlotObject {
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, SlotError> {
        let damaged = |what| SlotError::Damaged { what };
        if bytes.len() > SLOT_LEN_MAX {
            return Err(damaged("it is too long"));
        }
        let VersionWire { version } =
            serde_json::from_slice(bytes).map_err(|_| damaged("it is not JSON with a version"))?;
        if version != SLOT_VERSION {
            return Err(SlotError::UnsupportedVersion {
                got: version,
                expected: SLOT_VERSION,
            });
        }
        let wire: SlotWire = serde_json::from_slice(bytes)
            .map_err(|_| damaged("it does not have the fields of a slot"))?;
        let argon2id = wire.argon2id.map(Argon2Wire::narrow).transpose()?;
        if argon2id.is_some() != (wire.kind == SlotKind::Passphrase)
            || wire.label.len() > SLOT_LABEL_LEN_MAX
        {
            return Err(damaged("its fields do not fit together"));
        }
        let check: [u8; 16] = parse_hex("check value", &wire.check)?;
        let slot = Self {
            kind: wire.kind,
            slot: wire.slot,
            repository: wire.repository,
            label: wire.label,
            argon2id,
            salt: parse_hex("salt", &wire.salt)?,
            commitment: parse_hex("commitment", &wire.commitment)?,
            nonce: parse_hex("nonce", &wire.nonce)?,
            sealed: parse_hex("sealed key", &wire.sealed)?,
        };
        if check != slot.check_value() {
            return Err(damaged("its check value does not fit"));
        }
        if let Some(params) = slot.argon2id {
            params.check()?;
        }
        Ok(slot)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, SlotError> {
        let wire = SlotWire {
            version: SLOT_VERSION,
            kind: self.kind,
            slot: self.slot,
            repository: self.repository,
            label: self.label.clone(),
            argon2id: self
                .argon2id
                .map(|Argon2Params { m_kib, t, p }| Argon2Wire {
                    m_kib: m_kib.into(),
                    t: t.into(),
                    p: p.into(),
                }),
            salt: HEXLOWER.encode(&self.salt),
            commitment: HEXLOWER.encode(&self.commitment),
            nonce: HEXLOWER.encode(&self.nonce),
            sealed: HEXLOWER.encode(&self.sealed),
            check: HEXLOWER.encode(&self.check_value()),
        };
        serde_json::to_vec_pretty(&wire).map_err(|_| SlotError::Damaged {
            what: "it cannot be written as JSON",
        })
    }

    /// BLAKE3 of all fields, each of fixed length or preceded by its length. It tells damage, not an attack.
    fn check_value(&self) -> [u8; 16] {
        let Argon2Params { m_kib, t, p } = self.argon2id.unwrap_or(Argon2Params {
            m_kib: 0,
            t: 0,
            p: 0,
        });
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.associated_data());
        for number in [m_kib, t, p] {
            hasher.update(&number.to_le_bytes());
        }
        for field in [&self.salt[..], &self.commitment, &self.nonce, &self.sealed] {
            hasher.update(field);
        }
        split_array(hasher.finalize().as_bytes()).0
    }

    /// version u32 ‖ kind u8 (1 passphrase, 2 key) ‖ slot id (8 B) ‖ repository id (16 B) ‖ label length u32 ‖ label.
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        let kind = match self.kind {
            SlotKind::Passphrase => 1,
            SlotKind::Key => 2,
        };
        let mut aad = Vec::with_capacity(33 + self.label.len());
        aad.extend_from_slice(&(SLOT_VERSION as u32).to_le_bytes());
        aad.push(kind);
        aad.extend_from_slice(self.slot.as_bytes());
        aad.extend_from_slice(self.repository.as_bytes());
        aad.extend_from_slice(&(self.label.len() as u32).to_le_bytes());
        aad.extend_from_slice(self.label.as_bytes());
        aad
    }
}

impl Argon2Wire {
    fn narrow(self) -> Result<Argon2Params, SlotError> {
        let Self { m_kib, t, p } = self;
        let out_of_bounds = SlotError::ParamsOutOfBounds { m_kib, t, p };
        match (u32::try_from(m_kib), u32::try_from(t), u32::try_from(p)) {
            (Ok(m_kib), Ok(t), Ok(p)) => Ok(Argon2Params { m_kib, t, p }),
            _ => Err(out_of_bounds),
        }
    }
}

impl From<ParseIdError> for SlotError {
    fn from(_: ParseIdError) -> Self {
        Self::Damaged {
            what: "one of its fields is not hex of the right length",
        }
    }
}

const SLOT_VERSION: u64 = 1;
/// The master key and its tag.
pub(crate) const SEALED_LEN: usize = 32 + TAG_LEN;
