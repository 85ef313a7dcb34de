//! What was decided about snapshots: a write-once log for each, whose last entry counts.

use std::collections::BTreeMap;

use backup_backend::StorageBackendExt;
use backup_core::{DocumentKind, SessionId};
use backup_manifest::{
    Decision, ObjectName, RETIRED_PREFIX, SessionError, Verdict, decision_key, decisions_prefix,
    gone_key,
};
use futures::stream::{self, StreamExt};

use crate::repository::documents::{open, seal};
use crate::repository::load_index::list;
use crate::repository::store_key;
use crate::{Error, Repository};

/// Decisions read at once.
const READS_MAX: usize = 16;

/// The last decision about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// There is none: it stays.
    Undecided,
    /// This one, under its number.
    Decided(u64, Decision),
    /// A collector has begun to take what only it needs.
    Gone,
}

impl Fate {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Undecided => Verdict::Keep,
            Self::Decided(_, decision) => decision.verdict,
            Self::Gone => Verdict::Drop,
        }
    }

    /// The number of the next decision; `None` after the last one that there can be.
    fn next_number(&self) -> Option<u64> {
        match self {
            Self::Undecided => Some(0),
            Self::Decided(..) if self.verdict() == Verdict::Drop => None,
            Self::Decided(number, _) => number.checked_add(1),
            Self::Gone => None,
        }
    }
}

/// What becomes of a snapshot by what was decided about all.
pub(crate) fn verdict_of(fates: &BTreeMap<SessionId, Fate>, id: &SessionId) -> Verdict {
    fates.get(id).map_or(Verdict::Keep, Fate::verdict)
}

/// What was decided about one snapshot. A listing may hide the last decision, whose name is known: it is asked for.
pub(crate) async fn read_fate(repo: &Repository, id: &SessionId) -> Result<Fate, Error> {
    let mut fates = read_fates(repo, &decisions_prefix(id)).await?;
    let mut fate = fates.remove(id).unwrap_or(Fate::Undecided);
    if is_gone(repo, id).await? {
        return Ok(Fate::Gone);
    }
    while let Some(number) = fate.next_number() {
        match find_decision(repo, id, number).await? {
            Some(later) => fate = Fate::Decided(number, later),
            None => break,
        }
    }
    Ok(fate)
}

/// What was decided about all snapshots of which anything was.
pub(crate) async fn read_all_fates(repo: &Repository) -> Result<BTreeMap<SessionId, Fate>, Error> {
    read_fates(repo, RETIRED_PREFIX).await
}

async fn read_fates(repo: &Repository, prefix: &str) -> Result<BTreeMap<SessionId, Fate>, Error> {
    let mut fates = BTreeMap::new();
    let mut last: BTreeMap<SessionId, u64> = BTreeMap::new();
    for object in list(repo, prefix).await? {
        match object.key.as_str().parse() {
            // Listed in their order.
            Ok(ObjectName::Decision(id, number)) => drop(last.insert(id, number)),
            Ok(ObjectName::Gone(id)) => drop(fates.insert(id, Fate::Gone)),
            _ => {}
        }
    }
    last.retain(|id, _| !fates.contains_key(id));
    let mut reads =
        stream::iter(last)
            .map(|(id, number)| async move {
                Ok::<_, Error>((id, read_decision(repo, &id, number).await?))
            })
            .buffer_unordered(READS_MAX);
    while let Some(read) = reads.next().await {
        fates.extend([read?]);
    }
    drop(reads);
    Ok(fates)
}

async fn is_gone(repo: &Repository, id: &SessionId) -> Result<bool, Error> {
    Ok(repo.backend().exists(&store_key(&gone_key(id))?).await?)
}

/// Reads a decision that there was. It may have been tidied up meanwhile: then the snapshot is marked as gone. That a
/// decision cannot be found is no decision to drop.
pub(crate) async fn read_decision(
    repo: &Repository,
    id: &SessionId,
    number: u64,
) -> Result<Fate, Error> {
    match find_decision(repo, id, number).await? {
        Some(decision) => Ok(Fate::Decided(number, decision)),
        None if is_gone(repo, id).await? => Ok(Fate::Gone),
        None => Err(Error::suspicious(format!(
            "decision {number} about snapshot {id} was there and cannot be found"
        ))),
    }
}

async fn find_decision(
    repo: &Repository,
    id: &SessionId,
    number: u64,
) -> Result<Option<Decision>, Error> {
    let name = decision_key(id, number);
    let bytes = match repo.get(&name).await {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let plain = open(repo, DocumentKind::Retired, &name, &bytes)?;
    let decision = Decision::decode(&plain).map_err(|e| match e {
        SessionError::UnsupportedVersion { got, expected, .. } => Error::NewerFormat {
            object: name.clone(),
            got,
            supported: expected,
        },
        other => Error::damaged(&name, other),
    })?;
    Ok(Some(decision))
}

/// Adds a decision after `before`. `None` if somebody else decided meanwhile: what is there now counts.
pub(crate) async fn decide(
    repo: &Repository,
    id: &SessionId,
    before: &Fate,
    decision: &Decision,
) -> Result<Option<u64>, Error> {
    let Some(number) = before.next_number() else {
        return Ok(None);
    };
    let name = decision_key(id, number);
    let plain = decision.encode().map_err(|e| Error::damaged(&name, e))?;
    let sealed = seal(repo, DocumentKind::Retired, &name, &plain)?;
    if repo.create_unless_there(&name, sealed).await? {
        return Ok(Some(number));
    }
    // Ours, if only the answer to an earlier try was lost.
    let found = read_decision(repo, id, number).await?;
    Ok((found == Fate::Decided(number, decision.clone())).then_some(number))
}
