//! Snapshots are given up and taken back, by several agents at once.

use backup::{
    Error, Forget, ForgetOptions, Repository, RetentionPolicy, RetentionRules, SessionId, forget,
    hold, release, unforget,
};

use super::action::{Broken, judge};
use super::random::Random;
use super::scenario::Run;

/// A decision about snapshots.
#[derive(Debug)]
pub(crate) enum Decide {
    Forget(SessionId),
    ForgetByPolicy { keep_last: u32 },
    Unforget(SessionId),
    Hold(SessionId),
    Release(SessionId),
}

impl Decide {
    pub(crate) fn draw(run: &Run, random: &mut Random) -> Option<Self> {
        let tried = run.model.acked();
        if tried.is_empty() {
            return None;
        }
        let one = *random.one_of(&tried);
        Some(match random.below(20) {
            0..9 => Self::Forget(one),
            9..11 => Self::ForgetByPolicy {
                keep_last: 1 + random.below(4) as u32,
            },
            11..16 => {
                let dropped = run.model.dropped();
                match dropped.is_empty() {
                    true => return None,
                    false => Self::Unforget(*random.one_of(&dropped)),
                }
            }
            16..18 => Self::Hold(one),
            _ => Self::Release(one),
        })
    }

    pub(crate) async fn perform(
        self,
        run: &Run,
        repo: &Repository,
        random: &mut Random,
    ) -> Result<(), Broken> {
        let mut options = ForgetOptions::default();
        options.force = random.below(4) == 0;
        options.forget_percent_max = 100;
        let (verb, done) = match self {
            Self::Forget(id) => {
                let these = Forget::These(vec![id]);
                (
                    "forget",
                    give_up(run, repo, (&these, vec![id]), &options).await,
                )
            }
            Self::ForgetByPolicy { keep_last } => {
                let mut policy = RetentionPolicy::default();
                policy.keep_last = keep_last;
                let mut rules = RetentionRules::default();
                rules.default = policy;
                let (what, all) = (Forget::ByPolicy(rules), run.model.acked());
                (
                    "forget by policy",
                    give_up(run, repo, (&what, all), &options).await,
                )
            }
            Self::Unforget(id) => {
                let promise = run.model.begin_keep(id);
                let done = unforget(repo, &id).await;
                if done.is_ok() {
                    run.model.end_keep(id, promise);
                }
                ("unforget", done.map(drop))
            }
            Self::Hold(id) => {
                let promise = run.model.begin_keep(id);
                let done = hold(repo, &id).await;
                if done.is_ok() {
                    run.model.end_keep(id, promise);
                }
                ("hold", done.map(drop))
            }
            Self::Release(id) => ("release", release(repo, &id).await.map(drop)),
        };
        let refused = matches!(
            done,
            Err(Error::LastSnapshot { .. }
                | Error::SnapshotHeld { .. }
                | Error::SnapshotDropped { .. }
                | Error::SnapshotNotFound { .. })
        );
        match refused {
            true => Ok(()),
            false => judge(run, verb, done),
        }
    }
}

/// Nothing is promised of what may be given up until it is known what was.
async fn give_up(
    run: &Run,
    repo: &Repository,
    (what, may_go): (&Forget, Vec<SessionId>),
    options: &ForgetOptions,
) -> Result<(), Error> {
    run.model.begin_forget(&may_go);
    let report = match forget(repo, what, options).await {
        Ok(report) => report,
        // Refused before anything was decided.
        Err(error @ (Error::LastSnapshot { .. } | Error::SnapshotHeld { .. })) => {
            run.model.end_forget(&may_go, &[]);
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    // Whatever somebody else decided meanwhile may be that it goes.
    let gone = [report.forgotten, report.overtaken].concat();
    run.model.end_forget(&may_go, &gone);
    Ok(())
}
