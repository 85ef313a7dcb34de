use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;

use crate::{
    BackendError, ByteRange, Capabilities, DeleteResult, KeyPrefix, ObjectKey, ObjectMeta, PutMode,
    StorageBackend,
};

/// Holds a backend to a number of bytes and of requests per second, by token buckets that fill in one second.
///
/// Whole objects are the unit: a put begins when its turn has come and then runs at full speed. What a get will
/// return is not always known before, so its bytes delay the calls after it. Clones share their buckets.
#[derive(Debug, Clone)]
pub struct Limiting<B> {
    inner: B,
    bytes: Arc<Bucket>,
    requests: Arc<Bucket>,
}

/// What [`Limiting`] allows; `None` is no limit, zero counts as one.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes put and got, together.
    pub bytes_per_second: Option<u64>,
    /// Calls of all kinds; a listing costs one per page.
    pub requests_per_second: Option<u64>,
}

impl<B> Limiting<B> {
    /// Wraps a backend.
    pub fn new(inner: B, limits: Limits) -> Self {
        let bytes = Arc::new(Bucket::new(limits.bytes_per_second));
        let requests = Arc::new(Bucket::new(limits.requests_per_second));
        Self {
            inner,
            bytes,
            requests,
        }
    }

    /// The wrapped backend.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: StorageBackend> StorageBackend for Limiting<B> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        self.requests.take(1).await;
        self.bytes.take(bytes.len() as u64).await;
        self.inner.put(key, bytes, mode).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        self.requests.take(1).await;
        // Waits until the bytes of earlier gets are paid for.
        self.bytes.take(0).await;
        let bytes = self.inner.get(key, range).await?;
        self.bytes.charge(bytes.len() as u64);
        Ok(bytes)
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        self.requests.take(1).await;
        self.inner.head(key).await
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let pages = self.inner.list(prefix);
        stream::unfold(pages, move |mut pages| async move {
            self.requests.take(1).await;
            pages.next().await.map(|page| (page, pages))
        })
        .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        self.requests.take(1).await;
        self.inner.delete(keys).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

/// Remembers when all that was taken will have been paid for; that may lie up to [`BURST`] in the past.
#[derive(Debug)]
struct Bucket {
    per_second: Option<u64>,
    paid_at: Mutex<Option<Instant>>,
}

const BURST: Duration = Duration::from_secs(1);
// Keeps sums of time far from overflow; no call waits this long.
const COST_MAX: Duration = Duration::from_secs(24 * 3600);

impl Bucket {
    fn new(per_second: Option<u64>) -> Self {
        Self {
            per_second: per_second.map(|rate| rate.max(1)),
            paid_at: Mutex::new(None),
        }
    }

    async fn take(&self, amount: u64) {
        if let Some(begin) = self.charge(amount) {
            tokio::time::sleep_until(begin).await;
        }
    }

    // Takes from the bucket and returns when its turn comes.
    fn charge(&self, amount: u64) -> Option<Instant> {
        let per_second = self.per_second?;
        let cost_ns = u128::from(amount) * 1_000_000_000 / u128::from(per_second);
        let cost = Duration::from_nanos(u64::try_from(cost_ns).unwrap_or(u64::MAX)).min(COST_MAX);
        let now = Instant::now();
        let full = now.checked_sub(BURST).unwrap_or(now);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = paid_at.unwrap_or(full).max(full);
        *paid_at = Some(begin.checked_add(cost).unwrap_or(begin));
        Some(begin)
    }
}
