//! What is backed up comes back: byte for byte, and everything about it.
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
use std::path::Path;
use std::time::Duration;

use backup::backup_backend::{LocalFs, LocalFsOptions, Memory};
use backup::{
    BackupOptions, ChunkerParams, CreateOptions, Repository, RestoreOptions, RestoreReport,
    RestoreTarget, SessionId, Source, backup, list, restore, snapshots, stats,
};
use common::compare::{allocated, assert_same, differences, walk};
use common::data::{Random, Stretch, noise, random_stretches, text, write_stretches};
use common::make::{everything, set_mode, set_mtime};
use common::{
    NAME, assert_sound, back_up, back_up_with, create, create_with, objects, restore_tree, under,
};
use futures::TryStreamExt;
use tempfile::TempDir;

/// Makes a tree, backs it up, and restores it: from memory and from a directory.
async fn check(make: impl FnOnce(&Path)) {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make(&tree);
    let store = LocalFs::create(scratch.path().join("repo"), LocalFsOptions::default()).unwrap();
    let on_disk = create(store).await;
    there_and_back(&on_disk, &tree, &scratch.path().join("from disk")).await;
    let in_memory = create(Memory::new()).await;
    there_and_back(&in_memory, &tree, &scratch.path().join("from memory")).await;
}

async fn there_and_back(repo: &Repository, tree: &Path, restored: &Path) {
    there_and_back_with(repo, tree, restored, &BackupOptions::default()).await;
}

async fn there_and_back_with(
    repo: &Repository,
    tree: &Path,
    restored: &Path,
    options: &BackupOptions,
) {
    let made = back_up_with(repo, Source::tree(tree), options).await;
    assert_sound(repo).await;
    let back = restore_tree(repo, &made.snapshot, restored).await;
    assert_same(tree, restored);
    let seen = walk(tree);
    assert_eq!(made.items, seen.len() as u64);
    assert_eq!(back.items, made.items);
    assert_eq!(back.files, made.files);
    assert_eq!(back.bytes, made.bytes);
    let own_bytes = seen
        .iter()
        .filter(|(path, seen)| seen.mode & 0o170_000 == 0o100_000 && seen.twin == **path)
        .map(|(_, seen)| seen.len)
        .sum::<u64>();
    assert_eq!(made.bytes, own_bytes);
}

#[tokio::test]
async fn everything_a_file_system_holds_comes_back() {
    check(everything).await;
}

#[tokio::test]
async fn an_empty_tree_comes_back_empty() {
    check(|root| {
        set_mode(root, 0o2751);
        set_mtime(root, 86_400, 42);
    })
    .await;
}

