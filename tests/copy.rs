//! Copies between repositories with other keys, other chunk sizes, other stores: the same comes out of both.
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

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup::backup_backend::testing::{FaultPoint, Faulty, Operation};
use backup::backup_backend::{
    Bytes, Counting, LocalFs, LocalFsOptions, Memory, ObjectKey, PutMode, StorageBackend,
};
use backup::{
    BackupOptions, ChunkerParams, CopyOptions, CopyReport, CreateOptions, Error, Event, Forget,
    ForgetOptions, Observer, Repository, RestoreOptions, Selection, SessionId, SnapshotFilter,
    SnapshotKind, SnapshotManifest, Source, backup, copy, find_snapshot, forget, snapshots,
};
use common::compare::assert_same;
use common::data::{Stretch, noise, write_stretches};
use common::make::everything;
use common::{
    assert_sound, back_up, back_up_with, bytes_of, create, create_with, objects, open,
    restore_tree, under,
};
use futures::FutureExt;
use tempfile::TempDir;

/// Small packs and blocks, so that there are many of them.
fn options() -> CopyOptions {
    let mut options = CopyOptions::default();
    options.pack_len = 256 << 10;
    options.block_len = 128 << 10;
    options.memory_len_max = 32 << 20;
    options
}

fn backup_options() -> BackupOptions {
    let mut options = BackupOptions::default();
    options.pack_len = 256 << 10;
    options.block_len = 128 << 10;
    options.memory_len_max = 64 << 20;
    options
}

/// A repository that cuts otherwise than by default.
async fn create_other(store: impl StorageBackend + 'static) -> Repository {
    let mut options = CreateOptions::default();
    options.chunker = ChunkerParams::new(2 << 10, 8 << 10, 32 << 10).unwrap();
    create_with(store, options).await
}

fn all() -> Selection {
    Selection::Matching(SnapshotFilter::default())
}

async fn copy_all(from: &Repository, to: &Repository) -> CopyReport {
    let report = copy(from, to, &all(), &options(), &()).await.unwrap();
    assert!(report.is_complete(), "{:?}", report.failed);
    report
}

async fn manifests(repo: &Repository) -> BTreeMap<SessionId, SnapshotManifest> {
    let all = snapshots(repo, &SnapshotFilter::default()).await.unwrap();
    all.into_iter().map(|m| (m.session, m)).collect()
}

/// Everything that a snapshot says of itself is in its copy.
async fn assert_told_the_same(from: &Repository, to: &Repository, report: &CopyReport) {
    let (there, here) = (manifests(from).await, manifests(to).await);
    for pair in &report.copied {
        let (one, other) = (&there[&pair.from], &here[&pair.to]);
        let expected = SnapshotManifest {
            session: other.session,
            nonce: other.nonce,
            previous: other.previous,
            root: other.root.clone(),
            extras: other.extras.clone(),
            ..one.clone()
        };
        assert_eq!(*other, expected);
        assert_ne!(other.nonce, one.nonce);
        let origin = &other.extras["copied_from"];
        assert_eq!(origin["repository"], from.id().to_string());
        assert_eq!(origin["snapshot"], pair.from.to_string());
    }
}

