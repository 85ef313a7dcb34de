//! Volumes and streams: the same bytes give the same chunks however they come, and come back to wherever they are wanted.
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
use std::io::{Cursor, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use backup::backup_backend::Memory;
use backup::{
    BackupOptions, Error, ItemPath, Repository, RestoreOptions, RestoreReport, RestoreTarget,
    SessionId, Source, backup, restore, snapshots, stats,
};
use common::compare::{allocated, assert_same, walk};
use common::data::{
    Pieces, Random, Stretch, content, noise, random_stretches, text, write_stretches,
};
use common::make::{everything, node, set_mode, set_mtime};
use common::{NAME, assert_sound, back_up, back_up_with, bytes_of, create};
use rustix::fs::FileType;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

fn path(text: &str) -> ItemPath {
    ItemPath::from_bytes(text).unwrap()
}

fn only(paths: &[&str]) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.paths = paths.iter().map(|text| path(text)).collect();
    options
}

fn range(range: std::ops::Range<u64>) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.range = Some(range);
    options
}

fn into_existing() -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.into_existing = true;
    options
}

async fn back(
    repo: &Repository,
    snapshot: &SessionId,
    target: RestoreTarget,
    options: &RestoreOptions,
) -> Result<RestoreReport, Error> {
    restore(repo, snapshot, target, options, &()).await
}

/// Backs bytes up as a stretched volume, and then in every other way: nothing may be new, and all must come back.
async fn check(stretches: &[Stretch], seed: u64) {
    let scratch = TempDir::new().unwrap();
    let (sparse, dense) = (scratch.path().join("sparse"), scratch.path().join("dense"));
    let bytes = write_stretches(&sparse, stretches, seed);
    fs::write(&dense, &bytes).unwrap();
    let repo = create(Memory::new()).await;
    let first = back_up(&repo, Source::volume(&sparse)).await;
    assert_eq!(first.bytes, bytes.len() as u64);
    let packs = stats(&repo).await.unwrap().data_packs;
    let mut snapshots = vec![first.snapshot];
    // Other windows: with little memory, buffers are shorter.
    let mut small = BackupOptions::default();
    small.memory_len_max = 24 << 20;
    small.pack_len = 1 << 20;
    let pieces = |lens: &[usize]| Source::stream(Pieces::new(bytes.clone(), lens));
    for (source, options) in [
        (Source::volume(&dense), &BackupOptions::default()),
        (Source::volume(&sparse), &small),
        (Source::volume(&dense), &small),
        (pieces(&[4096, 1, 65_537, 3]), &BackupOptions::default()),
        (pieces(&[usize::MAX]), &small),
        (Source::tree(scratch.path()), &BackupOptions::default()),
    ] {
        let name = format!("{source:?}");
        let again = back_up_with(&repo, source, options).await;
        assert_eq!(again.bytes_new, 0, "SEED={seed} {name} {stretches:?}");
        snapshots.push(again.snapshot);
    }
    assert_eq!(stats(&repo).await.unwrap().data_packs, packs);
    let tree = snapshots.pop().unwrap();
    for snapshot in &snapshots {
        let restored = bytes_of(&repo, snapshot, &RestoreOptions::default()).await;
        assert!(restored == bytes, "SEED={seed} {stretches:?}");
    }
    for name in ["sparse", "dense"] {
        assert!(
            bytes_of(&repo, &tree, &only(&[name])).await == bytes,
            "SEED={seed}"
        );
    }
}

#[tokio::test]
async fn the_same_bytes_give_the_same_chunks_however_they_come() {
    use Stretch::{Hole, Noise, Zeros};
    let layouts: [&[Stretch]; 12] = [
        &[],
        &[Noise(1)],
        &[Hole(1)],
        &[Hole(64 << 10)],
        &[Zeros((64 << 10) - 1), Noise(1)],
        &[Noise(4096), Zeros(64 << 10), Noise(4096)],
        &[
            Noise(4095),
            Hole(1 << 17),
            Noise(4097),
            Hole(1 << 16),
            Noise(100),
        ],
        // A run of zeros across the end of a window of 4 MiB, and of 1 MiB.
        &[Noise(4 * MIB - 8192), Zeros(16_384), Noise(MIB)],
        &[Noise(4 * MIB - 40_000), Zeros(80_000), Noise(5 * MIB)],
        &[
            Noise(MIB - 4096),
            Zeros(4096),
            Hole(MIB),
            Zeros(4096),
            Noise(3 * MIB),
        ],
        &[Zeros(9 * MIB + 5)],
        &[Noise(9 * MIB + 5)],
    ];
    for (number, stretches) in layouts.into_iter().enumerate() {
        check(stretches, 100 + number as u64).await;
    }
}

