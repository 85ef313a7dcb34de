//! Bad packs are set aside and healed, a lost index is written anew, a store that goes back is noticed.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

mod common;

use std::fs;
use std::time::{Duration, SystemTime};

use backup::backup_backend::{
    KeyPrefix, Memory, ObjectKey, PutMode, StorageBackend, StorageBackendExt,
};
use backup::{
    BackupOptions, Forget, ForgetOptions, GcOptions, PinFinding, Pins, Repository, RestoreOptions,
    RestoreTarget, SessionId, Source, VerifyLevel, backup, check_pins, forget, gc, rebuild_index,
    repair, restore, verify,
};
use common::compare::assert_same;
use common::data::noise;
use common::{assert_sound, create, open, restore_tree};
use tempfile::TempDir;

fn store_with_clock() -> Memory {
    Memory::new().with_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000))
}

async fn store(repo: &Repository, name: &str, source: Source) -> SessionId {
    let mut options = BackupOptions::default();
    options.pack_len = 64 << 10;
    options.block_len = 32 << 10;
    options.memory_len_max = 64 << 20;
    backup(repo, name, source, &options, &())
        .await
        .unwrap()
        .snapshot
}

async fn keys(memory: &Memory, prefix: &str) -> Vec<ObjectKey> {
    let prefix = KeyPrefix::parse(prefix).unwrap();
    let objects = memory.list_all(&prefix).await.unwrap();
    objects.into_iter().map(|object| object.key).collect()
}

fn tree(scratch: &TempDir) -> std::path::PathBuf {
    let root = scratch.path().join("tree");
    fs::create_dir(&root).unwrap();
    for n in 0..30u64 {
        fs::write(root.join(format!("{n}")), noise(15 << 10, n)).unwrap();
    }
    root
}

async fn collect(repo: &Repository) -> backup::GcReport {
    let mut options = GcOptions::default();
    options.pack_age_min = Duration::ZERO;
    options.requests_per_second = None;
    options.delete_percent_max = 100;
    gc(repo, &options, &()).await.unwrap()
}

/// Where the header of a pack says what its chunks are, and what it says of item lists. See FORMAT.md, section 9.
const KIND_AT: usize = 9;
const TREE: u8 = 6;

/// Attack 5: wrong, short and garbage content under a right name.
#[tokio::test]
async fn the_next_backup_heals_what_was_set_aside() {
    let scratch = TempDir::new().unwrap();
    let root = tree(&scratch);
    // The names of packs are random: one of content first, then the one of items.
    let cases = ["flipped", "short", "garbage", "swapped"];
    for (attack, is_tree) in cases.into_iter().flat_map(|a| [(a, false), (a, true)]) {
        let memory = store_with_clock();
        let repo = create(memory.clone()).await;
        let first = store(&repo, "a", Source::tree(&root)).await;
        let packs = keys(&memory, "packs/").await;
        let mut victims = Vec::new();
        for pack in &packs {
            // The kind is in the header, in the clear.
            let header = memory.get(pack, None).await.unwrap();
            if (header[KIND_AT] == TREE) == is_tree {
                victims.push(pack);
            }
        }
        let victim = victims[victims.len() / 2];
        let sound = memory.get(victim, None).await.unwrap();
        let bad = match attack {
            "flipped" => {
                let mut bytes = sound.to_vec();
                bytes[200] ^= 1;
                bytes.into()
            }
            "short" => sound.slice(..sound.len() / 2),
            "garbage" => noise(sound.len(), 77).into(),
            _ => {
                let other = packs.iter().find(|pack| *pack != victim).unwrap();
                memory.get(other, None).await.unwrap()
            }
        };
        memory.put(victim, bad, PutMode::Overwrite).await.unwrap();

        let report = repair(&repo, VerifyLevel::AllData, &()).await.unwrap();
        assert!(
            report
                .set_aside
                .iter()
                .any(|pack| victim.as_str().ends_with(&pack.to_string())),
            "{attack}: {:?}",
            report.verified.damage
        );
        assert_eq!(report.hurt, [first], "{attack}");
        // Once more finds the same and changes nothing.
        let again = repair(&repo, VerifyLevel::AllData, &()).await.unwrap();
        assert!(again.set_aside.is_empty());

        let repo = open(memory.clone()).await;
        let second = store(&repo, "a", Source::tree(&root)).await;
        for snapshot in [first, second] {
            let target = scratch
                .path()
                .join(format!("{attack} {is_tree} {snapshot}"));
            restore_tree(&repo, &snapshot, &target).await;
            assert_same(&root, &target);
        }
        let still = verify(&repo, VerifyLevel::AllData, &()).await.unwrap();
        assert!(
            still
                .damage
                .iter()
                .all(|damage| damage.snapshots.is_empty()),
            "{still:?}"
        );
        collect(&repo).await;
        assert!(!keys(&memory, "packs/").await.contains(victim), "{attack}");
        assert!(keys(&memory, "damaged/").await.is_empty());
        assert_sound(&repo).await;
    }
}