#[tokio::test]
async fn files_of_boundary_lengths_come_back() {
    // Page, shortest chunk, shortest hole and average chunk, longest chunk, block, buffer; and one around each.
    const LENS: [usize; 6] = [4096, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
    check(|root| {
        for len in LENS.into_iter().flat_map(|len| [len - 1, len, len + 1]) {
            fs::write(root.join(format!("noise {len}")), noise(len, len as u64)).unwrap();
            fs::write(root.join(format!("text {len}")), text(len, len as u64)).unwrap();
            fs::write(root.join(format!("zeros {len}")), vec![0; len]).unwrap();
            // The last byte alone differs from zero.
            let mut last = vec![0; len];
            last[len - 1] = 1;
            fs::write(root.join(format!("last {len}")), last).unwrap();
        }
        for len in 0..20 {
            fs::write(root.join(format!("short {len}")), noise(len, len as u64)).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn other_chunk_sizes_have_their_own_boundaries() {
    for (min, avg, max) in [(64, 256, 1024), (1024, 4096, 4096), (4096, 4096, 65_536)] {
        let scratch = TempDir::new().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for len in [min, avg, max, 2 * max] {
            for len in [len - 1, len, len + 1] {
                let bytes = noise(len as usize, u64::from(len));
                fs::write(tree.join(format!("{len}")), bytes).unwrap();
            }
        }
        fs::write(tree.join("long"), noise(5_000_001, 9)).unwrap();
        let mut options = CreateOptions::default();
        options.chunker = ChunkerParams::new(min, avg, max).unwrap();
        let repo = create_with(Memory::new(), options).await;
        there_and_back(&repo, &tree, &scratch.path().join("restored")).await;
    }
}

#[tokio::test]
async fn chunks_may_be_longer_than_a_buffer() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut options = CreateOptions::default();
    options.chunker = ChunkerParams::new(1 << 20, 4 << 20, 16 << 20).unwrap();
    fs::write(tree.join("noise"), noise(20 << 20, 1)).unwrap();
    let repo = create_with(Memory::new(), options).await;
    let restored = scratch.path().join("restored");
    let run = there_and_back(&repo, &tree, &restored);
    // It is a question of ending at all.
    let ended = tokio::time::timeout(Duration::from_secs(120), run).await;
    assert!(ended.is_ok(), "the backup does not end");
}

#[tokio::test]
async fn ten_thousand_entries_of_one_directory_come_back() {
    check(|root| {
        let large = root.join("large");
        fs::create_dir(&large).unwrap();
        for number in 0..10_000 {
            let path = large.join(format!("entry {number}"));
            match number % 100 {
                0 => fs::create_dir(path).unwrap(),
                _ => fs::write(path, format!("content {}", number % 5000)).unwrap(),
            }
        }
        fs::write(large.join("entry 100/inside"), "deeper").unwrap();
        fs::write(root.join("large-after"), "behind it").unwrap();
    })
    .await;
}

#[tokio::test]
async fn five_hundred_levels_come_back() {
    check(|root| {
        let mut path = root.to_owned();
        for level in 0..500 {
            path.push(format!("{}", level % 10));
            fs::create_dir(&path).unwrap();
            if level % 50 == 0 {
                fs::write(path.join("file"), format!("at level {level}")).unwrap();
            }
        }
        fs::write(path.join("bottom"), "the end").unwrap();
    })
    .await;
}

#[tokio::test]
async fn names_around_the_separator_come_in_the_order_of_their_paths() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    for directory in ["a/b", "a-b", "a.b", "a+", "a!x", "b/a"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
        fs::write(tree.join(directory).join("x"), directory).unwrap();
    }
    for file in ["a,", "a0", "aa", "a/b-", "a/b0", "b/a.", "b.a"] {
        fs::write(tree.join(file), file).unwrap();
    }
    let repo = create(Memory::new()).await;
    there_and_back(&repo, &tree, &scratch.path().join("restored")).await;
    let snapshot = snapshots(&repo, &Default::default())
        .await
        .unwrap()
        .remove(0);
    let items: Vec<_> = list(&repo, &snapshot, None)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let paths: Vec<Vec<u8>> = items.iter().map(|i| i.path.as_bytes().to_vec()).collect();
    let mut expected: Vec<Vec<u8>> = walk(&tree).into_keys().collect();
    expected.sort_by_key(|path| {
        path.split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    });
    assert_eq!(paths, expected);
    let below = |path: &str| backup::ItemPath::from_bytes(path).unwrap();
    let some: Vec<_> = list(&repo, &snapshot, Some(below("a")))
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let some: Vec<_> = some.iter().map(|item| item.path.to_string()).collect();
    assert_eq!(some, ["a", "a/b", "a/b/x", "a/b-", "a/b0"]);
}

#[tokio::test]
async fn sparse_files_come_back_with_their_holes() {
    const MIB: usize = 1 << 20;
    use Stretch::{Hole, Noise, Zeros};
    let layouts: [(&str, &[Stretch]); 9] = [
        ("start", &[Hole(8 * MIB), Noise(5000)]),
        ("middle", &[Noise(5000), Hole(8 * MIB), Noise(70_000)]),
        ("end", &[Noise(5000), Hole(8 * MIB)]),
        ("all", &[Hole(8 * MIB)]),
        ("all, small", &[Hole(100_000)]),
        ("odd end", &[Noise(4096), Hole(8 * MIB + 1)]),
        (
            "many",
            &[
                Noise(4096),
                Hole(MIB),
                Noise(1),
                Hole(MIB),
                Noise(4096),
                Hole(3 * MIB),
            ],
        ),
        (
            "zeros are holes",
            &[Noise(4096), Zeros(8 * MIB), Noise(4096)],
        ),
        (
            "huge",
            &[Noise(10_000), Hole(64 << 30), Noise(10_000), Hole(1 << 40)],
        ),
    ];
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (name, stretches) in &layouts[..8] {
        write_stretches(&tree.join(name), stretches, 1);
    }
    // Too long to be compared byte by byte: by its ends, and as a volume below.
    let (name, stretches) = layouts[8];
    let huge = tree.join(name);
    let file = fs::File::create(&huge).unwrap();
    let len = stretches.iter().map(|s| s.len() as u64).sum();
    file.set_len(len).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(&noise(10_000, 5), 0).unwrap();
    file.write_all_at(&noise(10_000, 6), 10_000 + (64 << 30))
        .unwrap();
    drop(file);

    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::tree(&tree)).await;
    let restored = scratch.path().join("restored");
    restore_tree(&repo, &made.snapshot, &restored).await;
    assert_sound(&repo).await;
    let file = fs::File::open(restored.join(name)).unwrap();
    assert_eq!(file.metadata().unwrap().len(), len);
    for (seed, at) in [(5, 0), (6, 10_000 + (64 << 30))] {
        let mut bytes = vec![0; 10_001];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert!(bytes[..10_000] == noise(10_000, seed) && bytes[10_000] == 0);
    }
    for path in [&tree, &restored] {
        assert!(allocated(&path.join(name)) < 100_000);
        fs::remove_file(path.join(name)).unwrap();
        set_mtime(path, 1, 1);
    }
    assert_same(&tree, &restored);
    for (name, stretches) in &layouts[..8] {
        let noise: usize = stretches
            .iter()
            .filter(|s| matches!(s, Noise(_)))
            .map(|s| s.len())
            .sum();
        // Each stretch of data may begin and end within a page.
        let most = noise + stretches.len() * 2 * 4096;
        let took = allocated(&restored.join(name));
        assert!(took <= most as u64, "{name} takes {took} bytes");
    }
}

#[tokio::test]
async fn a_long_incompressible_file_comes_back() {
    check(|root| {
        fs::write(root.join("long"), noise((24 << 20) + 12_345, 4)).unwrap();
        fs::write(root.join("after"), "short").unwrap();
    })
    .await;
}

#[tokio::test]
async fn equal_files_are_stored_once() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    let (short, long) = (noise(5000, 1), noise(300_000, 2));
    for number in 0..30 {
        let directory = tree.join(format!("{number}"));
        fs::create_dir_all(&directory).unwrap();
        for twin in 0..100 {
            fs::write(directory.join(format!("short {twin}")), &short).unwrap();
        }
        fs::write(directory.join("long"), &long).unwrap();
    }
    let repo = create(Memory::new()).await;
    there_and_back(&repo, &tree, &scratch.path().join("restored")).await;
    let stats = stats(&repo).await.unwrap();
    assert_eq!(stats.data_packs, 1);
    // The two contents once; ids of 33 chunks a directory are in the tree.
    let (_, packed) = under(&objects(&repo).await, "packs/");
    assert!(packed < 500_000, "{packed} bytes are stored");
}

#[tokio::test]
async fn small_packs_and_many_uploads_change_nothing() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    everything(&tree);
    fs::write(tree.join("long"), noise(9 << 20, 8)).unwrap();
    let repo = create(Memory::new().with_page_len(3)).await;
    let mut options = BackupOptions::default();
    options.pack_len = 64 << 10;
    options.block_len = 20_000;
    options.uploads_max = 8;
    options.memory_len_max = 64 << 20;
    options.zstd_level = 1;
    there_and_back_with(&repo, &tree, &scratch.path().join("restored"), &options).await;
    let stats = stats(&repo).await.unwrap();
    assert!(stats.data_packs >= 100, "{stats:?}");
}