async fn check_everything(from: Repository, to: Repository) {
    let scratch = TempDir::new().unwrap();
    let place = |name: &str| scratch.path().join(name);
    let (tree, volume) = (place("tree"), place("volume"));
    fs::create_dir(&tree).unwrap();
    everything(&tree);
    let stretches = [
        Stretch::Noise(3_000_001),
        Stretch::Hole(5 << 20),
        Stretch::Noise(70_000),
        Stretch::Zeros(200_000),
        Stretch::Noise(1),
        Stretch::Hole(1 << 30),
    ];
    let volume_bytes = write_stretches(&volume, &stretches, 5);
    let stream = noise(2_500_000, 9);
    let mut labelled = BackupOptions::default();
    labelled.tags = vec!["monthly".into(), "ü".into()];
    labelled.host = "elsewhere".into();
    labelled.program = "a test".into();
    let made = back_up_with(&from, Source::tree(&tree), &labelled).await;
    backup(&from, "disk", Source::volume(&volume), &labelled, &())
        .await
        .unwrap();
    let source = Source::stream(std::io::Cursor::new(stream.clone()));
    backup(&from, "dump", source, &labelled, &()).await.unwrap();
    let empty = Source::stream(std::io::empty());
    backup(&from, "nothing", empty, &labelled, &())
        .await
        .unwrap();

    let report = copy_all(&from, &to).await;
    assert_eq!(report.copied.len(), 4);
    assert!(report.present.is_empty());
    assert!(report.bytes_stored > 0 && report.packs_stored > 0);
    assert_told_the_same(&from, &to, &report).await;
    assert_sound(&to).await;
    let copy_of = |id: SessionId| {
        let pair = report.copied.iter().find(|pair| pair.from == id);
        pair.unwrap().to
    };
    restore_tree(&to, &copy_of(made.snapshot), &place("restored")).await;
    assert_same(&tree, &place("restored"));
    for manifest in manifests(&from).await.into_values() {
        let copied = copy_of(manifest.session);
        if manifest.kind == SnapshotKind::Tree {
            continue;
        }
        let bytes = bytes_of(&to, &copied, &RestoreOptions::default()).await;
        let expected: &[u8] = match manifest.source.as_str() {
            "disk" => &volume_bytes,
            "dump" => &stream,
            _ => &[],
        };
        assert!(bytes == expected, "{}", manifest.source);
    }
}

