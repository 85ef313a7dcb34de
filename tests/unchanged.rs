//! What has not changed is neither read nor stored again; what has changed is, however well it hides.
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
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup::backup_backend::{Counting, KeyPrefix, Memory, StorageBackend, StorageBackendExt};
use backup::{
    BackupOptions, BackupReport, CreateOptions, Repository, RestoreOptions, Source, backup, stats,
};
use common::compare::assert_same;
use common::data::{Pieces, Stretch, noise, write_stretches};
use common::make::{everything, set_mode, set_mtime};
use common::{
    SetClock, assert_sound, back_up, back_up_with, bytes_of, create, create_with, objects,
    restore_tree, under,
};
use tempfile::TempDir;

/// Makes a tree, backs it up, changes it, backs it up again: the second snapshot must restore to what is there then.
/// Hands over the second report and what the second run added: data packs, objects, bytes.
async fn check(make: impl FnOnce(&Path), change: impl FnOnce(&Path)) -> (BackupReport, Added) {
    let (scratch, tree) = place();
    make(&tree);
    settle();
    let store = Counting::new(Memory::new());
    let counters = store.counters();
    let repo = create(store).await;
    back_up(&repo, Source::tree(&tree)).await;
    change(&tree);
    let (before, packs) = (objects(&repo).await, stats(&repo).await.unwrap().data_packs);
    let puts = counters.counts().put.items;
    let second = back_up(&repo, Source::tree(&tree)).await;
    let puts = counters.counts().put.items - puts;
    let after = objects(&repo).await;
    assert_eq!(puts, (after.len() - before.len()) as u64);
    let restored = scratch.path().join("restored");
    restore_tree(&repo, &second.snapshot, &restored).await;
    assert_same(&tree, &restored);
    assert_sound(&repo).await;
    let bytes = |objects| under(objects, "").1;
    let added = Added {
        objects: after.len() - before.len(),
        bytes: bytes(&after) - bytes(&before),
        data_packs: stats(&repo).await.unwrap().data_packs - packs,
    };
    (second, added)
}

/// What a run added to a repository.
#[derive(Debug)]
struct Added {
    objects: usize,
    bytes: u64,
    data_packs: u64,
}

fn place() -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    (scratch, tree)
}

/// What changed within the last tick of a file system's clock is rightly read again.
fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

fn thousand_files(root: &Path) {
    for number in 0..1000 {
        let directory = root.join(format!("{}", number % 10));
        fs::create_dir_all(&directory).unwrap();
        let bytes = noise(3000 + number, number as u64);
        fs::write(directory.join(format!("{number}")), bytes).unwrap();
    }
}

#[tokio::test]
async fn an_unchanged_tree_is_not_read_and_costs_at_most_six_objects() {
    let (second, added) = check(everything, |_| {}).await;
    assert_eq!(second.bytes_read, 0);
    assert_eq!(second.files_unchanged, second.files);
    assert_eq!((second.bytes_new, second.chunks_new), (0, 0));
    assert!(added.objects <= 6, "{added:?}");
    assert!(added.bytes < 10_000, "{added:?}");
    assert_eq!(added.data_packs, 0);
}

#[tokio::test]
async fn an_unchanged_large_tree_costs_no_more_than_a_small_one() {
    let make = |root: &Path| {
        for number in 0..5000 {
            fs::write(root.join(format!("{number}")), format!("{number}")).unwrap();
        }
        fs::write(root.join("long"), noise(9 << 20, 1)).unwrap();
    };
    let (second, added) = check(make, |_| {}).await;
    assert_eq!((second.bytes_read, second.files_unchanged), (0, 5001));
    assert!(added.objects <= 6 && added.bytes < 10_000, "{added:?}");
}

