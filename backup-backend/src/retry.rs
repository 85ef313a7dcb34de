use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;

use crate::{
    BackendError, ByteRange, Capabilities, DeleteResult, ErrorKind, KeyPrefix, ObjectKey,
    ObjectMeta, PutMode, StorageBackend,
};

/// Calls a backend again after errors whose kind [is retryable](ErrorKind::is_retryable), and only after those.
///
/// A create whose first answer was lost may find its own object: it reads the object back, and equal bytes are a
/// success. A listing that breaks off begins anew and leaves out what it has shown already. When a store says that it gets
/// too many requests, all calls wait, those of clones too.
#[derive(Clone)]
pub struct Retrying<B> {
    inner: B,
    policy: RetryPolicy,
    jitter: Jitter,
    gate: Arc<Gate>,
}

/// Holds up all attempts while the store wants to be left alone.
#[derive(Debug, Default)]
struct Gate(Mutex<Option<Instant>>);

impl Gate {
    fn close(&self, until: Instant) {
        let mut closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = (*closed).max(Some(until));
    }

    async fn pass(&self) {
        loop {
            let closed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match closed.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }
}

/// A source of random numbers, to spread the delays of many clients.
pub type Jitter = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How often and how long [`Retrying`] tries: take the [`Default`] and assign what you change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all, the first one included: 5.
    pub attempts_max: u32,
    /// The delay before the second attempt, in milliseconds: 200. It doubles each time; the actual delay is between
    /// half of it and all of it, or what the store asked for if that is longer.
    pub delay_ms_base: u64,
    /// The longest delay before jitter, in milliseconds: 30,000.
    pub delay_ms_max: u64,
    /// A call ends by then with `TimedOut`, all attempts included, in milliseconds: 1,800,000 (half an hour, in which
    /// an object of 128 MiB passes a line of 1 Mbit/s). For listings: each page.
    pub elapsed_ms_max: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            delay_ms_base: 200,
            delay_ms_max: 30_000,
            elapsed_ms_max: 1_800_000,
        }
    }
}

impl RetryPolicy {
    /// How long to wait after so many failed attempts: the base, doubled with each attempt after the first, between half of it
    /// and all of it as `jitter` says, any number.
    #[must_use]
    pub fn delay(&self, failed: u32, jitter: u64) -> Duration {
        let doubled = 1_u64
            .checked_shl(failed.saturating_sub(1))
            .unwrap_or(u64::MAX);
        let delay_ms = self
            .delay_ms_base
            .saturating_mul(doubled)
            .min(self.delay_ms_max);
        let half_ms = delay_ms / 2;
        let jitter_ms = jitter
            .checked_rem((delay_ms - half_ms).saturating_add(1))
            .unwrap_or(0);
        Duration::from_millis(half_ms.saturating_add(jitter_ms))
    }
}

impl<B> Retrying<B> {
    /// Wraps a backend; the jitter comes from the system's random numbers.
    pub fn new(inner: B, policy: RetryPolicy) -> Self {
        Self::with_jitter(inner, policy, Arc::new(|| getrandom::u64().unwrap_or(0)))
    }

    /// Wraps a backend, with jitter from the caller.
    pub fn with_jitter(inner: B, policy: RetryPolicy, jitter: Jitter) -> Self {
        Self {
            inner,
            policy,
            jitter,
            gate: Arc::default(),
        }
    }

    /// The wrapped backend.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn attempts(&self) -> Attempts<'_> {
        let deadline =
            Instant::now().checked_add(Duration::from_millis(self.policy.elapsed_ms_max));
        Attempts {
            policy: &self.policy,
            jitter: &self.jitter,
            gate: &self.gate,
            deadline,
            failed: 0,
        }
    }
}

/// The attempts of one call.
struct Attempts<'a> {
    policy: &'a RetryPolicy,
    jitter: &'a Jitter,
    gate: &'a Gate,
    deadline: Option<Instant>,
    failed: u32,
}

