use std::future::Future;

use bytes::Bytes;
use futures::TryStreamExt;

use crate::{BackendError, ErrorKind, KeyPrefix, ObjectKey, ObjectMeta, PutMode, StorageBackend};

/// Comfort for callers, on every backend.
pub trait StorageBackendExt: StorageBackend {
    /// Lists everything under a prefix at once. Only for prefixes known to be small: the list is held in memory.
    ///
    /// # Errors
    /// Those of [`StorageBackend::list`].
    fn list_all(
        &self,
        prefix: &KeyPrefix,
    ) -> impl Future<Output = Result<Vec<ObjectMeta>, BackendError>> + Send {
        self.list(prefix).try_concat()
    }

    /// Whether an object has this key.
    ///
    /// # Errors
    /// Those of [`StorageBackend::head`] but `NotFound`.
    fn exists(&self, key: &ObjectKey) -> impl Future<Output = Result<bool, BackendError>> + Send {
        async { Ok(self.head_opt(key).await?.is_some()) }
    }

    /// [`StorageBackend::head`] with `None` for a missing object.
    ///
    /// # Errors
    /// Those of [`StorageBackend::head`] but `NotFound`.
    fn head_opt(
        &self,
        key: &ObjectKey,
    ) -> impl Future<Output = Result<Option<ObjectMeta>, BackendError>> + Send {
        async { found(self.head(key).await) }
    }

    /// Returns the whole object, `None` if there is none.
    ///
    /// # Errors
    /// Those of [`StorageBackend::get`] but `NotFound`.
    fn get_opt(
        &self,
        key: &ObjectKey,
    ) -> impl Future<Output = Result<Option<Bytes>, BackendError>> + Send {
        async { found(self.get(key, None).await) }
    }

    /// Deletes one object; a missing one is a success.
    ///
    /// # Errors
    /// Those of [`StorageBackend::delete`].
    fn delete_one(&self, key: &ObjectKey) -> impl Future<Output = Result<(), BackendError>> + Send {
        async {
            let mut results = self.delete(std::slice::from_ref(key)).await?;
            results.pop().unwrap_or_else(|| {
                Err(BackendError::new(
                    ErrorKind::Corrupt,
                    "delete",
                    key.as_str(),
                ))
            })
        }
    }

    /// Creates the object, or finds it there with equal bytes: it may be called again after a crash, a lost answer,
    /// or by several writers of the same bytes.
    ///
    /// # Errors
    /// `AlreadyExists` if the key holds *other* bytes; otherwise those of [`StorageBackend::put`].
    fn put_idempotent(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), BackendError>> + Send {
        async move {
            let mut result = self.put(key, bytes.clone(), PutMode::Create).await;
            if result
                .as_ref()
                .is_err_and(|error| error.kind().is_retryable())
            {
                // The answer was lost, perhaps not the effect. A second create decides it, and unlike a read it
                // also waits until an object that is there already is durable.
                result = self.put(key, bytes.clone(), PutMode::Create).await;
            }
            match result {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    read_back(self, key, &bytes, error).await
                }
                other => other,
            }
        }
    }
}

impl<B: StorageBackend + ?Sized> StorageBackendExt for B {}

fn found<T>(result: Result<T, BackendError>) -> Result<Option<T>, BackendError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_back<B: StorageBackend + ?Sized>(
    backend: &B,
    key: &ObjectKey,
    bytes: &Bytes,
    refused: BackendError,
) -> Result<(), BackendError> {
    let stored_len = backend.head(key).await?.len;
    if stored_len == bytes.len() as u64 && backend.get(key, None).await? == *bytes {
        return Ok(());
    }
    Err(refused)
}