#[tokio::test]
async fn one_changed_file_of_a_thousand_costs_one_small_pack_of_data() {
    let change = |root: &Path| fs::write(root.join("7/507"), noise(5000, 1_000_000)).unwrap();
    let (second, added) = check(thousand_files, change).await;
    assert_eq!((second.bytes_read, second.bytes_new), (5000, 5000));
    assert_eq!(second.files_unchanged, 999);
    assert_eq!(added.data_packs, 1);
    // The file; pages of the item stream around it, whose ids do not compress; the small objects.
    assert!(
        added.objects <= 6 && added.bytes < 5000 + 100_000,
        "{added:?}"
    );
}

#[tokio::test]
async fn new_and_removed_files_cost_what_is_new() {
    let change = |root: &Path| {
        fs::remove_dir_all(root.join("3")).unwrap();
        fs::remove_file(root.join("4/4")).unwrap();
        fs::write(root.join("0/aaa"), noise(100, 1_000_001)).unwrap();
        fs::rename(root.join("5"), root.join("five")).unwrap();
    };
    let (second, added) = check(thousand_files, change).await;
    assert_eq!(second.bytes_new, 100);
    assert_eq!(second.files, 1000 - 100 - 1 + 1);
    assert_eq!(added.data_packs, 1);
}

#[tokio::test]
async fn new_times_and_modes_store_no_content() {
    let change = |root: &Path| {
        for number in 0..1000 {
            let path = root.join(format!("{}/{number}", number % 10));
            match number % 2 {
                0 => set_mtime(&path, 1_500_000_000, number),
                _ => set_mode(&path, 0o600),
            }
        }
    };
    let (second, added) = check(thousand_files, change).await;
    assert_eq!((second.bytes_new, added.data_packs), (0, 0));
}

#[tokio::test]
async fn new_content_under_the_old_size_and_time_is_noticed() {
    let change = |root: &Path| {
        let path = root.join("0/500");
        let before = fs::metadata(&path).unwrap();
        fs::write(&path, noise(3500, 2_000_000)).unwrap();
        set_mtime(&path, before.mtime(), before.mtime_nsec());
        let after = fs::metadata(&path).unwrap();
        assert_eq!(
            (before.len(), before.mtime_nsec()),
            (after.len(), after.mtime_nsec())
        );
    };
    let (second, _) = check(thousand_files, change).await;
    assert_eq!(second.bytes_read, 3500);
}

#[tokio::test]
async fn files_that_change_places_are_noticed() {
    let make = |root: &Path| {
        for (seed, name) in ["one", "other"].into_iter().enumerate() {
            fs::write(root.join(name), noise(4000, seed as u64)).unwrap();
            set_mtime(&root.join(name), 1_600_000_000, 0);
        }
    };
    let change = |root: &Path| {
        fs::rename(root.join("one"), root.join("aside")).unwrap();
        fs::rename(root.join("other"), root.join("one")).unwrap();
        fs::rename(root.join("aside"), root.join("other")).unwrap();
    };
    let (second, added) = check(make, change).await;
    assert_eq!((second.files_unchanged, added.data_packs), (0, 0));
}

#[tokio::test]
async fn what_takes_the_place_of_something_else_is_noticed() {
    let make = |root: &Path| {
        for name in ["file", "directory/inside", "link", "twin"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "before").unwrap();
        }
        fs::hard_link(root.join("twin"), root.join("twins")).unwrap();
    };
    let change = |root: &Path| {
        fs::remove_file(root.join("file")).unwrap();
        fs::create_dir(root.join("file")).unwrap();
        fs::remove_dir_all(root.join("directory")).unwrap();
        fs::write(root.join("directory"), "a file").unwrap();
        fs::remove_file(root.join("link")).unwrap();
        std::os::unix::fs::symlink("before", root.join("link")).unwrap();
        // The first name goes: the second is the file now.
        fs::remove_file(root.join("twin")).unwrap();
    };
    check(make, change).await;
}