impl Attempts<'_> {
    // One attempt, cut off at the deadline of the call.
    async fn limit<T, F>(
        &self,
        operation: &'static str,
        key: &str,
        attempt: F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>> + Send,
    {
        let attempt = async {
            self.gate.pass().await;
            attempt.await
        };
        let Some(deadline) = self.deadline else {
            return attempt.await;
        };
        let late = |source| {
            Err(BackendError::new(ErrorKind::TimedOut, operation, key).with_source(source))
        };
        tokio::time::timeout_at(deadline, attempt)
            .await
            .unwrap_or_else(late)
    }

    // Waits before the next attempt; `false` if there is none.
    async fn wait(&mut self, error: &BackendError) -> bool {
        self.failed += 1;
        if !error.kind().is_retryable() || self.failed >= self.policy.attempts_max {
            return false;
        }
        let delay = self
            .policy
            .delay(self.failed, (self.jitter)())
            .max(error.retry_after().unwrap_or_default());
        let until = Instant::now().checked_add(delay);
        let in_time = match (until, self.deadline) {
            (Some(until), Some(deadline)) => until < deadline,
            (until, _) => until.is_some(),
        };
        if let (true, Some(until)) = (in_time, until) {
            if error.kind() == ErrorKind::Throttled {
                self.gate.close(until);
            }
            tokio::time::sleep_until(until).await;
        }
        in_time
    }
}

