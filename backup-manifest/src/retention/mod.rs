mod calendar;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use backup_core::SessionId;
use thiserror::Error;

use calendar::Bucket;
pub use policy::{RetentionPolicy, RetentionRules};

/// What a plan has to know of a snapshot.
///
/// Ones that are given up already are not to be among them: they would stand for others in the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "written as a literal; a caller has to think of each field"
)]
pub struct RetentionSnapshot {
    /// The snapshot.
    pub id: SessionId,
    /// The name of its source.
    pub source: String,
    /// Its labels.
    pub tags: Vec<String>,
    /// Whether everything asked for is in it.
    pub complete: bool,
    /// When the store received its cell, in nanoseconds since 1970 by the store's clock; not what the writer says.
    pub received_ns: i64,
    /// Whether somebody forbade giving it up.
    pub held: bool,
}

/// What becomes of each snapshot: every one is either in `keep` or in `drop`, once.
///
/// Both are ordered by the name of the source, then by the time received, then by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RetentionPlan {
    /// What stays, and why.
    pub keep: Vec<Kept>,
    /// What is to be given up.
    pub drop: Vec<SessionId>,
    /// How many stay and go, by source.
    pub sources: BTreeMap<String, RetentionCounts>,
}

/// A snapshot that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// The snapshot.
    pub id: SessionId,
    /// The name of its source.
    pub source: String,
    /// Every reason, at least one, in the order of [`KeepReason`].
    pub reasons: Vec<KeepReason>,
}

/// How many snapshots stay and go, complete and partial ones alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RetentionCounts {
    /// How many stay.
    pub kept: u64,
    /// How many go.
    pub dropped: u64,
}

/// Why a snapshot stays. `Display` gives a word or three for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeepReason {
    /// It is the newest complete one of its source, which no policy gives up.
    NewestComplete,
    /// Its source has no complete one, and it is the newest partial one.
    NewestPartial,
    /// It is partial and newer than the newest complete one.
    NewerThanComplete,
    /// Somebody forbade giving it up.
    Held,
    /// It has one of the labels.
    Tagged,
    /// It was received recently enough.
    Within,
    /// It is among the newest complete ones.
    Last,
    /// It is the newest complete one of its hour.
    Hourly,
    /// It is the newest complete one of its day.
    Daily,
    /// It is the newest complete one of its week.
    Weekly,
    /// It is the newest complete one of its month.
    Monthly,
    /// It is the newest complete one of its year.
    Yearly,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// The policy for a source has no rule that keeps anything.
    #[error("the policy for source {source_name:?} keeps nothing")]
    EmptyPolicy {
        /// The name of the source.
        source_name: String,
    },
    /// A snapshot is there twice: whoever listed them made a mistake, and the counts would be wrong.
    #[error("snapshot {id} is there twice")]
    DuplicateSnapshot {
        /// The snapshot.
        id: SessionId,
    },
}

/// Decides what becomes of each of `snapshots`, source by source, whatever order they come in. Nothing is given up here.
///
/// Complete snapshots stay by count ([`RetentionPolicy::keep_last`]), as the newest of their hour, day, week, month or
/// year, by age and by label. Partial ones count for nothing: they stay by age, by label, and while they are newer than
/// the newest complete one. What is held stays, and so does the newest complete one of each source, whatever the policy.
///
/// Times are those at which the store received the cells. What a writer says of its own time decides nothing: forged
/// times can neither push honest snapshots out nor make their own last for ever.
///
/// `now_ns` is nanoseconds since 1970, best by the same clock, and serves [`RetentionPolicy::within`] alone. A time
/// received after `now_ns` is recent. Of two received at the same time the one with the greater id is newer.
///
/// Whoever can write under the name of a source can take the newest places: those of `keep_last`, and of the present
/// hour, day and so on. Places of earlier days are out of reach. A caller should look at
/// [`RetentionPlan::drop_percent`] and refuse a plan that gives up much more than usual.
///
/// # Errors
/// [`RetentionError`]: a source that occurs has an empty policy, or a snapshot occurs twice.
pub fn plan_retention(
    rules: &RetentionRules,
    snapshots: &[RetentionSnapshot],
    now_ns: i64,
) -> Result<RetentionPlan, RetentionError> {
    let mut ids = BTreeSet::new();
    let mut sources: BTreeMap<&str, Vec<&RetentionSnapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        if !ids.insert(snapshot.id) {
            return Err(RetentionError::DuplicateSnapshot { id: snapshot.id });
        }
        sources.entry(&snapshot.source).or_default().push(snapshot);
    }
    let mut plan = RetentionPlan::default();
    for (source, mut snapshots) in sources {
        let policy = rules.policy(source);
        if policy.is_empty() {
            return Err(RetentionError::EmptyPolicy {
                source_name: source.to_owned(),
            });
        }
        snapshots.sort_unstable_by_key(|snapshot| (snapshot.received_ns, snapshot.id));
        plan.add_source(source, policy, &snapshots, now_ns);
    }
    Ok(plan)
}

