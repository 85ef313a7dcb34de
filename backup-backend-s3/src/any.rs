use std::sync::Arc;

use backup_backend::{
    BackendError, BoxStream, ByteRange, Bytes, Capabilities, DeleteResult, ErrorKind, KeyPrefix,
    OBJECT_LEN_MAX, ObjectKey, ObjectMeta, PutMode, StorageBackend, async_trait,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};

/// Any store of the crate `object_store`: Azure, Google Cloud Storage in its own protocol, and others.
///
/// Build the store with its own retries switched off (`RetryConfig { max_retries: 0, .. }`) and put a
/// [`Retrying`](backup_backend::Retrying) around this, or retries multiply. The store must list in the order of keys, which
/// the clouds do: a listing out of order is an error.
#[derive(Debug, Clone)]
pub struct AnyObjectStore {
    store: Arc<dyn ObjectStore>,
    capabilities: Capabilities,
    page_len: usize,
}

impl AnyObjectStore {
    /// `capabilities`: what the store keeps, which this crate cannot know.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, capabilities: Capabilities) -> Self {
        Self {
            store,
            capabilities,
            page_len: 1000,
        }
    }

    /// Objects of one page of a listing: 1,000 unless told.
    #[must_use]
    pub fn with_page_len(mut self, page_len: usize) -> Self {
        self.page_len = page_len.max(1);
        self
    }
}

impl AnyObjectStore {
    async fn delete_one_key(&self, key: &ObjectKey) -> DeleteResult {
        match self.store.delete(&path("delete", key)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", key.as_str(), error)),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for AnyObjectStore {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        let path = path("put", key)?;
        let mode = if mode.is_create() && self.capabilities.create_if_absent {
            object_store::PutMode::Create
        } else {
            object_store::PutMode::Overwrite
        };
        let put = self.store.put_opts(&path, bytes.into(), mode.into());
        put.await
            .map(drop)
            .map_err(|e| failed("put", key.as_str(), e))
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let path = path("get", key)?;
        let invalid = || BackendError::new(ErrorKind::InvalidRange, "get", key.as_str());
        let mut options = GetOptions::default();
        if let Some(range) = range {
            let whole = self.head(key).await?.len;
            let end = range.end_within(whole).ok_or_else(invalid)?;
            if range.len == 0 {
                return Ok(Bytes::new());
            }
            options.range = Some(GetRange::Bounded(range.start..end));
        }
        let failed = |e| failed("get", key.as_str(), e);
        let found = self.store.get_opts(&path, options).await.map_err(failed)?;
        let len = found.range.end.saturating_sub(found.range.start);
        let is_wanted = range.map_or(len <= OBJECT_LEN_MAX, |range| range.len == len);
        if !is_wanted {
            return Err(BackendError::new(ErrorKind::Corrupt, "get", key.as_str())
                .with_source("the store sends another range than was asked for"));
        }
        let bytes = found.bytes().await.map_err(failed)?;
        if bytes.len() as u64 == len {
            Ok(bytes)
        } else {
            Err(BackendError::new(ErrorKind::Corrupt, "get", key.as_str())
                .with_source("fewer bytes came than were promised"))
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let found = self.store.head(&path("head", key)?).await;
        let found = found.map_err(|e| failed("head", key.as_str(), e))?;
        Ok(ObjectMeta {
            key: key.clone(),
            len: found.size,
            modified: Some(found.last_modified.into()),
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        // A prefix of theirs ends with a segment; ours need not.
        let folder = prefix
            .as_str()
            .rsplit_once('/')
            .map(|(folder, _)| Path::parse(folder));
        let folder = match folder.transpose() {
            Ok(folder) => folder,
            Err(error) => {
                let error = BackendError::new(ErrorKind::InvalidInput, "list", prefix.as_str())
                    .with_source(error);
                return stream::iter([Err(error)]).boxed();
            }
        };
        let prefix = prefix.clone();
        let name = prefix.as_str().to_owned();
        let mut last: Option<ObjectKey> = None;
        let objects = self
            .store
            .list(folder.as_ref())
            .map_err(move |e| failed("list", &name, e))
            .try_filter_map(move |found| {
                let key = ObjectKey::parse(found.location.as_ref()).ok();
                let key = key.filter(|key| prefix.matches(key));
                let ordered = key.is_none() || key > last;
                let meta = key.map(|key| {
                    last = Some(key.clone());
                    ObjectMeta {
                        key,
                        len: found.size,
                        modified: Some(found.last_modified.into()),
                    }
                });
                let why = "the store does not list in the order of keys";
                let told = if ordered {
                    Ok(meta)
                } else {
                    let error = BackendError::new(ErrorKind::Corrupt, "list", prefix.as_str());
                    Err(error.with_source(why))
                };
                futures::future::ready(told)
            });
        objects
            .try_chunks(self.page_len)
            .map_err(|broken| broken.1)
            .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let deletions: Vec<_> = keys.iter().map(|key| self.delete_one_key(key)).collect();
        Ok(stream::iter(deletions)
            .buffered(DELETIONS_AT_ONCE)
            .collect()
            .await)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}

const DELETIONS_AT_ONCE: usize = 8;

fn path(operation: &'static str, key: &ObjectKey) -> Result<Path, BackendError> {
    Path::parse(key.as_str()).map_err(|e| {
        BackendError::new(ErrorKind::InvalidInput, operation, key.as_str()).with_source(e)
    })
}

fn failed(operation: &'static str, key: &str, error: Error) -> BackendError {
    let kind = match &error {
        Error::NotFound { .. } => ErrorKind::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } => ErrorKind::PermissionDenied,
        Error::Unauthenticated { .. } => ErrorKind::Unauthenticated,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => ErrorKind::NotSupported,
        Error::InvalidPath { .. } => ErrorKind::InvalidInput,
        // It does not say more: a throttled request, a lost connection, a store that fails.
        _ => ErrorKind::Unavailable,
    };
    BackendError::new(kind, operation, key).with_source(error)
}