impl<B: StorageBackend> Retrying<B> {
    async fn holds(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, BackendError> {
        let stored_len = self.head(key).await?.len;
        Ok(stored_len == bytes.len() as u64 && self.get(key, None).await? == *bytes)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: StorageBackend> StorageBackend for Retrying<B> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        let mut attempts = self.attempts();
        loop {
            let put = self.inner.put(key, bytes.clone(), mode);
            let Err(error) = attempts.limit("put", key.as_str(), put).await else {
                return Ok(());
            };
            // Perhaps it was an attempt of ours that created it.
            if error.kind() == ErrorKind::AlreadyExists && attempts.failed > 0 {
                return if self.holds(key, &bytes).await? {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            // What may have had an effect is not sent again.
            let is_over = mode == PutMode::CreateOnce && error.kind() != ErrorKind::Throttled;
            if is_over || !attempts.wait(&error).await {
                return Err(error);
            }
        }
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let mut attempts = self.attempts();
        loop {
            match attempts
                .limit("get", key.as_str(), self.inner.get(key, range))
                .await
            {
                Err(error) if attempts.wait(&error).await => {}
                other => return other,
            }
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let mut attempts = self.attempts();
        loop {
            match attempts
                .limit("head", key.as_str(), self.inner.head(key))
                .await
            {
                Err(error) if attempts.wait(&error).await => {}
                other => return other,
            }
        }
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let listing = Listing {
            backend: self,
            prefix: prefix.clone(),
            pages: None,
            last: None,
            resuming: false,
        };
        stream::unfold(Some(listing), |listing| async move {
            let mut listing = listing?;
            match listing.next().await {
                Ok(page) => page.map(|page| (Ok(page), Some(listing))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let mut attempts = self.attempts();
        let mut results: Vec<Option<DeleteResult>> = keys.iter().map(|_| None).collect();
        loop {
            let pending: Vec<usize> = (0..keys.len())
                .filter(|i| is_pending(&results, *i))
                .collect();
            let subset: Vec<ObjectKey> = pending
                .iter()
                .filter_map(|i| keys.get(*i).cloned())
                .collect();
            let first = subset.first().map_or("", ObjectKey::as_str);
            let error = match attempts
                .limit("delete", first, self.inner.delete(&subset))
                .await
            {
                Ok(answers) if answers.len() == pending.len() => {
                    record(&mut results, &pending, answers)
                }
                Ok(_) => Some(BackendError::new(ErrorKind::Corrupt, "delete", first)),
                Err(error) => Some(error),
            };
            let Some(error) = error else {
                return Ok(finish(keys, results, ErrorKind::Corrupt));
            };
            if !attempts.wait(&error).await {
                if results.iter().all(Option::is_none) {
                    return Err(error);
                }
                return Ok(finish(keys, results, error.kind()));
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

fn is_pending(results: &[Option<DeleteResult>], index: usize) -> bool {
    match results.get(index) {
        Some(Some(Err(error))) => error.kind().is_retryable(),
        Some(None) => true,
        _ => false,
    }
}

// Keeps the answers; returns a copy of one error that is worth another attempt.
fn record(
    results: &mut [Option<DeleteResult>],
    pending: &[usize],
    answers: Vec<DeleteResult>,
) -> Option<BackendError> {
    let mut again: Option<BackendError> = None;
    for (index, answer) in pending.iter().zip(answers) {
        if let Err(error) = &answer
            && error.kind().is_retryable()
            && again
                .as_ref()
                .is_none_or(|worst| worst.retry_after() < error.retry_after())
        {
            let copy = BackendError::new(error.kind(), "delete", error.key());
            again = Some(
                error
                    .retry_after()
                    .into_iter()
                    .fold(copy, BackendError::with_retry_after),
            );
        }
        if let Some(result) = results.get_mut(*index) {
            *result = Some(answer);
        }
    }
    again
}

fn finish(
    keys: &[ObjectKey],
    results: Vec<Option<DeleteResult>>,
    unknown: ErrorKind,
) -> Vec<DeleteResult> {
    let fill = |(key, result): (&ObjectKey, Option<DeleteResult>)| {
        result.unwrap_or_else(|| Err(BackendError::new(unknown, "delete", key.as_str())))
    };
    keys.iter().zip(results).map(fill).collect()
}

/// A listing that survives being broken off.
struct Listing<'a, B> {
    backend: &'a Retrying<B>,
    prefix: KeyPrefix,
    pages: Option<BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>>>,
    /// The last key that was shown.
    last: Option<ObjectKey>,
    /// The listing began anew and has not come past `last` yet.
    resuming: bool,
}

impl<B: StorageBackend> Listing<'_, B> {
    async fn next(&mut self) -> Result<Option<Vec<ObjectMeta>>, BackendError> {
        let mut attempts = self.backend.attempts();
        loop {
            let pages = self
                .pages
                .get_or_insert_with(|| self.backend.inner.list(&self.prefix));
            let step = async { pages.next().await.transpose() };
            match attempts.limit("list", self.prefix.as_str(), step).await {
                Ok(None) => return Ok(None),
                Ok(Some(page)) => {
                    let page = self.fresh(page)?;
                    if !page.is_empty() {
                        return Ok(Some(page));
                    }
                }
                Err(error) => {
                    self.pages = None;
                    self.resuming = self.last.is_some();
                    if !attempts.wait(&error).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    // Without what was shown before. Leaving out by order hides objects if there is no order, so it is checked.
    fn fresh(&mut self, mut page: Vec<ObjectMeta>) -> Result<Vec<ObjectMeta>, BackendError> {
        let mut ordered = page.is_sorted_by(|a, b| a.key < b.key);
        if self.resuming {
            let shown = page
                .iter()
                .position(|meta| Some(&meta.key) > self.last.as_ref());
            self.resuming = shown.is_none();
            page.drain(..shown.unwrap_or(page.len()));
        }
        if let Some(first) = page.first() {
            ordered &= Some(&first.key) > self.last.as_ref();
        }
        if !ordered {
            let error = BackendError::new(ErrorKind::Corrupt, "list", self.prefix.as_str());
            return Err(error.with_source("the keys of the listing do not ascend"));
        }
        if let Some(last) = page.last() {
            self.last = Some(last.key.clone());
        }
        Ok(page)
    }
}

impl<B: fmt::Debug> fmt::Debug for Retrying<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