#[tokio::test]
async fn a_small_file_scattered_over_many_blocks_comes_back() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut options = CreateOptions::default();
    options.chunker = ChunkerParams::new(64, 256, 1024).unwrap();
    let repo = create_with(Memory::new(), options).await;
    let sea = noise(44 << 20, 3);
    fs::write(tree.join("sea"), &sea).unwrap();
    back_up(&repo, Source::tree(&tree)).await;
    // A piece of each block, long enough to hold whole chunks.
    let drops: Vec<u8> = (0..44)
        .flat_map(|number| &sea[(number << 20) + 500_000..][..40_000])
        .copied()
        .collect();
    fs::write(tree.join("drops"), &drops).unwrap();
    fs::write(tree.join("few drops"), &drops[..1_000_000]).unwrap();
    let made = back_up(&repo, Source::tree(&tree)).await;
    let read = 2_760_000;
    assert!(made.bytes_new < read / 10, "{} are new", made.bytes_new);
    there_and_back(&repo, &tree, &scratch.path().join("restored")).await;
}

#[tokio::test]
async fn random_trees_come_back() {
    for seed in 0..25 {
        println!("SEED={seed}");
        let scratch = TempDir::new().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut random = Random(seed);
        let repo = create(Memory::new()).await;
        for generation in 0..3 {
            for _ in 0..random.below(120) {
                random_step(&tree, &mut random);
            }
            // What changed within the last tick is rightly read again: here, the shortcut is to be taken.
            std::thread::sleep(Duration::from_millis(30));
            let restored = scratch.path().join(format!("restored {generation}"));
            there_and_back(&repo, &tree, &restored).await;
        }
    }
}