/// Backs up at `after_ns` behind the file's last change, and once more: does the second run read the file?
async fn is_read_again(after_ns: i64) -> bool {
    let (_scratch, tree) = place();
    let file = tree.join("file");
    fs::write(&file, noise(1000, 1)).unwrap();
    let stat = fs::metadata(&file).unwrap();
    let changed_ns = stat.ctime() * 1_000_000_000 + stat.ctime_nsec();
    let clock = SetClock::default();
    clock.set(changed_ns + after_ns);
    let mut options = CreateOptions::default();
    options.env = clock.env();
    let repo = create_with(Memory::new(), options).await;
    back_up(&repo, Source::tree(&tree)).await;
    clock.set(changed_ns + 10_000_000_000);
    let second = back_up(&repo, Source::tree(&tree)).await;
    assert!(second.bytes_read == 0 || second.bytes_read == 1000);
    second.bytes_read > 0
}

#[tokio::test]
async fn a_file_changed_within_a_tick_of_the_start_is_read_again() {
    // It may have changed again after it was read, and its times be the same.
    for after_ms in [-60_000, -1, 0, 1, 4, 9] {
        assert!(is_read_again(after_ms * 1_000_000).await, "{after_ms} ms");
    }
    assert!(!is_read_again(3_000_000_000).await);
}

#[tokio::test]
async fn a_clock_that_ran_ahead_hides_no_change() {
    let (_scratch, tree) = place();
    let repo_of = |clock: &SetClock| {
        let mut options = CreateOptions::default();
        options.env = clock.env();
        create_with(Memory::new(), options)
    };
    let clock = SetClock::default();
    let repo = repo_of(&clock).await;
    let file = tree.join("file");
    fs::write(&file, noise(1000, 1)).unwrap();
    set_mtime(&file, 1_600_000_000, 0);
    // The year 2100: every change until then seems to be long settled.
    clock.set(4_102_444_800_000_000_000);
    back_up(&repo, Source::tree(&tree)).await;
    settle();
    fs::write(&file, noise(1000, 2)).unwrap();
    set_mtime(&file, 1_600_000_000, 0);
    clock.set(4_102_444_801_000_000_000);
    let second = back_up(&repo, Source::tree(&tree)).await;
    assert_eq!(second.bytes_read, 1000);
    let third = {
        clock.set(4_102_444_802_000_000_000);
        back_up(&repo, Source::tree(&tree)).await
    };
    assert_eq!(third.bytes_read, 0, "unchanged it is not read");
}

#[tokio::test]
async fn a_file_that_changes_all_the_time_is_never_taken_for_unchanged() {
    let (_scratch, tree) = place();
    let file = tree.join("file");
    let repo = create(Memory::new()).await;
    let mut options = RestoreOptions::default();
    options.paths = vec![backup::ItemPath::from_bytes("file").unwrap()];
    for round in 0..60 {
        let bytes = noise(1000, round);
        fs::write(&file, &bytes).unwrap();
        set_mtime(&file, 1_600_000_000, 0);
        let report = back_up(&repo, Source::tree(&tree)).await;
        let restored = bytes_of(&repo, &report.snapshot, &options).await;
        assert!(restored == bytes, "round {round}");
    }
}

/// 64 MB as an image has them: long data, short data, holes, zeros.
fn image(path: &Path) -> Vec<u8> {
    const MIB: usize = 1 << 20;
    use Stretch::{Hole, Noise, Zeros};
    let mut stretches = vec![Noise(30 * MIB), Hole(8 * MIB), Zeros(4 * MIB), Noise(17)];
    for _ in 0..100 {
        stretches.extend([Zeros(70_000), Noise(40_000), Hole(110_000)]);
    }
    write_stretches(path, &stretches, 1)
}

#[tokio::test]
async fn an_unchanged_image_stores_no_content_however_it_is_given() {
    let (_scratch, tree) = place();
    let path = tree.join("image");
    let bytes = image(&path);
    assert!(bytes.len() >= 60_000_000);
    settle();
    let repo = create(Memory::new()).await;
    let first = back_up(&repo, Source::volume(&path)).await;
    let packs = stats(&repo).await.unwrap().data_packs;
    assert!(first.bytes_new > 30_000_000);
    let sources = [
        Source::volume(&path),
        Source::stream(std::io::Cursor::new(bytes.clone())),
        Source::stream(Pieces::new(bytes.clone(), [65_536, 1, 70_001])),
        Source::tree(&tree),
    ];
    for source in sources {
        let before = objects(&repo).await.len();
        let again = back_up(&repo, source).await;
        assert_eq!((again.bytes, again.bytes_new), (bytes.len() as u64, 0));
        assert_eq!(stats(&repo).await.unwrap().data_packs, packs);
        assert!(objects(&repo).await.len() - before <= 6);
    }
    assert_sound(&repo).await;
}

