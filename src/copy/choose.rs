//! Decides what is copied: which snapshots are wanted, and which of them the target has already.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backup_core::{RepositoryId, SessionId, SourceTag};
use backup_manifest::{Cell, SnapshotManifest, Verdict, snapshots_of_source_prefix};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::{NotCopied, Selection};
use crate::repository::decisions::{read_all_fates, verdict_of};
use crate::repository::documents::read_cell;
use crate::restore::is_finding;
use crate::snapshots::{ids_under, snapshot_ids};
use crate::{Error, Repository};

/// The field of a manifest that says what it is a copy of.
const COPIED_FROM: &str = "copied_from";

/// Where a snapshot was made: the first of all repositories, however many it passed through since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    repository: RepositoryId,
    snapshot: SessionId,
}

impl Origin {
    /// The origin of a snapshot that is in `repository`.
    pub(crate) fn of(manifest: &SnapshotManifest, repository: RepositoryId) -> Self {
        let named = |value: &Value| {
            let text = |name| value.get(name).and_then(Value::as_str);
            Some(Self {
                repository: text("repository")?.parse().ok()?,
                snapshot: text("snapshot")?.parse().ok()?,
            })
        };
        let own = Self {
            repository,
            snapshot: manifest.session,
        };
        manifest
            .extras
            .get(COPIED_FROM)
            .and_then(named)
            .unwrap_or(own)
    }

    /// Notes it in a copy.
    pub(crate) fn note(&self, manifest: &mut SnapshotManifest) {
        let value = json!({
            "repository": self.repository.to_string(),
            "snapshot": self.snapshot.to_string(),
        });
        manifest.extras.insert(COPIED_FROM.into(), value);
    }
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) sources: Vec<OfSource>,
    /// Cells that cannot be read.
    pub(crate) failed: Vec<NotCopied>,
}

/// The snapshots of one source.
#[derive(Debug)]
pub(crate) struct OfSource {
    /// Oldest first.
    pub(crate) candidates: Vec<Candidate>,
    /// What the target holds already.
    pub(crate) there: HashMap<Origin, SessionId>,
}

/// A snapshot of `from`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) id: SessionId,
    pub(crate) origin: Origin,
    started_ns: i64,
    /// Bytes of content.
    pub(crate) bytes: u64,
    /// Asked for; others only help, when they are in the target.
    pub(crate) is_wanted: bool,
}

impl Choice {
    /// Bytes of content that are to be copied.
    pub(crate) fn bytes(&self) -> u64 {
        let of_source = |source: &OfSource| -> u64 {
            let missing = |candidate: &&Candidate| {
                candidate.is_wanted && !source.there.contains_key(&candidate.origin)
            };
            let missing = source.candidates.iter().filter(missing);
            missing.map(|candidate| candidate.bytes).sum()
        };
        self.sources.iter().map(of_source).sum()
    }
}

impl Selection {
    fn names(&self, id: &SessionId) -> bool {
        matches!(self, Self::These(ids) if ids.contains(id))
    }

    /// Whether a snapshot about which this was decided may be wanted, as far as its cell need not be looked at.
    fn may_want(&self, id: &SessionId, verdict: Verdict) -> bool {
        match self {
            Self::These(_) => self.names(id),
            Self::Matching(filter) => filter.forgotten == (verdict == Verdict::Forget),
        }
    }

    fn fits(&self, manifest: &SnapshotManifest) -> bool {
        match self {
            Self::These(_) => true,
            Self::Matching(filter) => filter.fits(manifest),
        }
    }
}

/// Cells read at once.
const READS_MAX: usize = 16;

