//! One writer's run, in the order that keeps it safe beside collectors: announce, read the gc log, list the packs,
//! read the index, acknowledge; store; commit by creating the cell.

use backup_backend::{Bytes, PutMode, StorageBackend};
use backup_core::{
    DocumentContext, DocumentError, DocumentKind, SegmentPack, SessionId, open_document,
    seal_document,
};
use backup_manifest::{
    Ack, CELL_LEN_MAX, Cell, CellError, GC_PREFIX, GcPlan, ObjectName, PLAN_LEN_MAX,
    SESSION_OPEN_LEN_MAX, SessionOpen, SnapshotManifest, gc_final_key, gc_plan_key,
    session_ack_key, session_open_key, snapshot_key, snapshots_of_source_prefix,
};

use crate::repository::index::Index;
use crate::repository::load_index::{Condemned, Survey, load_usable};
use crate::repository::store_key;
use crate::{Error, Event, Observer, Repository};

/// The longest plaintext of a document, in bytes; a longer one is refused before it is decoded.
fn len_max(kind: DocumentKind) -> usize {
    match kind {
        DocumentKind::Snapshot => CELL_LEN_MAX,
        DocumentKind::SessionAck | DocumentKind::GcPlan => PLAN_LEN_MAX,
        _ => SESSION_OPEN_LEN_MAX,
    }
}

/// What a session has found in the store.
pub(crate) struct Found {
    /// What it may rely on.
    pub(crate) index: Index,
    /// Packs of it that no segment names yet.
    pub(crate) unnamed: Vec<SegmentPack>,
    pub(crate) survey: Survey,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// Tells an earlier try of our own from somebody else's cell.
    pub(crate) nonce: [u8; 16],
    pub(crate) started_ns: i64,
}

impl Session {
    /// Opens a session for `source` and reads what it may rely on.
    ///
    /// The order of the five steps is what the proof of safe collection rests on.
    pub(crate) async fn open(
        repo: &Repository,
        source: &str,
        host: &str,
        observer: &dyn Observer,
    ) -> Result<(Self, Found), Error> {
        let started_ns = repo.env().clock.now_ns();
        let unix_ms = u64::try_from(started_ns / 1_000_000).unwrap_or(0);
        let id = SessionId::new(
            repo.keys().source_tag(source),
            unix_ms,
            repo.env().random()?,
        );
        let session = Self {
            id,
            nonce: repo.env().random()?,
            started_ns,
        };

        session.announce(repo, host).await?;
        let mut survey = Survey::take(repo).await?;
        let log = read_gc_log(repo, &survey).await?;
        if log.has_done {
            // A round that is done had deleted before, but perhaps not before the same listing came to its packs.
            survey.list_packs_again(repo).await?;
        }
        let (index, unnamed) = load_usable(repo, &survey, &log.condemned).await?;
        session.acknowledge(repo, log.newest).await?;
        session.tell_weakness(repo, &survey, observer).await?;
        observer.event(&Event::SessionOpened { session: id });
        let found = Found {
            index,
            unnamed,
            survey,
        };
        Ok((session, found))
    }

    /// Creates the `open` object: from here on, collectors wait for this session.
    async fn announce(&self, repo: &Repository, host: &str) -> Result<(), Error> {
        let name = session_open_key(&self.id);
        let open = SessionOpen {
            host: host.into(),
            started_ns: self.started_ns,
            purpose: "backup".into(),
        };
        let open = open.encode().map_err(|e| Error::damaged(&name, e))?;
        let sealed = seal(repo, DocumentKind::SessionOpen, &name, &open)?;
        repo.create_object(&name, sealed).await
    }

    /// Says what this store does not promise, and what it was seen to break.
    async fn tell_weakness(
        &self,
        repo: &Repository,
        survey: &Survey,
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        let name = session_open_key(&self.id);
        let capabilities = repo.backend().capabilities();
        if !capabilities.create_if_absent {
            let missing = "create-if-absent";
            observer.event(&Event::WeakStore { missing });
        }
        if !capabilities.consistent_list || survey.list(repo, &name).await?.is_empty() {
            let missing = "read-after-write listing";
            observer.event(&Event::WeakStore { missing });
        }
        Ok(())
    }

    async fn acknowledge(&self, repo: &Repository, round: u64) -> Result<(), Error> {
        let name = session_ack_key(&self.id, round);
        let ack = Ack {
            round,
            claims: Vec::new(),
        };
        let ack = ack.encode().map_err(|e| Error::damaged(&name, e))?;
        let sealed = seal(repo, DocumentKind::SessionAck, &name, &ack)?;
        repo.create_object(&name, sealed).await
    }

