//! All objects under one prefix of one backend: made once, opened with a key.

pub(crate) mod blocks;
pub(crate) mod decisions;
pub(crate) mod documents;
pub(crate) mod gc_log;
pub(crate) mod index;
pub(crate) mod load_index;
pub(crate) mod put_pack;
pub(crate) mod segments;
pub(crate) mod session;
pub(crate) mod tree;

use std::fmt;
use std::sync::Arc;

use backup_backend::{Bytes, ErrorKind, ObjectKey, PutMode, StorageBackend, StorageBackendExt};
use backup_core::{
    Argon2Params, ChunkerParams, ConfigError, Keys, MasterKey, RepositoryConfig, RepositoryId,
    SlotSecret, Zeroizing,
};
use backup_manifest::CONFIG;

use crate::Error;
use crate::env::Env;
use crate::keys::{NewSlot, open_any_slot, put_slot};

/// What opens a repository.
#[derive(Debug)]
#[non_exhaustive]
pub enum Credential {
    /// A passphrase, stretched by Argon2id.
    Passphrase(Zeroizing<Vec<u8>>),
    /// A 32-byte key that the host keeps.
    Key(Zeroizing<[u8; 32]>),
    /// The master key itself; no slot is read.
    Master(MasterKey),
}

impl Credential {
    /// A passphrase from text.
    #[must_use]
    pub fn passphrase(text: &str) -> Self {
        Self::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
    }

    pub(crate) fn secret(self) -> Option<Secret> {
        match self {
            Self::Passphrase(bytes) => Some(Secret::Passphrase(bytes)),
            Self::Key(bytes) => Some(Secret::Key(bytes)),
            Self::Master(_) => None,
        }
    }
}

/// What opens a key slot.
pub(crate) enum Secret {
    Passphrase(Zeroizing<Vec<u8>>),
    Key(Zeroizing<[u8; 32]>),
}

impl Secret {
    pub(crate) fn borrow(&self) -> SlotSecret<'_> {
        match self {
            Self::Passphrase(bytes) => SlotSecret::Passphrase(bytes),
            Self::Key(bytes) => SlotSecret::Key(bytes),
        }
    }
}

/// How a repository is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Chunk sizes; fixed for the repository.
    pub chunker: ChunkerParams,
    /// The cost of trying a passphrase.
    pub argon2: Argon2Params,
    /// A word on the first key slot, for people.
    pub label: String,
    /// Clock and entropy.
    pub env: Env,
}

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Refuse any other repository than this one.
    pub expected: Option<RepositoryId>,
    /// Clock and entropy.
    pub env: Env,
}

/// An open repository: a backend, the keys and the configuration.
pub struct Repository {
    backend: Arc<dyn StorageBackend>,
    keys: Arc<Keys>,
    config: RepositoryConfig,
    env: Env,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Makes a repository in an empty place and opens it.
    ///
    /// The key slot comes first and `config` last: a crash in between leaves no repository, and an orphan slot that is
    /// passed over, since it names another repository.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`] when there is one; whatever the store says.
    pub async fn create(
        backend: Arc<dyn StorageBackend>,
        credential: Credential,
        options: CreateOptions,
    ) -> Result<Self, Error> {
        let config_key = store_key(CONFIG)?;
        if backend.get_opt(&config_key).await?.is_some() {
            return Err(Error::RepositoryExists);
        }
        let env = options.env.clone();
        let id = RepositoryId::from_bytes(env.random()?);
        let master = match credential {
            Credential::Master(master) => master,
            other => {
                let secret = other.secret().ok_or(Error::WrongSecret { slots: 0 })?;
                let slot = NewSlot {
                    secret,
                    label: options.label,
                    argon2: options.argon2,
                };
                let master = MasterKey::from_bytes(Zeroizing::new(env.random()?));
                put_slot(&backend, &env, (master, id), slot).await?.1
            }
        };
        let keys = Keys::all(&master);
        let config = RepositoryConfig::new(id, options.chunker);
        let bytes = Bytes::from(config.encode(&keys).map_err(config_error)?);
        match backend.put(&config_key, bytes, PutMode::Create).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::RepositoryExists);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            backend,
            keys: Arc::new(keys),
            config,
            env,
        })
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::WrongSecret`], [`Error::WrongKey`], [`Error::RepositoryMismatch`],
    /// [`Error::NewerFormat`] or [`Error::Damaged`], each of which asks for another remedy.
    pub async fn open(
        backend: Arc<dyn StorageBackend>,
        credential: Credential,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        let config_key = store_key(CONFIG)?;
        let bytes = backend
            .get_opt(&config_key)
            .await?
            .ok_or(Error::NotARepository)?;
        let unverified = RepositoryConfig::decode(&bytes).map_err(config_error)?;
        let found = unverified.claimed_repository();
        if let Some(expected) = options.expected
            && expected != found
        {
            return Err(Error::RepositoryMismatch { expected, found });
        }
        let master = match credential {
            Credential::Master(master) => master,
            other => {
                let secret = other.secret().ok_or(Error::WrongSecret { slots: 0 })?;
                open_any_slot(&backend, found, secret).await?
            }
        };
        let keys = Keys::all(&master);
        let config = unverified.verify(&keys).map_err(config_error)?;
        Ok(Self {
            backend,
            keys: Arc::new(keys),
            config,
            env: options.env,
        })
    }

    /// The repository's identity.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.config.repository()
    }

    /// The chunk sizes, fixed when the repository was made.
    #[must_use]
    pub fn chunker_params(&self) -> ChunkerParams {
        self.config.chunker()
    }

    /// The backend it lives on.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn StorageBackend> {
        &self.backend
    }

    /// The same repository through another backend.
    pub(crate) fn on(&self, backend: Arc<dyn StorageBackend>) -> Self {
        Self {
            backend,
            keys: self.keys.clone(),
            config: self.config,
            env: self.env.clone(),
        }
    }

    pub(crate) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Bytes, Error> {
        Ok(self.backend.get(&store_key(name)?, None).await?)
    }

    /// Creates an object unless there is one; says whether it did.
    pub(crate) async fn create_unless_there(
        &self,
        name: &str,
        bytes: Bytes,
    ) -> Result<bool, Error> {
        match self
            .backend
            .put(&store_key(name)?, bytes, PutMode::Create)
            .await
        {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a write-once object whose bytes are the same on every try.
    pub(crate) async fn create_object(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let key: ObjectKey = store_key(name)?;
        Ok(self.backend.put_idempotent(&key, bytes).await?)
    }
}

/// A key of the store, from a name that this program made.
pub(crate) fn store_key(name: &str) -> Result<ObjectKey, Error> {
    ObjectKey::parse(name).map_err(|e| Error::damaged(name, e))
}

fn config_error(error: ConfigError) -> Error {
    match error {
        ConfigError::WrongKey { .. } => Error::WrongKey,
        ConfigError::UnsupportedVersion { got, expected } => Error::NewerFormat {
            object: CONFIG.into(),
            got,
            supported: expected,
        },
        other => Error::damaged(CONFIG, other),
    }
}
