//! A backend with two points at which each call can be dropped, and futures that are dropped there.

use std::pin::pin;
use std::task::Poll;

use async_trait::async_trait;
use backup_backend::{
    BackendError, BoxStream, ByteRange, Bytes, Capabilities, DeleteResult, KeyPrefix, ObjectKey,
    ObjectMeta, PutMode, StorageBackend,
};
use futures::FutureExt;
use futures::stream::{self, StreamExt};

/// Suspends once before the effect of each call and once after it.
#[derive(Debug, Clone)]
pub struct Yielding<B> {
    pub inner: B,
    /// A put that is dropped before its effect has it nevertheless, as a request on its way to a server would.
    pub late: bool,
}

async fn suspend() {
    tokio::task::yield_now().await;
}

/// On drop, stores what was to be stored.
struct Zombie<'a, B: StorageBackend> {
    backend: &'a B,
    put: Option<(ObjectKey, Bytes, PutMode)>,
}

impl<B: StorageBackend> Drop for Zombie<'_, B> {
    fn drop(&mut self) {
        if let Some((key, bytes, mode)) = self.put.take() {
            let _ = self.backend.put(&key, bytes, mode).now_or_never();
        }
    }
}

#[async_trait]
impl<B: StorageBackend> StorageBackend for Yielding<B> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        let put = self.late.then(|| (key.clone(), bytes.clone(), mode));
        let mut zombie = Zombie {
            backend: &self.inner,
            put,
        };
        suspend().await;
        zombie.put = None;
        let result = self.inner.put(key, bytes, mode).await;
        suspend().await;
        result
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        suspend().await;
        let result = self.inner.get(key, range).await;
        suspend().await;
        result
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        suspend().await;
        let result = self.inner.head(key).await;
        suspend().await;
        result
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let pages = self.inner.list(prefix);
        stream::once(suspend())
            .flat_map(|()| stream::empty())
            .chain(pages)
            .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        suspend().await;
        let result = self.inner.delete(keys).await;
        suspend().await;
        result
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

/// Polls a future `polls` times and drops it; `None` when it was not over by then.
pub async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