    /// Creates the cell. From then on the snapshot exists, whatever is returned.
    pub(crate) async fn commit(
        &self,
        repo: &Repository,
        manifest: SnapshotManifest,
    ) -> Result<(), Error> {
        let name = snapshot_key(&self.id);
        let cell = Cell::Snapshot(manifest)
            .encode()
            .map_err(|e| Error::damaged(&name, e))?;
        let sealed = seal(repo, DocumentKind::Snapshot, &name, &cell)?;
        let Err(refused) = repo
            .backend()
            .put(&store_key(&name)?, sealed, PutMode::Create)
            .await
        else {
            return Ok(());
        };
        // A refusal or an error after the fact: what stands there decides.
        match read_cell(repo, &self.id).await {
            Ok((Cell::Snapshot(found), _)) if found.nonce == self.nonce => Ok(()),
            Ok((Cell::Aborted, _)) => Err(Error::SessionAborted { session: self.id }),
            _ => Err(refused.into()),
        }
    }
}

/// Reads the cell of a session, and the BLAKE3 hash of its bytes.
pub(crate) async fn read_cell(
    repo: &Repository,
    id: &SessionId,
) -> Result<(Cell, [u8; 32]), Error> {
    let name = snapshot_key(id);
    let bytes = repo.get(&name).await?;
    let plain = open(repo, DocumentKind::Snapshot, &name, &bytes)?;
    let cell = Cell::decode(&plain).map_err(|e| match e {
        CellError::UnsupportedVersion { got, expected } => Error::NewerFormat {
            object: name.clone(),
            got,
            supported: expected,
        },
        other => Error::damaged(&name, other),
    })?;
    if let Cell::Snapshot(manifest) = &cell
        && manifest.session != *id
    {
        return Err(Error::damaged(&name, "the manifest names another session"));
    }
    Ok((cell, *backup_core::blake3(&bytes).as_bytes()))
}

/// Seals a document under its own name.
pub(crate) fn seal(
    repo: &Repository,
    kind: DocumentKind,
    name: &str,
    plain: &[u8],
) -> Result<Bytes, Error> {
    let context = DocumentContext {
        kind,
        repository: repo.id(),
        name: name.as_bytes(),
    };
    let sealed = seal_document(repo.keys(), context, repo.env().random()?, plain)
        .map_err(|e| Error::damaged(name, e))?;
    Ok(Bytes::from(sealed))
}

/// Opens a document that must be the one of this name.
pub(crate) fn open(
    repo: &Repository,
    kind: DocumentKind,
    name: &str,
    bytes: &[u8],
) -> Result<Vec<u8>, Error> {
    let context = DocumentContext {
        kind,
        repository: repo.id(),
        name: name.as_bytes(),
    };
    open_document(repo.keys(), &context, bytes, len_max(kind)).map_err(|e| match e {
        DocumentError::UnsupportedVersion { got, expected } => {
            let (got, supported) = (got.into(), expected.into());
            Error::NewerFormat {
                object: name.into(),
                got,
                supported,
            }
        }
        other => Error::damaged(name, other),
    })
}

/// What the gc log says at the start of a session.
#[derive(Debug, Default)]
struct GcLog {
    newest: u64,
    condemned: Condemned,
    /// It shows a round that is done.
    has_done: bool,
}

/// Packs of every round that is not done are not to be relied on: its final list if there is one, else its plan.
async fn read_gc_log(repo: &Repository, survey: &Survey) -> Result<GcLog, Error> {
    let mut log = GcLog::default();
    let mut rounds: std::collections::BTreeMap<u64, [bool; 3]> = std::collections::BTreeMap::new();
    for object in survey.list(repo, GC_PREFIX).await? {
        match object.key.as_str().parse() {
            Ok(ObjectName::GcPlan(round)) => rounds.entry(round).or_default()[0] = true,
            Ok(ObjectName::GcFinal(round)) => rounds.entry(round).or_default()[1] = true,
            Ok(ObjectName::GcDone(round)) => rounds.entry(round).or_default()[2] = true,
            _ => {}
        }
    }
    for (round, [plan, is_final, done]) in rounds {
        log.newest = log.newest.max(round);
        if done {
            log.has_done = true;
            continue;
        }
        let name = match (is_final, plan) {
            (true, _) => gc_final_key(round),
            (false, true) => gc_plan_key(round),
            (false, false) => continue,
        };
        let plain = open(repo, DocumentKind::GcPlan, &name, &repo.get(&name).await?)?;
        let plan = GcPlan::decode(&plain).map_err(|e| Error::damaged(&name, e))?;
        log.condemned.extend(plan.condemned);
    }
    Ok(log)
}

/// The newest committed snapshot of a source, if there is one.
///
/// An unreadable cell is an error; aborted ones are passed over.
pub(crate) async fn newest_snapshot(
    repo: &Repository,
    survey: &Survey,
    source: &str,
) -> Result<Option<(SnapshotManifest, [u8; 32])>, Error> {
    let prefix = snapshots_of_source_prefix(repo.keys().source_tag(source));
    let mut ids: Vec<SessionId> = survey
        .list(repo, &prefix)
        .await?
        .iter()
        .filter_map(|object| match object.key.as_str().parse() {
            Ok(ObjectName::Snapshot(id)) => Some(id),
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    while let Some(id) = ids.pop() {
        if let (Cell::Snapshot(manifest), hash) = read_cell(repo, &id).await? {
            return Ok(Some((manifest, hash)));
        }
    }
    Ok(None)
}
