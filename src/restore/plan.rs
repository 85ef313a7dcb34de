//! Decides what is restored together: the items of a snapshot, in order, become batches that each need few blocks.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backup_manifest::{Extent, Item, ItemKind, ItemPath};

use super::fetch::{Fetched, Fetcher, Piece};
use super::place::{Findings, NewFile, Place, Placer, set_len};
use super::write::write_pieces;
use crate::repository::tree::Part;

/// A batch is full with this many bytes of content...
const BATCH_LEN: u64 = 6 << 20;

/// ...or this many blocks...
const BATCH_BLOCKS: usize = 4;

/// ...or this many items.
const BATCH_ITEMS: usize = 1024;

/// Files longer than this are written by several jobs at once.
const LARGE_LEN: u64 = 4 << 20;

/// Items, and parts of items, that one job puts in their place.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    works: Vec<Work>,
    pub(crate) blocks: BTreeSet<u32>,
    bytes: u64,
}

#[derive(Debug)]
enum Work {
    /// Something without content.
    Node(Item),
    File {
        item: Item,
        pieces: Vec<Piece>,
    },
    /// Some content of a file that several jobs write.
    Part {
        file: Arc<LargeFile>,
        pieces: Vec<Piece>,
        covers: u64,
    },
    /// Content that no pack holds.
    Lost {
        item: Item,
        why: String,
    },
}

/// A file that several jobs write; the last one to finish settles it.
#[derive(Debug)]
pub(crate) struct LargeFile {
    item: Item,
    state: Mutex<LargeState>,
    /// Bytes, holes included, that no job has covered yet.
    left: AtomicU64,
}

#[derive(Debug, Default)]
struct LargeState {
    new: Option<NewFile>,
    failed: Option<String>,
}

/// What a job did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) items: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) findings: Findings,
}

/// Makes batches of the items of a snapshot.
pub(crate) struct Planner<'a> {
    fetcher: &'a Fetcher,
    /// What is wanted; everything, when empty.
    paths: &'a [ItemPath],
    batch: Batch,
    full: Vec<Batch>,
    current: Option<Current>,
    /// Hard links whose first name is not wanted: the name that stands for it.
    stand_ins: HashMap<ItemPath, ItemPath>,
}

/// The file whose content is coming in.
#[derive(Debug)]
struct Current {
    item: Item,
    pieces: Vec<Piece>,
    at: u64,
    large: Option<Arc<LargeFile>>,
    /// Where the pieces begin: up to here, jobs have covered the file.
    covered: u64,
    lost: Option<String>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(fetcher: &'a Fetcher, paths: &'a [ItemPath]) -> Self {
        Self {
            fetcher,
            paths,
            batch: Batch::default(),
            full: Vec::new(),
            current: None,
            stand_ins: HashMap::new(),
        }
    }

    /// Takes what a page says of an item. Returns a hard link whose content must be fetched from elsewhere.
    pub(crate) fn take(&mut self, part: Part) -> Option<Item> {
        let mut elsewhere = None;
        if let Some(item) = part.item {
            self.end_item();
            if !is_wanted(self.paths, &item.path) {
                return None;
            }
            match &item.kind {
                ItemKind::Directory => {}
                ItemKind::Hardlink { target } => {
                    let missing = !is_wanted(self.paths, target);
                    if missing && !self.stand_ins.contains_key(target) {
                        self.stand_ins.insert(target.clone(), item.path.clone());
                        elsewhere = Some(item);
                    }
                }
                ItemKind::File => self.begin(item),
                ItemKind::Volume | ItemKind::Stream => {
                    let why = "a volume or stream within a tree: restore it to a file".into();
                    self.push(Work::Lost { item, why }, 0);
                }
                _ => self.push(Work::Node(item), 0),
            }
        }
        for extent in part.extents {
            self.extent(extent);
        }
        elsewhere
    }

