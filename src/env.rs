//! What a verb may know of the world besides its backend: the time, and random bytes.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Error;

/// Tells the time. No argument for safety rests on it: it orders names and is shown to people.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Nanoseconds since the Unix epoch.
    fn now_ns(&self) -> i64;
}

/// Gives random bytes fit for keys, nonces and names.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`Error::NoEntropy`] when the source has none.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error>;
}

/// The clock and the entropy that verbs use; tests give their own.
#[derive(Debug, Clone)]
pub struct Env {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Env {
    /// The operating system's clock and random number generator.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

impl Env {
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0u8; N];
        self.entropy.fill(&mut bytes)?;
        Ok(bytes)
    }
}

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where time comes in"
    )]
    fn now_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

#[derive(Debug)]
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        getrandom::fill(bytes).map_err(|_| Error::NoEntropy)
    }
}

/// Starts `work` on the blocking pool at once and returns the handle to await.
///
/// The closure owns all that it touches, so that dropping the handle is safe: the work ends by itself, unseen.
pub(crate) fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    #[cfg(feature = "sim")]
    if crate::sim::is_running() {
        return Job::Done(work());
    }
    Job::Running(tokio::task::spawn_blocking(work))
}

/// Work under way on the blocking pool.
#[derive(Debug)]
pub(crate) enum Job<T> {
    Running(tokio::task::JoinHandle<T>),
    /// A simulated run has no threads: what they do, and when, would follow from no seed.
    #[cfg(feature = "sim")]
    Done(T),
}

impl<T> Job<T> {
    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Running(handle) => handle.is_finished(),
            #[cfg(feature = "sim")]
            Self::Done(_) => true,
        }
    }

    pub(crate) async fn finish(self) -> Result<T, Error> {
        match self {
            Self::Running(handle) => handle.await.map_err(|_| Error::WorkerLost),
            #[cfg(feature = "sim")]
            Self::Done(value) => Ok(value),
        }
    }
}

/// Runs `work` on the blocking pool and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    start(work).finish().await
}

/// How many CPU-bound jobs are worth running at once.
pub(crate) fn cores() -> usize {
    #[cfg(feature = "sim")]
    if let Some(cores) = crate::sim::cores() {
        return cores;
    }
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A window in which others may get ahead: a simulated run spends a while here, any other run nothing.
#[cfg(not(feature = "sim"))]
#[inline]
pub(crate) async fn buggify(_window: &'static str) {}
#[cfg(feature = "sim")]
pub(crate) use crate::sim::buggify;