#[tokio::test]
async fn random_layouts_give_the_same_chunks_however_they_come() {
    for seed in 0..24 {
        println!("SEED={seed}");
        check(&random_stretches(&mut Random(seed)), seed).await;
    }
}

#[tokio::test]
async fn a_stream_of_single_bytes_is_the_same_stream() {
    let bytes = [noise(300_000, 1), vec![0; 200_000], text(700_000, 2)].concat();
    let repo = create(Memory::new()).await;
    back_up(&repo, Source::stream(Cursor::new(bytes.clone()))).await;
    let slow = Source::stream(Pieces::new(bytes.clone(), [1]));
    let again = back_up(&repo, slow).await;
    assert_eq!(again.bytes_new, 0);
    let restored = bytes_of(&repo, &again.snapshot, &RestoreOptions::default()).await;
    assert!(restored == bytes);
}

#[tokio::test]
async fn a_stream_that_fails_makes_no_snapshot() {
    struct Failing(u64);
    impl Read for Failing {
        fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
            let read = (self.0 as usize).min(space.len());
            self.0 -= read as u64;
            space[..read].fill(7);
            if read == 0 {
                return Err(std::io::Error::other("the cable came loose"));
            }
            Ok(read)
        }
    }
    let repo = create(Memory::new()).await;
    for len in [0, 1, 20 << 20] {
        let source = Source::stream(Failing(len));
        let failed = backup(&repo, NAME, source, &BackupOptions::default(), &()).await;
        assert!(matches!(failed, Err(Error::Source { .. })), "{failed:?}");
    }
    assert!(
        snapshots(&repo, &Default::default())
            .await
            .unwrap()
            .is_empty()
    );
    assert_sound(&repo).await;
}

/// An image with holes, in a repository of its own.
async fn an_image(scratch: &Path) -> (Repository, SessionId, Vec<u8>) {
    use Stretch::{Hole, Noise, Zeros};
    let layout = [
        Hole(70_000),
        Noise(300_001),
        Hole(3 * MIB),
        Noise(5 * MIB),
        Zeros(200_000),
        Noise(4096),
        Hole(6 * MIB),
    ];
    let bytes = write_stretches(&scratch.join("image"), &layout, 9);
    let repo = create(Memory::new()).await;
    let made = back_up(&repo, Source::volume(scratch.join("image"))).await;
    (repo, made.snapshot, bytes)
}

