use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::chunker::{ChunkerParams, ChunkerParamsError};
use crate::ids::{ParseIdError, RepositoryId, parse_hex};
use crate::keys::{KeyError, Keys};

/// What is fixed for a repository when it is made: its identity and how its content is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    repository: RepositoryId,
    chunker: ChunkerParams,
}

/// A configuration could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The bytes are not the configuration of a repository.
    #[error("this is not the configuration of a backup repository: {what}")]
    NotAConfig {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The repository was made by a newer program.
    #[error("the repository has format version {got}, this program reads version {expected}")]
    UnsupportedVersion {
        /// Its version.
        got: u64,
        /// The version understood.
        expected: u64,
    },
    /// The chunk sizes cannot be used.
    #[error("the repository has impossible chunk sizes")]
    Chunker {
        /// Why.
        #[from]
        source: ChunkerParamsError,
    },
    /// The keys are those of another repository.
    #[error("these are not the keys of repository {repository}")]
    WrongKey {
        /// The repository that the configuration names.
        repository: RepositoryId,
    },
    /// The keys are right, and the configuration was changed by someone who does not have them.
    #[error("the configuration of repository {repository} is not authentic")]
    Unauthentic {
        /// The repository that the configuration names.
        repository: RepositoryId,
    },
    /// The key set lacks the key that signs configurations.
    #[error("cannot sign or verify a configuration")]
    Key {
        /// Which one.
        #[from]
        source: KeyError,
    },
}

/// The longest configuration, in bytes.
pub const CONFIG_LEN_MAX: usize = 16 << 10;

impl RepositoryConfig {
    /// The configuration of a new repository.
    #[must_use]
    pub const fn new(repository: RepositoryId, chunker: ChunkerParams) -> Self {
        Self {
            repository,
            chunker,
        }
    }

    /// The identity of the repository.
    #[must_use]
    pub const fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// How its content is cut.
    #[must_use]
    pub const fn chunker(&self) -> ChunkerParams {
        self.chunker
    }

    /// The JSON of the object `config`, with key check value and MAC.
    ///
    /// # Errors
    /// [`ConfigError::Key`] if `keys` cannot sign it.
    pub fn encode(&self, keys: &Keys) -> Result<Vec<u8>, ConfigError> {
        let kcv = keys.key_check_value(self.repository);
        let wire = ConfigWire {
            format: FORMAT.to_owned(),
            version: CONFIG_VERSION,
            repository: self.repository,
            chunker: ChunkerWire {
                min: self.chunker.min(),
                avg: self.chunker.avg(),
                max: self.chunker.max(),
            },
            kcv: HEXLOWER.encode(&kcv),
            mac: HEXLOWER.encode(self.mac(keys, &kcv)?.as_bytes()),
        };
        serde_json::to_vec_pretty(&wire).map_err(|_| ConfigError::NotAConfig {
            what: "it cannot be written as JSON",
        })
    }

    /// Reads the object `config`. Its version is judged first, so that a newer one is told as such.
    ///
    /// # Errors
    /// [`ConfigError::UnsupportedVersion`], [`ConfigError::NotAConfig`], [`ConfigError::Chunker`].
    pub fn decode(bytes: &[u8]) -> Result<UnverifiedConfig, ConfigError> {
        let refuse = |what| ConfigError::NotAConfig { what };
        if bytes.len() > CONFIG_LEN_MAX {
            return Err(refuse("it is too long"));
        }
        let head: HeadWire =
            serde_json::from_slice(bytes).map_err(|_| refuse("it is not JSON with a version"))?;
        if head.format != FORMAT {
            return Err(refuse("it says that it is something else"));
        }
        if head.version != CONFIG_VERSION {
            return Err(ConfigError::UnsupportedVersion {
                got: head.version,
                expected: CONFIG_VERSION,
            });
        }
        let wire: ConfigWire =
            serde_json::from_slice(bytes).map_err(|_| refuse("its fields are not as expected"))?;
        let chunker = ChunkerParams::new(wire.chunker.min, wire.chunker.avg, wire.chunker.max)?;
        Ok(UnverifiedConfig {
            config: Self {
                repository: wire.repository,
                chunker,
            },
            kcv: parse_hex("key check value", &wire.kcv)?,
            mac: blake3::Hash::from_bytes(parse_hex("MAC", &wire.mac)?),
        })
    }

    /// BLAKE3 keyed over version u32 ‖ repository (16 B) ‖ min u32 ‖ avg u32 ‖ max u32 ‖ kcv (16 B).
    fn mac(&self, keys: &Keys, kcv: &[u8; 16]) -> Result<blake3::Hash, KeyError> {
        let mut message = Vec::with_capacity(48);
        message.extend_from_slice(&(CONFIG_VERSION as u32).to_le_bytes());
        message.extend_from_slice(self.repository.as_bytes());
        for size in [self.chunker.min(), self.chunker.avg(), self.chunker.max()] {
            message.extend_from_slice(&size.to_le_bytes());
        }
        message.extend_from_slice(kcv);
        Ok(blake3::keyed_hash(keys.config()?, &message))
    }
}

/// A configuration as the store returned it; it says nothing certain before [`UnverifiedConfig::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnverifiedConfig {
    config: RepositoryConfig,
    kcv: [u8; 16],
    mac: blake3::Hash,
}

impl UnverifiedConfig {
    /// The repository that it claims to describe: enough to say which key is needed, and for nothing else.
    #[must_use]
    pub const fn claimed_repository(&self) -> RepositoryId {
        self.config.repository
    }

    /// Whether `keys`, of any capability, are those of the claimed repository.
    ///
    /// # Errors
    /// [`ConfigError::WrongKey`].
    pub fn check_keys(&self, keys: &Keys) -> Result<(), ConfigError> {
        let repository = self.config.repository;
        let kcv = keys.key_check_value(repository);
        if kcv == self.kcv {
            Ok(())
        } else {
            Err(ConfigError::WrongKey { repository })
        }
    }

    /// Checks the key check value, then the MAC.
    ///
    /// # Errors
    /// [`ConfigError::WrongKey`], [`ConfigError::Unauthentic`]; [`ConfigError::Key`] if `keys` has no key for it.
    pub fn verify(&self, keys: &Keys) -> Result<RepositoryConfig, ConfigError> {
        self.check_keys(keys)?;
        // blake3::Hash compares in constant time.
        if self.config.mac(keys, &self.kcv)? != self.mac {
            return Err(ConfigError::Unauthentic {
                repository: self.config.repository,
            });
        }
        Ok(self.config)
    }
}

impl From<ParseIdError> for ConfigError {
    fn from(_: ParseIdError) -> Self {
        Self::NotAConfig {
            what: "one of its fields is not hex of the right length",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigWire {
    format: String,
    version: u64,
    repository: RepositoryId,
    chunker: ChunkerWire,
    kcv: String,
    mac: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkerWire {
    min: u32,
    avg: u32,
    max: u32,
}

#[derive(Deserialize)]
struct HeadWire {
    format: String,
    version: u64,
}

const FORMAT: &str = "backup repository";
const CONFIG_VERSION: u64 = 1;