/// # Errors
/// When a snapshot that is named is not there.
pub(crate) async fn choose(
    from: &Repository,
    to: &Repository,
    which: &Selection,
) -> Result<Choice, Error> {
    let fates = read_all_fates(from).await?;
    let verdict = |id: &SessionId| verdict_of(&fates, id);
    let mut ids = list_ids(from, which).await?;
    check_named(which, &ids, verdict)?;
    let mut choice = Choice::default();
    let mut by_source: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    ids.retain(|id| verdict(id) != Verdict::Drop);
    let mut cells = stream::iter(ids)
        .map(|id| async move { (id, read_cell(from, &id).await) })
        .buffered(READS_MAX);
    while let Some((id, read)) = cells.next().await {
        let may_be_wanted = which.may_want(&id, verdict(&id));
        match read {
            Ok((Cell::Snapshot(manifest), _)) => {
                let candidate = Candidate {
                    id,
                    origin: Origin::of(&manifest, from.id()),
                    started_ns: manifest.started_ns,
                    bytes: manifest.stats.bytes,
                    is_wanted: may_be_wanted && which.fits(&manifest),
                };
                let of_source = by_source.entry(manifest.source).or_default();
                of_source.push(candidate);
            }
            Ok((Cell::Aborted, _)) if which.names(&id) => return Err(not_found(&id)),
            Ok((Cell::Aborted, _)) => {}
            Err(error) if is_finding(&error) && may_be_wanted => choice.failed.push(NotCopied {
                snapshot: id,
                reason: error.explain(),
            }),
            Err(error) if is_finding(&error) => {}
            Err(error) => return Err(error),
        }
    }
    for (source, mut candidates) in by_source {
        if !candidates.iter().any(|candidate| candidate.is_wanted) {
            continue;
        }
        candidates.sort_by_key(|candidate| (candidate.started_ns, candidate.id));
        let there = read_there(to, &source, which).await?;
        choice.sources.push(OfSource { candidates, there });
    }
    Ok(choice)
}

/// All cells that are wanted, and others of the same sources.
async fn list_ids(from: &Repository, which: &Selection) -> Result<Vec<SessionId>, Error> {
    let tags: BTreeSet<SourceTag> = match which {
        Selection::These(ids) => ids.iter().map(SessionId::tag).collect(),
        Selection::Matching(filter) => match &filter.source {
            Some(source) => [from.keys().source_tag(source)].into(),
            None => return snapshot_ids(from).await,
        },
    };
    let mut ids = Vec::new();
    for tag in tags {
        ids.extend(ids_under(from, &snapshots_of_source_prefix(tag)).await?);
    }
    Ok(ids)
}

fn check_named(
    which: &Selection,
    ids: &[SessionId],
    verdict: impl Fn(&SessionId) -> Verdict,
) -> Result<(), Error> {
    let Selection::These(named) = which else {
        return Ok(());
    };
    for id in named {
        if !ids.contains(id) {
            return Err(not_found(id));
        }
        if verdict(id) == Verdict::Drop {
            return Err(Error::SnapshotDropped { snapshot: *id });
        }
    }
    Ok(())
}

fn not_found(id: &SessionId) -> Error {
    Error::SnapshotNotFound {
        name: id.to_string(),
    }
}

/// What the target holds of a source. A snapshot that the target has given up counts as there, so that its own retention is
/// not undone; one that it dropped for good does not when it is asked for by name.
async fn read_there(
    to: &Repository,
    source: &str,
    which: &Selection,
) -> Result<HashMap<Origin, SessionId>, Error> {
    let prefix = snapshots_of_source_prefix(to.keys().source_tag(source));
    let mut ids = ids_under(to, &prefix).await?;
    let mut there = HashMap::new();
    if ids.is_empty() {
        return Ok(there);
    }
    let fates = match which {
        Selection::These(_) => read_all_fates(to).await?,
        Selection::Matching(_) => BTreeMap::new(),
    };
    let is_dropped = |id: &SessionId| verdict_of(&fates, id) == Verdict::Drop;
    ids.retain(|id| !is_dropped(id));
    let mut cells = stream::iter(ids)
        .map(|id| async move { (id, read_cell(to, &id).await) })
        .buffered(READS_MAX);
    while let Some((id, read)) = cells.next().await {
        match read {
            Ok((Cell::Snapshot(manifest), _)) => {
                there.insert(Origin::of(&manifest, to.id()), id);
            }
            // What it was a copy of is copied once more.
            Ok((Cell::Aborted, _)) => {}
            Err(error) if is_finding(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(there)
}