#[tokio::test]
async fn a_volume_comes_back_as_a_file_with_holes() {
    let scratch = TempDir::new().unwrap();
    let (repo, snapshot, bytes) = an_image(scratch.path()).await;
    let file = scratch.path().join("new/restored");
    fs::create_dir(scratch.path().join("new")).unwrap();
    let target = || RestoreTarget::File(file.clone());
    let report = back(&repo, &snapshot, target(), &RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(
        (report.items, report.files, report.bytes),
        (1, 1, bytes.len() as u64)
    );
    assert!(fs::read(&file).unwrap() == bytes);
    assert!(allocated(&file) < 6 << 20, "{}", allocated(&file));

    // It is not replaced by accident, and replaced whole when asked.
    fs::write(&file, "precious").unwrap();
    let refused = back(&repo, &snapshot, target(), &RestoreOptions::default()).await;
    assert!(
        matches!(refused, Err(Error::TargetNotEmpty { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    back(&repo, &snapshot, target(), &into_existing())
        .await
        .unwrap();
    assert!(fs::read(&file).unwrap() == bytes);
    let names = fs::read_dir(scratch.path().join("new")).unwrap().count();
    assert_eq!(names, 1, "nothing is left beside it");
}

#[tokio::test]
async fn what_stood_on_a_device_does_not_show_through_holes() {
    let scratch = TempDir::new().unwrap();
    let (repo, snapshot, bytes) = an_image(scratch.path()).await;
    let device = scratch.path().join("device");
    let old = vec![0xaa; bytes.len() + 5000];
    let target = || RestoreTarget::Device(device.clone());
    fs::write(&device, &old).unwrap();
    back(&repo, &snapshot, target(), &RestoreOptions::default())
        .await
        .unwrap();
    let now = fs::read(&device).unwrap();
    assert!(now[..bytes.len()] == bytes);
    assert!(
        now[bytes.len()..] == old[bytes.len()..],
        "what is behind the image stays"
    );

    // Ranges are written to its start.
    for (from, to) in [
        (0, 70_001),
        (69_999, 9_000_000),
        (1_000_000, 2_000_000),
        (5, 5),
    ] {
        fs::write(&device, &old).unwrap();
        back(&repo, &snapshot, target(), &range(from as u64..to as u64))
            .await
            .unwrap();
        let now = fs::read(&device).unwrap();
        assert!(now[..to - from] == bytes[from..to], "{from}..{to}");
        assert!(now[to - from..] == old[to - from..], "{from}..{to}");
    }

    fs::write(&device, &old[..bytes.len() - 1]).unwrap();
    let refused = back(&repo, &snapshot, target(), &RestoreOptions::default()).await;
    assert!(
        matches!(refused, Err(Error::UnsuitableTarget { .. })),
        "{refused:?}"
    );
    assert!(
        fs::read(&device).unwrap() == old[..bytes.len() - 1],
        "nothing was written"
    );
    fs::remove_file(&device).unwrap();
    let refused = back(&repo, &snapshot, target(), &RestoreOptions::default()).await;
    assert!(
        matches!(refused, Err(Error::Target { .. })),
        "no device is made: {refused:?}"
    );
}

#[tokio::test]
async fn any_range_of_bytes_can_be_had() {
    let scratch = TempDir::new().unwrap();
    let (repo, snapshot, bytes) = an_image(scratch.path()).await;
    let len = bytes.len() as u64;
    let mut random = Random(5);
    let edges = [
        0,
        1,
        69_999,
        70_000,
        65_536,
        370_001,
        len - 1,
        len,
        4 << 20,
        8 << 20,
    ];
    for _ in 0..150 {
        let mut end = || match random.below(3) {
            0 => *random.one_of(&edges),
            _ => random.below(len + 1),
        };
        let (one, other) = (end(), end());
        let (from, to) = (one.min(other), one.max(other));
        let to = if random.below(2) == 0 {
            to
        } else {
            len.min(from + random.below(100_000))
        };
        let some = bytes_of(&repo, &snapshot, &range(from..to)).await;
        assert!(some == bytes[from as usize..to as usize], "{from}..{to}");
    }
    for (from, to) in [
        (0, len + 1),
        (len + 1, len + 1),
        (u64::MAX, u64::MAX),
        (5, 4),
    ] {
        let target = RestoreTarget::Writer(Box::new(std::io::sink()));
        let refused = back(&repo, &snapshot, target, &range(from..to)).await;
        assert!(
            matches!(refused, Err(Error::BadOption { .. })),
            "{from}..{to}: {refused:?}"
        );
    }
    let file = scratch.path().join("part");
    let target = RestoreTarget::File(file.clone());
    back(&repo, &snapshot, target, &range(60_000..4_000_000))
        .await
        .unwrap();
    assert!(fs::read(&file).unwrap() == bytes[60_000..4_000_000]);
}

#[tokio::test]
async fn ranges_of_streams_and_of_long_lists_of_chunks_can_be_had() {
    // Small chunks: the list of them spans many pages.
    let mut options = backup::CreateOptions::default();
    options.chunker = backup::ChunkerParams::new(64, 256, 1024).unwrap();
    let repo = common::create_with(Memory::new(), options).await;
    let bytes = content(
        &[
            Stretch::Noise(3 * MIB),
            Stretch::Hole(MIB),
            Stretch::Noise(MIB),
        ],
        3,
    );
    let source = Source::stream(Pieces::new(bytes.clone(), [100_003]));
    let made = back_up(&repo, source).await;
    let mut random = Random(6);
    for _ in 0..60 {
        let from = random.below(bytes.len() as u64) as usize;
        let to = (from + random.below(300_000) as usize).min(bytes.len());
        let some = bytes_of(&repo, &made.snapshot, &range(from as u64..to as u64)).await;
        assert!(some == bytes[from..to], "{from}..{to}");
    }
}

#[tokio::test]
async fn one_file_of_a_tree_can_be_had_by_its_path() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    everything(&tree);
    fs::write(tree.join("long"), noise(9 * MIB, 1)).unwrap();
    let repo = create(Memory::new()).await;
    let snapshot = back_up(&repo, Source::tree(&tree)).await.snapshot;
    for (name, seen) in walk(&tree) {
        let mut options = RestoreOptions::default();
        options.paths = vec![ItemPath::from_bytes(name.clone()).unwrap()];
        if seen.mode & 0o170_000 == 0o100_000 {
            let bytes = fs::read(common::compare::join(&tree, &name)).unwrap();
            assert!(
                bytes_of(&repo, &snapshot, &options).await == bytes,
                "{name:?}"
            );
        } else {
            let target = RestoreTarget::Writer(Box::new(std::io::sink()));
            let refused = back(&repo, &snapshot, target, &options).await;
            assert!(
                matches!(refused, Err(Error::UnsuitableTarget { .. })),
                "{refused:?}"
            );
        }
    }
    let mut options = only(&["long"]);
    options.range = Some(5_000_000..5_100_000);
    let some = bytes_of(&repo, &snapshot, &options).await;
    assert!(some == noise(9 * MIB, 1)[5_000_000..5_100_000]);
    for absent in ["nowhere", "long/below", "a/b/nowhere", "zzz"] {
        let target = RestoreTarget::Writer(Box::new(std::io::sink()));
        let refused = back(&repo, &snapshot, target, &only(&[absent])).await;
        assert!(
            matches!(refused, Err(Error::PathNotFound { .. })),
            "{absent}: {refused:?}"
        );
    }
}

/// A tree with hard links, whose first names are elsewhere than the others.
fn linked_tree(scratch: &TempDir) -> PathBuf {
    let tree = scratch.path().join("tree");
    for name in ["a/first", "b/deep", "c"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::write(tree.join("a/first/file"), noise(100_000, 1)).unwrap();
    fs::write(tree.join("a/first/long"), noise(5 * MIB, 2)).unwrap();
    fs::write(tree.join("a/empty"), "").unwrap();
    symlink("to nowhere", tree.join("a/symlink")).unwrap();
    node(&tree.join("a/fifo"), FileType::Fifo, (0, 0));
    for (first, others) in [
        ("a/first/file", ["b/deep/file", "b/file", "c/file"]),
        ("a/first/long", ["b/deep/long", "b/long", "c/long"]),
        ("a/empty", ["b/deep/empty", "b/empty", "c/empty"]),
        ("a/symlink", ["b/deep/symlink", "b/symlink", "c/symlink"]),
        ("a/fifo", ["b/deep/fifo", "b/fifo", "c/fifo"]),
    ] {
        for other in others {
            fs::hard_link(tree.join(first), tree.join(other)).unwrap();
        }
    }
    fs::write(tree.join("b/own"), "not linked").unwrap();
    set_mode(&tree.join("b"), 0o2750);
    for name in ["b/deep", "b", "c", ""] {
        set_mtime(&tree.join(name), 1_000_000_000, 7);
    }
    tree
}

/// Restores only these paths: what is there must be as in the source, and nothing else be there.
async fn check_subset(paths: &[&str]) {
    let scratch = TempDir::new().unwrap();
    let tree = linked_tree(&scratch);
    let repo = create(Memory::new()).await;
    let snapshot = back_up(&repo, Source::tree(&tree)).await.snapshot;
    let target = scratch.path().join("restored");
    let report = back(
        &repo,
        &snapshot,
        RestoreTarget::Directory(target.clone()),
        &only(paths),
    )
    .await
    .unwrap();
    assert!(
        report.is_complete(),
        "{paths:?}: {:?} {:?}",
        report.skipped,
        report.unset
    );
    let wanted = |name: &[u8]| {
        let name = ItemPath::from_bytes(name).unwrap();
        paths.iter().any(|wanted| name.starts_with(&path(wanted)))
    };
    let on_the_way = |name: &[u8]| {
        let name = ItemPath::from_bytes(name).unwrap();
        paths.iter().any(|wanted| path(wanted).starts_with(&name))
    };
    // The source, without what is not wanted: links that are left are to be linked to each other.
    let mut names: Vec<Vec<u8>> = walk(&tree).into_keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut times = Vec::new();
    for name in &names {
        let place = common::compare::join(&tree, name);
        if wanted(name) || on_the_way(name) {
            times.push((place.clone(), walk(&place)[&Vec::new()].mtime));
        }
    }
    let count = names.iter().filter(|name| wanted(name)).count();
    for name in names
        .iter()
        .filter(|name| !wanted(name) && !on_the_way(name))
    {
        let place = common::compare::join(&tree, name);
        match place.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir(place).unwrap(),
            false => fs::remove_file(place).unwrap(),
        }
    }
    for (place, (seconds, nanoseconds)) in times {
        set_mtime(&place, seconds, nanoseconds);
    }
    assert_same(&tree, &target);
    assert_eq!(report.items, count as u64, "{paths:?}");
}

#[tokio::test]
async fn a_part_of_a_tree_can_be_had_by_its_path() {
    check_subset(&["a"]).await;
    check_subset(&["b/own"]).await;
    check_subset(&["a/first", "b"]).await;
    check_subset(&["a/first/file", "c/file"]).await;
    check_subset(&[""]).await;
}

#[tokio::test]
async fn a_hard_link_whose_first_name_is_not_wanted_comes_back_whole() {
    check_subset(&["b/file"]).await;
    check_subset(&["b/long", "c/long"]).await;
    check_subset(&["b/deep/empty", "c/empty"]).await;
    check_subset(&["b/file", "b/deep/file", "b/long", "c/file", "c/empty"]).await;
}

#[tokio::test]
async fn a_hard_link_of_a_symlink_or_fifo_is_one_without_its_first_name_too() {
    check_subset(&["b/symlink"]).await;
    check_subset(&["b/fifo", "c/fifo"]).await;
    check_subset(&["b"]).await;
}

#[tokio::test]
async fn every_path_that_is_not_there_is_told() {
    let scratch = TempDir::new().unwrap();
    let tree = linked_tree(&scratch);
    let repo = create(Memory::new()).await;
    let snapshot = back_up(&repo, Source::tree(&tree)).await.snapshot;
    for (number, paths) in [
        &["nowhere"][..],
        &["b", "nowhere"],
        &["nowhere", "b"],
        &["b/own/x"],
    ]
    .into_iter()
    .enumerate()
    {
        let target = RestoreTarget::Directory(scratch.path().join(format!("{number}")));
        let refused = back(&repo, &snapshot, target, &only(paths)).await;
        let told = match &refused {
            Err(Error::PathNotFound { .. }) => true,
            Ok(report) => !report.is_complete(),
            Err(_) => false,
        };
        assert!(told, "{paths:?}: {refused:?}");
    }
}

#[tokio::test]
async fn snapshots_do_not_fit_every_target() {
    let scratch = TempDir::new().unwrap();
    let (repo, volume, _) = an_image(scratch.path()).await;
    let tree = back_up(&repo, Source::tree(scratch.path())).await.snapshot;
    for (snapshot, target, options) in [
        (
            volume,
            RestoreTarget::Directory(scratch.path().join("x")),
            RestoreOptions::default(),
        ),
        (
            tree,
            RestoreTarget::File(scratch.path().join("x")),
            RestoreOptions::default(),
        ),
        (
            tree,
            RestoreTarget::File(scratch.path().join("x")),
            only(&["image", "nowhere"]),
        ),
        (
            tree,
            RestoreTarget::Directory(scratch.path().join("x")),
            range(0..1),
        ),
    ] {
        let shown = format!("{target:?} {options:?}");
        let refused = back(&repo, &snapshot, target, &options).await;
        let fits = matches!(
            refused,
            Err(Error::UnsuitableTarget { .. } | Error::BadOption { .. })
        );
        assert!(fits, "{shown}: {refused:?}");
        assert!(!scratch.path().join("x").exists(), "{shown}");
    }
}
