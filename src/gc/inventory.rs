//! What stands in the store, from one listing that is not believed blindly.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use backup_backend::{KeyPrefix, ObjectMeta, StorageBackend};
use backup_core::{PackId, SegmentId, SessionId};
use backup_manifest::{ObjectName, SNAPSHOTS_PREFIX};
use futures::TryStreamExt;

use crate::repository::gc_log::GcLog;
use crate::{Error, Repository};

/// A pack as listed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedPack {
    pub(crate) id: PackId,
    pub(crate) len: u64,
    pub(crate) modified: Option<SystemTime>,
}

/// What a session left in the store, besides its cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListedSession {
    pub(crate) is_open: bool,
    pub(crate) acks: Vec<u64>,
    pub(crate) beats: Vec<u64>,
    /// When the last of these objects was written, by the store's clock.
    pub(crate) modified: Option<SystemTime>,
}

impl ListedSession {
    pub(crate) fn has_answered(&self, round: u64) -> bool {
        self.acks.iter().any(|ack| *ack >= round)
    }
}

/// Which decisions there are about a snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListedDecisions {
    pub(crate) numbers: Vec<u64>,
    /// When the last decision was made, by the store's clock.
    pub(crate) modified: Option<SystemTime>,
    pub(crate) is_gone: bool,
}

/// Everything listed. Names are ids, so this is small beside the index.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) log: GcLog,
    /// In the order of their ids.
    pub(crate) packs: Vec<ListedPack>,
    /// With their lengths in bytes.
    pub(crate) segments: Vec<(SegmentId, u64)>,
    pub(crate) cells: Vec<(SessionId, Option<SystemTime>)>,
    pub(crate) sessions: BTreeMap<SessionId, ListedSession>,
    pub(crate) decisions: BTreeMap<SessionId, ListedDecisions>,
    pub(crate) damaged: HashSet<PackId>,
}

impl Inventory {
    /// Lists the whole repository. Keys ascend: the gc log comes before the packs, and those before the cells.
    pub(crate) async fn take(repo: &Repository) -> Result<Self, Error> {
        let mut inventory = Self::default();
        list_checked(repo, "", |object| inventory.add(&object)).await?;
        Ok(inventory)
    }

    fn add(&mut self, object: &ObjectMeta) {
        let Ok(name) = object.key.as_str().parse::<ObjectName>() else {
            return;
        };
        match name {
            ObjectName::Pack(id) => self.packs.push(ListedPack {
                id,
                len: object.len,
                modified: object.modified,
            }),
            ObjectName::Segment(id) => self.segments.push((id, object.len)),
            ObjectName::Snapshot(id) => self.cells.push((id, object.modified)),
            ObjectName::Damaged(id) => drop(self.damaged.insert(id)),
            ObjectName::SessionOpen(id)
            | ObjectName::SessionAck(id, _)
            | ObjectName::SessionBeat(id, _) => {
                self.sessions
                    .entry(id)
                    .or_default()
                    .add(&name, object.modified);
            }
            ObjectName::Decision(id, number) => {
                let decisions = self.decisions.entry(id).or_default();
                decisions.numbers.push(number);
                decisions.modified = object.modified;
            }
            ObjectName::Gone(id) => self.decisions.entry(id).or_default().is_gone = true,
            _ => self.log.add(&name),
        }
    }

    pub(crate) fn has_cell(&self, session: &SessionId) -> bool {
        self.cells
            .binary_search_by_key(session, |(id, _)| *id)
            .is_ok()
    }

    pub(crate) fn pack(&self, id: &PackId) -> Option<&ListedPack> {
        let at = self.packs.binary_search_by_key(id, |pack| pack.id).ok()?;
        self.packs.get(at)
    }
}

impl ListedSession {
    fn add(&mut self, name: &ObjectName, modified: Option<SystemTime>) {
        match name {
            ObjectName::SessionOpen(_) => self.is_open = true,
            ObjectName::SessionAck(_, round) => self.acks.push(*round),
            ObjectName::SessionBeat(_, number) => self.beats.push(*number),
            _ => return,
        }
        self.modified = self.modified.max(modified);
    }
}

/// All sessions that left something.
pub(crate) async fn list_sessions(
    repo: &Repository,
    prefix: &str,
) -> Result<BTreeMap<SessionId, ListedSession>, Error> {
    let mut inventory = Inventory::default();
    list_checked(repo, prefix, |object| inventory.add(&object)).await?;
    Ok(inventory.sessions)
}

/// The names of all cells.
pub(crate) async fn list_cells(repo: &Repository) -> Result<Vec<SessionId>, Error> {
    let mut inventory = Inventory::default();
    list_checked(repo, SNAPSHOTS_PREFIX, |object| inventory.add(&object)).await?;
    Ok(inventory.cells.into_iter().map(|(id, _)| id).collect())
}

/// Lists a prefix page by page. A listing out of order, or with a key twice, is not to be decided upon.
async fn list_checked(
    repo: &Repository,
    prefix: &str,
    mut take: impl FnMut(ObjectMeta),
) -> Result<(), Error> {
    let parsed = KeyPrefix::parse(prefix).map_err(|e| Error::damaged(prefix, e))?;
    let mut pages = repo.backend().list(&parsed);
    let mut last: Option<backup_backend::ObjectKey> = None;
    while let Some(page) = pages.try_next().await? {
        for object in page {
            let key = &object.key;
            if last.as_ref().is_some_and(|last| *last >= *key) || !key.as_str().starts_with(prefix)
            {
                return Err(Error::suspicious(format!(
                    "the store lists `{key}` twice or out of order"
                )));
            }
            last = Some(key.clone());
            take(object);
        }
    }
    Ok(())
}
