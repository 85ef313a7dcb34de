//! What the fuzz targets share: keys that are no secret, and bytes that are authentic and wrong.

use std::sync::LazyLock;

use backup_core::{
    Argon2Params, ChunkKind, DocumentContext, DocumentKind, Keys, MasterKey, SlotId, SlotInfo,
};
use backup_manifest::{
    Extent, Item, ItemKind, ItemPath, Metadata, Page, PageParams, PageReader, PageWriter, Record,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

// A second implementation of the sealed formats, kept beside the tests that prove the bytes with it.
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../backup-core/tests/suite/forge.rs"]
mod forge;

/// What everything is sealed for.
pub const REPOSITORY: backup_core::RepositoryId = forge::REPOSITORY;

/// The keys that [`record`] and [`document`] forge for.
pub fn keys() -> &'static Keys {
    static KEYS: LazyLock<Keys> =
        LazyLock::new(|| Keys::all(&MasterKey::from_bytes(forge::MASTER.into())));
    &KEYS
}

/// An authentic record with this `inner`, which no sealer may ever have written.
pub fn record(kind: ChunkKind, inner: &[u8]) -> Vec<u8> {
    forge::record(kind, REPOSITORY, inner)
}

/// The same for a document.
pub fn document(context: &DocumentContext<'_>, inner: &[u8]) -> Vec<u8> {
    forge::document(context.kind, context.name, [9; 24], inner)
}

/// One of the kinds of blocks.
pub fn block_kind(choice: bool) -> ChunkKind {
    if choice {
        ChunkKind::Tree
    } else {
        ChunkKind::Data
    }
}

/// The place of a document, of a kind with a free name.
pub fn place(choice: u8, name: &[u8]) -> DocumentContext<'_> {
    const KINDS: [DocumentKind; 6] = [
        DocumentKind::Snapshot,
        DocumentKind::Segment,
        DocumentKind::GcPlan,
        DocumentKind::SessionOpen,
        DocumentKind::SessionAck,
        DocumentKind::Retired,
    ];
    DocumentContext {
        kind: KINDS[usize::from(choice) % KINDS.len()],
        repository: REPOSITORY,
        name,
    }
}

/// What a key slot says of itself.
pub fn slot_info(label: &str) -> SlotInfo<'_> {
    SlotInfo {
        slot: SlotId::from_bytes([4; 8]),
        repository: REPOSITORY,
        label,
        argon2: Argon2Params::DEFAULT,
    }
}

/// `bytes` with one byte changed; never the same as `bytes`, which must not be empty.
pub fn altered(bytes: &[u8], at: u16, change: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = usize::from(at) % bytes.len();
    bytes[at] ^= change.max(1);
    bytes
}

/// An item and its content, invalid more often than not.
#[derive(Debug, Arbitrary)]
pub struct Entry {
    name: Vec<u8>,
    kind: u8,
    target: Vec<u8>,
    numbers: [u32; 3],
    times: [i64; 2],
    ids: [u64; 2],
    extents: Vec<(bool, u8)>,
}

impl Entry {
    fn build(&self, parent: &ItemPath) -> Option<(Item, Vec<Extent>)> {
        let path = parent.join(&self.name).ok()?;
        let [mode, uid, gid] = self.numbers;
        let [major, minor] = [uid, gid];
        let target = self.target.clone();
        let kind = match self.kind % 10 {
            0 => ItemKind::File,
            1 => ItemKind::Directory,
            2 => ItemKind::Symlink { target },
            3 => ItemKind::Hardlink {
                target: ItemPath::from_bytes(target).ok()?,
            },
            4 => ItemKind::Fifo,
            5 => ItemKind::Socket,
            6 => ItemKind::CharDevice { major, minor },
            7 => ItemKind::BlockDevice { major, minor },
            8 => ItemKind::Volume,
            _ => ItemKind::Stream,
        };
        let extents: Vec<Extent> = match kind.has_content() {
            true => self.extents.iter().map(extent).collect(),
            false => Vec::new(),
        };
        let [mtime_ns, ctime_ns] = self.times;
        let [inode, device] = self.ids;
        let len = extents.iter().map(Extent::len).sum();
        let meta = Metadata {
            mode: mode & 0o7777,
            uid,
            gid,
            mtime_ns,
            ctime_ns,
            inode,
            device,
            len,
            xattrs: Vec::new(),
        };
        Some((Item { path, kind, meta }, extents))
    }
}

fn extent(&(is_hole, len): &(bool, u8)) -> Extent {
    let id = backup_core::ChunkId::from_bytes([len; backup_core::ChunkId::LEN]);
    match is_hole {
        true => Extent::Hole {
            len: u64::from(len) + 1,
        },
        false => Extent::Data {
            len: u32::from(len) + 1,
            id,
        },
    }
}

/// The records of those `entries` that make a stream; each comes with a number that tells its directory.
pub fn stream(entries: &[(u8, Entry)]) -> Vec<Record> {
    let mut writer = PageWriter::new(PageParams::default());
    let mut paths = vec![ItemPath::root()];
    let mut records = Vec::new();
    for (parent, entry) in entries {
        let parent = &paths[usize::from(*parent) % paths.len()];
        let Some((item, extents)) = entry.build(parent) else {
            continue;
        };
        if writer.push_item(&item).is_err() {
            continue;
        }
        paths.push(item.path.clone());
        records.push(Record::Item(item));
        for extent in extents {
            writer.push_extent(extent).expect("it has this length");
            records.push(Record::Extent(extent));
        }
    }
    records
}

/// The pages of a stream that is valid.
pub fn pages(records: &[Record], params: PageParams) -> Vec<Page> {
    let mut writer = PageWriter::new(params);
    let mut pages = Vec::new();
    for record in records {
        pages.extend(match record {
            Record::Item(item) => writer.push_item(item).expect("the stream is valid"),
            Record::Extent(extent) => writer.push_extent(*extent).expect("the stream is valid"),
            Record::Continued { path, .. } => panic!("{path} is continued from nowhere"),
        });
    }
    pages.extend(writer.finish().expect("the stream is complete"));
    pages
}

/// Every record of `pages`, but for those that only say that a page continues the one before.
pub fn records(pages: &[Page]) -> Vec<Record> {
    let read = |page: &Page| {
        let reader = PageReader::new(&page.bytes).expect("a page of ours");
        reader.collect::<Result<Vec<_>, _>>()
    };
    let records = pages
        .iter()
        .flat_map(|page| read(page).expect("a page of ours"));
    records
        .filter(|record| !matches!(record, Record::Continued { .. }))
        .collect()
}
