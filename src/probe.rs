//! Finds out what a store really does, whatever it claims.

use backup_backend::{ErrorKind, PutMode, StorageBackend};
use backup_manifest::CONFIG;

use crate::repository::load_index::list;
use crate::repository::store_key;
use crate::{Error, Repository};

/// What a store was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreProbe {
    /// A create leaves what is there as it is. Some stores take the condition and overwrite all the same.
    pub create_if_absent: Promise,
    /// A listing shows what was put before.
    pub consistent_list: Promise,
}

impl StoreProbe {
    /// Whether garbage can be collected beside writers.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.create_if_absent == Promise::Kept && self.consistent_list == Promise::Kept
    }
}

/// Whether a store keeps something that safe collection of garbage needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Promise {
    /// It was seen to keep it.
    Kept,
    /// It was seen to break it.
    Broken,
    /// The backend does not claim it, so it was not tried.
    NotClaimed,
    /// It could not be tried: the store allows no writing, say.
    Unknown,
}

/// Tries what the store promises, by creating `config` once more with the bytes that it has: where the promise is broken,
/// nothing has changed.
///
/// # Errors
/// Whatever the store says to reading and listing.
pub async fn probe(repo: &Repository) -> Result<StoreProbe, Error> {
    let claims = repo.backend().capabilities();
    let create_if_absent = if claims.create_if_absent {
        try_create(repo).await?
    } else {
        Promise::NotClaimed
    };
    let consistent_list = match (claims.consistent_list, list(repo, CONFIG).await?.len()) {
        (false, _) => Promise::NotClaimed,
        (true, 0) => Promise::Broken,
        (true, _) => Promise::Kept,
    };
    Ok(StoreProbe {
        create_if_absent,
        consistent_list,
    })
}

/// A backend that repeats calls takes a refusal for success when an answer got lost and the bytes are its own; not twice in
/// a row.
const TRIES: usize = 2;

async fn try_create(repo: &Repository) -> Result<Promise, Error> {
    let key = store_key(CONFIG)?;
    let bytes = repo.get(CONFIG).await?;
    for _ in 0..TRIES {
        match repo
            .backend()
            .put(&key, bytes.clone(), PutMode::Create)
            .await
        {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Promise::Kept),
            Err(error) => {
                return match error.kind() {
                    ErrorKind::PermissionDenied | ErrorKind::NotSupported => Ok(Promise::Unknown),
                    _ => Err(error.into()),
                };
            }
        }
    }
    Ok(Promise::Broken)
}
