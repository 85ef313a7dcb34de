//! Finds snapshots, and lists what is in one.

use std::sync::Arc;

use backup_core::SessionId;
use backup_manifest::{
    Cell, Item, ItemPath, ObjectName, SNAPSHOTS_PREFIX, SnapshotManifest, Verdict,
};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};

use crate::repository::blocks::BlockReader;
use crate::repository::decisions::{read_all_fates, read_fate, verdict_of};
use crate::repository::documents::read_cell;
use crate::repository::load_index::{list as list_objects, load_index};
use crate::repository::tree::read_parts;
use crate::{Error, Repository};

/// Which snapshots are wanted: those that fit all that is set.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SnapshotFilter {
    /// Of this source.
    pub source: Option<String>,
    /// Made by this host.
    pub host: Option<String>,
    /// With all these tags.
    pub tags: Vec<String>,
    /// Those that were given up and can still be had back, instead of those that stay.
    pub forgotten: bool,
}

impl SnapshotFilter {
    pub(crate) fn fits(&self, manifest: &SnapshotManifest) -> bool {
        self.source
            .as_ref()
            .is_none_or(|source| *source == manifest.source)
            && self.host.as_ref().is_none_or(|host| *host == manifest.host)
            && self.tags.iter().all(|tag| manifest.tags.contains(tag))
    }
}

/// Cells read at once.
const READS_MAX: usize = 16;

/// The snapshots that fit, oldest first. Those that were given up are not among them, unless asked for.
///
/// # Errors
/// Whatever the store says; [`Error::Damaged`] for a cell that cannot be opened: [`verify`](crate::verify) names all.
pub async fn snapshots(
    repo: &Repository,
    filter: &SnapshotFilter,
) -> Result<Vec<SnapshotManifest>, Error> {
    let ids = match &filter.source {
        Some(source) => ids_of_source(repo, source).await?,
        None => snapshot_ids(repo).await?,
    };
    let fates = read_all_fates(repo).await?;
    let ids = ids.into_iter().filter(|id| match verdict_of(&fates, id) {
        Verdict::Keep | Verdict::Hold => !filter.forgotten,
        Verdict::Forget => filter.forgotten,
        Verdict::Drop => false,
    });
    let mut manifests = Vec::new();
    let mut cells = stream::iter(ids)
        .map(|id| async move { read_cell(repo, &id).await })
        .buffered(READS_MAX);
    while let Some((cell, _)) = cells.try_next().await? {
        if let Cell::Snapshot(manifest) = cell
            && filter.fits(&manifest)
        {
            manifests.push(manifest);
        }
    }
    manifests.sort_by_key(|manifest| (manifest.started_ns, manifest.session));
    Ok(manifests)
}

/// The snapshot of this name: its id, the beginning of its id or of the id's part behind the dash, `latest`, or
/// `latest:` and a source.
///
/// # Errors
/// [`Error::SnapshotNotFound`], [`Error::SnapshotAmbiguous`], [`Error::SnapshotDropped`].
pub async fn find_snapshot(repo: &Repository, name: &str) -> Result<SnapshotManifest, Error> {
    let not_found = || Error::SnapshotNotFound { name: name.into() };
    if name.is_empty() {
        return Err(not_found());
    }
    if name == "latest" {
        let mut all = snapshots(repo, &SnapshotFilter::default()).await?;
        return all.pop().ok_or_else(not_found);
    }
    if let Some(source) = name.strip_prefix("latest:") {
        return newest_staying(repo, source).await?.ok_or_else(not_found);
    }
    let ids = snapshot_ids(repo).await?;
    let begins = |id: &&SessionId| {
        let id = id.to_string();
        id.starts_with(name)
            || id
                .split_once('-')
                .is_some_and(|(_, stamp)| stamp.starts_with(name))
    };
    let found: Vec<&SessionId> = ids.iter().filter(begins).collect();
    match found.as_slice() {
        [id] if read_fate(repo, id).await?.verdict() == Verdict::Drop => {
            Err(Error::SnapshotDropped { snapshot: **id })
        }
        [id] => match read_cell(repo, id).await? {
            (Cell::Snapshot(manifest), _) => Ok(manifest),
            (Cell::Aborted, _) => Err(not_found()),
        },
        [] => Err(not_found()),
        several => Err(Error::SnapshotAmbiguous {
            name: name.into(),
            count: several.len(),
        }),
    }
}

/// The newest snapshot of a source that was not given up.
async fn newest_staying(
    repo: &Repository,
    source: &str,
) -> Result<Option<SnapshotManifest>, Error> {
    let mut ids = ids_of_source(repo, source).await?;
    let fates = read_all_fates(repo).await?;
    ids.retain(|id| !matches!(verdict_of(&fates, id), Verdict::Forget | Verdict::Drop));
    while let Some(id) = ids.pop() {
        if let (Cell::Snapshot(manifest), _) = read_cell(repo, &id).await? {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// The items of a snapshot in the order of their paths, or those at and below one path.
///
/// # Errors
/// Whatever the store says, at once or from the stream.
pub async fn list(
    repo: &Repository,
    snapshot: &SnapshotManifest,
    below: Option<ItemPath>,
) -> Result<impl Stream<Item = Result<Item, Error>> + use<>, Error> {
    let index = Arc::new(load_index(repo).await?);
    let blocks = Arc::new(BlockReader::following(repo, index, TREE_BLOCKS));
    let from = below.clone().map(|path| (path, 0));
    let pages = read_parts(blocks, snapshot.root.clone(), from);
    let items = pages
        .map_ok(|parts| stream::iter(parts.into_iter().filter_map(|part| part.item.map(Ok))))
        .try_flatten();
    let end = below.clone();
    Ok(items
        .try_take_while(move |item| {
            let goes_on = end
                .as_ref()
                .is_none_or(|b| item.path.starts_with(b) || item.path < *b);
            std::future::ready(Ok(goes_on))
        })
        .try_filter(move |item| {
            std::future::ready(
                below
                    .as_ref()
                    .is_none_or(|below| item.path.starts_with(below)),
            )
        }))
}

/// Opened blocks of the item stream kept at once.
const TREE_BLOCKS: usize = 4;

/// The names of all cells, aborted ones included.
pub(crate) async fn snapshot_ids(repo: &Repository) -> Result<Vec<SessionId>, Error> {
    ids_under(repo, SNAPSHOTS_PREFIX).await
}

async fn ids_of_source(repo: &Repository, source: &str) -> Result<Vec<SessionId>, Error> {
    let tag = repo.keys().source_tag(source);
    ids_under(repo, &backup_manifest::snapshots_of_source_prefix(tag)).await
}

/// The names of the cells under a prefix.
pub(crate) async fn ids_under(repo: &Repository, prefix: &str) -> Result<Vec<SessionId>, Error> {
    let objects = list_objects(repo, prefix).await?;
    Ok(objects
        .iter()
        .filter_map(|object| match object.key.as_str().parse() {
            Ok(ObjectName::Snapshot(id)) => Some(id),
            _ => None,
        })
        .collect())
}
