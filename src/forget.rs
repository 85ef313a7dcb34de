//! Gives snapshots up, by policy or by name; takes that back within the time to think again; holds snapshots.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use backup_core::SessionId;
use backup_manifest::{
    Cell, Decision, Kept, ObjectName, RetentionPlan, RetentionRules, RetentionSnapshot,
    SNAPSHOTS_PREFIX, SnapshotManifest, Verdict, plan_retention,
};
use futures::stream::{self, StreamExt};

use crate::repository::decisions::{Fate, decide, read_all_fates, read_fate, verdict_of};
use crate::repository::documents::read_cell;
use crate::repository::load_index::list;
use crate::{Error, Repository};

/// Which snapshots are given up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Forget {
    /// Those that a policy does not keep.
    ByPolicy(RetentionRules),
    /// These.
    These(Vec<SessionId>),
}

/// How snapshots are given up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ForgetOptions {
    /// Change nothing; report what would be done.
    pub dry_run: bool,
    /// A policy looks at the snapshots of this source alone.
    pub source: Option<String>,
    /// A policy that gives up more than this share of a source's snapshots is refused, in percent.
    pub forget_percent_max: u8,
    /// Give up although that is much, and by name also the last complete snapshot of a source.
    pub force: bool,
    /// Why, for people.
    pub reason: String,
}

impl Default for ForgetOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            source: None,
            forget_percent_max: 75,
            force: false,
            reason: String::new(),
        }
    }
}

/// What became of the snapshots, or, of a dry run, would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgetReport {
    /// Snapshots that stay, and why; by policy only.
    pub kept: Vec<Kept>,
    /// Snapshots that are given up now. `gc` drops them when the time to think again is over.
    pub forgotten: Vec<SessionId>,
    /// Snapshots about which somebody else decided meanwhile: look again.
    pub overtaken: Vec<SessionId>,
}

/// Gives snapshots up. They are listed no more, and stay until [`gc`](crate::gc) drops them.
///
/// A policy goes by the times at which the store received the snapshots, never by what their makers say. It never gives up
/// the newest complete snapshot of a source, nor one that is held.
///
/// # Errors
/// [`Error::TooMuch`] when a policy would give up more than allowed, [`Error::LastSnapshot`], [`Error::SnapshotHeld`],
/// [`Error::SnapshotNotFound`] by name: nothing was given up then. [`Error::Retention`] for a policy that keeps nothing.
pub async fn forget(
    repo: &Repository,
    what: &Forget,
    options: &ForgetOptions,
) -> Result<ForgetReport, Error> {
    let known = Known::read(repo).await?;
    let (kept, going) = match what {
        Forget::ByPolicy(rules) => {
            let plan = known.plan(repo, rules, options)?;
            (plan.keep, plan.drop)
        }
        Forget::These(ids) => {
            known.check_these(ids, options)?;
            (Vec::new(), ids.clone())
        }
    };
    let mut report = ForgetReport {
        kept,
        ..ForgetReport::default()
    };
    let decision = Decision {
        verdict: Verdict::Forget,
        reason: options.reason.clone(),
        decided_ns: repo.env().clock.now_ns(),
        even_the_last: options.force && matches!(what, Forget::These(_)),
    };
    for id in going {
        let fate = known.fates.get(&id).unwrap_or(&Fate::Undecided);
        if options.dry_run || decide(repo, &id, fate, &decision).await?.is_some() {
            report.forgotten.push(id);
        } else {
            report.overtaken.push(id);
        }
    }
    Ok(report)
}

/// Takes a snapshot back that was given up and is not yet dropped. One that was not given up stays as it is. Says whether
/// anything changed.
///
/// # Errors
/// [`Error::SnapshotDropped`] when it is too late, [`Error::SnapshotNotFound`].
pub async fn unforget(repo: &Repository, snapshot: &SessionId) -> Result<bool, Error> {
    change(repo, snapshot, Verdict::Keep, &[Verdict::Forget]).await
}

/// Holds a snapshot: nothing gives it up until it is [released](release). One that was given up comes back. Says whether
/// anything changed.
///
/// # Errors
/// [`Error::SnapshotDropped`] when it is too late, [`Error::SnapshotNotFound`].
pub async fn hold(repo: &Repository, snapshot: &SessionId) -> Result<bool, Error> {
    change(
        repo,
        snapshot,
        Verdict::Hold,
        &[Verdict::Forget, Verdict::Keep],
    )
    .await
}

/// Ends a hold. Says whether anything changed.
///
/// # Errors
/// [`Error::SnapshotDropped`], [`Error::SnapshotNotFound`].
pub async fn release(repo: &Repository, snapshot: &SessionId) -> Result<bool, Error> {
    change(repo, snapshot, Verdict::Keep, &[Verdict::Hold]).await
}

/// The last decision about each snapshot of which anything was decided: which are held, which were given up, when and why.
/// Those that are dropped for good are not among them.
///
/// # Errors
/// Whatever the store says; [`Error::Damaged`] for a decision that cannot be opened.
pub async fn decisions(repo: &Repository) -> Result<BTreeMap<SessionId, Decision>, Error> {
    let fates = read_all_fates(repo).await?.into_iter();
    Ok(fates
        .filter_map(|(id, fate)| match fate {
            Fate::Decided(_, decision) if decision.verdict != Verdict::Drop => Some((id, decision)),
            _ => None,
        })
        .collect())
}

