//! Marks what snapshots need: walks their item lists level by level, each list and page once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::{ChunkId, ChunkKind, SessionId};
use backup_manifest::{
    Cell, Extent, LEVEL_MAX, PageReader, RecordView, SnapshotManifest, TreeRoot, decode_list,
};
use futures::stream::{self, StreamExt};

use crate::env::blocking;
use crate::gc::cache::MarkCache;
use crate::gc::sort::{RefRecord, Scratch, Sorted, Sorter};
use crate::repository::blocks::BlockReader;
use crate::repository::documents::read_cell;
use crate::repository::index::Index;
use crate::{Error, Observer, Repository};

/// Requests for cells or lists under way at once.
const READS_MAX: usize = 8;

/// Opened blocks of lists kept at once. They are read in order, and whoever reads from one holds it besides.
const BLOCKS_MAX: usize = 2;

/// What a collector must know of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CellFacts {
    Aborted,
    Snapshot {
        complete: bool,
        previous: Option<SessionId>,
        /// Of the lists or pages that the root names; pages are level 0.
        level: u8,
        top: Vec<ChunkId>,
    },
}

impl CellFacts {
    fn of(cell: &Cell) -> Self {
        let manifest: &SnapshotManifest = match cell {
            Cell::Aborted => return Self::Aborted,
            Cell::Snapshot(manifest) => manifest,
        };
        let TreeRoot { level, refs } = &manifest.root;
        Self::Snapshot {
            complete: manifest.complete,
            previous: manifest.previous.as_ref().map(|previous| previous.id),
            level: level.saturating_sub(1),
            top: refs.iter().map(|reference| reference.id).collect(),
        }
    }

    /// For an aborted cell nothing; else flags u8 ‖ level u8 ‖ the previous one's id, if there is one ‖ ids, 20 bytes each.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Self::Snapshot {
            complete,
            previous,
            level,
            top,
        } = self
        {
            bytes.push(u8::from(*complete) | u8::from(previous.is_some()) << 1);
            bytes.push(*level);
            bytes.extend(previous.iter().flat_map(SessionId::to_bytes));
            bytes.extend(top.iter().flat_map(|id| *id.as_bytes()));
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((flags, rest)) = bytes.split_first() else {
            return Some(Self::Aborted);
        };
        let (level, mut rest) = rest.split_first()?;
        let mut previous = None;
        if flags & 2 != 0 {
            let (id, after) = rest.split_first_chunk()?;
            previous = Some(SessionId::from_bytes(*id));
            rest = after;
        }
        Some(Self::Snapshot {
            complete: flags & 1 != 0,
            previous,
            level: *level,
            top: ids(rest).collect(),
        })
    }
}

fn ids(bytes: &[u8]) -> impl Iterator<Item = ChunkId> + '_ {
    let (ids, _) = bytes.as_chunks::<20>();
    ids.iter().map(|id| ChunkId::from_bytes(*id))
}

/// Where the memory of a mark goes.
#[derive(Debug, Clone)]
pub(crate) struct MarkSpace {
    pub(crate) refs_len_max: usize,
    pub(crate) scratch: Scratch,
    pub(crate) cache: Option<PathBuf>,
}

/// Marks cells and what they need.
pub(crate) struct Marker<'a> {
    repo: &'a Repository,
    observer: &'a dyn Observer,
    space: MarkSpace,
    cache: MarkCache,
    pub(crate) cells: BTreeMap<SessionId, CellFacts>,
}

impl<'a> Marker<'a> {
    pub(crate) async fn new(
        repo: &'a Repository,
        space: MarkSpace,
        observer: &'a dyn Observer,
    ) -> Result<Self, Error> {
        let (keys, id, directory) = (repo.keys().clone(), repo.id(), space.cache.clone());
        let cache = blocking(move || MarkCache::open(directory.as_deref(), &keys, id)).await?;
        Ok(Self {
            repo,
            observer,
            space,
            cache,
            cells: BTreeMap::new(),
        })
    }

