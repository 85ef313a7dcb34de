//! Streams of items for tests and benches: made up from a seed, or taken from a directory of this machine.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use backup_core::ChunkId;
use backup_manifest::{Extent, Item, ItemKind, ItemPath, Metadata, Page, PageParams, PageWriter};

/// An item with its extents.
pub type Entry = (Item, Vec<Extent>);

/// SplitMix64: enough for test data, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A chunk id that is noise, as real ones are.
pub fn chunk_id(seed: u64) -> ChunkId {
    let mut random = Random(seed);
    let mut bytes = [0; ChunkId::LEN];
    for word in bytes.chunks_exact_mut(4) {
        word.copy_from_slice(&(random.next() as u32).to_le_bytes());
    }
    ChunkId::from_bytes(bytes)
}

/// The content of a file of `len` bytes in chunks of 64 KiB.
pub fn extents(seed: u64, len: u64) -> Vec<Extent> {
    let mut random = Random(seed);
    let mut left = len;
    let mut extents = Vec::new();
    while left > 0 {
        let len = left.min(65_536);
        let id = chunk_id(random.next());
        extents.push(Extent::Data {
            len: len as u32,
            id,
        });
        left -= len;
    }
    extents
}

/// A tree of `files` files of up to 4 KiB in directories of 100, freshly written one after the other.
pub fn made_up_tree(files: u64) -> Vec<Entry> {
    let mut random = Random(1);
    let mut entries = Vec::new();
    let mut time = 1_795_000_000_000_000_000_i64;
    let mut entry = |path: String, kind: ItemKind, len: u64| {
        time += 20_000 + random.below(60_000) as i64;
        let directory = kind == ItemKind::Directory;
        let meta = Metadata {
            mode: if directory { 0o755 } else { 0o644 },
            uid: 1000,
            gid: 1000,
            mtime_ns: time,
            ctime_ns: time,
            inode: 1_000_000 + entries.len() as u64,
            device: 64_769,
            len,
            xattrs: Vec::new(),
        };
        let path = ItemPath::from_bytes(path).expect("a plain name");
        let content = extents(entries.len() as u64, len);
        entries.push((Item { path, kind, meta }, content));
        random.below(4096)
    };
    entry(String::new(), ItemKind::Directory, 0);
    let mut len = 100;
    for file in 0..files {
        let directory = format!("data/d{:05}", file / 100);
        if file == 0 {
            entry("data".to_owned(), ItemKind::Directory, 0);
        }
        if file % 100 == 0 {
            entry(directory.clone(), ItemKind::Directory, 0);
        }
        len = entry(
            format!("{directory}/file-{file:07}.bin"),
            ItemKind::File,
            len,
        );
    }
    entries
}

/// What lies beneath a directory of this machine, up to `items_max` items.
pub fn walk(top: &Path, items_max: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    visit(top, &ItemPath::root(), &mut entries, items_max);
    entries.sort_by(|one, other| one.0.path.cmp(&other.0.path));
    entries
}

fn visit(at: &Path, path: &ItemPath, entries: &mut Vec<Entry>, items_max: usize) {
    let Ok(found) = at.symlink_metadata() else {
        return;
    };
    if entries.len() >= items_max {
        return;
    }
    let kind = found.file_type();
    let (kind, len) = if kind.is_dir() {
        (ItemKind::Directory, 0)
    } else if kind.is_symlink() {
        let target = std::fs::read_link(at).unwrap_or_default();
        let target = target.as_os_str().as_bytes().to_vec();
        (ItemKind::Symlink { target }, 0)
    } else if kind.is_file() {
        (ItemKind::File, found.len())
    } else if kind.is_fifo() {
        (ItemKind::Fifo, 0)
    } else {
        return;
    };
    let meta = Metadata {
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime_ns: found.mtime() * 1_000_000_000 + found.mtime_nsec(),
        ctime_ns: found.ctime() * 1_000_000_000 + found.ctime_nsec(),
        inode: found.ino(),
        device: found.dev(),
        len,
        xattrs: Vec::new(),
    };
    let path = path.clone();
    let is_directory = kind == ItemKind::Directory;
    let content = extents(entries.len() as u64, len);
    entries.push((
        Item {
            path: path.clone(),
            kind,
            meta,
        },
        content,
    ));
    if is_directory {
        for child in std::fs::read_dir(at).into_iter().flatten().flatten() {
            if let Ok(path) = path.join(child.file_name().as_bytes()) {
                visit(&child.path(), &path, entries, items_max);
            }
        }
    }
}

/// All pages of a stream.
pub fn pages(entries: &[Entry], params: PageParams) -> Vec<Page> {
    let mut writer = PageWriter::new(params);
    let mut pages = Vec::new();
    for (item, extents) in entries {
        pages.extend(writer.push_item(item).expect("a valid stream"));
        for extent in extents {
            pages.extend(writer.push_extent(*extent).expect("a valid stream"));
        }
    }
    pages.extend(writer.finish().expect("a valid stream"));
    pages
}
