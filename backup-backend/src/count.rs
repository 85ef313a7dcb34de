use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

use crate::{
    BackendError, ByteRange, Capabilities, DeleteResult, KeyPrefix, ObjectKey, ObjectMeta, PutMode,
    StorageBackend,
};

/// Counts the calls of a backend, so that a test can assert input and output instead of time, and a program can
/// tell what it paid for. Clones share their counters.
#[derive(Debug, Clone)]
pub struct Counting<B> {
    inner: B,
    counters: Arc<Counters>,
}

/// The counters of a [`Counting`], for whoever has no longer the backend itself.
#[derive(Debug, Default)]
pub struct Counters {
    put: Counter,
    get: Counter,
    head: Counter,
    list: Counter,
    delete: Counter,
}

/// What was counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Puts; bytes are what was sent by those that succeeded.
    pub put: OpCounts,
    /// Gets; bytes are what was received.
    pub get: OpCounts,
    /// Heads.
    pub head: OpCounts,
    /// Listings; a call is a page, an item is an object. A listing without any page is one call.
    pub list: OpCounts,
    /// Deletes; an item is a key that is now gone, a failure a key that may be there.
    pub delete: OpCounts,
}

/// The counts of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpCounts {
    /// Calls begun.
    pub calls: u64,
    /// Calls (or keys, for deletes) that ended with an error.
    pub failures: u64,
    /// Objects or keys of calls that succeeded.
    pub items: u64,
    /// Bytes of calls that succeeded.
    pub bytes: u64,
}

impl Counts {
    /// The sum over all operations.
    pub fn total(&self) -> OpCounts {
        let all = [self.put, self.get, self.head, self.list, self.delete];
        all.iter().fold(OpCounts::default(), |sum, op| OpCounts {
            calls: sum.calls + op.calls,
            failures: sum.failures + op.failures,
            items: sum.items + op.items,
            bytes: sum.bytes + op.bytes,
        })
    }
}

impl Counters {
    /// Reads all counters, each at a slightly different moment.
    pub fn counts(&self) -> Counts {
        Counts {
            put: self.put.read(),
            get: self.get.read(),
            head: self.head.read(),
            list: self.list.read(),
            delete: self.delete.read(),
        }
    }
}

impl<B> Counting<B> {
    /// Wraps a backend; all counters begin at zero.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            counters: Arc::default(),
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// The counters themselves, to be read after the backend has been given away.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// The wrapped backend.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: StorageBackend> StorageBackend for Counting<B> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        let (counter, len) = (&self.counters.put, bytes.len());
        counter.begin();
        let result = self.inner.put(key, bytes, mode).await;
        counter.end(&result, 1, len);
        result
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        self.counters.get.begin();
        let result = self.inner.get(key, range).await;
        self.counters
            .get
            .end(&result, 1, result.as_ref().map_or(0, Bytes::len));
        result
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        self.counters.head.begin();
        let result = self.inner.head(key).await;
        self.counters.head.end(&result, 1, 0);
        result
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let counter = &self.counters.list;
        let pages = (self.inner.list(prefix), true);
        futures::stream::unfold(pages, move |(mut pages, is_first)| async move {
            if is_first {
                counter.begin();
            }
            let page = pages.next().await?;
            if !is_first {
                counter.begin();
            }
            counter.end(&page, page.as_ref().map_or(0, Vec::len), 0);
            Some((page, (pages, false)))
        })
        .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let counter = &self.counters.delete;
        counter.begin();
        let results = self.inner.delete(keys).await;
        match &results {
            Ok(each) => each.iter().for_each(|result| counter.end(result, 1, 0)),
            Err(_) => keys.iter().for_each(|_| counter.end(&results, 1, 0)),
        }
        results
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[derive(Debug, Default)]
struct Counter {
    calls: AtomicU64,
    failures: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn begin(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    fn end<T>(&self, result: &Result<T, BackendError>, items: usize, bytes: usize) {
        if result.is_err() {
            self.failures.fetch_add(1, Relaxed);
            return;
        }
        self.items.fetch_add(items as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn read(&self) -> OpCounts {
        OpCounts {
            calls: self.calls.load(Relaxed),
            failures: self.failures.load(Relaxed),
            items: self.items.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}