/// Makes, changes or removes something; names are few, so that things get in each other's way.
fn random_step(tree: &Path, random: &mut Random) {
    let path = random_path(tree, random);
    if path.parent().is_some_and(|parent| !parent.is_dir()) {
        return;
    }
    // What is impossible where something else stands is not done.
    let _ = match random.below(12) {
        0..3 => fs::create_dir(&path),
        3 => fs::hard_link(random_path(tree, random), &path),
        4 => std::os::unix::fs::symlink(random_path(tree, random), &path),
        5 => fs::remove_file(&path),
        6 => fs::remove_dir_all(&path),
        7 => fs::rename(random_path(tree, random), &path),
        8 if !path.is_symlink() && !path.is_dir() => {
            let stretches = random_stretches(random);
            write_stretches(
                &path,
                &stretches[..stretches.len().min(4)],
                random.below(20),
            );
            Ok(())
        }
        9 => fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o751)),
        _ => fs::write(&path, noise(random.below(6000) as usize, random.below(50))),
    };
}

fn random_path(tree: &Path, random: &mut Random) -> std::path::PathBuf {
    let mut path = tree.to_owned();
    for _ in 0..1 + random.below(4) {
        path.push(random.one_of(&["a", "b", "a-", "a.b", "c"]));
    }
    path
}

#[tokio::test]
async fn a_source_that_is_not_there_is_an_error_and_leaves_no_snapshot() {
    let scratch = TempDir::new().unwrap();
    fs::write(scratch.path().join("file"), "no directory").unwrap();
    let repo = create(Memory::new()).await;
    for path in ["absent", "file"] {
        let source = Source::tree(scratch.path().join(path));
        let failed = backup(&repo, NAME, source, &BackupOptions::default(), &()).await;
        assert!(
            matches!(failed, Err(backup::Error::Source { .. })),
            "{failed:?}"
        );
    }
    let none = snapshots(&repo, &Default::default()).await.unwrap();
    assert!(none.is_empty());
}

/// Restores into a target that holds something already.
async fn restore_over(repo: &Repository, snapshot: &SessionId, target: &Path) -> RestoreReport {
    let mut options = RestoreOptions::default();
    options.into_existing = true;
    let target = RestoreTarget::Directory(target.into());
    restore(repo, snapshot, target, &options, &())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_there_already_is_replaced_when_that_is_wanted() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    everything(&tree);
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::tree(&tree)).await;
    let target = scratch.path().join("restored");
    restore_tree(&repo, &made.snapshot, &target).await;
    // Over the same; and over what has changed since.
    for changed in [false, true] {
        if changed {
            fs::write(target.join("links/m"), "another").unwrap();
            fs::remove_file(target.join("links/zz")).unwrap();
            fs::write(target.join("links/zz"), "no link any more").unwrap();
            fs::remove_file(target.join("links/dangling")).unwrap();
            fs::remove_file(target.join("nodes/fifo")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", target.join("nodes/fifo")).unwrap();
            fs::remove_dir_all(target.join("a")).unwrap();
            set_mode(&target.join("modes/sticky"), 0o700);
            set_mtime(&target, 5, 5);
        }
        let back = restore_over(&repo, &made.snapshot, &target).await;
        assert!(back.is_complete(), "{:?} {:?}", back.skipped, back.unset);
        assert_same(&tree, &target);
    }
    // What is not in the snapshot stays.
    fs::write(target.join("mine"), "stays").unwrap();
    restore_over(&repo, &made.snapshot, &target).await;
    assert_eq!(fs::read(target.join("mine")).unwrap(), b"stays");
    assert_eq!(differences(&tree, &target), ["mine: not in the source"]);
}

