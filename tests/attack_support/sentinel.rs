//! A tree outside of every target. Whatever is restored, it stays as it was, to the last time of change.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::trees;

#[derive(Debug)]
pub struct Sentinel {
    scratch: TempDir,
    before: State,
}

type State = BTreeMap<PathBuf, (trees::Node, i64, i64, u64, Vec<u8>)>;

impl Sentinel {
    pub fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let tree = scratch.path().join("outside");
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        std::fs::write(tree.join("file"), b"outside").unwrap();
        std::fs::write(tree.join("sub/secret"), b"outside too").unwrap();
        std::fs::set_permissions(tree.join("file"), PermissionsExt::from_mode(0o600)).unwrap();
        let before = state(scratch.path());
        Self { scratch, before }
    }

    /// The directory that must not be touched.
    pub fn tree(&self) -> PathBuf {
        self.scratch.path().join("outside")
    }

    pub fn assert_untouched(&self, what: &str) {
        let now = state(self.scratch.path());
        assert_eq!(now, self.before, "{what}: the tree outside was touched");
    }
}

fn state(root: &Path) -> State {
    let mut found = State::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(at) = open.pop() {
        let meta = at.symlink_metadata().unwrap();
        // Names of attributes are enough: setting one changes the ctime, too.
        let mut attributes = vec![0; 4096];
        let len = rustix::fs::llistxattr(&at, &mut attributes[..]).unwrap_or(0);
        attributes.truncate(len);
        if meta.is_dir() {
            open.extend(
                std::fs::read_dir(&at)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let node = trees::node(&at, &meta);
        found.insert(
            at,
            (
                node,
                meta.ctime(),
                meta.ctime_nsec(),
                meta.ino(),
                attributes,
            ),
        );
    }
    found
}
