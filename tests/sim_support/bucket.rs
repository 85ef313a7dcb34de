//! The store of a run: one map, strongly consistent, whose faults are its clients' affair. Late effects wait here.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use backup::backup_backend::{
    BackendError, ByteRange, Bytes, ErrorKind, KeyPrefix, ObjectKey, ObjectMeta, PutMode,
};
use tokio::time::Instant;

/// When runs begin, by clocks that are right: 2026-01-01, in milliseconds since the epoch.
pub(crate) const BEGIN_MS: i64 = 1_767_225_600_000;

/// Clones are the same bucket.
#[derive(Debug, Clone)]
pub(crate) struct SimBucket(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    objects: BTreeMap<ObjectKey, Stored>,
    /// What was sent and has not arrived, by when it will.
    pending: BTreeMap<(Instant, u64), Effect>,
    sent: u64,
    begin: Instant,
    skew_ms: i64,
    is_told: bool,
    trace: u64,
    requests: u64,
    refused_until: Instant,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    modified: SystemTime,
}

/// What a request does to the store.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Put {
        key: ObjectKey,
        bytes: Bytes,
        mode: PutMode,
    },
    Delete(ObjectKey),
}

impl SimBucket {
    /// An empty one, whose clock is ahead by `skew_ms`. With `is_told` each request is printed.
    pub(crate) fn new(skew_ms: i64, is_told: bool) -> Self {
        let begin = Instant::now();
        Self(Arc::new(Mutex::new(Inner {
            objects: BTreeMap::new(),
            pending: BTreeMap::new(),
            sent: 0,
            begin,
            skew_ms,
            is_told,
            trace: 0,
            requests: 0,
            refused_until: begin,
        })))
    }

    /// As it is now: what was due has arrived.
    fn now(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock().unwrap();
        let now = Instant::now();
        while let Some(entry) = inner.pending.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((at, _), effect) = entry.remove_entry();
            // Nobody hears the answer.
            let _ = inner.apply(effect, at);
        }
        inner
    }

    /// Does it at once.
    pub(crate) fn apply(&self, effect: Effect) -> Result<(), BackendError> {
        self.now().apply(effect, Instant::now())
    }

    /// Does it when `delay` has passed.
    pub(crate) fn apply_later(&self, effect: Effect, delay: Duration) {
        let mut inner = self.now();
        inner.sent += 1;
        let place = (Instant::now() + delay, inner.sent);
        inner.pending.insert(place, effect);
    }

    /// What is under way for so long will have arrived.
    pub(crate) fn pending_until(&self) -> Option<Instant> {
        let inner = self.now();
        inner.pending.last_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn get(
        &self,
        key: &ObjectKey,
        range: Option<ByteRange>,
    ) -> Result<Bytes, BackendError> {
        let error = |kind| BackendError::new(kind, "get", key.as_str());
        let inner = self.now();
        let stored = inner.objects.get(key);
        let bytes = &stored.ok_or_else(|| error(ErrorKind::NotFound))?.bytes;
        let Some(range) = range else {
            return Ok(bytes.clone());
        };
        let end = range.end_within(bytes.len() as u64);
        let end = end.ok_or_else(|| error(ErrorKind::InvalidRange))?;
        Ok(bytes.slice(range.start as usize..end as usize))
    }

    pub(crate) fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let inner = self.now();
        let stored = inner.objects.get(key);
        let missing = || BackendError::new(ErrorKind::NotFound, "head", key.as_str());
        Ok(meta(key, stored.ok_or_else(missing)?))
    }

    /// The objects after `after`, as they are now.
    pub(crate) fn page(
        &self,
        prefix: &KeyPrefix,
        after: Option<&ObjectKey>,
        len_max: usize,
    ) -> Vec<ObjectMeta> {
        let from = match after {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(prefix.as_str()),
        };
        let inner = self.now();
        let objects = inner.objects.range::<str, _>((from, Bound::Unbounded));
        objects
            .take_while(|(key, _)| prefix.matches(key))
            .take(len_max)
            .map(|(key, stored)| meta(key, stored))
            .collect()
    }

    /// The bytes of an object chosen by `number`.
    pub(crate) fn any(&self, number: u64) -> Option<Bytes> {
        let inner = self.now();
        let count = inner.objects.len().max(1) as u64;
        let mut objects = inner.objects.values();
        Some(objects.nth((number % count) as usize)?.bytes.clone())
    }

    /// Notes one step of a run.
    pub(crate) fn note(&self, who: &str, what: &str, key: &str, outcome: &dyn std::fmt::Debug) {
        let mut inner = self.now();
        let at = inner.begin.elapsed();
        let line = format!("{} {who} {what} {key} {outcome:?}", at.as_millis());
        if inner.is_told {
            println!("{line}");
        }
        inner.requests += 1;
        for byte in line.bytes() {
            inner.trace = (inner.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// A fingerprint of all that was noted.
    pub(crate) fn trace(&self) -> u64 {
        self.now().trace
    }

    /// How much was noted.
    pub(crate) fn requests(&self) -> u64 {
        self.now().requests
    }

    pub(crate) fn refuse_for(&self, time: Duration) {
        self.now().refused_until = Instant::now() + time;
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.now().refused_until > Instant::now()
    }
}

impl Inner {
    fn apply(&mut self, effect: Effect, at: Instant) -> Result<(), BackendError> {
        match effect {
            Effect::Put { key, bytes, mode } => {
                if mode == PutMode::Create && self.objects.contains_key(&key) {
                    let kind = ErrorKind::AlreadyExists;
                    return Err(BackendError::new(kind, "put", key.as_str()));
                }
                let since_ms = (at - self.begin).as_millis() as i64;
                let unix_ms = (BEGIN_MS + self.skew_ms + since_ms) as u64;
                let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
                // A copy: what was given belongs to a much longer buffer.
                let bytes = Bytes::copy_from_slice(&bytes);
                self.objects.insert(key, Stored { bytes, modified });
            }
            Effect::Delete(key) => {
                self.objects.remove(&key);
            }
        }
        Ok(())
    }
}

fn meta(key: &ObjectKey, stored: &Stored) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        len: stored.bytes.len() as u64,
        modified: Some(stored.modified),
    }
}
