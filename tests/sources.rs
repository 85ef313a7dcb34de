//! Real trees of this machine, and what of a tree is taken.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    clippy::too_many_lines,
    clippy::cloned_ref_to_slice_refs,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backup::backup_backend::{LocalFs, LocalFsOptions, Memory};
use backup::{
    BackupOptions, Item, ItemPath, Repository, RestoreOptions, RestoreTarget, SessionId, Source,
    TreeSource, backup, find_snapshot, list, restore,
};
use common::compare::{assert_same, walk};
use common::make::is_root;
use common::{NAME, assert_sound, back_up, create, restore_tree};
use futures::TryStreamExt;
use tempfile::TempDir;

/// Takes a tree of this machine there and back, by way of a directory; a second run must find it unchanged.
async fn check(tree: &Path) {
    let scratch = TempDir::new().unwrap();
    let store = LocalFs::create(scratch.path().join("repo"), LocalFsOptions::default()).unwrap();
    let repo = create(store).await;
    let first = back_up(&repo, Source::tree(tree)).await;
    let second = back_up(&repo, Source::tree(tree)).await;
    assert_eq!(second.bytes_read, 0, "{}", tree.display());
    assert_eq!((first.items, first.bytes), (second.items, second.bytes));
    let restored = scratch.path().join("restored");
    restore_tree(&repo, &second.snapshot, &restored).await;
    assert_same(tree, &restored);
    assert_sound(&repo).await;
    println!(
        "{}: {} items, {} bytes, {} stored",
        tree.display(),
        first.items,
        first.bytes,
        first.bytes_stored
    );
}

#[tokio::test]
async fn headers_and_documents_of_the_system_come_back() {
    for place in ["/usr/include", "/usr/share/doc", "/usr/lib/python3"] {
        if Path::new(place).is_dir() {
            check(Path::new(place)).await;
        }
    }
}

#[tokio::test]
async fn the_sources_of_our_dependencies_come_back() {
    let home = home::cargo();
    let Some(registry) = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok()) else {
        return;
    };
    // A selection of crates: a modest tree, the same at each run. The script takes all.
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("crates");
    fs::create_dir(&tree).unwrap();
    for index in registry.flatten() {
        let names = ["rustix-", "tokio-1", "serde", "zstd-sys", "libc-", "syn-"];
        for entry in fs::read_dir(index.path()).unwrap().flatten() {
            let name = entry.file_name();
            if names
                .iter()
                .any(|start| name.to_string_lossy().starts_with(start))
            {
                let copied = Command::new("cp")
                    .arg("-a")
                    .arg(entry.path())
                    .arg(&tree)
                    .status();
                assert!(copied.unwrap().success());
            }
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    check(&tree).await;
}

mod home {
    //! Where cargo keeps its things: told by cargo itself, the environment is not read.

    pub(crate) fn cargo() -> Option<std::path::PathBuf> {
        let cargo = std::path::Path::new(env!("CARGO"));
        let shown = std::process::Command::new(cargo)
            .args(["metadata", "--format-version=1", "--offline", "--locked"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let at = text.find("/registry/src/")?;
        let start = text[..at].rfind('"')? + 1;
        Some(text[start..at].into())
    }
}

async fn items(repo: &Repository, snapshot: &SessionId) -> Vec<String> {
    let manifest = find_snapshot(repo, &snapshot.to_string()).await.unwrap();
    let items: Vec<Item> = list(repo, &manifest, None)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    items.iter().map(|item| item.path.to_string()).collect()
}

fn small_tree(scratch: &TempDir) -> PathBuf {
    let tree = scratch.path().join("tree");
    for name in ["keep/cache/deep", "cache", "keep/cached"] {
        fs::create_dir_all(tree.join(name)).unwrap();
        fs::write(tree.join(name).join("file"), name).unwrap();
    }
    fs::write(tree.join("keep/junk.tmp"), "junk").unwrap();
    tree
}

#[tokio::test]
async fn what_is_excluded_is_neither_taken_nor_looked_at() {
    let scratch = TempDir::new().unwrap();
    let tree = small_tree(&scratch);
    let mut source = TreeSource::new(&tree);
    source.exclude = Some(Arc::new(|path: &ItemPath, is_directory: bool| {
        assert!(
            !path.as_bytes().ends_with(b"deep"),
            "it is below what is excluded"
        );
        path.name() == b"cache" && is_directory || path.name().ends_with(b".tmp")
    }));
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::Tree(source)).await;
    let names = items(&repo, &made.snapshot).await;
    assert_eq!(names, ["", "keep", "keep/cached", "keep/cached/file"]);
}

#[tokio::test]
async fn a_hard_link_whose_first_name_is_excluded_is_taken_as_a_file() {
    let scratch = TempDir::new().unwrap();
    let tree = small_tree(&scratch);
    fs::hard_link(tree.join("cache/file"), tree.join("keep/file")).unwrap();
    fs::hard_link(tree.join("cache/file"), tree.join("keep/twin")).unwrap();
    let mut source = TreeSource::new(&tree);
    source.exclude = Some(Arc::new(|path: &ItemPath, _| path.as_bytes() == b"cache"));
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::Tree(source)).await;
    let restored = scratch.path().join("restored");
    restore_tree(&repo, &made.snapshot, &restored).await;
    assert_eq!(fs::read(restored.join("keep/file")).unwrap(), b"cache");
    let seen = walk(&restored);
    assert_eq!(seen[&b"keep/twin"[..]].twin, b"keep/file");
}

#[tokio::test]
async fn the_root_may_be_named_by_a_symlink_and_links_below_are_not_followed() {
    let scratch = TempDir::new().unwrap();
    let tree = small_tree(&scratch);
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "not in the tree").unwrap();
    std::os::unix::fs::symlink(&outside, tree.join("door")).unwrap();
    std::os::unix::fs::symlink("tree", scratch.path().join("link")).unwrap();
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::tree(scratch.path().join("link"))).await;
    let restored = scratch.path().join("restored");
    restore_tree(&repo, &made.snapshot, &restored).await;
    assert_same(&tree, &restored);
    assert!(restored.join("door").is_symlink());
}

