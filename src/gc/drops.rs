//! Which forgotten snapshots are gone for good from now on.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{SessionId, SourceTag};
use backup_manifest::{Decision, Verdict, gone_key};
use bytes::Bytes;

use crate::Error;
use crate::gc::Collector;
use crate::gc::inventory::Inventory;
use crate::gc::mark::{CellFacts, Marker};
use crate::repository::decisions::{Fate, decide, read_decision};

/// What is given up for good.
pub(crate) struct Drops {
    /// Snapshots that are dropped.
    dropped: BTreeSet<SessionId>,
    /// Forgotten ones whose time is over: they are about to be dropped.
    over: BTreeMap<SessionId, Fate>,
}

impl Drops {
    pub(crate) fn contains(&self, id: &SessionId) -> bool {
        self.dropped.contains(id) || self.over.contains_key(id)
    }
}

impl Collector<'_> {
    /// Reads all cells, and looks which forgotten snapshots have had their time. Nothing is decided yet: a run that then
    /// refuses to go on has taken nothing from anybody.
    pub(crate) async fn drops(
        &mut self,
        inventory: &Inventory,
        marker: &mut Marker<'_>,
    ) -> Result<Drops, Error> {
        let mut dropped = BTreeSet::new();
        let mut over = BTreeMap::new();
        let mut forgotten = BTreeSet::new();
        let mut until = None;
        for (id, decisions) in &inventory.decisions {
            let Some(number) = decisions
                .numbers
                .iter()
                .max()
                .filter(|_| !decisions.is_gone)
            else {
                dropped.insert(*id);
                continue;
            };
            let fate = read_decision(self.repo, id, *number).await?;
            match fate.verdict() {
                Verdict::Keep | Verdict::Hold => {}
                Verdict::Drop => {
                    self.mark_gone(id).await?;
                    dropped.insert(*id);
                }
                Verdict::Forget => {
                    forgotten.insert(*id);
                    let age = self.clock.age(decisions.modified);
                    if age >= Some(self.options.undelete_window) {
                        over.insert(*id, fate);
                    } else if let Some(age) = age {
                        let left = self.options.undelete_window.saturating_sub(age);
                        until = until.into_iter().chain([left]).min();
                    }
                }
            }
        }
        let cells = inventory.cells.iter().map(|(id, _)| *id);
        marker
            .read_cells(cells.filter(|id| !dropped.contains(id)))
            .await?;
        let last = last_of_their_sources(inventory, marker, &dropped, &forgotten);
        self.report.undelete_until = until.and_then(|left| self.clock.now().checked_add(left));
        self.report.snapshots_last = 0;
        over.retain(|id, fate| {
            let even_the_last =
                matches!(fate, Fate::Decided(_, decision) if decision.even_the_last);
            let stays = last.contains(id) && !even_the_last;
            self.report.snapshots_last += u64::from(stays);
            !stays
        });
        self.report.snapshots_forgotten = (forgotten.len() - over.len()) as u64;
        Ok(Drops { dropped, over })
    }

    /// Drops the snapshots whose time is over; `false` if somebody had one back meanwhile, so that it has to be marked.
    ///
    /// A drop is one more entry in the snapshot's log of decisions. Whoever wants the snapshot back writes an entry of the
    /// same number, so exactly one of the two happens, however long either of them slept.
    pub(crate) async fn carry_out_drops(&mut self, drops: &Drops) -> Result<bool, Error> {
        let mut are_all = true;
        for (id, fate) in &drops.over {
            if self.drop_snapshot(id, fate).await? {
                self.report.snapshots_dropped.push(*id);
            } else {
                are_all = false;
            }
        }
        Ok(are_all)
    }

    async fn drop_snapshot(&self, id: &SessionId, fate: &Fate) -> Result<bool, Error> {
        if self.options.dry_run {
            return Ok(true);
        }
        let decision = Decision {
            verdict: Verdict::Drop,
            reason: "the time to think again is over".into(),
            decided_ns: self.repo.env().clock.now_ns(),
            even_the_last: false,
        };
        let Fate::Decided(number, _) = fate else {
            return Ok(false);
        };
        let is_dropped = match decide(self.repo, id, fate, &decision).await? {
            Some(_) => true,
            // Another collector, or somebody who wants it back.
            None => {
                let found = read_decision(self.repo, id, number + 1).await?;
                found.verdict() == Verdict::Drop
            }
        };
        if is_dropped {
            self.mark_gone(id).await?;
        }
        Ok(is_dropped)
    }

    /// So that listings alone tell it. The drop was decided before.
    async fn mark_gone(&self, id: &SessionId) -> Result<(), Error> {
        if !self.options.dry_run {
            let name = gone_key(id);
            self.repo.create_unless_there(&name, Bytes::new()).await?;
        }
        Ok(())
    }
}

/// The newest complete snapshot of each source that would have none left, were all that is forgotten dropped: two policies,
/// applied one after the other, may each have kept what the other forgot.
fn last_of_their_sources(
    inventory: &Inventory,
    marker: &Marker<'_>,
    dropped: &BTreeSet<SessionId>,
    forgotten: &BTreeSet<SessionId>,
) -> BTreeSet<SessionId> {
    let mut newest: BTreeMap<SourceTag, (bool, Option<std::time::SystemTime>, SessionId)> =
        BTreeMap::new();
    for (id, received) in &inventory.cells {
        let is_complete = matches!(
            marker.cells.get(id),
            Some(CellFacts::Snapshot { complete: true, .. })
        );
        if !is_complete || dropped.contains(id) {
            continue;
        }
        let candidate = (!forgotten.contains(id), *received, *id);
        let entry = newest.entry(id.tag()).or_insert(candidate);
        *entry = (*entry).max(candidate);
    }
    let forgotten = newest.into_values().filter(|(stays, ..)| !stays);
    forgotten.map(|(_, _, id)| id).collect()
}
