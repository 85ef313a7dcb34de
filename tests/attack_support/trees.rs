//! Trees to be backed up, and what a tree looks like.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// SplitMix64: incompressible, and the same everywhere.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ z >> 31).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What stands under one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub rdev: u64,
    pub names: u64,
    /// A hash of the content, or the target of a symlink.
    pub content: Vec<u8>,
    pub len: u64,
}

impl Node {
    pub fn same_but_names(&self, other: &Self) -> bool {
        Self {
            names: 0,
            ..self.clone()
        } == Self {
            names: 0,
            ..other.clone()
        }
    }
}

/// A tree by paths; the root is the empty path.
pub type Listing = BTreeMap<Vec<u8>, Node>;

pub fn listing(root: &Path) -> Listing {
    let mut listing = Listing::new();
    visit(root, root, &mut listing);
    listing
}

fn visit(root: &Path, at: &Path, listing: &mut Listing) {
    let meta = at.symlink_metadata().unwrap();
    let path = at
        .strip_prefix(root)
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec();
    listing.insert(path, node(at, &meta));
    if meta.is_dir() {
        for entry in std::fs::read_dir(at).unwrap() {
            visit(root, &entry.unwrap().path(), listing);
        }
    }
}

pub fn node(at: &Path, meta: &std::fs::Metadata) -> Node {
    let kind = meta.file_type();
    let (kind, content) = if kind.is_dir() {
        ("directory", Vec::new())
    } else if kind.is_symlink() {
        (
            "symlink",
            std::fs::read_link(at)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
        )
    } else if kind.is_file() {
        let content = std::fs::read(at).unwrap();
        ("file", backup_core::blake3(&content).as_bytes().to_vec())
    } else if kind.is_fifo() {
        ("fifo", Vec::new())
    } else if kind.is_socket() {
        ("socket", Vec::new())
    } else {
        ("device", Vec::new())
    };
    let is_directory = kind == "directory";
    Node {
        kind,
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        rdev: meta.rdev(),
        names: if is_directory { 0 } else { meta.nlink() },
        content,
        len: if is_directory { 0 } else { meta.len() },
    }
}

fn write(root: &Path, name: &str, content: &[u8]) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Small files, links, and three megabytes that fill several packs.
pub fn make_alpha(root: &Path) {
    write(root, "docs/letter", b"dear reader");
    write(root, "docs/empty", b"");
    write(
        root,
        "docs/\u{1b}[31mred\nname",
        b"a name with control characters",
    );
    write(root, "media/a", &noise(1, 700_000));
    write(root, "media/b", &noise(2, 700_000));
    write(root, "media/c", &noise(3, 700_000));
    write(root, "media/d/e/f/g", &noise(4, 120_000));
    std::fs::hard_link(root.join("docs/letter"), root.join("docs/letter-too")).unwrap();
    symlink("docs/letter", root.join("latest")).unwrap();
    std::fs::set_permissions(root.join("media/a"), PermissionsExt::from_mode(0o640)).unwrap();
}

pub fn make_beta(root: &Path) {
    write(root, "one", &noise(5, 30_000));
    write(root, "two/three", b"three");
    write(root, "two/four", &noise(6, 900_000));
}

/// One small file and a link: for what is done thousands of times.
pub fn make_tiny(root: &Path) {
    write(root, "a/file", b"a few bytes that are not secret");
    symlink("file", root.join("a/link")).unwrap();
}
