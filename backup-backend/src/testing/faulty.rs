use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use crate::{
    BackendError, ByteRange, Capabilities, DeleteResult, ErrorKind, KeyPrefix, ObjectKey,
    ObjectMeta, PutMode, StorageBackend,
};

/// A backend that fails on command, pretends to be dead, and records its calls. Clones share all of that.
///
/// A call is a put, get, head or delete, or one page of a listing. Calls are counted from 1.
#[derive(Debug, Clone)]
pub struct Faulty<B> {
    inner: B,
    state: Arc<Mutex<State>>,
}

/// The operations of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`StorageBackend::put`]
    Put,
    /// [`StorageBackend::get`]
    Get,
    /// [`StorageBackend::head`]
    Head,
    /// One page of [`StorageBackend::list`]
    List,
    /// [`StorageBackend::delete`]
    Delete,
}

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there is no third")]
pub enum FaultPoint {
    /// Nothing has happened.
    BeforeEffect,
    /// It has happened, only the answer is lost.
    AfterEffect,
}

/// One call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The operation.
    pub operation: Operation,
    /// The `nth` call of this operation, from 1.
    pub nth: u64,
    /// Before or after its effect.
    pub point: FaultPoint,
    /// With this error.
    pub kind: ErrorKind,
}

/// One recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// The key or prefix; of a delete the first key.
    pub key: String,
    /// Whether it was made to fail.
    pub fault: Option<Fault>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    counts: HashMap<Operation, u64>,
    calls: Vec<Call>,
    death: Option<(u64, FaultPoint)>,
}

impl<B> Faulty<B> {
    /// Wraps a backend; nothing fails yet.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    /// Lets one call fail.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Lets the process die at its `nth` call of any operation, counted from 1 since the start, before or after the
    /// effect: that call and all later ones fail with `Io`.
    pub fn die_at(&self, nth: u64, point: FaultPoint) {
        self.state().death = Some((nth, point));
    }

    /// Forgets all faults and comes back to life; calls and their numbers stay.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.death = None;
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The wrapped backend.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Counts and records a call. What comes back says whether and when it fails.
    fn begin(&self, operation: Operation, key: &str) -> Option<Fault> {
        let mut state = self.state();
        let count = state.counts.entry(operation).or_default();
        *count += 1;
        let nth = *count;
        let made = state.calls.len() as u64 + 1;
        let planned = state
            .faults
            .iter()
            .find(|fault| fault.operation == operation && fault.nth == nth)
            .copied();
        let dead = state
            .death
            .filter(|(last, _)| made >= *last)
            .map(|(last, point)| {
                let point = if made == last {
                    point
                } else {
                    FaultPoint::BeforeEffect
                };
                Fault {
                    operation,
                    nth,
                    point,
                    kind: ErrorKind::Io,
                }
            });
        let fault = dead.or(planned);
        state.calls.push(Call {
            operation,
            key: key.to_owned(),
            fault,
        });
        fault
    }
}

fn fails(
    fault: Option<Fault>,
    point: FaultPoint,
    operation: &'static str,
    key: &str,
) -> Result<(), BackendError> {
    match fault {
        Some(fault) if fault.point == point => {
            Err(BackendError::new(fault.kind, operation, key)
                .with_source("a fault was planned here"))
        }
        _ => Ok(()),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: StorageBackend> StorageBackend for Faulty<B> {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        let fault = self.begin(Operation::Put, key.as_str());
        fails(fault, FaultPoint::BeforeEffect, "put", key.as_str())?;
        let result = self.inner.put(key, bytes, mode).await;
        fails(fault, FaultPoint::AfterEffect, "put", key.as_str())?;
        result
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let fault = self.begin(Operation::Get, key.as_str());
        fails(fault, FaultPoint::BeforeEffect, "get", key.as_str())?;
        let result = self.inner.get(key, range).await;
        fails(fault, FaultPoint::AfterEffect, "get", key.as_str())?;
        result
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let fault = self.begin(Operation::Head, key.as_str());
        fails(fault, FaultPoint::BeforeEffect, "head", key.as_str())?;
        let result = self.inner.head(key).await;
        fails(fault, FaultPoint::AfterEffect, "head", key.as_str())?;
        result
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let prefix_text = prefix.to_string();
        stream::unfold(Some(self.inner.list(prefix)), move |pages| {
            let prefix = prefix_text.clone();
            async move {
                let mut pages = pages?;
                let fault = self.begin(Operation::List, &prefix);
                if let Err(error) = fails(fault, FaultPoint::BeforeEffect, "list", &prefix) {
                    return Some((Err(error), None));
                }
                let page = pages.next().await;
                if let Err(error) = fails(fault, FaultPoint::AfterEffect, "list", &prefix) {
                    return Some((Err(error), None));
                }
                page.map(|page| (page, Some(pages)))
            }
        })
        .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let first = keys.first().map_or("", ObjectKey::as_str);
        let fault = self.begin(Operation::Delete, first);
        fails(fault, FaultPoint::BeforeEffect, "delete", first)?;
        let result = self.inner.delete(keys).await;
        fails(fault, FaultPoint::AfterEffect, "delete", first)?;
        result
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