#[tokio::test]
async fn what_is_lost_for_good_hurts_only_the_files_concerned() {
    let scratch = TempDir::new().unwrap();
    let root = tree(&scratch);
    let memory = store_with_clock();
    let repo = create(memory.clone()).await;
    let first = store(&repo, "a", Source::tree(&root)).await;
    let packs = keys(&memory, "packs/").await;
    let mut hurt = 0;
    for victim in &packs {
        let sound = memory.get(victim, None).await.unwrap();
        let bad = noise(sound.len(), 5).into();
        memory.put(victim, bad, PutMode::Overwrite).await.unwrap();
        let target = scratch
            .path()
            .join(format!("{}", victim.as_str().len() + hurt));
        let to = RestoreTarget::Directory(target.clone());
        let restored = restore(&repo, &first, to, &RestoreOptions::default(), &()).await;
        if let Ok(report) = restored {
            assert!(!report.is_complete());
            assert!(report.files > 0, "the others are restored");
            hurt += 1;
        }
        memory.put(victim, sound, PutMode::Overwrite).await.unwrap();
    }
    assert!(hurt > 2);
    assert_sound(&repo).await;
}

#[tokio::test]
async fn an_index_that_is_lost_is_written_anew_from_the_packs() {
    let scratch = TempDir::new().unwrap();
    let root = tree(&scratch);
    let memory = store_with_clock();
    let repo = create(memory.clone()).await;
    let first = store(&repo, "a", Source::tree(&root)).await;
    let packs = keys(&memory, "packs/").await.len() as u64;
    for segment in keys(&memory, "index/").await {
        memory.delete_one(&segment).await.unwrap();
    }
    let report = rebuild_index(&repo, &()).await.unwrap();
    assert_eq!((report.packs, report.segments_written), (packs, 1));
    assert!(report.unreadable.is_empty());
    // With a damaged one beside it, and once more.
    let written = keys(&memory, "index/").await;
    memory
        .put(&written[0], vec![1, 2, 3].into(), PutMode::Overwrite)
        .await
        .unwrap();
    rebuild_index(&repo, &()).await.unwrap();
    let before = keys(&memory, "packs/").await;
    let second = store(&repo, "a", Source::tree(&root)).await;
    assert_eq!(keys(&memory, "packs/").await, before, "everything is found");
    for snapshot in [first, second] {
        let target = scratch.path().join(snapshot.to_string());
        restore_tree(&repo, &snapshot, &target).await;
        assert_same(&root, &target);
    }
}

/// Attack 4.
#[tokio::test]
async fn a_store_that_goes_back_is_noticed() {
    let memory = store_with_clock();
    let repo = create(memory.clone()).await;
    // Names of one millisecond have no order.
    let pause = || tokio::time::sleep(Duration::from_millis(3));
    let stream = |seed| Source::stream(std::io::Cursor::new(noise(10 << 10, seed)));
    let first = store(&repo, "a", stream(1)).await;
    let yesterday: Vec<_> = keys(&memory, "snapshots/").await;
    let report = check_pins(&repo, &Pins::new(repo.id())).await.unwrap();
    assert!(matches!(
        &report.findings[..],
        [PinFinding::Unpinned { .. }]
    ));
    assert!(report.is_sound());
    let pins = report.pins().clone();

    pause().await;
    let second = store(&repo, "a", stream(2)).await;
    pause().await;
    let third = store(&repo, "a", stream(3)).await;
    let report = check_pins(&repo, &pins).await.unwrap();
    assert!(report.is_sound() && report.findings.is_empty());
    let pins = report.pins().clone();

    // What is given up and dropped is no alarm.
    let what = Forget::These(vec![first]);
    forget(&repo, &what, &ForgetOptions::default())
        .await
        .unwrap();
    assert!(check_pins(&repo, &pins).await.unwrap().is_sound());

    // A hole in the chain, and yesterday's state.
    let key = |id: &SessionId| ObjectKey::parse(format!("snapshots/{id}")).unwrap();
    let hidden = memory.get(&key(&second), None).await.unwrap();
    memory.delete_one(&key(&second)).await.unwrap();
    let report = check_pins(&repo, &pins).await.unwrap();
    assert!(
        matches!(&report.findings[..], [PinFinding::ChainGap { .. }]),
        "{report:?}"
    );
    memory
        .put(&key(&second), hidden, PutMode::Create)
        .await
        .unwrap();
    memory.delete_one(&key(&third)).await.unwrap();
    memory.delete_one(&key(&second)).await.unwrap();
    assert_eq!(keys(&memory, "snapshots/").await, yesterday);
    let report = check_pins(&repo, &pins).await.unwrap();
    assert!(!report.is_sound());
    assert!(
        matches!(&report.findings[..], [PinFinding::RollbackDetected { .. }]),
        "{report:?}"
    );
}