    /// Takes the item of a hard link's first name under the link's own.
    pub(crate) fn take_stand_in(&mut self, link: ItemPath, item: Item, extents: Vec<Extent>) {
        self.end_item();
        let item = Item { path: link, ..item };
        if item.kind != ItemKind::File {
            return self.push(Work::Node(item), 0);
        }
        self.begin(item);
        for extent in extents {
            self.extent(extent);
        }
        self.end_item();
    }

    /// Names a hard link whose content is nowhere.
    pub(crate) fn lose(&mut self, link: Item) {
        let why = "the file that it is a further name of is not in the snapshot".into();
        self.push(Work::Lost { item: link, why }, 0);
    }

    /// The names that stand for hard links' first names that are not wanted.
    pub(crate) fn into_stand_ins(self) -> HashMap<ItemPath, ItemPath> {
        self.stand_ins
    }

    /// Batches that are full.
    pub(crate) fn full(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.full)
    }

    /// The last batches.
    pub(crate) fn finish(&mut self) -> Vec<Batch> {
        self.end_item();
        self.flush();
        self.full()
    }

    fn begin(&mut self, item: Item) {
        let large = (item.meta.len > LARGE_LEN).then(|| large_file(&item));
        self.current = Some(Current {
            item,
            pieces: Vec::new(),
            at: 0,
            large,
            covered: 0,
            lost: None,
        });
    }

    fn extent(&mut self, extent: Extent) {
        let Some(current) = &mut self.current else {
            return;
        };
        let at = current.at;
        current.at += extent.len();
        if let Extent::Data { len, id } = extent {
            match self.fetcher.locate(&id, len) {
                Some(piece) => current.pieces.push(Piece { at, ..piece }),
                None => current.lost = Some(format!("its chunk {id} is in no pack")),
            }
        }
        let is_new_block = match current.pieces.as_slice() {
            [.., before, last] => before.block != last.block,
            _ => false,
        };
        let (is_large, pieces) = (current.large.is_some(), current.pieces.len());
        if is_large && (is_new_block || pieces >= BATCH_ITEMS) && self.would_fill() {
            self.cover(true);
        }
    }

    fn would_fill(&self) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let bytes: u64 = current
            .pieces
            .iter()
            .map(|piece| u64::from(piece.len))
            .sum();
        bytes >= BATCH_LEN || count_blocks(&current.pieces) >= BATCH_BLOCKS
    }

    /// Hands the pieces of a large file gathered so far to a job; the last one, which begins another block, stays.
    fn cover(&mut self, keep_last: bool) {
        let Some(current) = &mut self.current else {
            return;
        };
        let Some(file) = current.large.clone() else {
            return;
        };
        let last = if keep_last {
            current.pieces.pop()
        } else {
            None
        };
        let end = last.map_or(current.at, |piece| piece.at);
        let pieces = std::mem::replace(&mut current.pieces, last.into_iter().collect());
        let covers = end - current.covered;
        current.covered = end;
        if let Some(why) = current.lost.clone() {
            file.fail(why);
        }
        let bytes = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        self.blocks_of(&pieces);
        self.push(
            Work::Part {
                file,
                pieces,
                covers,
            },
            bytes,
        );
    }

    fn end_item(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.large.is_none() && count_blocks(&current.pieces) > BATCH_BLOCKS {
            // A small file scattered over many blocks: dealt out like a large one.
            let pieces = std::mem::take(&mut current.pieces);
            current.large = Some(large_file(&current.item));
            for piece in pieces {
                if let Some(current) = &mut self.current {
                    current.pieces.push(piece);
                }
                if self.would_fill() {
                    self.cover(true);
                }
            }
        }
        let Some(current) = &self.current else { return };
        if current.large.is_some() {
            self.cover(false);
            self.current = None;
            return;
        }
        if let Some(Current {
            item, pieces, lost, ..
        }) = self.current.take()
        {
            match lost {
                Some(why) => self.push(Work::Lost { item, why }, 0),
                None => {
                    let bytes = pieces.iter().map(|piece| u64::from(piece.len)).sum();
                    self.blocks_of(&pieces);
                    self.push(Work::File { item, pieces }, bytes);
                }
            }
        }
    }

    /// Notes the blocks that pieces need; begins a new batch where that saves opening a block twice.
    fn blocks_of(&mut self, pieces: &[Piece]) {
        let begins_anew = pieces
            .first()
            .is_some_and(|first| !self.batch.blocks.contains(&first.block));
        let is_full = self.batch.bytes >= BATCH_LEN || self.batch.blocks.len() >= BATCH_BLOCKS;
        let overfull = self.batch.bytes >= 2 * BATCH_LEN
            || self.batch.blocks.len() + count_blocks(pieces) > 2 * BATCH_BLOCKS;
        if (is_full && begins_anew) || overfull {
            self.flush();
        }
        self.batch
            .blocks
            .extend(pieces.iter().map(|piece| piece.block));
    }

    fn push(&mut self, work: Work, bytes: u64) {
        self.batch.works.push(work);
        self.batch.bytes += bytes;
        if self.batch.works.len() >= BATCH_ITEMS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.works.is_empty() {
            self.full.push(std::mem::take(&mut self.batch));
        }
    }
}