#[tokio::test]
async fn every_kind_of_item_is_the_same_in_the_copy() {
    let from = create(Memory::new()).await;
    check_everything(from, create_other(Memory::new()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_and_larger_chunks_do_as_well() {
    let scratch = TempDir::new().unwrap();
    let store =
        |name: &str| LocalFs::create(scratch.path().join(name), LocalFsOptions::default()).unwrap();
    let mut large = CreateOptions::default();
    large.chunker = ChunkerParams::new(256 << 10, 512 << 10, 1 << 20).unwrap();
    let from = create_with(store("from"), large).await;
    check_everything(from, create_other(store("to")).await).await;
}

/// Three snapshots of a tree and of a volume, each a little different from the one before.
struct Series {
    scratch: TempDir,
    round: usize,
}

const SERIES_FILES: usize = 40;
const SERIES_FILE_LEN: usize = 60_000;
const SERIES_VOLUME_LEN: usize = 4 << 20;

impl Series {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let series = Self { scratch, round: 0 };
        fs::create_dir(series.tree()).unwrap();
        for number in 0..SERIES_FILES {
            let bytes = noise(SERIES_FILE_LEN, number as u64);
            fs::write(series.tree().join(format!("{number:02}")), bytes).unwrap();
        }
        fs::write(series.volume(), noise(SERIES_VOLUME_LEN, 77)).unwrap();
        series
    }

    fn tree(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    fn volume(&self) -> PathBuf {
        self.scratch.path().join("volume")
    }

    /// Changes some, so that about so many bytes are new.
    fn change(&mut self) -> u64 {
        self.round += 1;
        let name = format!("{:02}", self.round * 7 % SERIES_FILES);
        let bytes = noise(SERIES_FILE_LEN, 1000 + self.round as u64);
        fs::write(self.tree().join(name), bytes).unwrap();
        let mut volume = fs::read(self.volume()).unwrap();
        let at = self.round * 300_000;
        volume[at..at + 20_000].copy_from_slice(&noise(20_000, 2000 + self.round as u64));
        fs::write(self.volume(), volume).unwrap();
        (SERIES_FILE_LEN + 20_000) as u64
    }

    async fn back_up(&self, repo: &Repository) -> [SessionId; 2] {
        let tree = back_up_with(repo, Source::tree(self.tree()), &backup_options()).await;
        let volume = Source::volume(self.volume());
        let volume = backup(repo, "disk", volume, &backup_options(), &()).await;
        [tree.snapshot, volume.unwrap().snapshot]
    }

    /// The newest copies are what there is now.
    async fn assert_is_newest(&self, to: &Repository) {
        let tree = find_snapshot(to, "latest:source").await.unwrap();
        let restored = self.scratch.path().join("restored");
        let _ = fs::remove_dir_all(&restored);
        restore_tree(to, &tree.session, &restored).await;
        assert_same(&self.tree(), &restored);
        let volume = find_snapshot(to, "latest:disk").await.unwrap();
        let bytes = bytes_of(to, &volume.session, &RestoreOptions::default()).await;
        assert!(bytes == fs::read(self.volume()).unwrap());
    }
}

/// The copies of each source name each other, oldest first.
fn assert_chained(copies: &BTreeMap<SessionId, SnapshotManifest>) {
    for source in ["source", "disk"] {
        let mut chain: Vec<&SnapshotManifest> =
            copies.values().filter(|m| m.source == source).collect();
        chain.sort_by_key(|manifest| manifest.started_ns);
        let mut before = None;
        for manifest in chain {
            assert_eq!(manifest.previous.map(|previous| previous.id), before);
            before = Some(manifest.session);
        }
    }
}

#[tokio::test]
async fn a_series_is_copied_once_and_then_only_what_is_new() {
    let mut series = Series::new();
    let (source, target) = (Counting::new(Memory::new()), Counting::new(Memory::new()));
    let from = create(source.clone()).await;
    for _ in 0..3 {
        series.back_up(&from).await;
        series.change();
    }
    series.back_up(&from).await;
    let to = create_other(target.clone()).await;
    let (_, packed) = under(&objects(&from).await, "packs/");
    let before = source.counts().get.bytes;
    let report = copy_all(&from, &to).await;
    assert_eq!(report.copied.len(), 8);
    assert_told_the_same(&from, &to, &report).await;
    assert_chained(&manifests(&to).await);
    series.assert_is_newest(&to).await;
    assert_sound(&to).await;
    // Each chunk was read once, and stored once.
    let unique = report.bytes_new;
    assert_eq!(report.bytes_read, unique);
    let (_, copied) = under(&objects(&to).await, "packs/");
    assert!(copied <= packed * 105 / 100, "{copied} of {packed}");
    let read = source.counts().get.bytes - before;
    assert!(read <= packed * 2, "{read} read of {packed}");

    // Again: nothing is read but cells, and nothing is written.
    let (gets, puts) = (source.counts().get.bytes, target.counts().put.calls);
    let again = copy_all(&from, &to).await;
    assert_eq!((again.copied.len(), again.present.len()), (0, 8));
    let as_copied = |copied: &[backup::Copied]| {
        let pairs = copied.iter().map(|pair| (pair.from, pair.to));
        pairs.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(as_copied(&again.present), as_copied(&report.copied));
    assert_eq!((again.bytes_read, again.packs_stored), (0, 0));
    assert_eq!(target.counts().put.calls, puts);
    assert!(source.counts().get.bytes - gets < 100_000);

    // One more of each: only what is new is read, by a new process that has learnt nothing.
    let new = series.change();
    series.back_up(&from).await;
    let next = copy_all(&from, &to).await;
    assert_eq!((next.copied.len(), next.present.len()), (2, 8));
    assert!(next.bytes_read <= new + 300_000, "{} read", next.bytes_read);
    assert_eq!(next.bytes_read, next.bytes_new);
    assert_chained(&manifests(&to).await);
    series.assert_is_newest(&to).await;
    // The very same once more: no content, no pack of content.
    let before = backup::stats(&to).await.unwrap();
    series.back_up(&from).await;
    let same = copy_all(&from, &to).await;
    assert_eq!((same.copied.len(), same.bytes_read), (2, 0));
    let after = backup::stats(&to).await.unwrap();
    assert_eq!(after.data_packs, before.data_packs);
    assert_sound(&to).await;
}

#[tokio::test]
async fn memory_is_bounded_and_what_it_does_not_hold_is_read_again() {
    let scratch = TempDir::new().unwrap();
    let volume = scratch.path().join("volume");
    let half = noise(20 << 20, 3);
    fs::write(&volume, [&half[..], &half[..]].concat()).unwrap();
    let mut small = CreateOptions::default();
    small.chunker = ChunkerParams::new(64, 256, 1024).unwrap();
    let from = create_with(Memory::new(), small).await;
    let made = back_up_with(&from, Source::volume(&volume), &backup_options()).await;
    let to = create(Memory::new()).await;
    let mut little = options();
    little.memory_len_max = 18 << 20;
    little.pack_len = 1 << 20;
    let report = copy(&from, &to, &all(), &little, &()).await.unwrap();
    // Some of the chunks of the first half are remembered when the second half comes.
    let read = report.bytes_read >> 20;
    assert!(read > 25 && read < 38, "{read} MiB read");
    assert_eq!(report.bytes_new, made.bytes_new);
    let copied = report.copied[0].to;
    let bytes = bytes_of(&to, &copied, &RestoreOptions::default()).await;
    assert!(bytes == fs::read(&volume).unwrap());
    little.memory_len_max = 4 << 20;
    let other = create(Memory::new()).await;
    let refused = copy(&from, &other, &all(), &little, &()).await;
    assert!(
        matches!(refused, Err(Error::BadOption { .. })),
        "{refused:?}"
    );
}

/// Bytes of packs that were put, by name.
fn put_packs(store: &Faulty<Memory>) -> BTreeMap<String, usize> {
    let mut packs = BTreeMap::new();
    let calls = store.calls().into_iter();
    for call in calls.filter(|call| call.operation == Operation::Put) {
        if call.key.starts_with("packs/") && call.fault.is_none() {
            *packs.entry(call.key).or_default() += 1;
        }
    }
    packs
}

#[tokio::test]
async fn a_copy_that_died_goes_on_from_what_it_had_stored() {
    let mut series = Series::new();
    let source = Memory::new();
    let from = create(source.clone()).await;
    series.back_up(&from).await;
    series.change();
    series.back_up(&from).await;
    let probe = Faulty::new(Memory::new());
    let to = create_other(probe.clone()).await;
    let opened = probe.calls().len() as u64;
    let whole = copy_all(&from, &to).await;
    let calls = probe.calls().len() as u64 - opened;
    let (_, once) = under(&objects(&to).await, "packs/");
    let packs = put_packs(&probe).len();
    assert!(calls > 60 && packs > 30, "{calls} calls, {packs} packs");
    let points = [FaultPoint::BeforeEffect, FaultPoint::AfterEffect];
    for nth in (1..=calls).step_by(5) {
        for point in points {
            let store = Memory::new();
            let faulty = Faulty::new(store.clone());
            let to = create_other(faulty.clone()).await;
            faulty.die_at(opened + nth, point);
            let died = copy(&from, &to, &all(), &options(), &()).await;
            if let Err(error) = &died {
                let named = matches!(error, Error::Copy { .. } | Error::Backend(_));
                assert!(named, "call {nth}: {error:?}");
            }
            drop(to);
            let counting = Counting::new(store.clone());
            let to = open(counting.clone()).await;
            assert_sound(&to).await;
            let left = under(&objects(&to).await, "packs/").1;
            let done = manifests(&to).await.len();
            let report = copy_all(&from, &to).await;
            assert_eq!(report.present.len(), done, "call {nth}");
            assert_eq!(report.copied.len() + done, 4, "call {nth}");
            let put = counting.counts().put.bytes;
            // What was there is not put again: all that comes to it is another session's small objects and padding.
            let slack = 150_000;
            assert!(
                put + left <= once + slack,
                "call {nth}: {put} put, {left} were there, {once} are needed"
            );
            assert_chained(&manifests(&to).await);
            assert_sound(&to).await;
            series.assert_is_newest(&to).await;
        }
    }
    assert!(whole.is_complete());
}

#[tokio::test]
async fn a_store_that_fails_is_an_error_that_names_the_snapshot() {
    let series = Series::new();
    let store = Memory::new();
    let from = create(store.clone()).await;
    let [tree, _] = series.back_up(&from).await;
    let faulty = Faulty::new(store);
    let from = open(faulty.clone()).await;
    let one = Selection::These(vec![tree]);
    let opened = faulty.calls().len() as u64;
    let to = create_other(Memory::new()).await;
    copy(&from, &to, &one, &options(), &()).await.unwrap();
    let done = faulty.calls().len() as u64;
    // Content is what is read last.
    faulty.die_at(done + (done - opened) - 3, FaultPoint::BeforeEffect);
    let to = create_other(Memory::new()).await;
    let error = copy(&from, &to, &one, &options(), &()).await.unwrap_err();
    assert!(!error.is_retryable());
    match &error {
        Error::Copy { snapshot, source } => {
            assert_eq!(*snapshot, tree);
            assert!(matches!(**source, Error::Backend(_)), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains(&tree.to_string()));
    assert!(manifests(&to).await.is_empty());
    let unknown = SessionId::from_bytes([9; 24]);
    faulty.heal();
    let missing = Selection::These(vec![tree, unknown]);
    let error = copy(&from, &to, &missing, &options(), &())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::SnapshotNotFound { .. }), "{error:?}");
    assert!(manifests(&to).await.is_empty());
}

async fn get(store: &Memory, name: &str) -> Vec<u8> {
    let key = ObjectKey::parse(name).unwrap();
    store.get(&key, None).await.unwrap().to_vec()
}

async fn replace(store: &Memory, name: &str, bytes: Option<Vec<u8>>) {
    let key = ObjectKey::parse(name).unwrap();
    store.delete(&[key.clone()]).await.unwrap();
    if let Some(bytes) = bytes {
        let bytes = Bytes::from(bytes);
        store.put(&key, bytes, PutMode::Create).await.unwrap();
    }
}

/// The packs that appeared since.
async fn new_packs(repo: &Repository, before: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let now = objects(repo).await.into_iter();
    let is_new =
        |(name, _): &(String, u64)| name.starts_with("packs/") && !before.contains_key(name);
    let mut packs: Vec<_> = now.filter(is_new).collect();
    packs.sort_by_key(|(_, len)| *len);
    packs
}

#[tokio::test]
async fn damage_in_the_source_is_told_and_the_others_are_copied() {
    let flip = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Some(bytes)
    };
    let gone = |_| None;
    let changes: [(&str, fn(Vec<u8>) -> Option<Vec<u8>>); 2] = [("flip", flip), ("gone", gone)];
    for (what, change) in changes {
        // The largest of the second snapshot's packs holds its content, the smallest its items.
        for largest in [true, false] {
            let mut series = Series::new();
            let store = Memory::new();
            let from = create(store.clone()).await;
            let first = series.back_up(&from).await;
            series.change();
            let before = objects(&from).await;
            let tree = Source::tree(series.tree());
            let hurt = back_up_with(&from, tree, &backup_options()).await.snapshot;
            let packs = new_packs(&from, &before).await;
            let (pack, _) = if largest { packs.last() } else { packs.first() }.unwrap();
            let bytes = change(get(&store, pack).await);
            series.change();
            let last = series.back_up(&from).await;
            replace(&store, pack, bytes).await;
            let name = format!("{what}, content: {largest}");

            let to = create_other(Memory::new()).await;
            let told = Mutex::new(Vec::new());
            let observer = |event: &Event<'_>| {
                if let Event::Damage { object, finding } = event {
                    let told_of = ((*object).to_owned(), (*finding).to_owned());
                    told.lock().unwrap().push(told_of);
                }
            };
            let report = copy(&from, &to, &all(), &options(), &observer)
                .await
                .unwrap();
            assert!(!report.is_complete(), "{name}");
            let failed: Vec<SessionId> = report.failed.iter().map(|f| f.snapshot).collect();
            assert!(failed.contains(&hurt), "{name}: {report:?}");
            assert!(!failed.contains(&first[0]) && !failed.contains(&first[1]));
            assert!(
                !failed.contains(&last[1]),
                "{name}: the volume needs it not"
            );
            assert_eq!(report.copied.len() + failed.len(), 5, "{name}");
            assert_eq!(told.lock().unwrap().len(), failed.len(), "{name}");
            assert!(!report.failed[0].reason.is_empty());
            assert_eq!(manifests(&to).await.len(), report.copied.len(), "{name}");
            assert_sound(&to).await;
            // Nothing changes that by itself; and what is mended is copied.
            let again = copy(&from, &to, &all(), &options(), &()).await.unwrap();
            assert_eq!(again.present.len(), report.copied.len(), "{name}");
            assert_eq!(again.failed.len(), failed.len(), "{name}");
        }
    }
}

/// Takes packs away as soon as a session has been opened for the first time.
struct Takes {
    store: Memory,
    packs: Vec<String>,
    opened: AtomicUsize,
}

impl Observer for Takes {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::SessionOpened { .. })
            && self.opened.fetch_add(1, Ordering::SeqCst) == 0
        {
            for pack in &self.packs {
                // In memory, nothing is waited for.
                replace(&self.store, pack, None).now_or_never().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn chunks_that_a_collector_has_moved_meanwhile_are_found_where_they_are() {
    let series = Series::new();
    let mut looked_again = 0;
    for take_first in [true, false] {
        let store = Memory::new();
        let from = create(store.clone()).await;
        let none = BTreeMap::new();
        let tree = || Source::tree(series.tree());
        back_up_with(&from, tree(), &backup_options()).await;
        let first = new_packs(&from, &none).await;
        let mut kept = Vec::new();
        for (pack, _) in &first {
            kept.push((pack.clone(), get(&store, pack).await));
            replace(&store, pack, None).await;
        }
        // Nothing of the first is there: everything is stored once more.
        let mut anew = backup_options();
        anew.ignore_previous = true;
        let made = back_up_with(&from, tree(), &anew).await.snapshot;
        let second = new_packs(&from, &none).await;
        for (pack, bytes) in kept {
            replace(&store, &pack, Some(bytes)).await;
        }
        let taken = if take_first { first } else { second };
        let takes = Takes {
            store,
            packs: taken.into_iter().map(|(pack, _)| pack).collect(),
            opened: AtomicUsize::new(0),
        };
        let to = create_other(Memory::new()).await;
        let one = Selection::These(vec![made]);
        let report = copy(&from, &to, &one, &options(), &takes).await.unwrap();
        assert!(report.is_complete(), "{:?}", report.failed);
        looked_again += takes.opened.load(Ordering::SeqCst) - 1;
        assert_same_tree(&to, &report, &series.tree()).await;
    }
    assert!(looked_again > 0);
}

#[tokio::test]
async fn a_cell_that_cannot_be_read_keeps_no_other_from_being_copied() {
    let series = Series::new();
    let store = Memory::new();
    let from = create(store.clone()).await;
    let [tree, volume] = series.back_up(&from).await;
    let cell = format!("snapshots/{tree}");
    replace(&store, &cell, Some(b"no cell".to_vec())).await;
    let to = create_other(Memory::new()).await;
    let report = copy(&from, &to, &all(), &options(), &()).await.unwrap();
    assert_eq!(report.failed[0].snapshot, tree);
    assert_eq!(report.copied[0].from, volume);
    let of_disk = SnapshotFilter::default();
    let mut filter = of_disk.clone();
    filter.source = Some("disk".into());
    let only = Selection::Matching(filter);
    let report = copy(&from, &to, &only, &options(), &()).await.unwrap();
    assert!(report.is_complete() && report.present.len() == 1);
}

async fn give_up(repo: &Repository, id: SessionId) {
    let mut force = ForgetOptions::default();
    force.force = true;
    forget(repo, &Forget::These(vec![id]), &force)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_was_given_up_is_copied_only_by_name_and_never_against_the_target() {
    let mut series = Series::new();
    let from = create(Memory::new()).await;
    let [old, _] = series.back_up(&from).await;
    series.change();
    series.back_up(&from).await;
    give_up(&from, old).await;
    let to = create_other(Memory::new()).await;
    let report = copy_all(&from, &to).await;
    assert_eq!(report.copied.len(), 3);
    assert!(report.copied.iter().all(|pair| pair.from != old));
    let named = Selection::These(vec![old]);
    let report = copy(&from, &to, &named, &options(), &()).await.unwrap();
    assert_eq!(report.copied.len(), 1);
    // Given up in the target, it is not brought back.
    let copied = report.copied[0].to;
    give_up(&to, copied).await;
    for which in [named, all()] {
        let report = copy(&from, &to, &which, &options(), &()).await.unwrap();
        assert!(report.copied.is_empty(), "{report:?}");
    }
    assert_eq!(manifests(&to).await.len(), 3);
}

#[tokio::test]
async fn a_copy_is_known_wherever_it_passes() {
    let series = Series::new();
    let first = create(Memory::new()).await;
    let second = create_other(Memory::new()).await;
    let third = create(Memory::new()).await;
    let made = series.back_up(&first).await;
    assert_eq!(copy_all(&first, &second).await.copied.len(), 2);
    assert_eq!(copy_all(&second, &third).await.copied.len(), 2);
    // From the first, and back to it: there already.
    let direct = copy_all(&first, &third).await;
    assert_eq!((direct.copied.len(), direct.present.len()), (0, 2));
    let back = copy_all(&third, &first).await;
    assert_eq!((back.copied.len(), back.present.len()), (0, 2));
    for manifest in manifests(&third).await.into_values() {
        let origin = &manifest.extras["copied_from"];
        assert_eq!(origin["repository"], first.id().to_string());
        let known = |id: &SessionId| origin["snapshot"] == id.to_string();
        assert!(made.iter().any(known));
    }
    // A repository is its own copy.
    let own = copy_all(&first, &first).await;
    assert_eq!((own.copied.len(), own.present.len()), (0, 2));
    series.assert_is_newest(&third).await;
    assert_sound(&third).await;
}

/// Lets a file grow as soon as something of it was stored.
struct Growing(PathBuf, AtomicUsize);

impl Observer for Growing {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::Bytes { .. }) && self.1.fetch_add(1, Ordering::SeqCst) == 0 {
            let file = fs::File::options().append(true).open(&self.0);
            file.unwrap().write_all(b"more").unwrap();
        }
    }
}

#[tokio::test]
async fn a_partial_snapshot_stays_partial() {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("log"), noise(60 << 20, 1)).unwrap();
    let from = create(Memory::new()).await;
    let growing = Growing(tree.join("log"), AtomicUsize::new(0));
    let made = backup(
        &from,
        "source",
        Source::tree(&tree),
        &backup_options(),
        &growing,
    )
    .await;
    assert!(!made.unwrap().is_complete());
    let to = create_other(Memory::new()).await;
    let report = copy_all(&from, &to).await;
    assert_told_the_same(&from, &to, &report).await;
    let copied = &manifests(&to).await[&report.copied[0].to];
    assert!(!copied.complete && copied.skipped_count == 1);
}

/// Asks to stop once so many packs are stored.
struct StopAfter(usize, AtomicUsize);

impl Observer for StopAfter {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::PackStored { .. }) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn should_stop(&self) -> bool {
        self.1.load(Ordering::SeqCst) >= self.0
    }
}

#[tokio::test]
async fn a_polite_stop_keeps_what_was_stored() {
    let series = Series::new();
    let from = create(Memory::new()).await;
    series.back_up(&from).await;
    let to = create_other(Memory::new()).await;
    let stop = StopAfter(3, AtomicUsize::new(0));
    let stopped = copy(&from, &to, &all(), &options(), &stop).await;
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    let stored = under(&objects(&to).await, "packs/").1;
    assert!(stored > 500_000, "{stored}");
    let report = copy_all(&from, &to).await;
    let all = report.bytes_new + stored;
    let unique = (SERIES_FILES * SERIES_FILE_LEN + SERIES_VOLUME_LEN) as u64;
    assert!(all <= unique + 300_000, "{all} of {unique}");
    series.assert_is_newest(&to).await;
}

#[tokio::test]
async fn small_files_are_shared_with_backups_made_in_the_target() {
    let scratch = TempDir::new().unwrap();
    for number in 0..50 {
        let path = scratch.path().join(format!("{number}"));
        fs::write(path, noise(2000, number)).unwrap();
    }
    let from = create(Memory::new()).await;
    let to = create_other(Memory::new()).await;
    let source = || Source::tree(scratch.path());
    back_up(&from, source()).await;
    back_up(&to, source()).await;
    let report = copy_all(&from, &to).await;
    assert_eq!((report.chunks, report.chunks_new), (50, 0));
    assert_eq!(manifests(&to).await.len(), 2);
    assert_same_tree(&to, &report, scratch.path()).await;
}

async fn assert_same_tree(to: &Repository, report: &CopyReport, tree: &Path) {
    let scratch = TempDir::new().unwrap();
    let restored = scratch.path().join("restored");
    restore_tree(to, &report.copied[0].to, &restored).await;
    assert_same(tree, &restored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_can_be_a_task_of_its_own() {
    let series = Series::new();
    let from = create(Memory::new()).await;
    series.back_up(&from).await;
    let task = async move {
        let to = create_other(Memory::new()).await;
        copy(&from, &to, &all(), &CopyOptions::default(), &())
            .await
            .unwrap()
    };
    #[expect(clippy::disallowed_methods, reason = "this is what is tried")]
    let copied = tokio::spawn(task).await.unwrap();
    assert_eq!(copied.copied.len(), 2);
}
