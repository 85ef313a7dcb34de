//! One round of collection, from its plan to its end. Any number of collectors may carry out the same round, each may stop
//! anywhere, and whoever comes next goes on.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use backup_backend::{Bytes, ObjectKey, StorageBackend, StorageBackendExt};
use backup_core::{DocumentKind, PackId, SessionId};
use backup_manifest::{
    Ack, GcPlan, SESSIONS_PREFIX, damaged_key, gc_done_key, gc_final_key, gc_plan_key, pack_key,
    session_ack_key, session_open_key, session_prefix, snapshot_key,
};

use crate::env::{blocking, buggify};
use crate::gc::choose::holders;
use crate::gc::inventory::{Inventory, ListedSession, list_cells, list_sessions};
use crate::gc::mark::{CellFacts, Marker};
use crate::gc::places::{PlaceSpace, Places};
use crate::gc::{Collector, SORTERS_SHARE, segments};
use crate::repository::documents::{open, seal};
use crate::repository::gc_log::read_plan;
use crate::repository::session::abort;
use crate::repository::store_key;
use crate::restore::is_finding;
use crate::{Error, Event, Repository};

/// Objects deleted by one request.
const DELETES_MAX: usize = 1000;

/// Writes the plan of a round, unless there is one; returns the one that counts.
pub(crate) async fn create_plan(repo: &Repository, plan: GcPlan) -> Result<GcPlan, Error> {
    let (round, name) = (plan.round, gc_plan_key(plan.round));
    create_document(repo, &name, &plan).await?;
    read_plan(repo, round, &name).await
}

async fn create_document(repo: &Repository, name: &str, plan: &GcPlan) -> Result<bool, Error> {
    let plain = plan.encode().map_err(|e| Error::damaged(name, e))?;
    let sealed = seal(repo, DocumentKind::GcPlan, name, &plain)?;
    repo.create_unless_there(name, sealed).await
}

