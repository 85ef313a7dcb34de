//! Pages of items: by the writer, and, where it refuses, by hand.

use backup_core::ChunkId;
use backup_manifest::{Extent, Item, ItemKind, ItemPath, Metadata, Page, PageParams, PageWriter};

pub type Entry = (Item, Vec<Extent>);

pub fn path(text: &str) -> ItemPath {
    ItemPath::from_bytes(text).unwrap()
}

pub fn item(at: &str, kind: ItemKind) -> Entry {
    let mode = if kind == ItemKind::Directory {
        0o755
    } else {
        0o644
    };
    let meta = Metadata {
        mode,
        mtime_ns: 1_700_000_000_000_000_000,
        ..Metadata::default()
    };
    (
        Item {
            path: path(at),
            kind,
            meta,
        },
        Vec::new(),
    )
}

pub fn directory(at: &str) -> Entry {
    item(at, ItemKind::Directory)
}

pub fn symlink(at: &str, target: impl AsRef<std::path::Path>) -> Entry {
    use std::os::unix::ffi::OsStrExt;
    let target = target.as_ref().as_os_str().as_bytes().to_vec();
    item(at, ItemKind::Symlink { target })
}

pub fn hardlink(at: &str, target: &str) -> Entry {
    item(
        at,
        ItemKind::Hardlink {
            target: path(target),
        },
    )
}

pub fn file(at: &str, extents: &[Extent]) -> Entry {
    let len = extents.iter().map(Extent::len).fold(0, u64::saturating_add);
    file_of(at, len, extents)
}

/// A file that states a length.
pub fn file_of(at: &str, len: u64, extents: &[Extent]) -> Entry {
    let (mut item, _) = item(at, ItemKind::File);
    item.meta.len = len;
    (item, extents.to_vec())
}

/// One page with these items. The writer is a new one: it knows nothing of other pages.
pub fn page(entries: &[Entry]) -> Vec<u8> {
    let params = PageParams {
        len_min: 1 << 19,
        len_target: 1 << 19,
        len_max: 1 << 19,
    };
    let pages = pages_of(entries, params);
    assert_eq!(pages.len(), 1, "too much for one page");
    pages[0].bytes.clone()
}

/// The page that ends within a file: what follows is not its business.
pub fn pages_of(entries: &[Entry], params: PageParams) -> Vec<Page> {
    let mut writer = PageWriter::new(params);
    let mut pages = Vec::new();
    for (item, extents) in entries {
        pages.extend(writer.push_item(item).unwrap());
        for extent in extents {
            pages.extend(writer.push_extent(*extent).unwrap());
        }
    }
    pages.extend(writer.finish().unwrap());
    pages
}

pub const DIRECTORY: u8 = 1;
pub const SYMLINK: u8 = 2;
pub const HARDLINK: u8 = 3;
const FILE: u8 = 0;
const DATA: u8 = 10;
const HOLE: u8 = 11;
const CONTINUED: u8 = 12;

/// A page put together by hand, column by column. See the layout at the top of `backup-manifest/src/page/mod.rs`.
#[derive(Debug, Default, Clone)]
pub struct Crafted {
    columns: [Vec<u8>; 10],
    ids: Vec<u8>,
}

impl Crafted {
    /// A page that begins with the root.
    pub fn root() -> Self {
        Self::default().item(DIRECTORY, 0, b"")
    }

    /// An item: so much of the path before, and then this.
    pub fn item(mut self, tag: u8, shared: u64, suffix: &[u8]) -> Self {
        self.columns[0].push(tag);
        put(&mut self.columns[2], shared);
        put(&mut self.columns[3], suffix.len() as u64);
        self.columns[4].extend_from_slice(suffix);
        self.columns[1].push(0);
        self.columns[8].push(0);
        self
    }

    pub fn empty_file(self, shared: u64, suffix: &[u8]) -> Self {
        self.item(FILE, shared, suffix).number(5, 0)
    }

    pub fn symlink(self, shared: u64, suffix: &[u8], target: &[u8]) -> Self {
        let mut page = self
            .item(SYMLINK, shared, suffix)
            .number(9, target.len() as u64);
        page.columns[9].extend_from_slice(target);
        page
    }

    pub fn hardlink(self, shared: u64, suffix: &[u8], target: &[u8]) -> Self {
        let mut page = self.item(HARDLINK, shared, suffix).number(9, 0);
        page = page.number(9, target.len() as u64);
        page.columns[9].extend_from_slice(target);
        page
    }

    /// A file of this length whose extents are yet to come.
    pub fn file(self, shared: u64, suffix: &[u8], len: u64) -> Self {
        self.item(FILE, shared, suffix).number(5, len)
    }

    pub fn hole(mut self, len: u64) -> Self {
        self.columns[0].push(HOLE);
        self.number(5, len)
    }

    pub fn data(mut self, len: u64, id: ChunkId) -> Self {
        self.columns[0].push(DATA);
        self.ids.extend_from_slice(id.as_bytes());
        self.number(5, len)
    }

    /// Says that the content of a file goes on here.
    pub fn continued(mut self, path: &[u8], offset: u64) -> Self {
        self.columns[0].push(CONTINUED);
        put(&mut self.columns[2], 0);
        put(&mut self.columns[3], path.len() as u64);
        self.columns[4].extend_from_slice(path);
        self.number(9, offset)
    }

    fn number(mut self, column: usize, value: u64) -> Self {
        put(&mut self.columns[column], value);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut meta = Vec::new();
        for column in &self.columns[1..9] {
            put(&mut meta, column.len() as u64);
        }
        meta.extend(self.columns.concat());
        let mut bytes = vec![0];
        put(&mut bytes, self.columns[0].len() as u64);
        put(&mut bytes, meta.len() as u64);
        [bytes, meta, self.ids.clone()].concat()
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
