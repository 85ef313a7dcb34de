use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use crate::{
    BackendError, ByteRange, Capabilities, DeleteResult, ErrorKind, KeyPrefix, OBJECT_LEN_MAX,
    ObjectKey, ObjectMeta, PutMode, StorageBackend,
};

/// A store in memory, for tests and small tools. Clones share their objects.
#[derive(Clone)]
pub struct Memory {
    objects: Arc<Mutex<BTreeMap<ObjectKey, Stored>>>,
    page_len: usize,
    clock: Option<Clock>,
}

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    modified: Option<SystemTime>,
}

impl Memory {
    /// An empty store without a clock ([`ObjectMeta::modified`] is `None`).
    pub fn new() -> Self {
        Self {
            objects: Arc::default(),
            page_len: 1000,
            clock: None,
        }
    }

    /// Lists at most this many objects a page (at least one).
    #[must_use]
    pub fn with_page_len(mut self, page_len: usize) -> Self {
        self.page_len = page_len.max(1);
        self
    }

    /// Takes the time of objects from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.objects().len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.objects().is_empty()
    }

    // A panic elsewhere cannot leave the map half changed: every change is one call.
    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Stored>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, prefix: &KeyPrefix, after: Option<&ObjectKey>) -> Vec<ObjectMeta> {
        let objects = self.objects();
        let from = match after {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(prefix.as_str()),
        };
        objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| prefix.matches(key))
            .take(self.page_len)
            .map(|(key, stored)| meta(key, stored))
            .collect()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for Memory {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        if bytes.len() as u64 > OBJECT_LEN_MAX {
            return Err(BackendError::new(
                ErrorKind::InvalidInput,
                "put",
                key.as_str(),
            ));
        }
        let modified = self.clock.as_ref().map(|clock| clock());
        let mut objects = self.objects();
        if mode.is_create() && objects.contains_key(key) {
            return Err(BackendError::new(
                ErrorKind::AlreadyExists,
                "put",
                key.as_str(),
            ));
        }
        objects.insert(key.clone(), Stored { bytes, modified });
        Ok(())
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let stored = self.objects().get(key).cloned();
        let stored =
            stored.ok_or_else(|| BackendError::new(ErrorKind::NotFound, "get", key.as_str()))?;
        let Some(range) = range else {
            return Ok(stored.bytes);
        };
        match range.end_within(stored.bytes.len() as u64) {
            // Both ends lie within the bytes, so they fit a usize.
            Some(end) => Ok(stored.bytes.slice(range.start as usize..end as usize)),
            None => Err(BackendError::new(
                ErrorKind::InvalidRange,
                "get",
                key.as_str(),
            )),
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let found = self.objects().get(key).map(|stored| meta(key, stored));
        found.ok_or_else(|| BackendError::new(ErrorKind::NotFound, "head", key.as_str()))
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let prefix = prefix.clone();
        stream::unfold(None::<ObjectKey>, move |after| {
            let page = self.page(&prefix, after.as_ref());
            let last = page.last().map(|meta| meta.key.clone());
            std::future::ready(last.map(|last| (Ok(page), Some(last))))
        })
        .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let mut objects = self.objects();
        for key in keys {
            objects.remove(key);
        }
        Ok(keys.iter().map(|_| Ok(())).collect())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }
}

fn meta(key: &ObjectKey, stored: &Stored) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        len: stored.bytes.len() as u64,
        modified: stored.modified,
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("objects", &self.len())
            .finish_non_exhaustive()
    }
}
