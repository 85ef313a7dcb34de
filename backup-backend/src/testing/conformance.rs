use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Check, Outcome, Report, list_checks, object_checks, race_checks};
use crate::{
    BackendError, Capabilities, ErrorKind, KeyPrefix, ObjectKey, StorageBackend, StorageBackendExt,
};

/// How far the suite goes: take the [`Default`] and assign what you change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConformanceOptions {
    /// The page length that the factory's backends list with: 4. Make it small, the suite stores three pages.
    pub page_len: usize,
    /// The largest object of the suite in bytes: 16 MiB + 1.
    pub object_len_max: usize,
    /// The longest key of the suite in bytes: [`KEY_LEN_MAX`](crate::KEY_LEN_MAX), less what the backend adds to keys.
    pub key_len_max: usize,
    /// Callers at once: 32.
    pub callers: usize,
    /// A check that takes longer has failed: 300,000 ms.
    pub check_ms_max: u64,
}

impl Default for ConformanceOptions {
    fn default() -> Self {
        Self {
            page_len: 4,
            object_len_max: (16 << 20) + 1,
            key_len_max: crate::KEY_LEN_MAX,
            callers: 32,
            check_ms_max: 300_000,
        }
    }
}

/// Runs every check, each on a fresh and empty backend from `factory`. Needs a tokio runtime with time enabled.
///
/// A backend that claims a capability is held to it; what it does not claim is skipped.
pub async fn conformance<B, F, Fut>(factory: F, options: ConformanceOptions) -> Report
where
    B: StorageBackend,
    F: Fn() -> Fut,
    Fut: Future<Output = B>,
{
    let mut capabilities = Capabilities::default();
    let mut checks = Vec::new();
    for case in object_checks::CASES
        .iter()
        .chain(list_checks::CASES)
        .chain(race_checks::CASES)
    {
        let backend = factory().await;
        capabilities = backend.capabilities();
        let outcome = if (case.applies)(capabilities) {
            run(case, &backend, &options).await
        } else {
            Outcome::Skipped
        };
        checks.push(Check {
            name: case.name,
            outcome,
        });
    }
    Report {
        suite_version: SUITE_VERSION,
        capabilities,
        checks,
    }
}

const SUITE_VERSION: u32 = 1;

async fn run(case: &Case, backend: &dyn StorageBackend, options: &ConformanceOptions) -> Outcome {
    let limit = Duration::from_millis(options.check_ms_max);
    match tokio::time::timeout(limit, (case.run)(backend, options)).await {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(Wrong(why))) => Outcome::Failed(why),
        Err(_) => Outcome::Failed(format!("not finished after {} ms", options.check_ms_max)),
    }
}

/// One check: a sentence, when it applies, and the work.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) applies: fn(Capabilities) -> bool,
    pub(super) run:
        for<'a> fn(&'a dyn StorageBackend, &'a ConformanceOptions) -> BoxFuture<'a, Checked>,
}

pub(super) type Checked = Result<(), Wrong>;

/// Why a check failed. Made of whatever went wrong, so that a check reads as a list of expectations.
#[derive(Debug)]
pub(super) struct Wrong(pub(super) String);

impl From<BackendError> for Wrong {
    fn from(error: BackendError) -> Self {
        Self(format!("unexpected error: {error:?}"))
    }
}

impl From<crate::KeyError> for Wrong {
    fn from(error: crate::KeyError) -> Self {
        Self(format!("unexpected error: {error:?}"))
    }
}

/// A table of checks: `(applies) "sentence" => function`.
macro_rules! cases {
    ($($applies:ident $name:literal => $run:ident,)+) => {
        pub(super) const CASES: &[Case] = &[$(Case {
            name: $name,
            applies: $applies,
            run: |backend, options| Box::pin($run(backend, options)),
        }),+];
    };
}
pub(super) use cases;

pub(super) fn always(_: Capabilities) -> bool {
    true
}

pub(super) fn if_creating(capabilities: Capabilities) -> bool {
    capabilities.create_if_absent
}

pub(super) fn if_listing(capabilities: Capabilities) -> bool {
    capabilities.consistent_list
}

pub(super) fn key(text: impl Into<String>) -> Result<ObjectKey, Wrong> {
    Ok(ObjectKey::parse(text)?)
}

pub(super) fn is_true(condition: bool, else_say: impl FnOnce() -> String) -> Checked {
    if condition {
        Ok(())
    } else {
        Err(Wrong(else_say()))
    }
}

pub(super) fn fails_with<T: Debug>(
    kind: ErrorKind,
    what: &str,
    result: Result<T, BackendError>,
) -> Checked {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Wrong(format!("{what}: expected {kind:?}, got {error:?}"))),
        Ok(_) => Err(Wrong(format!("{what}: expected {kind:?}, got success"))),
    }
}

/// `len` bytes that differ from place to place and from seed to seed.
pub(super) fn pattern(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

pub(super) async fn holds(backend: &dyn StorageBackend, key: &ObjectKey, bytes: &Bytes) -> Checked {
    let stored = backend.get(key, None).await?;
    is_true(stored == *bytes, || {
        format!(
            "{key}: {} bytes came back, {} others went in",
            stored.len(),
            bytes.len()
        )
    })?;
    let meta = backend.head(key).await?;
    is_true(meta.key == *key && meta.len == bytes.len() as u64, || {
        format!("head of {key} says {meta:?}")
    })
}

pub(super) async fn listed(
    backend: &dyn StorageBackend,
    prefix: &str,
) -> Result<Vec<String>, Wrong> {
    let all = backend.list_all(&KeyPrefix::parse(prefix)?).await?;
    Ok(all.into_iter().map(|meta| meta.key.to_string()).collect())
}
