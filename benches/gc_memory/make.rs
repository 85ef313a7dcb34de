//! Makes large repositories: segments, cells and item lists are real, packs of content are holes of the right length.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use backup::MasterKey;
use backup_core::{
    BlockSealer, ChunkId, ChunkKind, Directory, DocumentContext, DocumentKind, Keys, PackBuilder,
    PackId, RepositoryId, Segment, SegmentPack, SessionId, ShortId, padme, seal_document,
};
use backup_manifest::{
    Cell, Extent, Item, ItemKind, ItemPath, Metadata, Page, PageParams, PageWriter, SnapshotKind,
    SnapshotManifest, SnapshotStats, TreeBuilder, TreeRef, TreeStep, pack_key, segment_key,
    snapshot_key,
};

const CHUNK_LEN: u32 = 32 << 10;
const PACK_CHUNKS: u64 = 1024;
const BLOCK_CHUNKS: u64 = 96;
const BLOCK_LEN: usize = 3 << 20;
const PACK_LEN: usize = 32 << 20;
const SEGMENT_CHUNKS: usize = 1 << 18;

/// Every so many packs, nothing of one is needed; in the others one of so many chunks is not.
const GARBAGE_PACKS: u64 = 12;
const GARBAGE_CHUNKS: u64 = 50;

/// Each shares half of its pages with the one before.
const SNAPSHOTS: u64 = 100;

/// Packs with real content, half of which is needed.
const REAL_PACKS: u64 = 16;
const REAL_LEN: usize = 4 << 10;

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) chunks: u64,
    pub(crate) live: u64,
    pub(crate) lists: u64,
    pub(crate) packs: u64,
}

pub(crate) struct Maker {
    root: PathBuf,
    keys: Keys,
    repository: RepositoryId,
    counter: u32,
    sealer: BlockSealer,
    /// Named by no segment yet, and how many chunks they hold.
    packs: Vec<SegmentPack>,
    chunks: usize,
    tree: PackBuilder,
    pages: Vec<u8>,
    page_lens: Vec<(ShortId, u32)>,
    made: Made,
}

/// SplitMix64.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn chunk_id(number: u64) -> ChunkId {
    let mut id = [0; 20];
    id[..8].copy_from_slice(&mix(number).to_be_bytes());
    id[8..16].copy_from_slice(&mix(number ^ 1 << 63).to_be_bytes());
    ChunkId::from_bytes(id)
}