/// How often somebody else may decide first before this gives up.
const TRIES_MAX: u32 = 16;

/// Decides on a snapshot whose last decision is one of `from`.
async fn change(
    repo: &Repository,
    snapshot: &SessionId,
    to: Verdict,
    from: &[Verdict],
) -> Result<bool, Error> {
    let not_found = || Error::SnapshotNotFound {
        name: snapshot.to_string(),
    };
    match read_cell(repo, snapshot).await {
        Ok((Cell::Snapshot(_), _)) => {}
        Ok((Cell::Aborted, _)) => return Err(not_found()),
        Err(error) if error.is_not_found() => return Err(not_found()),
        Err(error) => return Err(error),
    }
    let decision = Decision {
        verdict: to,
        reason: String::new(),
        decided_ns: repo.env().clock.now_ns(),
        even_the_last: false,
    };
    let dropped = Error::SnapshotDropped {
        snapshot: *snapshot,
    };
    for _ in 0..TRIES_MAX {
        let fate = read_fate(repo, snapshot).await?;
        let verdict = fate.verdict();
        if verdict == Verdict::Drop {
            return Err(dropped);
        }
        if !from.contains(&verdict) {
            return Ok(false);
        }
        if decide(repo, snapshot, &fate, &decision).await?.is_some() {
            // A drop may have been decided and its entry tidied up, so that our number was free once more.
            return match read_fate(repo, snapshot).await? {
                Fate::Gone => Err(dropped),
                _ => Ok(true),
            };
        }
    }
    Err(Error::suspicious(format!(
        "others decide about snapshot {snapshot} all the time"
    )))
}

/// What is known of the snapshots there are.
struct Known {
    snapshots: Vec<(SnapshotManifest, Option<SystemTime>)>,
    fates: BTreeMap<SessionId, Fate>,
}

/// Cells read at once.
const READS_MAX: usize = 16;

impl Known {
    async fn read(repo: &Repository) -> Result<Self, Error> {
        let fates = read_all_fates(repo).await?;
        let gone = |id: &SessionId| verdict_of(&fates, id) == Verdict::Drop;
        let objects = list(repo, SNAPSHOTS_PREFIX).await?;
        let mut cells = Vec::new();
        for object in objects {
            match object.key.as_str().parse() {
                Ok(ObjectName::Snapshot(id)) if !gone(&id) => cells.push((id, object.modified)),
                _ => {}
            }
        }
        let mut reads = stream::iter(cells)
            .map(|(id, received)| async move { (read_cell(repo, &id).await, received) })
            .buffered(READS_MAX);
        let mut snapshots = Vec::new();
        while let Some((read, received)) = reads.next().await {
            if let (Cell::Snapshot(manifest), _) = read? {
                snapshots.push((manifest, received));
            }
        }
        drop(reads);
        Ok(Self { snapshots, fates })
    }

    fn verdict(&self, id: &SessionId) -> Verdict {
        verdict_of(&self.fates, id)
    }

    fn plan(
        &self,
        repo: &Repository,
        rules: &RetentionRules,
        options: &ForgetOptions,
    ) -> Result<RetentionPlan, Error> {
        let mut facts = Vec::new();
        for (manifest, received) in &self.snapshots {
            let verdict = self.verdict(&manifest.session);
            let is_other = |source: &String| *source != manifest.source;
            if verdict == Verdict::Forget || options.source.as_ref().is_some_and(is_other) {
                continue;
            }
            facts.push(RetentionSnapshot {
                id: manifest.session,
                source: manifest.source.clone(),
                tags: manifest.tags.clone(),
                complete: manifest.complete,
                received_ns: nanoseconds(received.ok_or(Error::NoTimes)?),
                held: verdict == Verdict::Hold,
            });
        }
        let plan = plan_retention(rules, &facts, repo.env().clock.now_ns())?;
        for (source, counts) in &plan.sources {
            let percent = counts.drop_percent();
            if percent > options.forget_percent_max && !options.force {
                return Err(Error::TooMuch {
                    source_name: source.clone(),
                    percent,
                    percent_max: options.forget_percent_max,
                });
            }
        }
        Ok(plan)
    }

    /// Whether these may be given up. Without force, each source keeps a complete one.
    fn check_these(&self, ids: &[SessionId], options: &ForgetOptions) -> Result<(), Error> {
        for id in ids {
            let found = self.snapshots.iter().find(|(m, _)| m.session == *id);
            let Some((manifest, _)) = found.filter(|_| self.verdict(id) != Verdict::Forget) else {
                return Err(Error::SnapshotNotFound {
                    name: id.to_string(),
                });
            };
            if self.verdict(id) == Verdict::Hold {
                return Err(Error::SnapshotHeld { snapshot: *id });
            }
            let another = |(other, _): &(SnapshotManifest, Option<SystemTime>)| {
                other.source == manifest.source
                    && other.complete
                    && !ids.contains(&other.session)
                    && self.verdict(&other.session) != Verdict::Forget
            };
            if manifest.complete && !options.force && !self.snapshots.iter().any(another) {
                return Err(Error::LastSnapshot { snapshot: *id });
            }
        }
        Ok(())
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let of = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => of(after),
        Err(before) => -of(before.duration()),
    }
}
