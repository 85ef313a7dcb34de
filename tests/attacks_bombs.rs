//! SECURITY.md, section 6, item 7, for a repository as a whole: what is small in the store stays bounded in memory.
//! A process of its own, and one test at a time, since it looks at the peak of the whole process.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    clippy::too_many_lines,
    clippy::cloned_ref_to_slice_refs,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod attack_support;

use std::sync::Arc;

use attack_support::forge::Forge;
use attack_support::pages::{Crafted, DIRECTORY, directory, file, page};
use attack_support::*;
use backup::{Error, Repository, SessionId, SnapshotFilter, VerifyLevel, snapshots, verify};
use backup_backend::Memory;
use backup_core::{ChunkKind, DocumentKind};
use backup_manifest::{Extent, segment_key, session_open_key, snapshot_key};
use futures::TryStreamExt;

const MIB: u64 = 1 << 20;

/// A number of /proc/self/status in bytes.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim()
        .strip_suffix("kB")
        .unwrap()
        .trim()
        .parse::<u64>()
        .unwrap()
        << 10
}

/// One measurement at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Does `work`; it may take `limit` bytes at most above what was there before.
async fn peak<T>(what: &str, limit: u64, work: impl Future<Output = T>) -> T {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let result = work.await;
    let grown = status("VmHWM:").saturating_sub(before);
    println!("{what}: {} MiB", grown / MIB);
    assert!(
        grown <= limit,
        "{what}: {} MiB, allowed are {}",
        grown / MIB,
        limit / MIB
    );
    result
}

async fn forge() -> Forge {
    let store = Memory::new();
    create(Arc::new(store.clone()), MASTER).await;
    Forge::new(&objects_of(&store).await)
}

async fn all_of(repo: &Repository, id: &SessionId) -> Result<(), Error> {
    let all = snapshots(repo, &SnapshotFilter::default()).await?;
    let manifest = all.iter().find(|manifest| manifest.session == *id).unwrap();
    let items = backup::list(repo, manifest, None).await?;
    items.try_for_each(|_| async { Ok(()) }).await?;
    restore_to(repo, id, &spot()).await?;
    Ok(())
}

/// Kilobytes sealed with the right keys that open to hundreds of megabytes: a cell is at most one mebibyte.
#[tokio::test]
async fn a_cell_or_a_session_that_swells_is_refused_by_its_length() {
    let _alone = ALONE.lock().await;
    let mut forge = forge().await;
    let swollen = vec![b' '; 250 << 20];
    let id = forge.session("bomb");
    forge.cell(&id, &swollen);
    let name = session_open_key(&id);
    let sealed = forge.seal(DocumentKind::SessionOpen, &name, &swollen);
    assert!(sealed.len() < 64 << 10, "{}", sealed.len());
    forge.objects.insert(name, sealed);
    drop(swollen);
    let repo = open(&forge.objects).await;
    let error = peak(
        "a cell",
        64 * MIB,
        snapshots(&repo, &SnapshotFilter::default()),
    )
    .await;
    assert!(matches!(error, Err(Error::Damaged { .. })), "{error:?}");
    let report = peak(
        "a session",
        64 * MIB,
        verify(&repo, VerifyLevel::Structure, &()),
    )
    .await;
    assert_names(&report.unwrap(), &snapshot_key(&id), Some(id));
}

/// Segments may be as long as that in earnest: such a one is held once.
#[tokio::test]
async fn a_segment_that_swells_takes_no_more_than_the_longest_segment() {
    let _alone = ALONE.lock().await;
    let mut forge = forge().await;
    let swollen = vec![b' '; 250 << 20];
    let segment = forge.keys.segment_id(&swollen);
    let name = segment_key(&segment);
    let sealed = forge.seal(DocumentKind::Segment, &name, &swollen);
    drop(swollen);
    forge.objects.insert(name.clone(), sealed);
    let repo = open(&forge.objects).await;
    let report = peak(
        "a segment",
        600 * MIB,
        verify(&repo, VerifyLevel::Structure, &()),
    )
    .await;
    assert_names(&report.unwrap(), &name, None);
}

