//! The clock and the dice that a process of a run is given.

use std::sync::Mutex;

use backup::{Clock, Entropy, Env, Error};
use tokio::time::Instant;

use super::bucket::BEGIN_MS;
use super::random::Random;

/// Virtual time, ahead by some skew.
#[derive(Debug)]
struct SimClock {
    begin: Instant,
    skew_ms: i64,
}

impl Clock for SimClock {
    fn now_ns(&self) -> i64 {
        let since_ns = self.begin.elapsed().as_nanos() as i64;
        (BEGIN_MS + self.skew_ms) * 1_000_000 + since_ns
    }
}

#[derive(Debug)]
struct SimEntropy(Mutex<Random>);

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.lock().unwrap().fill(bytes);
        Ok(())
    }
}

/// What a process that starts is given.
pub(crate) fn env(begin: Instant, skew_ms: i64, random: Random) -> Env {
    let mut env = Env::default();
    env.clock = std::sync::Arc::new(SimClock { begin, skew_ms });
    env.entropy = std::sync::Arc::new(SimEntropy(Mutex::new(random)));
    env
}

/// How far a machine's clock is ahead: mostly little, now and then years, or before the epoch.
pub(crate) fn skew_ms(random: &mut Random) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    *random.one_of(&[
        0,
        0,
        0,
        700,
        -45_000,
        2 * DAY_MS,
        -40 * DAY_MS,
        3000 * DAY_MS,
        -30_000 * DAY_MS,
    ])
}