#[tokio::test]
async fn what_cannot_be_replaced_is_named() {
    let scratch = TempDir::new().unwrap();
    let (tree, target) = (scratch.path().join("tree"), scratch.path().join("target"));
    for directory in [&tree, &target] {
        fs::create_dir(directory).unwrap();
    }
    for name in ["first", "in the way", "last"] {
        fs::write(tree.join(name), name).unwrap();
    }
    fs::create_dir(tree.join("directory")).unwrap();
    fs::write(tree.join("directory/inside"), "inside").unwrap();
    fs::create_dir_all(target.join("in the way/of others")).unwrap();
    fs::write(target.join("directory"), "a file").unwrap();
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::tree(&tree)).await;
    let back = restore_over(&repo, &made.snapshot, &target).await;
    let mut named: Vec<_> = back.skipped.iter().map(|s| s.path.to_string()).collect();
    named.sort();
    assert_eq!(named, ["directory", "directory/inside", "in the way"]);
    assert_eq!(fs::read(target.join("first")).unwrap(), b"first");
    assert_eq!(fs::read(target.join("last")).unwrap(), b"last");
    assert!(target.join("in the way/of others").is_dir());
    assert_eq!(fs::read(target.join("directory")).unwrap(), b"a file");
    let left = fs::read_dir(&target).unwrap().count();
    assert_eq!(left, 4, "no temporary file is left");
}

#[tokio::test]
async fn an_empty_directory_and_a_link_to_one_are_targets() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    set_mode(&tree, 0o1750);
    set_mtime(&tree, 1_000_000_000, 3);
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::tree(&tree)).await;
    for name in ["empty", "absent/below/absent", "linked"] {
        let target = scratch.path().join(name);
        match name {
            "empty" => fs::create_dir(&target).unwrap(),
            "linked" => {
                fs::create_dir(scratch.path().join("far")).unwrap();
                std::os::unix::fs::symlink("far", &target).unwrap();
            }
            _ => {}
        }
        restore_tree(&repo, &made.snapshot, &target).await;
        assert_same(&tree, &target.canonicalize().unwrap());
    }
    let target = RestoreTarget::Directory(tree.clone());
    let refused = restore(
        &repo,
        &made.snapshot,
        target,
        &RestoreOptions::default(),
        &(),
    )
    .await;
    assert!(
        matches!(refused, Err(backup::Error::TargetNotEmpty { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn access_lists_that_the_target_hands_down_are_not_taken_on() {
    let scratch = TempDir::new().unwrap();
    let (tree, target) = (scratch.path().join("tree"), scratch.path().join("target"));
    fs::create_dir_all(tree.join("private")).unwrap();
    for name in ["private/letter", "list"] {
        fs::write(tree.join(name), "for the group, not for user 1000").unwrap();
        set_mode(&tree.join(name), 0o640);
    }
    set_mode(&tree.join("private"), 0o750);
    std::os::unix::fs::symlink("list", tree.join("link")).unwrap();
    common::make::node(&tree.join("pipe"), rustix::fs::FileType::Fifo, (0, 0));
    set_mtime(&tree, 1, 1);
    fs::create_dir(&target).unwrap();
    common::make::set_default_list(&target);
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::tree(&tree)).await;
    let new = target.join("new");
    restore_tree(&repo, &made.snapshot, &new).await;
    assert_same(&tree, &new);
    restore_over(&repo, &made.snapshot, &target).await;
    for name in ["private", "private/letter", "list", "pipe"] {
        let (there, here) = (walk(&tree.join(name)), walk(&target.join(name)));
        assert_eq!(there, here, "{name}");
    }
}
