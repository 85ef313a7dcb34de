//! A machine that backs up into the repository: its processes start, do something, end, die, and stand still.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backup::backup_backend::{RetryPolicy, Retrying, StorageBackend};
use backup::{Credential, Env, Error, MasterKey, OpenOptions, Repository, Zeroizing};
use tokio::time::sleep;

use super::action::{Action, Broken, judge};
use super::client::SimClient;
use super::plan::Fault;
use super::random::Random;
use super::scenario::Run;
use super::world;

/// A machine.
pub(crate) struct Agent<'a> {
    run: &'a Run,
    number: u64,
    random: Random,
    skew_ms: i64,
    processes: u64,
}

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// A process stands still at most so long.
const SUSPEND_MS_MAX: u64 = 40 * DAY_MS;

/// Something happens to a process within its first so many requests in an action.
const DOOM_REQUESTS_MAX: u64 = 40;

/// The master key of every run: no secret is stretched.
pub(crate) fn credential() -> Credential {
    Credential::Master(MasterKey::from_bytes(Zeroizing::new([7; 32])))
}

/// What happens to a process at one of its requests.
#[derive(Debug, Clone, Copy)]
enum Doom {
    Crash,
    Suspend(Duration),
}

impl<'a> Agent<'a> {
    pub(crate) fn new(run: &'a Run, number: u64) -> Self {
        let mut random = Random::new(run.plan.seed, 100 + number);
        let skew_ms = world::skew_ms(&mut random);
        Self {
            run,
            number,
            random,
            skew_ms,
            processes: 0,
        }
    }

    /// Starts one process after the other, for as long as the run lasts.
    pub(crate) async fn live(mut self) -> Result<(), Broken> {
        loop {
            self.wait().await;
            if self.run.is_over() {
                return Ok(());
            }
            self.process().await?;
        }
    }

    /// Mostly until some hour at which everybody starts, as with cron: a crowd finds more races.
    async fn wait(&mut self) {
        let mut until = self.run.begin.elapsed() + self.random.time(360 * MINUTE_MS, 12 * DAY_MS);
        if self.random.below(4) > 0 {
            let crowd = Duration::from_millis(2 * DAY_MS);
            until = crowd * (until.as_secs() / crowd.as_secs() + 1) as u32;
            until += self.random.time(1000, 120 * MINUTE_MS);
        }
        sleep(until - self.run.begin.elapsed()).await;
    }

    /// One process: opens the repository once and does a few things.
    async fn process(&mut self) -> Result<(), Broken> {
        self.processes += 1;
        let run = self.run;
        let name = format!("{}.{}", self.number, self.processes);
        let part = self.number * 1_000_000 + self.processes * 10;
        let dice = |of| Random::new(run.plan.seed, part + of);
        let client = SimClient::new(name, run.bucket.clone(), run.plan.clone(), dice(1));
        let backend = self.backend(client.clone(), dice(2));
        let env = world::env(run.begin, self.skew_ms, dice(3));
        let Some(opened) = self.endure(&client, open(backend, env)).await else {
            return Ok(());
        };
        let repo = match opened {
            Ok(repo) => repo,
            Err(error) => return judge(run, "open", Err(error)),
        };
        for _ in 0..=self.random.below(3) {
            let action = Action::draw(run, &mut self.random);
            run.bucket
                .note(&self.number.to_string(), "does", "", &action);
            let mut random = Random::new(self.random.next(), 1);
            let performed = action.perform(run, &repo, &mut random);
            match self.endure(&client, performed).await {
                Some(done) => done?,
                None => return Ok(()),
            }
            sleep(self.random.time(1000, 360 * MINUTE_MS)).await;
        }
        Ok(())
    }

    /// Mostly what programs use: a backend that tries again.
    fn backend(&mut self, client: SimClient, random: Random) -> Arc<dyn StorageBackend> {
        if self.random.below(4) == 0 {
            return Arc::new(client);
        }
        let random = std::sync::Mutex::new(random);
        let jitter = Arc::new(move || random.lock().unwrap().next());
        Arc::new(Retrying::with_jitter(
            client,
            RetryPolicy::default(),
            jitter,
        ))
    }

    /// Lets the process work, unless it dies on the way: then there is no answer. It may also stand still and go on.
    async fn endure<F: Future>(&mut self, client: &SimClient, work: F) -> Option<F::Output> {
        let (plan, random) = (&self.run.plan, &mut self.random);
        let crash = plan.strikes(Fault::Crash, random).then_some(Doom::Crash);
        let suspend = plan.strikes(Fault::Suspend, random);
        let still = Doom::Suspend(random.time(MINUTE_MS, SUSPEND_MS_MAX));
        let mut work = pin!(work);
        for doom in [suspend.then_some(still), crash].into_iter().flatten() {
            client.doom_in(Some(1 + random.below(DOOM_REQUESTS_MAX)));
            tokio::select! {
                biased;
                done = &mut work => {
                    client.doom_in(None);
                    return Some(done);
                }
                () = client.doom() => {}
            }
            self.run
                .bucket
                .note(&self.number.to_string(), "doom", "", &doom);
            match doom {
                Doom::Crash => return None,
                // Nobody polls it: whatever it waits for comes to pass, and it does not know.
                Doom::Suspend(time) => sleep(time).await,
            }
        }
        Some(work.await)
    }
}

/// Opens the repository as a process that starts.
pub(crate) async fn open(backend: Arc<dyn StorageBackend>, env: Env) -> Result<Repository, Error> {
    let mut options = OpenOptions::default();
    options.env = env;
    Repository::open(backend, credential(), options).await
}
