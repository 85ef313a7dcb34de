//! One run: thirty virtual days of everything at once, then peace, and the account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup::backup_backend::Bytes;
use backup::sim::{Mark, Sim};
use backup::{ChunkerParams, CreateOptions, Repository, VerifyLevel, gc, snapshots, verify};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::action::{Broken, back_up, backup_options, bring_back, gc_options, judge_restore};
use super::agent::{Agent, credential, open};
use super::bucket::SimBucket;
use super::client::SimClient;
use super::model::{Content, ModelRepo};
use super::plan::{Fault, FaultPlan, Profile};
use super::random::Random;
use super::world;

/// What the parts of a run share.
pub(crate) struct Run {
    pub(crate) plan: Arc<FaultPlan>,
    pub(crate) bucket: SimBucket,
    pub(crate) model: Arc<ModelRepo>,
    pub(crate) contents: Contents,
    /// Garbage is collected in this run.
    pub(crate) collects: bool,
    pub(crate) begin: Instant,
}

/// What a run tells.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// A fingerprint of all requests.
    pub(crate) trace: u64,
    pub(crate) requests: u64,
    pub(crate) windows: BTreeMap<&'static str, Mark>,
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// How often each verb succeeded and failed.
    pub(crate) verbs: BTreeMap<&'static str, [u64; 2]>,
}

const DAY: Duration = Duration::from_secs(86_400);

/// Agents begin nothing new after this.
const RUN_DAYS: u32 = 30;

/// By then everything has ended: what was begun, retries, two suspensions of forty days.
const DEADLINE_DAYS: u32 = 400;

/// Runs one seed. `Err` says which property does not hold.
pub(crate) fn run(seed: u64, profile: Profile, is_told: bool) -> Result<Outcome, Broken> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let plan = Arc::new(FaultPlan::draw(seed, profile));
        let run = Run {
            bucket: SimBucket::new(plan.skew_ms, is_told),
            plan,
            model: Arc::default(),
            contents: Contents::new(seed),
            collects: Random::new(seed, 11).below(4) > 0,
            begin: Instant::now(),
        };
        let sim = Sim::new(seed);
        let all = timeout(DAY * DEADLINE_DAYS, sim.run(run.all(&sim)));
        all.await.map_err(|_| "it does not end".to_owned())??;
        Ok(Outcome {
            trace: run.bucket.trace(),
            requests: run.bucket.requests(),
            windows: sim.marks(),
            faults: run.plan.struck(),
            verbs: run.model.counts(),
        })
    })
}

impl Run {
    pub(crate) fn is_over(&self) -> bool {
        self.begin.elapsed() > DAY * RUN_DAYS
    }

    async fn all(&self, sim: &Sim) -> Result<(), Broken> {
        self.create().await;
        let agents = 3 + Random::new(self.plan.seed, 2).below(6);
        let mut agents: FuturesUnordered<_> =
            (1..=agents).map(|n| Agent::new(self, n).live()).collect();
        while let Some(lived) = agents.next().await {
            lived?;
        }
        self.plan.end();
        sim.calm();
        if let Some(until) = self.bucket.pending_until() {
            sleep_until(until).await;
        }
        // Throttling ends, and so does the time to think again.
        sleep(DAY * 4).await;
        self.account().await
    }

    /// One that nothing happens to.
    fn calm_client(&self, name: &str, part: u64) -> Arc<SimClient> {
        let plan = FaultPlan::calm(self.plan.seed, self.plan.profile);
        let random = Random::new(self.plan.seed, part);
        let bucket = self.bucket.clone();
        Arc::new(SimClient::new(name.into(), bucket, plan.into(), random))
    }

    /// Before anything goes wrong.
    async fn create(&self) {
        let mut options = CreateOptions::default();
        options.chunker = ChunkerParams::new(64, 256, 1024).unwrap();
        options.env = world::env(self.begin, 0, Random::new(self.plan.seed, 4));
        let client = self.calm_client("begin", 5);
        let created = Repository::create(client, credential(), options).await;
        created.unwrap();
    }

