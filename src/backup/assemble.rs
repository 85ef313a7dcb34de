//! The second stage of a backup: decides what is new, fills blocks with it, and writes the item stream.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use backup_core::{BlockSealer, ChunkId, ChunkKind, Keys, RepositoryId, SealError, ShortId};
use backup_manifest::{
    Extent, Item, ItemKind, ItemPath, Page, PageParams, PageWriter, SkippedItem, SnapshotStats,
    TreeBuilder, TreeRef, TreeRoot, TreeStep, WriteError,
};
use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::backup::produce::Pending;
use crate::backup::read::{Batch, Buffer, Output};
use crate::buffers::{Pool, Pooled};
use crate::env::{Job, start};
use crate::repository::index::{IdHasher, Index};
use crate::{Error, Event, Observer};

/// A block that was sealed, and the chunks in it.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) kind: ChunkKind,
    pub(crate) record: Pooled<Vec<u8>>,
    pub(crate) chunks: Vec<(ShortId, u32)>,
}

/// Where the bytes of a chunk are until its block is sealed.
#[derive(Debug)]
enum Bytesource {
    Buffer(Buffer, usize),
    Page(Bytes),
}

/// Chunks that will be a block.
#[derive(Debug, Default)]
struct Filling {
    pieces: Vec<(Bytesource, usize)>,
    chunks: Vec<(ShortId, u32)>,
    len: usize,
}

/// What a run counted. Bytes are of plaintext unless said otherwise.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) items: u64,
    pub(crate) files: u64,
    pub(crate) files_unchanged: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_new: u64,
    pub(crate) chunks: u64,
    pub(crate) chunks_new: u64,
    pub(crate) tree_bytes_new: u64,
    pub(crate) skipped_count: u64,
    pub(crate) skipped: Vec<SkippedItem>,
}

impl Counts {
    /// The sums that a snapshot carries.
    pub(crate) fn stats(&self) -> SnapshotStats {
        SnapshotStats {
            items: self.items,
            files: self.files,
            bytes: self.bytes,
        }
    }
}

/// What the second stage hands back when the source has ended.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) root: TreeRoot,
    pub(crate) counts: Counts,
}

/// Decides what is new and fills blocks with it.
pub(crate) struct Assembler<'a> {
    sealing: Arc<Sealing>,
    index: Arc<Index>,
    observer: &'a dyn Observer,
    sealed: Sender<Job<Result<Sealed, SealError>>>,
    block_len: usize,
    state: State,
}

#[derive(Debug)]
struct State {
    new: HashSet<ShortId, BuildHasherDefault<IdHasher>>,
    data: Filling,
    tree: Filling,
    pages: Option<PageWriter>,
    lists: TreeBuilder,
    counts: Counts,
    current: Option<Current>,
    /// Paths that were skipped: hard links to them would lead nowhere.
    missing: HashSet<ItemPath>,
}

/// The item whose content is coming in.
#[derive(Debug)]
struct Current {
    path: ItemPath,
    bytes: u64,
    unchanged: bool,
}

/// This many skipped items are named in the snapshot; the rest is counted.
pub(crate) const SKIPPED_NAMED_MAX: usize = 100;

impl Default for State {
    fn default() -> Self {
        Self {
            new: HashSet::default(),
            data: Filling::default(),
            tree: Filling::default(),
            pages: Some(PageWriter::new(PageParams::default())),
            lists: TreeBuilder::new(PageParams::default()),
            counts: Counts::default(),
            current: None,
            missing: HashSet::new(),
        }
    }
}

/// What every sealing job needs.
#[derive(Debug)]
pub(crate) struct Sealing {
    pub(crate) keys: Arc<Keys>,
    pub(crate) repository: RepositoryId,
    pub(crate) level: i32,
    pub(crate) sealers: Arc<Pool<BlockSealer>>,
    /// For records, and for blocks whose chunks lie apart.
    pub(crate) buffers: Arc<Pool<Vec<u8>>>,
}

impl<'a> Assembler<'a> {
    /// Gathers blocks of `block_len` bytes of plaintext.
    pub(crate) fn new(
        sealing: Sealing,
        index: Arc<Index>,
        observer: &'a dyn Observer,
        sealed: Sender<Job<Result<Sealed, SealError>>>,
        block_len: usize,
    ) -> Self {
        let state = State::default();
        Self {
            sealing: Arc::new(sealing),
            index,
            observer,
            sealed,
            block_len,
            state,
        }
    }

