//! What a run does, round by round: what others left open, its own round, and one more after packing anew.

use std::collections::HashSet;

use backup_core::{ChunkKind, SessionId, ShortId};
use backup_manifest::{
    GcPlan, SESSIONS_PREFIX, gc_plan_key, session_ack_key, session_beat_key, session_open_key,
};

use crate::env::{blocking, buggify};
use crate::gc::Collector;
use crate::gc::choose::{Choice, Facts};
use crate::gc::drops::Drops;
use crate::gc::inventory::{Inventory, list_sessions};
use crate::gc::mark::{CellFacts, Marker};
use crate::gc::places::Places;
use crate::gc::round::create_plan;
use crate::gc::segments::{self, SMALL_MAX};
use crate::gc::sort::Sorted;
use crate::repository::gc_log::read_plan;
use crate::{Error, Event};

/// How often a run looks again when what it saw does not fit together: packs appear while others are listed.
const LOOKS_MAX: u32 = 3;

/// Rounds that one run carries out at most: those that others left open or begin meanwhile, and its own.
const ROUNDS_MAX: u32 = 16;

/// So many sessions that have ended are left in the store before a round of its own tidies them up.
const ENDED_SESSIONS_MAX: usize = 16;

/// What one look at the repository showed.
pub(crate) struct Marked {
    pub(crate) inventory: Inventory,
    pub(crate) places: Places,
    pub(crate) refs: Sorted<16>,
    pub(crate) choice: Choice,
    /// Numbers of packs that nothing needs.
    pub(crate) useless: Vec<u32>,
    pub(crate) commits: Vec<SessionId>,
    pub(crate) drops: Drops,
}

/// Whether another collector may have been at work between two requests of ours.
fn may_be_moved(error: &Error) -> bool {
    matches!(error, Error::Suspicious { .. }) || error.is_moved()
}

