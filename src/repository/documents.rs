//! Sealed documents under their own names, and the cells among them.

use std::time::SystemTime;

use backup_backend::Bytes;
use backup_core::{
    DocumentContext, DocumentError, DocumentKind, SessionId, open_document, seal_document,
};
use backup_manifest::{
    CELL_LEN_MAX, Cell, CellError, DECISION_LEN_MAX, ObjectName, PLAN_LEN_MAX,
    SESSION_OPEN_LEN_MAX, SnapshotManifest, snapshot_key, snapshots_of_source_prefix,
};

use crate::repository::load_index::Survey;
use crate::{Error, Repository};

/// The longest plaintext of a document, in bytes; a longer one is refused before it is decoded.
fn len_max(kind: DocumentKind) -> usize {
    match kind {
        DocumentKind::Snapshot => CELL_LEN_MAX,
        DocumentKind::SessionAck | DocumentKind::GcPlan => PLAN_LEN_MAX,
        DocumentKind::Retired => DECISION_LEN_MAX,
        _ => SESSION_OPEN_LEN_MAX,
    }
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

/// The committed snapshot of a source that the store received last, if there is one: a writer whose clock is wrong does not
/// stand before all others for years.
///
/// An unreadable cell is an error; aborted ones are passed over.
pub(crate) async fn newest_snapshot(
    repo: &Repository,
    survey: &Survey,
    source: &str,
) -> Result<Option<(SnapshotManifest, [u8; 32])>, Error> {
    let prefix = snapshots_of_source_prefix(repo.keys().source_tag(source));
    let mut cells: Vec<(Option<SystemTime>, SessionId)> = Vec::new();
    for object in survey.list(repo, &prefix).await? {
        if let Ok(ObjectName::Snapshot(id)) = object.key.as_str().parse() {
            cells.push((object.modified, id));
        }
    }
    cells.sort_unstable();
    while let Some((_, id)) = cells.pop() {
        if let (Cell::Snapshot(manifest), hash) = read_cell(repo, &id).await? {
            return Ok(Some((manifest, hash)));
        }
    }
    Ok(None)
}
