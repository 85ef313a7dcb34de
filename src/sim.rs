//! Runs the verbs so that a seed decides everything: for tests, behind the feature `sim`.
//!
//! Within [`Sim::run`] jobs that otherwise go to the blocking pool run at once in the calling task, the number of cores is
//! fixed, and at each window where a race could be lost a seeded die decides whether seconds or hours pass. Together
//! with a paused tokio clock, an [`Env`](crate::Env) from the test and a backend from the test, the same seed gives the
//! same run.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One simulated world. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Sim(Arc<Mutex<State>>);

/// How often a window was passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Times in all.
    pub passed: u64,
    /// Times that a while was spent in it.
    pub fired: u64,
}

#[derive(Debug)]
struct State {
    random: u64,
    is_calm: bool,
    windows: BTreeMap<&'static str, Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// Many windows that fire at once hide each other's races: each run leaves half of them out.
    is_left_out: bool,
    mark: Mark,
}

tokio::task_local! {
    static WORLD: Sim;
}

/// One in so many passes fires.
const FIRES_ONE_IN: u64 = 4;

/// The longest while is this power of two, in seconds, doubled: nine hours.
const WHILE_LOG2_MAX: u64 = 14;

/// More than one, so that stages overlap; the same on every machine.
const CORES: usize = 2;

impl Sim {
    /// A world whose dice follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: seed,
            is_calm: false,
            windows: BTreeMap::new(),
        })))
    }

    /// Runs `future` in this world. Tasks that it spawns are not in it.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        WORLD.scope(self.clone(), future).await
    }

    /// From now on no window fires.
    pub fn calm(&self) {
        self.state().is_calm = true;
    }

    /// The windows passed so far, by name.
    #[must_use]
    pub fn marks(&self) -> BTreeMap<&'static str, Mark> {
        let state = self.state();
        let marks = state
            .windows
            .iter()
            .map(|(name, found)| (*name, found.mark));
        marks.collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a pass; how long it takes, when it fires.
    fn pass(&self, window: &'static str) -> Option<Duration> {
        let state = &mut *self.state();
        let random = &mut state.random;
        let window = state.windows.entry(window).or_insert_with(|| Window {
            is_left_out: next(random).is_multiple_of(2),
            mark: Mark::default(),
        });
        window.mark.passed += 1;
        if state.is_calm || window.is_left_out || !next(random).is_multiple_of(FIRES_ONE_IN) {
            return None;
        }
        window.mark.fired += 1;
        let about = 1000 << (next(random) % (WHILE_LOG2_MAX + 1));
        Some(Duration::from_millis(about + next(random) % about))
    }
}

/// `SplitMix64`.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*random ^ *random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Whether the calling task is in a simulated world.
pub(crate) fn is_running() -> bool {
    WORLD.try_with(|_| ()).is_ok()
}

/// The fixed number of cores, in a simulated world.
pub(crate) fn cores() -> Option<usize> {
    is_running().then_some(CORES)
}

/// A window in which others may get ahead: in a simulated world time may pass here.
pub(crate) async fn buggify(window: &'static str) {
    if let Ok(Some(time)) = WORLD.try_with(|world| world.pass(window)) {
        tokio::time::sleep(time).await;
    }
}
