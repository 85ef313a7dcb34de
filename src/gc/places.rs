//! Where every chunk is: what the segments and the packs' own directories say, in a sorted file.

use std::collections::HashMap;
use std::sync::Arc;

use backup_core::{ChunkKind, PackId, SegmentPack};
use futures::stream::{self, StreamExt};

use crate::gc::gate::Gate;
use crate::gc::inventory::Inventory;
use crate::gc::mark::spill;
use crate::gc::segments::SMALL_CHUNKS;
use crate::gc::sort::{Scratch, Sorted, Sorter, place_record};
use crate::repository::index::{Index, IndexBuilder};
use crate::repository::load_index::{read_directory, read_segment, usable};
use crate::repository::segments::{SEGMENT_CHUNKS, put_segment};
use crate::{Error, Repository};

/// Requests for segments or directories under way at once.
const READS_MAX: usize = 8;

/// The share of the memory for sorting that segments being read may have. Sealed, opened and taken apart, one takes more
/// than three times its length.
const SEGMENTS_SHARE: usize = 4;

/// Where every chunk of the listed packs is. Packs go by their numbers in the inventory.
pub(crate) struct Places {
    pub(crate) sorted: Sorted<24>,
    /// Where the chunks of item lists are; only these are held in memory.
    pub(crate) lists: Arc<Index>,
    /// Packs that no segment names: no more than fit into one.
    pub(crate) unnamed: Vec<SegmentPack>,
    /// Segments written because there were more.
    pub(crate) segments_written: u64,
    /// Packs whose directory cannot be read: what they hold is not known.
    pub(crate) unreadable: Vec<PackId>,
    pub(crate) kinds: Vec<Option<ChunkKind>>,
    /// How many chunks each pack holds.
    pub(crate) counts: Vec<u32>,
    /// Segments so small that they are worth merging.
    pub(crate) small_segments: usize,
}

impl Places {
    pub(crate) async fn read(
        repo: &Repository,
        inventory: &Inventory,
        space: PlaceSpace,
    ) -> Result<Self, Error> {
        let mut gathering = Gathering::new(inventory, space.len_max, space.scratch);
        let gate = Gate::new(space.len_max / SEGMENTS_SHARE);
        let segments = stream::iter(inventory.segments.clone())
            .then(move |(id, len)| {
                let gate = gate.clone();
                async move { (id, gate.enter(len).await) }
            })
            .map(|(id, room)| async move { (read_segment(repo, &id).await, room) })
            .buffered(READS_MAX);
        let mut segments = segments.boxed();
        let mut small_segments = 0;
        while let Some((segment, room)) = segments.next().await {
            let _room = room?;
            let Some(segment) = usable(segment)? else {
                continue;
            };
            let chunks = segment
                .packs
                .iter()
                .map(|pack| pack.directory.chunk_count());
            small_segments += usize::from(chunks.sum::<usize>() < SMALL_CHUNKS);
            for pack in &segment.packs {
                if inventory.pack(&pack.id).map(|listed| listed.len) == Some(pack.len) {
                    gathering = gathering.take(pack).await?;
                }
            }
        }
        let (mut unnamed, mut unreadable) = (Unnamed::default(), Vec::new());
        let missing: Vec<_> = inventory
            .packs
            .iter()
            .filter(|pack| gathering.is_new(&pack.id))
            .copied()
            .collect();
        let mut reads = stream::iter(missing)
            .map(|pack| async move { (pack.id, read_directory(repo, &pack.id, pack.len).await) })
            .buffered(READS_MAX);
        while let Some((id, read)) = reads.next().await {
            let Some(pack) = usable(read)? else {
                unreadable.push(id);
                continue;
            };
            gathering = gathering.take(&pack).await?;
            unnamed.take(repo, pack, space.is_dry_run).await?;
        }
        let (sorter, lists) = (gathering.sorter, Arc::new(gathering.lists.finish()));
        Ok(Self {
            sorted: crate::env::blocking(move || sorter.finish()).await??,
            lists,
            unnamed: unnamed.packs,
            segments_written: unnamed.segments_written,
            unreadable,
            kinds: gathering.kinds,
            counts: gathering.counts,
            small_segments,
        })
    }
}

/// Where the memory for places goes.
#[derive(Debug)]
pub(crate) struct PlaceSpace {
    pub(crate) len_max: usize,
    pub(crate) scratch: Scratch,
    pub(crate) is_dry_run: bool,
}

/// Packs that no segment names, not too many at once: when all segments are lost, that is all packs there are.
#[derive(Default)]
struct Unnamed {
    packs: Vec<SegmentPack>,
    chunks: usize,
    segments_written: u64,
}

impl Unnamed {
    async fn take(
        &mut self,
        repo: &Repository,
        pack: SegmentPack,
        is_dry_run: bool,
    ) -> Result<(), Error> {
        self.chunks += pack.directory.chunk_count();
        self.packs.push(pack);
        if self.chunks < SEGMENT_CHUNKS {
            return Ok(());
        }
        self.chunks = 0;
        let packs = std::mem::take(&mut self.packs);
        if !is_dry_run {
            put_segment(repo, packs).await?;
            self.segments_written += 1;
        }
        Ok(())
    }
}

struct Gathering {
    sorter: Sorter<24>,
    lists: IndexBuilder,
    numbers: HashMap<PackId, u32>,
    /// Set when a pack's chunks were taken.
    kinds: Vec<Option<ChunkKind>>,
    counts: Vec<u32>,
}

impl Gathering {
    fn new(inventory: &Inventory, len_max: usize, scratch: Scratch) -> Self {
        let mut gathering = Self {
            sorter: Sorter::new(len_max, scratch),
            lists: IndexBuilder::new(inventory.damaged.clone()),
            numbers: HashMap::with_capacity(inventory.packs.len()),
            kinds: vec![None; inventory.packs.len()],
            counts: vec![0; inventory.packs.len()],
        };
        for (number, pack) in inventory.packs.iter().enumerate() {
            gathering.numbers.insert(pack.id, number as u32);
        }
        gathering
    }

    fn is_new(&self, pack: &PackId) -> bool {
        let number = self.numbers.get(pack).map(|number| *number as usize);
        number.is_some_and(|number| self.kinds.get(number) == Some(&None))
    }

    /// Takes in the chunks of a pack, once.
    async fn take(mut self, pack: &SegmentPack) -> Result<Self, Error> {
        if !self.is_new(&pack.id) {
            return Ok(self);
        }
        let Some(number) = self.numbers.get(&pack.id).copied() else {
            return Ok(self);
        };
        if let Some(kind) = self.kinds.get_mut(number as usize) {
            *kind = Some(pack.kind);
        }
        if let Some(count) = self.counts.get_mut(number as usize) {
            *count = pack.directory.chunk_count() as u32;
        }
        if pack.kind == ChunkKind::Tree {
            self.lists.add(pack);
        }
        for chunk in pack.directory.iter() {
            self.sorter.push(place_record(&chunk.id, number, chunk.len));
            if self.sorter.is_full() {
                self.sorter = spill(self.sorter).await?;
            }
        }
        Ok(self)
    }
}