    /// Two runs find all garbage that there is, and end what others began; a third has nothing to do.
    async fn collect(&self, repo: &Repository) -> Result<(), Broken> {
        let mut options = gc_options(&mut Random::new(self.plan.seed, 12));
        options.pack_age_min = Duration::ZERO;
        options.repack_len_max = 0;
        for _ in 0..2 {
            let report = gc(repo, &options, &()).await;
            report.map_err(|e| format!("in peace gc fails: {e:?}"))?;
        }
        options.dry_run = true;
        let left = gc(repo, &options, &()).await;
        let left = left.map_err(|e| format!("in peace gc fails: {e:?}"))?;
        if left.packs_deleted > 0 {
            return Err(format!("two runs of gc leave garbage: {left:?}"));
        }
        Ok(())
    }

    /// The faults are over: what was promised is there, what shows is whole, and life goes on without anybody's help.
    async fn account(&self) -> Result<(), Broken> {
        let env = world::env(self.begin, 0, Random::new(self.plan.seed, 6));
        let failed = |what: &str, error: backup::Error| format!("in peace {what} fails: {error:?}");
        let repo = open(self.calm_client("end", 7), env).await;
        let repo = repo.map_err(|e| failed("open", e))?;
        let mut options = backup_options(&mut Random::new(self.plan.seed, 8));
        options.memory_len_max = 16 << 20;
        let content = self.contents.draw(&mut Random::new(self.plan.seed, 9));
        let fresh = back_up(self, &repo, ("home", content), &options).await;
        fresh.map_err(|e| failed("backup", e))?;
        if self.collects {
            self.collect(&repo).await?;
        }
        let shown = snapshots(&repo, &Default::default()).await;
        let shown = shown.map_err(|e| failed("a list of snapshots", e))?;
        let mut promised = self.model.promised();
        for manifest in shown {
            let snapshot = manifest.session;
            promised.retain(|id| *id != snapshot);
            let back = bring_back(&repo, &snapshot).await;
            let back = back.map_err(|e| failed("restore", e))?;
            if back.is_none() {
                return Err(format!("in peace {snapshot} comes back incomplete"));
            }
            judge_restore(self, &snapshot, Ok(back))?;
        }
        if !promised.is_empty() {
            return Err(format!("acked and gone: {promised:?}"));
        }
        let report = verify(&repo, VerifyLevel::AllData, &()).await;
        let report = report.map_err(|e| failed("verify", e))?;
        if !report.is_sound() {
            return Err(format!("in peace verify finds {:?}", report.damage));
        }
        Ok(())
    }
}

/// Few pieces that all contents are put together from, so that agents meet in the same chunks.
#[derive(Debug)]
pub(crate) struct Contents {
    pieces: Vec<Bytes>,
    /// Rarely taken: longer than a pack.
    long: Bytes,
}

const PIECES: u64 = 8;

impl Contents {
    fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed, 3);
        let noise = |random: &mut Random, len| {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes);
            Bytes::from(bytes)
        };
        let pieces = (0..PIECES).map(|_| {
            let len = 300 + random.below(1200) as usize;
            noise(random, len)
        });
        Self {
            pieces: pieces.collect(),
            long: noise(&mut Random::new(seed, 10), 150 << 10),
        }
    }

    pub(crate) fn draw_one(&self, random: &mut Random) -> Bytes {
        random.one_of(&self.pieces).clone()
    }

    pub(crate) fn draw(&self, random: &mut Random) -> Content {
        let mut content = Vec::new();
        if random.below(32) == 0 {
            content.extend_from_slice(&self.long);
        }
        for _ in 0..random.below(7) {
            content.extend_from_slice(&self.draw_one(random));
        }
        content.into()
    }
}