impl Collector<'_> {
    /// Brings a round that has a plan to its end.
    pub(crate) async fn carry_out(
        &mut self,
        plan: &GcPlan,
        marker: &mut Marker<'_>,
    ) -> Result<(), Error> {
        let repo = self.repo;
        self.report.round = Some(plan.round);
        let name = gc_final_key(plan.round);
        let condemned = if repo.backend().exists(&store_key(&name)?).await? {
            read_plan(repo, plan.round, &name).await?.condemned
        } else {
            self.decide(plan, marker).await?
        };
        let is_all = self.delete(&condemned).await?;
        buggify("gc: deleted, before it is done").await;
        if is_all {
            let name = gc_done_key(plan.round);
            repo.create_unless_there(&name, Bytes::new()).await?;
        }
        Ok(())
    }

    /// Waits until every session knows of the plan, and takes out of it what is needed after all.
    async fn decide(
        &mut self,
        plan: &GcPlan,
        marker: &mut Marker<'_>,
    ) -> Result<Vec<PackId>, Error> {
        let mut rescued = BTreeSet::new();
        if !plan.condemned.is_empty() {
            buggify("gc: planned, before the sessions").await;
            let (claims, ended) = self.settle(plan.round).await?;
            buggify("gc: sessions settled, before the new cells").await;
            rescued = claims;
            match self.needed_by_new_snapshots(plan, &ended, marker).await {
                Ok(needed) => rescued.extend(needed),
                // What a new snapshot needs cannot be told: all of it is kept, so that the round can end. The next mark
                // tells what is wrong.
                Err(error) if is_finding(&error) => rescued.extend(&plan.condemned),
                Err(error) => return Err(error),
            }
        }
        let last = GcPlan {
            round: plan.round,
            condemned: plan
                .condemned
                .iter()
                .filter(|pack| !rescued.contains(pack))
                .copied()
                .collect(),
            covered: Vec::new(),
        };
        self.report.packs_rescued += (plan.condemned.len() - last.condemned.len()) as u64;
        let name = gc_final_key(plan.round);
        buggify("gc: decided, before the final list").await;
        create_document(self.repo, &name, &last).await?;
        // Another collector may have been first, and seen more reasons to rescue, or fewer: its list counts.
        Ok(read_plan(self.repo, plan.round, &name).await?.condemned)
    }

    /// Waits, for each session there is, until it has answered the round or has ended; one that shows no sign of life for
    /// the time of the lease is ended. Returns what the sessions claim, and those that have ended.
    async fn settle(&mut self, round: u64) -> Result<(BTreeSet<PackId>, Vec<SessionId>), Error> {
        let repo = self.repo;
        let mut claims = BTreeSet::new();
        let mut ended = Vec::new();
        let mut waiting: BTreeMap<SessionId, ListedSession> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        for (id, session) in list_sessions(repo, SESSIONS_PREFIX).await? {
            listed.insert(id);
            if session.has_answered(round) {
                read_claims(repo, (&id, &session), round, &mut claims).await?;
            } else if session.is_open || !session.acks.is_empty() {
                waiting.insert(id, session);
            }
        }
        // A session that was there before and is not listed now has been tidied up; unless the listing hides it.
        for id in std::mem::take(&mut self.seen_open) {
            if listed.contains(&id) {
                continue;
            }
            let key = store_key(&session_open_key(&id))?;
            if let Some(found) = repo.backend().head_opt(&key).await? {
                let session = ListedSession {
                    modified: found.modified,
                    ..ListedSession::default()
                };
                waiting.insert(id, session);
            }
        }
        let cells: HashSet<SessionId> = list_cells(repo).await?.into_iter().collect();
        // These have ended: the next listing must show their cells too.
        ended.extend(waiting.keys().filter(|id| cells.contains(id)));
        waiting.retain(|id, _| !cells.contains(id));
        self.report.sessions_awaited += waiting.len() as u64;
        for id in waiting.keys() {
            self.observer.event(&Event::SessionAwaited { session: *id });
        }
        while !waiting.is_empty() {
            for (id, session) in std::mem::take(&mut waiting) {
                let seen = list_sessions(repo, &session_prefix(&id)).await?;
                let session = seen.get(&id).cloned().unwrap_or(session);
                if session.has_answered(round) {
                    read_claims(repo, (&id, &session), round, &mut claims).await?;
                } else if has_cell(repo, &id).await? {
                    // What it committed is looked at with the other new snapshots.
                    ended.push(id);
                } else if self.clock.age(session.modified) >= Some(self.options.lease) {
                    buggify("gc: lease over, before the abort").await;
                    self.report.sessions_aborted += u64::from(abort(repo, &id).await?);
                    ended.push(id);
                } else {
                    waiting.insert(id, session);
                }
            }
            if self.observer.should_stop() {
                return Err(Error::Stopped);
            }
            if !waiting.is_empty() {
                tokio::time::sleep(self.options.poll).await;
            }
        }
        Ok((claims, ended))
    }

    /// The condemned packs that hold anything that a snapshot needs which the plan does not know of.
    async fn needed_by_new_snapshots(
        &mut self,
        plan: &GcPlan,
        ended: &[SessionId],
        marker: &mut Marker<'_>,
    ) -> Result<Vec<PackId>, Error> {
        let covered = |id: &SessionId| plan.covered.binary_search(id).is_ok();
        // The cells first: all that they need is listed after.
        let mut new = list_cells(self.repo).await?;
        if let Some(id) = ended.iter().find(|id| new.binary_search(id).is_err()) {
            return Err(Error::suspicious(format!(
                "session {id} has ended and the store does not list its cell"
            )));
        }
        new.retain(|id| !covered(id));
        marker.read_cells(new.iter().copied()).await?;
        new.retain(|id| matches!(marker.cells.get(id), Some(CellFacts::Snapshot { .. })));
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let inventory = Inventory::take(self.repo).await?;
        let places = self.places(&inventory).await?;
        let refs = marker.mark(&places.lists, new).await?;
        let mut numbers = HashSet::new();
        for pack in &plan.condemned {
            // One that is not listed went in a round that others carried on; the list that counts is read after this.
            let listed = inventory.packs.binary_search_by_key(pack, |pack| pack.id);
            numbers.extend(listed.ok().map(|number| number as u32));
        }
        let sorted = places.sorted;
        let found = blocking(move || holders(&sorted, &refs, &numbers)).await??;
        let id = |number: u32| inventory.packs.get(number as usize).map(|pack| pack.id);
        Ok(found.into_iter().filter_map(id).collect())
    }

    pub(crate) async fn places(&mut self, inventory: &Inventory) -> Result<Places, Error> {
        let space = PlaceSpace {
            len_max: self.options.memory_len_max / SORTERS_SHARE,
            scratch: self.scratch(),
            is_dry_run: self.options.dry_run,
        };
        let places = Places::read(self.repo, inventory, space).await?;
        self.report.segments_written += places.segments_written;
        Ok(places)
    }

    /// Deletes packs, after no segment names them; says whether all are gone.
    async fn delete(&mut self, condemned: &[PackId]) -> Result<bool, Error> {
        if condemned.is_empty() {
            return Ok(true);
        }
        let repo = self.repo;
        let gone: HashSet<PackId> = condemned.iter().copied().collect();
        let inventory = Inventory::take(repo).await?;
        buggify("gc: final list, before the segments").await;
        segments::rewrite(self, &inventory, &gone, Vec::new()).await?;
        buggify("gc: segments written, before the deletes").await;
        let mut is_all = true;
        for packs in condemned.chunks(DELETES_MAX) {
            let keys: Result<Vec<ObjectKey>, Error> =
                packs.iter().map(|id| store_key(&pack_key(id))).collect();
            let results = repo.backend().delete(&keys?).await?;
            for (id, result) in packs.iter().zip(results) {
                match (result, inventory.pack(id)) {
                    (Err(error), _) => {
                        is_all = false;
                        let reason = error.to_string();
                        self.report.undeletable.push((pack_key(id), reason));
                    }
                    (Ok(()), Some(listed)) => {
                        self.report.packs_deleted += 1;
                        self.report.bytes_freed += listed.len;
                        self.observer.event(&Event::PackDeleted {
                            pack: *id,
                            bytes: listed.len,
                        });
                    }
                    // Another collector was first.
                    (Ok(()), None) => {}
                }
            }
        }
        let marks = condemned
            .iter()
            .filter(|id| inventory.damaged.contains(id))
            .map(damaged_key);
        self.delete_objects(marks.collect()).await?;
        Ok(is_all)
    }

    /// Deletes small objects that nothing needs any more. What cannot be deleted stays; the next run tries again.
    pub(crate) async fn delete_objects(&mut self, names: Vec<String>) -> Result<(), Error> {
        for names in names.chunks(DELETES_MAX) {
            let keys: Result<Vec<ObjectKey>, Error> =
                names.iter().map(|name| store_key(name)).collect();
            let results = self.repo.backend().delete(&keys?).await?;
            let deleted = results.iter().filter(|result| result.is_ok()).count();
            self.report.objects_tidied += deleted as u64;
        }
        Ok(())
    }
}

/// Whether a session has ended.
async fn has_cell(repo: &Repository, id: &SessionId) -> Result<bool, Error> {
    let key = store_key(&snapshot_key(id))?;
    Ok(repo.backend().exists(&key).await?)
}

/// Reads what a session claims of this round, or a later one.
async fn read_claims(
    repo: &Repository,
    (id, session): (&SessionId, &ListedSession),
    round: u64,
    claims: &mut BTreeSet<PackId>,
) -> Result<(), Error> {
    for number in session.acks.iter().filter(|number| **number >= round) {
        let name = session_ack_key(id, *number);
        let sealed = match repo.get(&name).await {
            // Tidied up since it was listed: the session had ended before the mark of a plan that is done, and this plan's
            // mark saw its cell too, or another collector has carried out this very round.
            Err(error) if error.is_not_found() && has_cell(repo, id).await? => continue,
            other => other?,
        };
        let plain = open(repo, DocumentKind::SessionAck, &name, &sealed)?;
        let ack = Ack::decode(&plain).map_err(|e| Error::damaged(&name, e))?;
        claims.extend(ack.claims);
    }
    Ok(())
}