fn is_live(number: u64) -> bool {
    (number / PACK_CHUNKS) % GARBAGE_PACKS != 5 && number % GARBAGE_CHUNKS != 7
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The directory of a pack of these chunks, none of which compresses.
fn directory(numbers: std::ops::Range<u64>) -> (Directory, u64) {
    let numbers: Vec<u64> = numbers.collect();
    let blocks: Vec<_> = numbers.chunks(BLOCK_CHUNKS as usize).collect();
    let mut plain = Vec::new();
    let mut len = 64;
    put_varint(&mut plain, blocks.len() as u64);
    for block in &blocks {
        let record_len = block.len() as u64 * u64::from(CHUNK_LEN) + 64;
        put_varint(&mut plain, record_len);
        put_varint(&mut plain, block.len() as u64);
        len += record_len;
    }
    for _ in &numbers {
        put_varint(&mut plain, u64::from(CHUNK_LEN));
    }
    for number in &numbers {
        plain.extend_from_slice(chunk_id(*number).short().as_bytes());
    }
    len = padme(len + plain.len() as u64 + 56);
    (Directory::decode(&plain, len).unwrap(), len)
}

impl Maker {
    pub(crate) fn new(root: &Path, master: &MasterKey, repository: RepositoryId) -> Self {
        let keys = Keys::all(master);
        let session = SessionId::new(keys.source_tag("maker"), 1, [0; 10]);
        Self {
            root: root.to_owned(),
            repository,
            counter: 0,
            sealer: BlockSealer::new(repository, 1).unwrap(),
            packs: Vec::new(),
            chunks: 0,
            tree: PackBuilder::new(ChunkKind::Tree, session, 0, PACK_LEN),
            pages: Vec::new(),
            page_lens: Vec::new(),
            made: Made::default(),
            keys,
        }
    }

    /// About so many chunks, of which nine tenths are needed.
    pub(crate) fn make(mut self, chunks: u64) -> Made {
        let packs = chunks.div_ceil(PACK_CHUNKS);
        for number in 0..packs {
            let (directory, len) = directory(number * PACK_CHUNKS..(number + 1) * PACK_CHUNKS);
            let mut id = [0; 32];
            for (at, word) in id.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *word = mix(number << 2 | at as u64 | 1 << 62).to_be_bytes();
            }
            let id = PackId::from_bytes(id);
            let path = self.path(&pack_key(&id));
            File::create(path).unwrap().set_len(len).unwrap();
            self.name(SegmentPack {
                id,
                kind: ChunkKind::Data,
                len,
                directory,
            });
        }
        let real = self.real_packs();
        let step = (packs * PACK_CHUNKS).div_ceil(SNAPSHOTS);
        let mut before = Vec::new();
        for snapshot in 0..SNAPSHOTS {
            let numbers = snapshot * step..((snapshot + 1) * step).min(packs * PACK_CHUNKS);
            let ids = numbers.filter(|number| is_live(*number)).map(chunk_id);
            let real: &[ChunkId] = if snapshot == 0 { &real } else { &[] };
            let group = self.group(snapshot, ids.chain(real.iter().copied()));
            self.snapshot(snapshot, before.into_iter().chain(group.iter().cloned()));
            before = group;
        }
        self.end_block();
        self.end_tree_pack();
        self.end_segment();
        self.made
    }

    fn path(&self, key: &str) -> PathBuf {
        let path = self.root.join(key);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).unwrap();
        }
        path
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        fs::write(self.path(key), bytes).unwrap();
    }

    fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    /// Names a pack in the next segment.
    fn name(&mut self, pack: SegmentPack) {
        self.made.packs += 1;
        self.made.chunks += pack.directory.chunk_count() as u64;
        self.chunks += pack.directory.chunk_count();
        self.packs.push(pack);
        if self.chunks >= SEGMENT_CHUNKS {
            self.end_segment();
        }
    }

    fn end_segment(&mut self) {
        self.chunks = 0;
        let packs = std::mem::take(&mut self.packs);
        let sealed = Segment { packs }.seal(&self.keys, self.repository, [3; 24]);
        let (id, bytes) = sealed.unwrap();
        self.write(&segment_key(&id), &bytes);
    }

    /// Packs with content; returns what is needed of it.
    fn real_packs(&mut self) -> Vec<ChunkId> {
        let mut live = Vec::new();
        for _ in 0..REAL_PACKS {
            let mut builder = self.builder(ChunkKind::Data);
            let (mut plain, mut chunks) = (Vec::new(), Vec::new());
            for number in 0..1024 {
                let word = u64::from(self.counter) << 32 | number << 12;
                let bytes: Vec<u8> = (0..REAL_LEN as u64 / 8)
                    .flat_map(|at| mix(word | at | 1 << 61).to_le_bytes())
                    .collect();
                let id = self.keys.chunk_id(ChunkKind::Data, &bytes);
                chunks.push((id.short(), bytes.len() as u32));
                plain.extend(bytes);
                if number % 2 == 0 {
                    live.push(id);
                }
                if plain.len() >= 1 << 20 {
                    let mut record = Vec::new();
                    let kind = ChunkKind::Data;
                    self.sealer
                        .seal(&self.keys, kind, &plain, &mut record)
                        .unwrap();
                    builder.push(&record, &chunks).unwrap();
                    (plain, chunks) = Default::default();
                }
            }
            self.finish(builder, ChunkKind::Data);
        }
        live
    }

    fn builder(&mut self, kind: ChunkKind) -> PackBuilder {
        let counter = self.next();
        let session = SessionId::new(self.keys.source_tag("maker"), 1, [0; 10]);
        PackBuilder::new(kind, session, counter, PACK_LEN)
    }

    fn finish(&mut self, builder: PackBuilder, kind: ChunkKind) {
        let pack = builder
            .finish(&self.keys, self.repository, [0; 24])
            .unwrap();
        self.write(&pack_key(&pack.id), &pack.bytes);
        self.name(SegmentPack {
            id: pack.id,
            kind,
            len: pack.bytes.len() as u64,
            directory: pack.directory,
        });
    }

    /// The pages of a directory that holds these chunks, in files of 1, 1, 1 and 61.
    fn group(&mut self, number: u64, ids: impl Iterator<Item = ChunkId>) -> Vec<TreeRef> {
        let top = format!("g{number:03}");
        let mut writer = PageWriter::new(PageParams::default());
        let mut refs = Vec::new();
        let pushed = writer.push_item(&item(&top, ItemKind::Directory, 0));
        refs.extend(pushed.unwrap().map(|page| self.page(page)));
        let mut ids = ids.peekable();
        let mut file = 0_u64;
        while ids.peek().is_some() {
            let most = if file % 4 == 3 { 61 } else { 1 };
            let file_ids: Vec<ChunkId> = ids.by_ref().take(most).collect();
            let name = format!("{top}/f{file:09}");
            let len = file_ids.len() as u64 * u64::from(CHUNK_LEN);
            let pushed = writer.push_item(&item(&name, ItemKind::File, len));
            refs.extend(pushed.unwrap().map(|page| self.page(page)));
            for id in file_ids {
                self.made.live += 1;
                let len = CHUNK_LEN;
                let pushed = writer.push_extent(Extent::Data { len, id });
                refs.extend(pushed.unwrap().map(|page| self.page(page)));
            }
            file += 1;
        }
        refs.extend(writer.finish().unwrap().map(|page| self.page(page)));
        refs
    }

    /// Commits a snapshot of a root and these pages.
    fn snapshot(&mut self, number: u64, pages: impl Iterator<Item = TreeRef>) {
        let mut writer = PageWriter::new(PageParams::default());
        let mut root = item("", ItemKind::Directory, 0);
        root.meta.mtime_ns = number as i64;
        assert!(writer.push_item(&root).unwrap().is_none());
        let first = writer.finish().unwrap().map(|page| self.page(page));
        let mut tree = TreeBuilder::new(PageParams::default());
        for page in first.into_iter().chain(pages) {
            let mut entry = (0, page);
            while let Some((level, list)) = tree.push(entry.0, entry.1).unwrap() {
                entry = (level, self.page(list));
            }
        }
        let root = loop {
            match tree.finish().unwrap() {
                TreeStep::Root(root) => break root,
                TreeStep::Store { level, list } => {
                    let entry = self.page(list);
                    assert!(tree.push(level, entry).unwrap().is_none());
                }
            }
        };
        let mut random = [0; 10];
        random[..8].copy_from_slice(&number.to_be_bytes());
        let session = SessionId::new(self.keys.source_tag("source"), 1 << 40, random);
        let manifest = SnapshotManifest {
            session,
            nonce: [1; 16],
            source: "source".into(),
            kind: SnapshotKind::Tree,
            host: String::new(),
            user: None,
            tags: Vec::new(),
            started_ns: 1,
            finished_ns: 2,
            previous: None,
            root,
            stats: SnapshotStats {
                items: 1,
                files: 1,
                bytes: 0,
            },
            complete: true,
            skipped_count: 0,
            skipped: Vec::new(),
            program: "bench".into(),
            extras: Default::default(),
        };
        let plain = Cell::Snapshot(manifest).encode().unwrap();
        let name = snapshot_key(&session);
        let context = DocumentContext {
            kind: DocumentKind::Snapshot,
            repository: self.repository,
            name: name.as_bytes(),
        };
        let sealed = seal_document(&self.keys, context, [9; 24], &plain).unwrap();
        self.write(&name, &sealed);
    }

    /// Stores a page or a list.
    fn page(&mut self, page: Page) -> TreeRef {
        self.made.lists += 1;
        self.made.live += 1;
        let id = self.keys.chunk_id(ChunkKind::Tree, &page.bytes);
        let len = page.bytes.len() as u32;
        self.page_lens.push((id.short(), len));
        self.pages.extend(page.bytes);
        if self.pages.len() >= BLOCK_LEN {
            self.end_block();
        }
        TreeRef {
            id,
            len,
            first: page.first,
            first_offset: page.first_offset,
        }
    }

    fn end_block(&mut self) {
        if self.pages.is_empty() {
            return;
        }
        let mut record = Vec::new();
        let kind = ChunkKind::Tree;
        self.sealer
            .seal(&self.keys, kind, &self.pages, &mut record)
            .unwrap();
        self.tree.push(&record, &self.page_lens).unwrap();
        self.pages.clear();
        self.page_lens.clear();
        if self.tree.len() + BLOCK_LEN > PACK_LEN {
            self.end_tree_pack();
        }
    }

    fn end_tree_pack(&mut self) {
        let next = self.builder(ChunkKind::Tree);
        let full = std::mem::replace(&mut self.tree, next);
        if !full.is_empty() {
            self.finish(full, ChunkKind::Tree);
        }
    }
}

fn item(path: &str, kind: ItemKind, len: u64) -> Item {
    Item {
        path: ItemPath::from_bytes(path).unwrap(),
        kind,
        meta: Metadata {
            mode: 0o755,
            len,
            ..Metadata::default()
        },
    }
}