impl RetentionPlan {
    /// Which part of all snapshots is to be given up: see [`RetentionCounts::drop_percent`].
    ///
    /// One source among many hardly shows in it; [`RetentionPlan::sources`] has the same for each.
    pub fn drop_percent(&self) -> u8 {
        let total = self
            .sources
            .values()
            .fold(RetentionCounts::default(), |sum, counts| RetentionCounts {
                kept: sum.kept + counts.kept,
                dropped: sum.dropped + counts.dropped,
            });
        total.drop_percent()
    }

    /// `snapshots` are all of one source, from oldest to newest.
    fn add_source(
        &mut self,
        source: &str,
        policy: &RetentionPolicy,
        snapshots: &[&RetentionSnapshot],
        now_ns: i64,
    ) {
        let mut counts = RetentionCounts::default();
        for (snapshot, reasons) in snapshots.iter().zip(reasons(policy, snapshots, now_ns)) {
            if reasons.is_empty() {
                counts.dropped += 1;
                self.drop.push(snapshot.id);
            } else {
                counts.kept += 1;
                self.keep.push(Kept {
                    id: snapshot.id,
                    source: source.to_owned(),
                    reasons: reasons.into_iter().collect(),
                });
            }
        }
        self.sources.insert(source.to_owned(), counts);
    }
}

impl RetentionCounts {
    /// Which part is to be given up, in percent of all, complete and partial ones alike: 0 to 100, rounded up.
    ///
    /// 0 means that nothing is given up, 100 that more than 99 of 100 are: at 100 something may still stay.
    pub fn drop_percent(&self) -> u8 {
        let (kept, dropped) = (u128::from(self.kept), u128::from(self.dropped));
        let percent = (dropped * 100).div_ceil((kept + dropped).max(1));
        u8::try_from(percent).unwrap_or(100)
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NewestComplete => "newest complete",
            Self::NewestPartial => "newest partial",
            Self::NewerThanComplete => "newer than complete",
            Self::Held => "held",
            Self::Tagged => "tagged",
            Self::Within => "within",
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

/// Why each of `snapshots` stays; they are of one source, from oldest to newest.
fn reasons(
    policy: &RetentionPolicy,
    snapshots: &[&RetentionSnapshot],
    now_ns: i64,
) -> Vec<BTreeSet<KeepReason>> {
    let mut reasons: Vec<BTreeSet<KeepReason>> = snapshots
        .iter()
        .map(|snapshot| own_reasons(policy, snapshot, now_ns))
        .collect();
    let mut add = |index: usize, reason| {
        if let Some(reasons) = reasons.get_mut(index) {
            reasons.insert(reason);
        }
    };
    let complete: Vec<(usize, i64)> = snapshots
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, snapshot)| snapshot.complete)
        .map(|(index, snapshot)| (index, snapshot.received_ns))
        .collect();
    if let Some((newest, _)) = complete.first() {
        add(*newest, KeepReason::NewestComplete);
        (newest + 1..snapshots.len()).for_each(|index| add(index, KeepReason::NewerThanComplete));
    } else {
        add(snapshots.len().saturating_sub(1), KeepReason::NewestPartial);
    }
    for (index, _) in complete.iter().take(policy.keep_last as usize) {
        add(*index, KeepReason::Last);
    }
    for (count_max, bucket, reason) in [
        (policy.hourly, Bucket::Hour, KeepReason::Hourly),
        (policy.daily, Bucket::Day, KeepReason::Daily),
        (policy.weekly, Bucket::Week, KeepReason::Weekly),
        (policy.monthly, Bucket::Month, KeepReason::Monthly),
        (policy.yearly, Bucket::Year, KeepReason::Yearly),
    ] {
        let (mut count, mut last) = (0, None);
        for (index, received_ns) in &complete {
            let number = bucket.number(*received_ns);
            if last == Some(number) {
                continue;
            }
            if count == count_max {
                break;
            }
            (count, last) = (count + 1, Some(number));
            add(*index, reason);
        }
    }
    reasons
}

/// Why a snapshot stays that has nothing to do with others.
fn own_reasons(
    policy: &RetentionPolicy,
    snapshot: &RetentionSnapshot,
    now_ns: i64,
) -> BTreeSet<KeepReason> {
    let tagged = snapshot.tags.iter().any(|tag| policy.tags.contains(tag));
    // The difference of two i64 fits; one that is negative is a time to come.
    let age_ns = u128::try_from(i128::from(now_ns) - i128::from(snapshot.received_ns)).unwrap_or(0);
    let within = policy
        .within
        .is_some_and(|within| age_ns <= within.as_nanos());
    [
        (snapshot.held, KeepReason::Held),
        (tagged, KeepReason::Tagged),
        (within, KeepReason::Within),
    ]
    .into_iter()
    .filter_map(|(applies, reason)| applies.then_some(reason))
    .collect()
}