/// A file system of its own; gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where one may not be mounted.
    fn at(place: PathBuf) -> Option<Self> {
        fs::create_dir_all(&place).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&place)
            .status();
        (is_root() && mounted.is_ok_and(|status| status.success())).then_some(Self(place))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn other_file_systems_are_entered_only_when_wanted() {
    let scratch = TempDir::new().unwrap();
    let tree = small_tree(&scratch);
    let Some(mounted) = Mounted::at(tree.join("mounted")) else {
        eprintln!("nothing can be mounted here: not tested");
        return;
    };
    fs::write(mounted.0.join("inside"), "of the other").unwrap();
    let repo = create(Memory::new()).await;
    for one_file_system in [true, false] {
        let mut source = TreeSource::new(&tree);
        source.one_file_system = one_file_system;
        let made = back_up(&repo, Source::Tree(source)).await;
        let names = items(&repo, &made.snapshot).await;
        assert!(
            names.contains(&"mounted".into()),
            "the mount point is there"
        );
        assert_eq!(names.contains(&"mounted/inside".into()), !one_file_system);
    }
}

#[tokio::test]
async fn a_path_longer_than_the_system_takes_comes_back_or_is_named() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("short"), "x").unwrap();
    // 30 levels of 200 bytes: each is made from within the one above it.
    let directory = |fd: &rustix::fd::OwnedFd| {
        let name = "d".repeat(200);
        rustix::fs::mkdirat(fd, &name, rustix::fs::Mode::RWXU).unwrap();
        open_directory(fd, Path::new(&name))
    };
    let mut fd = open_directory(rustix::fs::CWD, &tree);
    for _ in 0..30 {
        fd = directory(&fd);
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&fd, "bottom", flags, rustix::fs::Mode::RUSR).unwrap();
    let repo = create(Memory::new()).await;
    let options = BackupOptions::default();
    let made = backup(&repo, NAME, Source::tree(&tree), &options, &())
        .await
        .unwrap();
    let names = items(&repo, &made.snapshot).await;
    let is_whole = names.iter().any(|name| name.ends_with("bottom"));
    assert!(is_whole || !made.is_complete(), "{} items", names.len());
    let target = RestoreTarget::Directory(scratch.path().join("restored"));
    let back = restore(
        &repo,
        &made.snapshot,
        target,
        &RestoreOptions::default(),
        &(),
    )
    .await
    .unwrap();
    assert!(back.items + back.skipped_count >= made.items, "{back:?}");
    assert!(scratch.path().join("restored/short").exists());
}

fn open_directory(from: impl rustix::fd::AsFd, path: &Path) -> rustix::fd::OwnedFd {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    rustix::fs::openat(from, path, flags, rustix::fs::Mode::empty()).unwrap()
}