/// Whether a path is among those wanted, or below one.
pub(crate) fn is_wanted(paths: &[ItemPath], path: &ItemPath) -> bool {
    paths.is_empty() || paths.iter().any(|wanted| path.starts_with(wanted))
}

fn large_file(item: &Item) -> Arc<LargeFile> {
    Arc::new(LargeFile {
        left: AtomicU64::new(item.meta.len),
        item: item.clone(),
        state: Mutex::default(),
    })
}

fn count_blocks(pieces: &[Piece]) -> usize {
    let mut blocks: Vec<u32> = pieces.iter().map(|piece| piece.block).collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks.len()
}

impl Batch {
    /// Puts everything in its place. Runs on the blocking pool.
    pub(crate) fn run(self, place: &Place, mut fetched: Fetched) -> Done {
        let mut placer = Placer::new(place);
        let mut done = Done::default();
        for work in self.works {
            match work {
                Work::Node(item) => done.items += u64::from(placer.node(&item)),
                Work::Lost { item, why } => placer.findings.skip(&item.path, why),
                Work::File { item, pieces } => {
                    if placer.file(&item, &pieces, &mut fetched) {
                        done.items += 1;
                        done.files += 1;
                        done.bytes += item.meta.len;
                    }
                }
                Work::Part {
                    file,
                    pieces,
                    covers,
                } => {
                    if file.write(&mut placer, &pieces, covers, &mut fetched) {
                        done.items += 1;
                        done.files += 1;
                    }
                    done.bytes += covers;
                }
            }
        }
        done.findings = placer.findings;
        done
    }
}

impl LargeFile {
    fn fail(&self, why: String) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .failed
            .get_or_insert(why);
    }

    /// Writes pieces; `true` when the file has become whole by it.
    fn write(
        &self,
        placer: &mut Placer<'_>,
        pieces: &[Piece],
        covers: u64,
        fetched: &mut Fetched,
    ) -> bool {
        match self.open(placer) {
            Ok(new) => {
                if let Err(why) = write_pieces(&new.content, pieces, fetched) {
                    self.fail(why);
                }
            }
            Err(why) => self.fail(why),
        }
        if self.left.fetch_sub(covers, Ordering::AcqRel) != covers {
            return false;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let written = state.failed.take().map_or(Ok(()), Err);
        match (state.new.take(), written) {
            (Some(new), written) => placer.settle(&self.item, new, written),
            (None, written) => {
                let why = written
                    .err()
                    .unwrap_or_else(|| "it could not be created".into());
                placer.findings.skip(&self.item.path, why);
                false
            }
        }
    }

    /// The file, created by whoever comes first.
    fn open(&self, placer: &mut Placer<'_>) -> Result<NewFile, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = &state.new {
            return Ok(new.clone());
        }
        if let Some(why) = &state.failed {
            return Err(why.clone());
        }
        let created = placer.create(&self.item);
        let new = created.map_err(|error| std::io::Error::from(error).to_string())?;
        state.new = Some(new.clone());
        set_len(&new.content.fd, self.item.meta.len)?;
        Ok(new)
    }
}