impl Collector<'_> {
    pub(crate) async fn rounds(&mut self, marker: &mut Marker<'_>) -> Result<(), Error> {
        let mut looks = 0;
        let mut may_repack = self.options.repack_len_max > 0;
        for _ in 0..ROUNDS_MAX {
            self.observer.event(&Event::Step { name: "listing" });
            let inventory = Inventory::take(self.repo).await?;
            let open = inventory
                .sessions
                .iter()
                .filter(|(_, session)| session.is_open);
            self.seen_open = open
                .map(|(id, _)| *id)
                .filter(|id| !inventory.has_cell(id))
                .collect();
            let (newest, round) = inventory.log.newest();
            if newest > 0 && !round.done && !self.options.dry_run {
                let plan = read_plan(self.repo, newest, &gc_plan_key(newest)).await?;
                self.carry_out(&plan, marker).await?;
                if !self.report.undeletable.is_empty() {
                    return Ok(());
                }
                continue;
            }
            buggify("gc: listed, before the mark").await;
            let marked = match self.mark(inventory, marker).await {
                Err(error) if may_be_moved(&error) && looks + 1 < LOOKS_MAX => {
                    looks += 1;
                    continue;
                }
                other => other?,
            };
            // After all that could speak against going on, before anything that only they need is condemned.
            if !self.carry_out_drops(&marked.drops).await? {
                continue;
            }
            if self.options.dry_run {
                return self.report_plan(&marked);
            }
            let is_ours = self.round(&marked, newest + 1, marker).await?;
            if !is_ours {
                // Somebody else's plan was first: it has been carried out, ours is worth nothing.
                continue;
            }
            if may_repack && self.report.undeletable.is_empty() && self.repack(marked).await? {
                may_repack = false;
                continue;
            }
            return Ok(());
        }
        Ok(())
    }

    /// Looks what is needed and what is not. The round's number was fixed before, by the log in the inventory.
    async fn mark(
        &mut self,
        inventory: Inventory,
        marker: &mut Marker<'_>,
    ) -> Result<Marked, Error> {
        self.observer.event(&Event::Step { name: "marking" });
        let drops = self.drops(&inventory, marker).await?;
        self.check_roster(&inventory, marker).await?;
        let commits: Vec<SessionId> = inventory
            .cells
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| !matches!(marker.cells.get(id), Some(CellFacts::Aborted)))
            .collect();
        let live: Vec<SessionId> = commits
            .iter()
            .filter(|id| !drops.contains(id))
            .copied()
            .collect();
        self.report.snapshots = live.len() as u64;
        let places = self.places(&inventory).await?;
        let is_empty = live.is_empty();
        let refs = marker.mark(&places.lists, live).await?;
        let facts = inventory.packs.iter().map(|pack| Facts {
            is_damaged: inventory.damaged.contains(&pack.id),
            modified: pack.modified,
        });
        let facts: Vec<Facts> = facts.collect();
        let sorted = places.sorted;
        let (choice, sorted, refs) = blocking(move || {
            let choice = Choice::make(&sorted, &refs, &facts);
            choice.map(|choice| (choice, sorted, refs))
        })
        .await??;
        let places = Places { sorted, ..places };
        self.check_missing(&choice)?;
        let useless = self.useless(&inventory, &places, &choice);
        self.check_share(&inventory, &useless, is_empty)?;
        Ok(Marked {
            inventory,
            places,
            refs,
            choice,
            useless,
            commits,
            drops,
        })
    }

    /// What was there in an earlier round, or is named by what is there, must be listed now: a cell that is hidden would
    /// lose all that it needs.
    async fn check_roster(&self, inventory: &Inventory, marker: &Marker<'_>) -> Result<(), Error> {
        if self.options.force {
            return Ok(());
        }
        let (newest, round) = inventory.log.newest();
        if round.plan {
            let plan = read_plan(self.repo, newest, &gc_plan_key(newest)).await?;
            if let Some(id) = plan.covered.iter().find(|id| !inventory.has_cell(id)) {
                return Err(Error::suspicious(format!(
                    "snapshot {id} was there in round {newest} and is not listed: is the listing complete?"
                )));
            }
        }
        for (id, facts) in &marker.cells {
            if let CellFacts::Snapshot {
                previous: Some(previous),
                ..
            } = facts
                && !inventory.has_cell(previous)
            {
                return Err(Error::suspicious(format!(
                    "snapshot {previous}, which {id} names as the one before it, is not listed: is the listing complete?"
                )));
            }
        }
        Ok(())
    }

    fn check_missing(&self, choice: &Choice) -> Result<(), Error> {
        match choice.first_missing {
            Some(id) if !self.options.force => Err(Error::suspicious(format!(
                "{} chunks that snapshots need are in no listed pack, the first is {}…: run verify",
                choice.missing,
                ShortId::from_bytes(id)
            ))),
            _ => Ok(()),
        }
    }

    /// The packs of which nothing is needed and that are old enough.
    fn useless(&mut self, inventory: &Inventory, places: &Places, choice: &Choice) -> Vec<u32> {
        let mut useless = Vec::new();
        self.report.packs = inventory.packs.len() as u64;
        self.report.pack_bytes = inventory.packs.iter().map(|pack| pack.len).sum();
        self.report.packs_young = 0;
        self.report.packs_unreadable = places
            .unreadable
            .iter()
            .filter(|id| !inventory.damaged.contains(id))
            .map(backup_manifest::pack_key)
            .collect();
        for (number, pack) in inventory.packs.iter().enumerate() {
            let is_known = places.kinds.get(number).is_some_and(Option::is_some);
            let is_needed = choice.live.get(number).is_none_or(|live| *live > 0);
            if is_needed || !(is_known || inventory.damaged.contains(&pack.id)) {
                continue;
            }
            if self.clock.age(pack.modified) >= Some(self.options.pack_age_min) {
                useless.push(number as u32);
            } else {
                self.report.packs_young += 1;
            }
        }
        useless
    }

    fn check_share(
        &self,
        inventory: &Inventory,
        useless: &[u32],
        no_snapshot: bool,
    ) -> Result<(), Error> {
        if useless.is_empty() || self.options.force {
            return Ok(());
        }
        if no_snapshot {
            return Err(Error::suspicious(
                "there are packs and no snapshot: is the listing complete, or this the wrong place? If all are meant to go, force it",
            ));
        }
        let len = |number: &u32| inventory.packs.get(*number as usize).map_or(0, |p| p.len);
        let going: u64 = useless.iter().map(len).sum();
        let (all, max) = (self.report.pack_bytes, self.options.delete_percent_max);
        if u128::from(going) * 100 > u128::from(all) * u128::from(max) {
            return Err(Error::suspicious(format!(
                "{going} of {all} bytes would go, which is more than {max} %: if that is meant, allow a larger share or force it"
            )));
        }
        Ok(())
    }

    fn report_plan(&mut self, marked: &Marked) -> Result<(), Error> {
        for number in &marked.useless {
            if let Some(pack) = marked.inventory.packs.get(*number as usize) {
                self.report.packs_deleted += 1;
                self.report.bytes_freed += pack.len;
            }
        }
        if self.options.repack_len_max > 0 {
            self.report.packs_repacked = self.poor_packs(marked).len() as u64;
        }
        Ok(())
    }

    /// Carries out a round of our own, if there is anything to do; `false` if another collector's plan was first.
    async fn round(
        &mut self,
        marked: &Marked,
        number: u64,
        marker: &mut Marker<'_>,
    ) -> Result<bool, Error> {
        let inventory = &marked.inventory;
        let ended: Vec<&SessionId> = inventory
            .sessions
            .keys()
            .filter(|id| inventory.has_cell(id))
            .collect();
        if !marked.useless.is_empty() || ended.len() > ENDED_SESSIONS_MAX {
            self.observer.event(&Event::Step { name: "deleting" });
            let pack = |number: &u32| inventory.packs.get(*number as usize).map(|pack| pack.id);
            let plan = GcPlan {
                round: number,
                condemned: marked.useless.iter().filter_map(pack).collect(),
                covered: marked.commits.clone(),
            };
            buggify("gc: marked, before the plan").await;
            let found = create_plan(self.repo, plan.clone()).await?;
            self.carry_out(&found, marker).await?;
            let is_ours = found.covered == plan.covered && found.condemned == plan.condemned;
            if !is_ours || !self.report.undeletable.is_empty() {
                return Ok(is_ours);
            }
            buggify("gc: done, before tidying up").await;
            let covered: HashSet<SessionId> = found.covered.into_iter().collect();
            self.tidy(inventory, &covered, marker).await?;
        }
        if marked.places.small_segments + marked.places.unnamed.len() >= SMALL_MAX {
            let unnamed = marked.places.unnamed.clone();
            let now = Inventory::take(self.repo).await?;
            segments::rewrite(self, &now, &HashSet::new(), unnamed).await?;
        }
        Ok(true)
    }

    /// Deletes what ended sessions left besides their cells, and other small things of no more use. A commit's session is
    /// left until a plan names it: one or the other tells that its cell must be there.
    async fn tidy(
        &mut self,
        inventory: &Inventory,
        covered: &HashSet<SessionId>,
        marker: &Marker<'_>,
    ) -> Result<(), Error> {
        let mut names = Vec::new();
        for (id, session) in &list_sessions(self.repo, SESSIONS_PREFIX).await? {
            let is_aborted = matches!(marker.cells.get(id), Some(CellFacts::Aborted));
            // A collector's look at the clock, left behind.
            let is_stray = !session.is_open
                && !inventory.has_cell(id)
                && self.clock.session != Some(*id)
                && self.clock.age(session.modified) >= Some(STRAY_AGE_MIN);
            if !(is_aborted || covered.contains(id) || is_stray) {
                continue;
            }
            names.extend(session.is_open.then(|| session_open_key(id)));
            names.extend(session.acks.iter().map(|ack| session_ack_key(id, *ack)));
            names.extend(session.beats.iter().map(|beat| session_beat_key(id, *beat)));
        }
        let is_no_pack = |pack: &&backup_core::PackId| inventory.pack(pack).is_none();
        let stray_marks = inventory.damaged.iter().filter(is_no_pack);
        names.extend(stray_marks.map(backup_manifest::damaged_key));
        for (id, decisions) in &inventory.decisions {
            if decisions.is_gone {
                let numbers = decisions.numbers.iter();
                names.extend(numbers.map(|number| backup_manifest::decision_key(id, *number)));
            }
        }
        self.delete_objects(names).await
    }

    pub(crate) fn kind_of(marked: &Marked, number: u32) -> Option<ChunkKind> {
        marked.places.kinds.get(number as usize).copied().flatten()
    }
}

const STRAY_AGE_MIN: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
