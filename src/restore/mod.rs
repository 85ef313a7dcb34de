//! Brings a snapshot, or a part of it, back.

mod beside;
mod fetch;
mod place;
mod plan;
mod tree;
mod volume;
mod write;

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::SessionId;
use backup_manifest::{
    Cell, Item, ItemKind, ItemPath, SkippedItem, SnapshotKind, SnapshotManifest,
};
use futures::stream::TryStreamExt;

use crate::env::buggify;
use crate::repository::blocks::BlockReader;
use crate::repository::documents::read_cell;
use crate::repository::load_index::load_index;
use crate::repository::session::{Opening, Session};
use crate::repository::tree::read_parts;
use crate::{Error, Observer, Repository};

pub(crate) use fetch::{Fetched, Fetcher, Piece, is_finding};

/// Where to.
#[non_exhaustive]
pub enum RestoreTarget {
    /// A directory: for trees. It must be absent or empty, unless [`RestoreOptions::into_existing`] says otherwise.
    Directory(PathBuf),
    /// A new file: for a volume, a stream, or one file of a tree. An existing file is replaced only with
    /// [`RestoreOptions::into_existing`].
    File(PathBuf),
    /// A block device, or an existing file that is written in place: for the same. It must be long enough.
    Device(PathBuf),
    /// Anything that takes bytes in order: for the same.
    Writer(Box<dyn Write + Send>),
}

impl fmt::Debug for RestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Device(path) => f.debug_tuple("Device").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer(..)"),
        }
    }
}

/// Whether owners are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ownership {
    /// When running as root.
    #[default]
    Auto,
    /// Always; what is refused is told.
    Restore,
    /// Never: everything belongs to whoever restores.
    Ignore,
}

/// How a restore is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// These paths and what is below them; everything, when empty.
    pub paths: Vec<ItemPath>,
    /// These bytes of a volume, a stream or a file.
    pub range: Option<Range<u64>>,
    /// The target may hold something already; what has the same name is replaced.
    pub into_existing: bool,
    /// Whether owners are restored.
    pub ownership: Ownership,
    /// Bytes of memory that the run may take for blocks.
    pub memory_len_max: usize,
    /// Hold a session meanwhile, which keeps collectors from deleting any pack that is there now. Without it a reader finds
    /// again what a collector moves; only a snapshot that is dropped while it is being restored can be lost to it.
    pub hold: bool,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            range: None,
            into_existing: false,
            ownership: Ownership::default(),
            memory_len_max: 256 << 20,
            hold: false,
        }
    }
}

/// How often a session that is held looks for rounds of garbage collection and shows that it lives.
const BEAT: Duration = Duration::from_secs(60);

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// Items restored.
    pub items: u64,
    /// Files among them.
    pub files: u64,
    /// Bytes of content, holes included.
    pub bytes: u64,
    /// How many items could not be restored.
    pub skipped_count: u64,
    /// The first thousand of them.
    pub skipped: Vec<SkippedItem>,
    /// How many times something about an item could not be set.
    pub unset_count: u64,
    /// The first thousand of them.
    pub unset: Vec<SkippedItem>,
}

/// Findings kept in a report; the rest is counted.
const FINDINGS_MAX: usize = 1000;

impl RestoreReport {
    /// Whether everything asked for is there, as it was.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.skipped_count == 0 && self.unset_count == 0
    }

    fn add(&mut self, done: plan::Done, observer: &dyn Observer) {
        self.items += done.items;
        self.files += done.files;
        self.bytes += done.bytes;
        if done.bytes > 0 {
            observer.event(&crate::Event::Bytes { bytes: done.bytes });
        }
        for skipped in done.findings.skipped {
            let (path, reason) = (&skipped.path, skipped.reason.as_str());
            observer.event(&crate::Event::ItemSkipped { path, reason });
            self.skipped_count += 1;
            if self.skipped.len() < FINDINGS_MAX {
                self.skipped.push(skipped);
            }
        }
        for unset in done.findings.unset {
            self.unset_count += 1;
            if self.unset.len() < FINDINGS_MAX {
                self.unset.push(unset);
            }
        }
    }
}