    /// Takes batches until there are no more. `None` when the run is to stop: then only the data blocks are completed.
    pub(crate) async fn run(
        mut self,
        mut batches: Receiver<Pending>,
        stopped: &std::sync::atomic::AtomicBool,
    ) -> Result<Option<Assembled>, Error> {
        while let Some(pending) = batches.recv().await {
            let batch = match pending {
                Pending::Ready(batch) => batch,
                Pending::Job(job) => job.finish().await??,
            };
            self.take(batch).await?;
        }
        self.end_item();
        self.seal_block(ChunkKind::Data).await?;
        if stopped.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(pages) = self.state.pages.take()
            && let Some(page) = pages.finish().map_err(stream_error)?
        {
            self.page(0, page).await?;
        }
        let root = self.finish_lists().await?;
        self.seal_block(ChunkKind::Tree).await?;
        Ok(Some(Assembled {
            root,
            counts: self.state.counts,
        }))
    }

    async fn take(&mut self, batch: Batch) -> Result<(), Error> {
        for output in batch.outputs {
            match output {
                Output::Item { item, unchanged } => self.item(item, unchanged).await?,
                // The content of an item that could not be recorded.
                Output::Extent(_) | Output::Chunk { .. } if self.state.current.is_none() => {}
                Output::Extent(extent) => self.extent(extent).await?,
                Output::Chunk { id, start, len } => {
                    self.state.counts.bytes_read += u64::from(len);
                    if let Some(buffer) = &batch.buffer {
                        let bytes = Bytesource::Buffer(buffer.clone(), start);
                        self.chunk(ChunkKind::Data, id, bytes, len as usize).await?;
                    }
                    self.extent(Extent::Data { len, id }).await?;
                }
                Output::Skipped { path, reason } => self.skipped(path, reason),
            }
        }
        Ok(())
    }

    async fn item(&mut self, mut item: Item, unchanged: bool) -> Result<(), Error> {
        self.end_item();
        if let ItemKind::Hardlink { target } = &item.kind
            && self.state.missing.contains(target)
        {
            let reason = format!("it is a further name of {target}, which could not be read");
            self.skipped(item.path, reason);
            return Ok(());
        }
        let mut pushed = self.pages()?.push_item(&item);
        if let Err(WriteError::BadMetadata { what, .. }) = pushed {
            self.skipped(item.path.clone(), format!("its {what} cannot be recorded"));
            if item.kind != ItemKind::Directory {
                return Ok(());
            }
            // What is below it needs its directory.
            item.meta.xattrs.clear();
            pushed = self.pages()?.push_item(&item);
        }
        let page = pushed.map_err(stream_error)?;
        self.state.counts.items += 1;
        if item.kind.has_content() {
            self.state.counts.files += 1;
            self.state.counts.files_unchanged += u64::from(unchanged);
        }
        self.state.current = Some(Current {
            path: item.path,
            bytes: 0,
            unchanged,
        });
        self.pages_full(page).await
    }

    fn end_item(&mut self) {
        if let Some(current) = self.state.current.take() {
            let Current {
                path,
                bytes,
                unchanged,
            } = current;
            self.observer.event(&Event::ItemFinished {
                path: &path,
                bytes,
                unchanged,
            });
        }
    }

    fn skipped(&mut self, path: ItemPath, reason: String) {
        self.observer.event(&Event::ItemSkipped {
            path: &path,
            reason: &reason,
        });
        // What is told of the item that is coming in is not about its absence.
        if self
            .state
            .current
            .as_ref()
            .is_none_or(|current| current.path != path)
        {
            self.state.missing.insert(path.clone());
        }
        self.state.counts.skipped_count += 1;
        if self.state.counts.skipped.len() < SKIPPED_NAMED_MAX {
            self.state.counts.skipped.push(SkippedItem { path, reason });
        }
    }

    fn pages(&mut self) -> Result<&mut PageWriter, Error> {
        self.state.pages.as_mut().ok_or(Error::WorkerLost)
    }

    async fn extent(&mut self, extent: Extent) -> Result<(), Error> {
        let len = extent.len();
        self.state.counts.bytes += len;
        self.state.counts.chunks += u64::from(matches!(extent, Extent::Data { .. }));
        if let Some(current) = &mut self.state.current {
            current.bytes += len;
        }
        self.observer.event(&Event::Bytes { bytes: len });
        let page = self.pages()?.push_extent(extent).map_err(stream_error)?;
        self.pages_full(page).await
    }

    async fn pages_full(&mut self, page: Option<Page>) -> Result<(), Error> {
        match page {
            Some(page) => self.page(0, page).await,
            None => Ok(()),
        }
    }

