//! The rounds of collection that there were, as writers and collectors see them.

use std::collections::BTreeMap;

use backup_backend::ObjectMeta;
use backup_core::{DocumentKind, PackId};
use backup_manifest::{GC_PREFIX, GcPlan, ObjectName, gc_final_key, gc_plan_key};

use crate::repository::documents::open;
use crate::repository::load_index::list;
use crate::{Error, Repository};

/// Which objects of a round there are.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) plan: bool,
    pub(crate) last: bool,
    pub(crate) done: bool,
}

/// All rounds, by number.
#[derive(Debug, Default)]
pub(crate) struct GcLog(BTreeMap<u64, Round>);

impl GcLog {
    pub(crate) async fn list(repo: &Repository) -> Result<Self, Error> {
        Ok(Self::from_objects(&list(repo, GC_PREFIX).await?))
    }

    pub(crate) fn from_objects(objects: &[ObjectMeta]) -> Self {
        let mut log = Self::default();
        for object in objects {
            if let Ok(name) = object.key.as_str().parse() {
                log.add(&name);
            }
        }
        log
    }

    /// Takes in an object of a round; others are left out.
    pub(crate) fn add(&mut self, name: &ObjectName) {
        match name {
            ObjectName::GcPlan(round) => self.0.entry(*round).or_default().plan = true,
            ObjectName::GcFinal(round) => self.0.entry(*round).or_default().last = true,
            ObjectName::GcDone(round) => self.0.entry(*round).or_default().done = true,
            _ => {}
        }
    }

    /// The newest round, 0 if there was none.
    pub(crate) fn newest(&self) -> (u64, Round) {
        let newest = self.0.last_key_value();
        newest.map_or((0, Round::default()), |(number, round)| (*number, *round))
    }

    pub(crate) fn has_done(&self) -> bool {
        self.0.values().any(|round| round.done)
    }

    /// The rounds after `known`, oldest first.
    pub(crate) fn after(&self, known: u64) -> impl Iterator<Item = (u64, Round)> + '_ {
        let rounds = self.0.iter().filter(move |(number, _)| **number > known);
        rounds.map(|(number, round)| (*number, *round))
    }

    /// The packs not to be relied on: of every round that is not done, those of its final list, or else of its plan.
    pub(crate) async fn condemned(&self, repo: &Repository) -> Result<Vec<PackId>, Error> {
        let mut condemned = Vec::new();
        for (number, round) in self.after(0) {
            let name = match round {
                Round { done: true, .. } => continue,
                Round { last: true, .. } => gc_final_key(number),
                Round { plan: true, .. } => gc_plan_key(number),
                Round { .. } => continue,
            };
            condemned.extend(read_plan(repo, number, &name).await?.condemned);
        }
        Ok(condemned)
    }
}

/// Reads the plan or the final list of a round.
pub(crate) async fn read_plan(repo: &Repository, round: u64, name: &str) -> Result<GcPlan, Error> {
    let plain = open(repo, DocumentKind::GcPlan, name, &repo.get(name).await?)?;
    let plan = GcPlan::decode(&plain).map_err(|e| Error::damaged(name, e))?;
    if plan.round != round {
        return Err(Error::damaged(name, "it is of another round"));
    }
    Ok(plan)
}