#[tokio::test]
async fn a_changed_image_stores_about_what_has_changed() {
    let (_scratch, tree) = place();
    let path = tree.join("image");
    let mut bytes = noise(24 << 20, 1);
    fs::write(&path, &bytes).unwrap();
    let repo = create(Memory::new()).await;
    back_up(&repo, Source::volume(&path)).await;
    // Five changed spots, and one insertion that moves all that follows.
    for spot in 1..6 {
        bytes[spot * 3_000_000] ^= 1;
    }
    bytes.splice(20_000_000..20_000_000, [1, 2, 3]);
    fs::write(&path, &bytes).unwrap();
    let second = back_up(&repo, Source::volume(&path)).await;
    // Each change costs one chunk, or two where it falls on a boundary.
    let most = 6 * 2 * u64::from(repo.chunker_params().max());
    assert!(second.bytes_new <= most, "{}", second.bytes_new);
    let restored = bytes_of(&repo, &second.snapshot, &RestoreOptions::default()).await;
    assert!(restored == bytes);
}

#[tokio::test]
async fn reading_everything_again_stores_nothing() {
    let (_scratch, tree) = place();
    thousand_files(&tree);
    settle();
    let repo = create(Memory::new()).await;
    let first = back_up(&repo, Source::tree(&tree)).await;
    let mut options = BackupOptions::default();
    options.ignore_previous = true;
    let second = back_up_with(&repo, Source::tree(&tree), &options).await;
    assert_eq!(second.bytes_read, first.bytes);
    assert_eq!((second.bytes_new, second.files_unchanged), (0, 0));
    assert_eq!(second.previous, Some(first.snapshot));
}

#[tokio::test]
async fn another_source_shares_chunks_but_not_the_shortcut() {
    let (_scratch, tree) = place();
    thousand_files(&tree);
    settle();
    let repo = create(Memory::new()).await;
    let first = back_up(&repo, Source::tree(&tree)).await;
    let options = BackupOptions::default();
    let other = backup(&repo, "other", Source::tree(&tree), &options, &())
        .await
        .unwrap();
    assert_eq!((other.previous, other.bytes_new), (None, 0));
    assert_eq!(other.bytes_read, first.bytes);
}

#[tokio::test]
async fn content_that_the_store_has_lost_is_read_and_stored_again() {
    let (scratch, tree) = place();
    thousand_files(&tree);
    settle();
    let repo = create(Memory::new()).await;
    let mut options = BackupOptions::default();
    options.pack_len = 1 << 20;
    options.block_len = 100_000;
    back_up_with(&repo, Source::tree(&tree), &options).await;
    let lost = lose_a_data_pack(&repo).await;
    let second = back_up_with(&repo, Source::tree(&tree), &options).await;
    assert!(
        second.bytes_read > lost / 2,
        "what was lost is read: {}",
        second.bytes_read
    );
    assert!(
        second.bytes_read < 2 * lost,
        "the rest is not: {}",
        second.bytes_read
    );
    let restored = scratch.path().join("restored");
    restore_tree(&repo, &second.snapshot, &restored).await;
    assert_same(&tree, &restored);
}

/// Deletes a pack of content, and returns its length in bytes.
async fn lose_a_data_pack(repo: &Repository) -> u64 {
    let packs = KeyPrefix::parse("packs/").unwrap();
    let packs = repo.backend().list_all(&packs).await.unwrap();
    // Packs of items are shorter.
    let pack = packs.iter().max_by_key(|pack| pack.len).unwrap();
    repo.backend()
        .delete(std::slice::from_ref(&pack.key))
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    pack.len
}