    /// Reads the cells that are not known yet. One that cannot be read is an error: what it needs would be deleted.
    pub(crate) async fn read_cells(
        &mut self,
        wanted: impl IntoIterator<Item = SessionId>,
    ) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for id in wanted {
            if self.cells.contains_key(&id) {
                continue;
            }
            match self.cache.cell(&id) {
                Some(facts) => drop(self.cells.insert(id, facts)),
                None => unknown.push(id),
            }
        }
        let repo = self.repo;
        let mut reads = stream::iter(unknown)
            .map(|id| async move { Ok::<_, Error>((id, read_cell(repo, &id).await?.0)) })
            .buffer_unordered(READS_MAX);
        while let Some(read) = reads.next().await {
            let (id, cell) = read?;
            let facts = CellFacts::of(&cell);
            self.cache.add_cell(&id, &facts);
            self.cells.insert(id, facts);
        }
        Ok(())
    }

    /// The ids of all chunks that these snapshots need: of lists, pages and content.
    pub(crate) async fn mark(
        &mut self,
        index: &Arc<Index>,
        snapshots: impl IntoIterator<Item = SessionId>,
    ) -> Result<Sorted<16>, Error> {
        let mut levels: Vec<BTreeSet<ChunkId>> = vec![BTreeSet::new(); usize::from(LEVEL_MAX)];
        for id in snapshots {
            if let Some(CellFacts::Snapshot { level, top, .. }) = self.cells.get(&id)
                && let Some(ids) = levels.get_mut(usize::from(*level))
            {
                ids.extend(top);
            }
        }
        let mut refs = Refs::new(&self.space);
        for level in (0..LEVEL_MAX).rev() {
            let Some(wanted) = levels.get_mut(usize::from(level)).map(std::mem::take) else {
                continue;
            };
            let mut below = BTreeSet::new();
            self.level(index, (level, wanted), &mut refs, &mut below)
                .await?;
            if let Some(level) = level.checked_sub(1)
                && let Some(ids) = levels.get_mut(usize::from(level))
            {
                ids.append(&mut below);
            }
        }
        refs.finish().await
    }

    /// Goes through the lists or pages of one level.
    async fn level(
        &mut self,
        index: &Arc<Index>,
        (level, wanted): (u8, BTreeSet<ChunkId>),
        refs: &mut Refs,
        below: &mut BTreeSet<ChunkId>,
    ) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for id in wanted {
            refs.push(*id.short().as_bytes()).await?;
            match self.cache.node(&id, level) {
                Some(children) => take(level, &children, refs, below).await?,
                None => unknown.push(id),
            }
        }
        // In the order of their places, so that each block is fetched once.
        unknown.sort_by_cached_key(|id| index.find(id).map(|place| (place.block, place.offset)));
        let blocks = BlockReader::new(self.repo, index.clone(), BLOCKS_MAX);
        let blocks = &blocks;
        let mut reads = stream::iter(unknown)
            .map(|id| async move {
                let bytes = blocks.chunk(ChunkKind::Tree, &id).await?;
                let children = blocking(move || children(level, &id, &bytes)).await??;
                Ok::<_, Error>((id, children))
            })
            .buffered(READS_MAX);
        while let Some(read) = reads.next().await {
            let (id, children) = read?;
            self.cache.add_node(&id, level, &children);
            take(level, &children, refs, below).await?;
            if self.observer.should_stop() {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    }

    /// Keeps what was marked for the next run.
    pub(crate) async fn keep(self) -> Result<(), Error> {
        let (cache, keys) = (self.cache, self.repo.keys().clone());
        blocking(move || cache.keep(&keys)).await
    }
}

/// Takes what a page or list refers to.
async fn take(
    level: u8,
    children: &[u8],
    refs: &mut Refs,
    below: &mut BTreeSet<ChunkId>,
) -> Result<(), Error> {
    if level > 0 {
        below.extend(ids(children));
        return Ok(());
    }
    let (records, _) = children.as_chunks();
    for record in records {
        refs.push(*record).await?;
    }
    Ok(())
}

/// The ids that a page or a list refers to, each once, back to back.
fn children(level: u8, id: &ChunkId, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    if level == 0 {
        let damaged = |e| Error::damaged(format!("page {id}"), e);
        let mut reader = PageReader::new(bytes).map_err(damaged)?;
        let mut ids = Vec::new();
        while let Some(record) = reader.next_record().map_err(damaged)? {
            if let RecordView::Extent(Extent::Data { id, .. }) = record {
                ids.push(*id.short().as_bytes());
            }
        }
        return Ok(each_once(ids));
    }
    let list = decode_list(bytes, level);
    let list = list.map_err(|e| Error::damaged(format!("list {id}"), e))?;
    Ok(each_once(
        list.iter()
            .map(|reference| *reference.id.as_bytes())
            .collect(),
    ))
}

fn each_once<const N: usize>(mut ids: Vec<[u8; N]>) -> Vec<u8> {
    ids.sort_unstable();
    ids.dedup();
    ids.into_flattened()
}

/// The ids that are needed.
struct Refs(Option<Sorter<16>>);

impl Refs {
    fn new(space: &MarkSpace) -> Self {
        Self(Some(Sorter::new(space.refs_len_max, space.scratch.clone())))
    }

    async fn push(&mut self, record: RefRecord) -> Result<(), Error> {
        let Some(sorter) = &mut self.0 else {
            return Err(Error::WorkerLost);
        };
        sorter.push(record);
        if sorter.is_full()
            && let Some(full) = self.0.take()
        {
            self.0 = Some(spill(full).await?);
        }
        Ok(())
    }

    async fn finish(self) -> Result<Sorted<16>, Error> {
        let sorter = self.0.ok_or(Error::WorkerLost)?;
        blocking(move || sorter.finish()).await?
    }
}

/// Spills a full sorter where blocking is allowed.
pub(crate) async fn spill<const N: usize>(mut sorter: Sorter<N>) -> Result<Sorter<N>, Error> {
    blocking(move || {
        sorter.spill()?;
        Ok(sorter)
    })
    .await?
}