/// Brings `snapshot` back to `target`.
///
/// Every chunk is checked against its id before a byte of it is written. A tree is put up beside the target and renamed
/// when it is whole and durable. An item that cannot be restored is named in the report and does not stop the others.
///
/// # Errors
/// Whatever stops the restore; the target is as before then.
pub async fn restore(
    repo: &Repository,
    snapshot: &SessionId,
    target: RestoreTarget,
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<RestoreReport, Error> {
    if !options.hold {
        return restore_snapshot(repo, snapshot, target, (options, observer)).await;
    }
    let opening = Opening {
        source: "",
        host: "",
        purpose: "restore",
    };
    let (session, _) = Session::open(repo, opening, observer).await?;
    session.index.rely_on_all();
    let restored = tokio::select! {
        biased;
        restored = restore_snapshot(repo, snapshot, target, (options, observer)) => restored,
        lost = session.keep_alive(repo, BEAT) => Err(lost),
    };
    session.give_up(repo).await;
    restored
}

async fn restore_snapshot(
    repo: &Repository,
    snapshot: &SessionId,
    target: RestoreTarget,
    (options, observer): (&RestoreOptions, &dyn Observer),
) -> Result<RestoreReport, Error> {
    let not_found = || Error::SnapshotNotFound {
        name: snapshot.to_string(),
    };
    let manifest = match read_cell(repo, snapshot).await {
        Ok((Cell::Snapshot(manifest), _)) => manifest,
        Ok((Cell::Aborted, _)) => return Err(not_found()),
        Err(error) if error.is_not_found() => return Err(not_found()),
        Err(error) => return Err(error),
    };
    buggify("cell read, before the index").await;
    let run = Run::new(repo, &manifest, options, observer).await?;
    buggify("index read, before the packs").await;
    observer.event(&crate::Event::Total {
        bytes: manifest.stats.bytes,
    });
    match (manifest.kind, target) {
        (SnapshotKind::Tree, RestoreTarget::Directory(path)) => tree::restore(run, path).await,
        (_, RestoreTarget::Directory(_)) => Err(Error::UnsuitableTarget {
            reason: "the snapshot is of a volume or stream: name a file, not a directory".into(),
        }),
        (_, target) => volume::restore(run, target).await,
    }
}

/// What the ways to restore share.
struct Run<'a> {
    repo: &'a Repository,
    manifest: &'a SnapshotManifest,
    options: &'a RestoreOptions,
    observer: &'a dyn Observer,
    blocks: Arc<BlockReader>,
    fetcher: Fetcher,
    /// Jobs under way at once.
    jobs_max: usize,
}

/// Opened blocks of the item stream kept at once.
const TREE_BLOCKS: usize = 4;

impl<'a> Run<'a> {
    async fn new(
        repo: &'a Repository,
        manifest: &'a SnapshotManifest,
        options: &'a RestoreOptions,
        observer: &'a dyn Observer,
    ) -> Result<Self, Error> {
        let index = Arc::new(load_index(repo).await?);
        let blocks = Arc::new(BlockReader::following(repo, index, TREE_BLOCKS));
        let fetcher = Fetcher::new(repo, blocks.clone());
        // A job's share: its blocks, sealed and opened, twice as many as a batch should need.
        let jobs_max = (options.memory_len_max / (32 << 20)).clamp(1, crate::env::cores() + 2);
        Ok(Self {
            repo,
            manifest,
            options,
            observer,
            blocks,
            fetcher,
            jobs_max,
        })
    }
}

/// An item by its path, without its content; a hard link stands for its first name.
async fn find_item(run: &Run<'_>, path: &ItemPath) -> Result<Option<Item>, Error> {
    let mut path = path.clone();
    loop {
        let from = Some((path.clone(), 0));
        let mut pages = Box::pin(read_parts(
            run.blocks.clone(),
            run.manifest.root.clone(),
            from,
        ));
        let mut found = None;
        'pages: while let Some(parts) = pages.try_next().await? {
            for item in parts.into_iter().filter_map(|part| part.item) {
                if item.path >= path {
                    found = (item.path == path).then_some(item);
                    break 'pages;
                }
            }
        }
        match found {
            // First names come earlier, so this ends.
            Some(Item {
                kind: ItemKind::Hardlink { target },
                ..
            }) => path = target,
            found => return Ok(found),
        }
    }
}
