use std::collections::BTreeMap;

use backup_core::SessionId;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{PINS_LEN_MAX, PINS_PER_SOURCE_MAX, Pins, PinsError};
use crate::session::position;
use crate::snapshot::hex;

const VERSION: u64 = 1;

#[derive(Deserialize)]
struct VersionWire {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinsWire {
    version: u64,
    repository: String,
    sources: Vec<SourceWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceWire {
    source: String,
    newest: Vec<PinWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinWire {
    id: String,
    hash: String,
}

impl Pins {
    /// Returns the JSON form.
    ///
    /// # Errors
    /// [`PinsError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, PinsError> {
        let sources = self.sources.iter().map(|(source, newest)| SourceWire {
            source: source.clone(),
            newest: newest.iter().map(PinWire::new).collect(),
        });
        let wire = PinsWire {
            version: VERSION,
            repository: self.repository.to_string(),
            sources: sources.collect(),
        };
        let bytes = serde_json::to_vec(&wire).map_err(malformed)?;
        check_len(&bytes)?;
        Ok(bytes)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`PinsError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, PinsError> {
        check_len(bytes)?;
        let VersionWire { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            return Err(PinsError::UnsupportedVersion {
                got: version,
                expected: VERSION,
            });
        }
        let wire: PinsWire = serde_json::from_slice(bytes).map_err(malformed)?;
        let bad = |field| PinsError::BadField { field };
        let mut pins = Self::new(wire.repository.parse().map_err(|_| bad("repository"))?);
        for SourceWire { source, newest } in wire.sources {
            if !(1..=PINS_PER_SOURCE_MAX).contains(&newest.len()) {
                return Err(bad("newest"));
            }
            let mut decoded = BTreeMap::new();
            for pin in newest {
                let (id, hash) = pin.parse()?;
                insert_last(&mut decoded, id, hash).ok_or(bad("newest"))?;
            }
            insert_last(&mut pins.sources, source, decoded).ok_or(bad("sources"))?;
        }
        Ok(pins)
    }
}

impl PinWire {
    fn new((id, hash): (&SessionId, &[u8; 32])) -> Self {
        Self {
            id: id.to_string(),
            hash: HEXLOWER.encode(hash),
        }
    }

    fn parse(&self) -> Result<(SessionId, [u8; 32]), PinsError> {
        let bad = |field| PinsError::BadField { field };
        let id = self.id.parse().map_err(|_| bad("id"))?;
        let hash = hex(&self.hash).ok_or(bad("hash"))?;
        Ok((id, hash))
    }
}

/// Nothing is inserted unless `key` is greater than all there are.
fn insert_last<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Option<()> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return None;
    }
    map.insert(key, value);
    Some(())
}

fn check_len(bytes: &[u8]) -> Result<(), PinsError> {
    if bytes.len() > PINS_LEN_MAX {
        return Err(PinsError::TooLong { len: bytes.len() });
    }
    Ok(())
}

fn malformed(error: serde_json::Error) -> PinsError {
    PinsError::Malformed {
        reason: position(&error),
    }
}