/// Front coding makes long paths cheap: 5,000 files in a directory of a path of 60,000 bytes are 50 kB of page and 300 MB
/// of paths. (A page of two mebibytes could hold 200,000 of them.)
#[tokio::test]
#[ignore = "open: a hostile page of long paths takes 600 MiB when decoded"]
async fn a_page_of_long_paths_is_not_held_as_long_as_they_are() {
    let _alone = ALONE.lock().await;
    let mut forge = forge().await;
    let top = b"d/".repeat(30_000);
    let mut long = Crafted::default().item(DIRECTORY, 0, &top[..59_999]);
    long = long.empty_file(59_999, b"/0000");
    for number in 1..5_000 {
        let name = format!("{number:04}");
        let before = format!("{:04}", number - 1);
        let shared = name
            .bytes()
            .zip(before.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        long = long.empty_file(60_000 + shared as u64, &name.as_bytes()[shared..]);
    }
    let bytes = long.bytes();
    assert!(bytes.len() < 128 << 10, "{}", bytes.len());
    let first = String::from_utf8(top[..59_999].to_vec()).unwrap();
    let reference = forge.page(&bytes, &first, 0);
    let id = forge.tree("deep", vec![reference]);
    let repo = open(&forge.objects).await;
    let report = peak(
        "verify long paths",
        64 * MIB,
        verify(&repo, VerifyLevel::Structure, &()),
    )
    .await;
    assert!(report.unwrap().is_sound());
    // A report names a thousand of them.
    let _ = peak("list and restore long paths", 160 * MIB, all_of(&repo, &id)).await;
}

/// Blocks of 16 MiB of zeros, half a kilobyte each; every file needs another one.
#[tokio::test]
async fn blocks_that_swell_are_few_at_a_time() {
    let _alone = ALONE.lock().await;
    let mut forge = forge().await;
    let mut entries = vec![directory("")];
    for number in 0..60_u32 {
        let mut plain = vec![0; 16 << 20];
        plain[..4].copy_from_slice(&number.to_le_bytes());
        let (mine, rest) = plain.split_at(1000);
        let id = forge.keys.chunk_id(ChunkKind::Data, mine);
        let other = forge.keys.chunk_id(ChunkKind::Data, rest);
        forge.pack(
            ChunkKind::Data,
            &[&[(id.short(), mine), (other.short(), rest)]],
        );
        entries.push(file(
            &format!("f{number:03}"),
            &[Extent::Data { len: 1000, id }],
        ));
    }
    let stored: usize = forge.objects.values().map(|bytes| bytes.len()).sum();
    assert!(stored < 1 << 20, "{stored}");
    let reference = forge.page(&page(&entries), "", 0);
    let id = forge.tree("blocks", vec![reference]);
    let repo = open(&forge.objects).await;
    let limit = 700 * MIB;
    let _ = peak("restore of swollen blocks", limit, all_of(&repo, &id)).await;
    let report = peak(
        "verify of swollen blocks",
        limit,
        verify(&repo, VerifyLevel::AllData, &()),
    )
    .await;
    assert!(report.unwrap().is_sound());
}

/// An object in the place of a small one that is as long as objects may be is at most held once.
#[tokio::test]
async fn an_object_as_long_as_it_may_be_is_held_once() {
    let _alone = ALONE.lock().await;
    let mut forge = forge().await;
    let id = forge.session("huge");
    let huge = vec![0xaa; 200 << 20];
    forge.objects.insert(snapshot_key(&id), huge.into());
    let repo = open(&forge.objects).await;
    let found = peak(
        "a huge cell",
        16 * MIB,
        verify(&repo, VerifyLevel::AllData, &()),
    )
    .await;
    assert_names(&found.unwrap(), &snapshot_key(&id), Some(id));
}