    /// Stores a page as a tree chunk and refers to it from the list above, and so on upwards.
    async fn page(&mut self, level: u8, page: Page) -> Result<(), Error> {
        let mut next = Some((level, page));
        while let Some((level, page)) = next {
            let id = self.sealing.keys.chunk_id(ChunkKind::Tree, &page.bytes);
            let len = page.bytes.len();
            let Page {
                bytes,
                first,
                first_offset,
                ..
            } = page;
            self.chunk(ChunkKind::Tree, id, Bytesource::Page(bytes.into()), len)
                .await?;
            let reference = TreeRef {
                id,
                len: len as u32,
                first,
                first_offset,
            };
            next = self
                .state
                .lists
                .push(level, reference)
                .map_err(stream_error)?;
        }
        Ok(())
    }

    async fn finish_lists(&mut self) -> Result<TreeRoot, Error> {
        loop {
            match self.state.lists.finish().map_err(stream_error)? {
                TreeStep::Root(root) => return Ok(root),
                TreeStep::Store { level, list } => self.page(level, list).await?,
            }
        }
    }

    /// Takes a chunk into the block being filled, unless it is known.
    async fn chunk(
        &mut self,
        kind: ChunkKind,
        id: ChunkId,
        bytes: Bytesource,
        len: usize,
    ) -> Result<(), Error> {
        if self.index.rely_on(&id, len as u32) || !self.state.new.insert(id.short()) {
            return Ok(());
        }
        match kind {
            ChunkKind::Data => {
                self.state.counts.chunks_new += 1;
                self.state.counts.bytes_new += len as u64;
            }
            ChunkKind::Tree => self.state.counts.tree_bytes_new += len as u64,
        }
        let block_len = self.block_len;
        if self.filling(kind).len + len > block_len {
            self.seal_block(kind).await?;
        }
        let filling = self.filling(kind);
        filling.pieces.push((bytes, len));
        filling.chunks.push((id.short(), len as u32));
        filling.len += len;
        Ok(())
    }

    fn filling(&mut self, kind: ChunkKind) -> &mut Filling {
        match kind {
            ChunkKind::Data => &mut self.state.data,
            ChunkKind::Tree => &mut self.state.tree,
        }
    }

    async fn seal_block(&mut self, kind: ChunkKind) -> Result<(), Error> {
        let filling = std::mem::take(self.filling(kind));
        if filling.len == 0 {
            return Ok(());
        }
        let sealing = self.sealing.clone();
        let job = start(move || seal(&sealing, kind, filling));
        self.sealed.send(job).await.map_err(|_| Error::WorkerLost)
    }
}

fn seal(sealing: &Sealing, kind: ChunkKind, filling: Filling) -> Result<Sealed, SealError> {
    let Sealing {
        keys,
        repository,
        level,
        sealers,
        buffers,
    } = sealing;
    let mut sealer = sealers.take(|| BlockSealer::new(*repository, *level))?;
    let mut record = buffers.take_empty();
    let gathered;
    if let (Some(sealer), Some(record)) = (sealer.get_mut(), record.get_mut()) {
        let plain = match contiguous(&filling) {
            Some(plain) => plain,
            None => {
                gathered = gather(&filling, buffers);
                gathered.as_ref()
            }
        };
        sealer.seal(keys, kind, plain, record)?;
    }
    Ok(Sealed {
        kind,
        record,
        chunks: filling.chunks,
    })
}

/// The block's bytes, when its chunks follow each other in one buffer: the usual case of a long new file.
fn contiguous(filling: &Filling) -> Option<&[u8]> {
    let (Bytesource::Buffer(first, start), _) = filling.pieces.first()? else {
        return None;
    };
    let mut end = *start;
    for (piece, len) in &filling.pieces {
        match piece {
            Bytesource::Buffer(buffer, at) if Arc::ptr_eq(buffer, first) && *at == end => {
                end += len
            }
            _ => return None,
        }
    }
    first.get()?.get(*start..end)
}

fn gather(filling: &Filling, buffers: &Arc<Pool<Vec<u8>>>) -> Pooled<Vec<u8>> {
    let mut gathered = buffers.take_empty();
    if let Some(plain) = gathered.get_mut() {
        plain.reserve(filling.len);
        for (piece, len) in &filling.pieces {
            match piece {
                Bytesource::Buffer(buffer, at) => {
                    let bytes = buffer.get().and_then(|buffer| buffer.get(*at..at + len));
                    plain.extend_from_slice(bytes.unwrap_or_default());
                }
                Bytesource::Page(bytes) => plain.extend_from_slice(bytes),
            }
        }
    }
    gathered
}

fn stream_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::damaged("item stream", error)
}
