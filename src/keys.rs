//! Key slots: who may open a repository.

use std::sync::Arc;

use backup_backend::{Bytes, KeyPrefix, StorageBackend, StorageBackendExt};
use backup_core::{
    Argon2Params, MasterKey, RepositoryId, SlotError, SlotId, SlotInfo, SlotRandom, create_slot,
    inspect_slot, open_slot,
};
use backup_manifest::{KEYS_PREFIX, slot_key};

use crate::env::{Env, blocking};
use crate::repository::{Credential, Secret, store_key};
use crate::{Error, Repository};

/// A key slot, as it can be seen without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySlot {
    /// Its name.
    pub slot: SlotId,
    /// What it was labelled with.
    pub label: String,
    /// It opens with a passphrase (or else with a 32-byte key).
    pub is_passphrase: bool,
}

/// Lets a further passphrase or key open the repository. `opener` is what opens it today: the master key is in no
/// open repository.
///
/// # Errors
/// As [`Repository::open`] for `opener`.
pub async fn add_key(
    repo: &Repository,
    opener: Credential,
    added: Credential,
    label: &str,
    argon2: Argon2Params,
) -> Result<SlotId, Error> {
    let master = open_master(repo, opener).await?;
    let bad = |reason: &str| Error::BadOption {
        option: "added",
        reason: reason.into(),
    };
    let secret = added
        .secret()
        .ok_or_else(|| bad("a master key is not a secret for a slot"))?;
    let slot = NewSlot {
        secret,
        label: label.into(),
        argon2,
    };
    put_slot(repo.backend(), repo.env(), (master, repo.id()), slot)
        .await
        .map(|(slot, _)| slot)
}

/// The key slots.
///
/// # Errors
/// Whatever the store says. A slot that cannot be read is an error that names it.
pub async fn list_keys(repo: &Repository) -> Result<Vec<KeySlot>, Error> {
    let mut slots = Vec::new();
    for (name, bytes) in read_slots(repo.backend()).await? {
        let info = inspect_slot(&bytes).map_err(|e| Error::damaged(name, e))?;
        slots.push(KeySlot {
            slot: info.slot,
            label: info.label,
            is_passphrase: info.argon2.is_some(),
        });
    }
    Ok(slots)
}

/// Removes a key slot: its secret opens the repository no more. The last slot is not removed.
///
/// Whoever opened the repository with it before may have kept the master key; only a new repository helps then.
///
/// # Errors
/// [`Error::BadOption`] when there is no such slot, or no other.
pub async fn remove_key(repo: &Repository, slot: &SlotId) -> Result<(), Error> {
    let slots = list_keys(repo).await?;
    let bad = |reason: &str| Error::BadOption {
        option: "slot",
        reason: reason.into(),
    };
    if !slots.iter().any(|known| known.slot == *slot) {
        return Err(bad("there is no such key slot"));
    }
    if slots.len() < 2 {
        return Err(bad(
            "it is the last one: nobody could open the repository any more",
        ));
    }
    Ok(repo
        .backend()
        .delete_one(&store_key(&slot_key(slot))?)
        .await?)
}

async fn open_master(repo: &Repository, opener: Credential) -> Result<MasterKey, Error> {
    match opener {
        Credential::Master(master) => Ok(master),
        other => {
            let secret = other.secret().ok_or(Error::WrongSecret { slots: 0 })?;
            open_any_slot(repo.backend(), repo.id(), secret).await
        }
    }
}

/// What a new slot is made from.
pub(crate) struct NewSlot {
    pub(crate) secret: Secret,
    pub(crate) label: String,
    pub(crate) argon2: Argon2Params,
}

/// Writes a new slot; hands the master key back.
pub(crate) async fn put_slot(
    backend: &Arc<dyn StorageBackend>,
    env: &Env,
    (master, repository): (MasterKey, RepositoryId),
    new: NewSlot,
) -> Result<(SlotId, MasterKey), Error> {
    let slot = SlotId::from_bytes(env.random()?);
    let random = SlotRandom {
        salt: env.random()?,
        nonce: env.random()?,
    };
    let name = slot_key(&slot);
    let (bytes, master) = blocking(move || {
        let info = SlotInfo {
            slot,
            repository,
            label: &new.label,
            argon2: new.argon2,
        };
        (
            create_slot(&new.secret.borrow(), &master, &info, random),
            master,
        )
    })
    .await?;
    let bytes = bytes.map_err(|e| match e {
        e @ (SlotError::ParamsOutOfBounds { .. } | SlotError::LabelTooLong { .. }) => {
            Error::BadOption {
                option: "key slot",
                reason: e.to_string(),
            }
        }
        other => Error::damaged(name.clone(), other),
    })?;
    backend
        .put_idempotent(&store_key(&name)?, Bytes::from(bytes))
        .await?;
    Ok((slot, master))
}

/// Opens the first slot that the secret fits and that belongs to `repository`; one of another repository only shows that
/// a `create` died here, or that the store was swapped.
pub(crate) async fn open_any_slot(
    backend: &Arc<dyn StorageBackend>,
    repository: RepositoryId,
    secret: Secret,
) -> Result<MasterKey, Error> {
    let slots = read_slots(backend).await?;
    let count = slots.len();
    let opened = blocking(move || {
        let mut reason = None;
        for (name, bytes) in slots {
            match open_slot(&bytes, &secret.borrow()) {
                Ok((master, found)) if found == repository => return Ok(Some(master)),
                Ok((_, found)) => {
                    let expected = found;
                    let found = repository;
                    reason = Some(Error::RepositoryMismatch { expected, found });
                }
                Err(SlotError::WrongSecret | SlotError::WrongSecretKind { .. }) => {}
                Err(SlotError::UnsupportedVersion { got, expected }) => {
                    reason = Some(Error::NewerFormat {
                        object: name,
                        got,
                        supported: expected,
                    });
                }
                Err(other) => reason = Some(Error::damaged(name, other)),
            }
        }
        reason.map_or(Ok(None), Err)
    });
    opened.await??.ok_or(Error::WrongSecret { slots: count })
}

async fn read_slots(backend: &Arc<dyn StorageBackend>) -> Result<Vec<(String, Bytes)>, Error> {
    let prefix = KeyPrefix::parse(KEYS_PREFIX).map_err(|e| Error::damaged(KEYS_PREFIX, e))?;
    let mut slots = Vec::new();
    for object in backend.list_all(&prefix).await? {
        if object.len > backup_core::SLOT_LEN_MAX as u64 {
            // Told as damaged by whoever opens it; not read.
            slots.push((object.key.to_string(), Bytes::new()));
            continue;
        }
        if let Some(bytes) = backend.get_opt(&object.key).await? {
            slots.push((object.key.to_string(), bytes));
        }
    }
    Ok(slots)
}
