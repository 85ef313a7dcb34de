//! Garbage goes and nothing else does: giving up, thinking again, rounds, packing anew, and what stops a collector.
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

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use backup::backup_backend::testing::{Call, FaultPoint, Faulty, Operation};
use backup::backup_backend::{
    BackendError, ByteRange, Bytes, Capabilities, Counting, DeleteResult, KeyPrefix, Memory,
    ObjectKey, ObjectMeta, PutMode, StorageBackend, StorageBackendExt, async_trait,
};
use backup::{
    BackupOptions, ChunkerParams, CreateOptions, Error, Forget, ForgetOptions, GcOptions, GcReport,
    Repository, RestoreOptions, RetentionPolicy, RetentionRules, SessionId, SnapshotFilter, Source,
    Verdict, backup, decisions, forget, gc, hold, release, snapshots, unforget,
};
use common::data::noise;
use common::{assert_sound, bytes_of, create, create_with, objects, open, under};
use futures::stream::BoxStream;

/// A store's clock, in seconds since some day in 2026.
#[derive(Debug, Clone, Default)]
struct Day(Arc<AtomicU64>);

impl Day {
    fn store(&self) -> Memory {
        let seconds = self.0.clone();
        Memory::new().with_clock(move || {
            SystemTime::UNIX_EPOCH
                + Duration::from_secs(1_795_000_000 + seconds.load(Ordering::SeqCst))
        })
    }

    fn pass(&self, days: u64) {
        self.0.fetch_add(days * 86_400, Ordering::SeqCst);
    }
}

/// Small packs and blocks, so that there is something to delete.
fn options() -> BackupOptions {
    let mut options = BackupOptions::default();
    options.pack_len = 256 << 10;
    options.block_len = 64 << 10;
    options.memory_len_max = 64 << 20;
    options
}

/// Nothing waits and nothing is too young.
fn at_once() -> GcOptions {
    let mut options = GcOptions::default();
    options.pack_age_min = Duration::ZERO;
    options.undelete_window = Duration::ZERO;
    options.requests_per_second = None;
    options.poll = Duration::from_millis(5);
    options.repack_len_max = 0;
    options.delete_percent_max = 100;
    options
}

async fn store(repo: &Repository, name: &str, content: Vec<u8>) -> SessionId {
    let source = Source::stream(Cursor::new(content));
    backup(repo, name, source, &options(), &())
        .await
        .unwrap()
        .snapshot
}

async fn forget_these(repo: &Repository, ids: &[SessionId]) {
    let what = Forget::These(ids.to_vec());
    let report = forget(repo, &what, &ForgetOptions::default())
        .await
        .unwrap();
    assert_eq!(report.forgotten, ids);
}

async fn collect(repo: &Repository, options: &GcOptions) -> GcReport {
    let report = gc(repo, options, &()).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    report
}

async fn content(repo: &Repository, snapshot: &SessionId) -> Vec<u8> {
    bytes_of(repo, snapshot, &RestoreOptions::default()).await
}

async fn ids(repo: &Repository) -> Vec<SessionId> {
    let all = snapshots(repo, &SnapshotFilter::default()).await.unwrap();
    all.iter().map(|manifest| manifest.session).collect()
}

#[tokio::test]
async fn what_only_a_forgotten_snapshot_needs_goes_and_the_rest_stays() {
    let repo = create(Day::default().store()).await;
    let shared = noise(1 << 20, 1);
    let old = [shared.clone(), noise(1 << 20, 2)].concat();
    let new = [shared, noise(1 << 20, 3)].concat();
    let first = store(&repo, "a", old).await;
    let second = store(&repo, "a", new.clone()).await;
    forget_these(&repo, &[first]).await;
    assert_eq!(ids(&repo).await, [second]);
    let before = under(&objects(&repo).await, "packs/").1;

    let report = collect(&repo, &at_once()).await;
    assert_eq!(report.snapshots_dropped, [first]);
    assert_eq!(report.snapshots, 1);
    let after = under(&objects(&repo).await, "packs/").1;
    assert_eq!(before - after, report.bytes_freed);
    // All that is its own, but for the pack in which it begins.
    assert!(report.bytes_freed > 700 << 10, "{report:?}");
    assert_eq!(content(&repo, &second).await, new);
    assert_sound(&repo).await;

    let report = collect(&repo, &at_once()).await;
    assert_eq!(report.packs_deleted, 0);
    assert_eq!(report.round, None);
}

#[tokio::test]
async fn nothing_young_goes_and_nothing_forgotten_lately() {
    let day = Day::default();
    let repo = create(day.store()).await;
    let first = store(&repo, "a", noise(1 << 20, 1)).await;
    let second = store(&repo, "a", noise(1 << 20, 2)).await;
    forget_these(&repo, &[first]).await;
    let mut options = GcOptions::default();
    options.requests_per_second = None;

    let report = collect(&repo, &options).await;
    assert_eq!((report.snapshots_forgotten, report.packs_deleted), (1, 0));
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    let left = report.undelete_until.unwrap().duration_since(start);
    assert_eq!(left.unwrap().as_secs() / 86_400, 7);
    day.pass(6);
    unforget(&repo, &first).await.unwrap();
    assert_eq!(ids(&repo).await, [first, second]);
    forget_these(&repo, &[first]).await;
    day.pass(6);
    assert_eq!(collect(&repo, &options).await.packs_deleted, 0);
    day.pass(1);
    let report = collect(&repo, &options).await;
    assert_eq!(report.snapshots_dropped, [first]);
    assert!(report.packs_deleted > 0);
    assert!(matches!(
        unforget(&repo, &first).await,
        Err(Error::SnapshotDropped { .. })
    ));
    assert_sound(&repo).await;
}

#[tokio::test]
async fn a_pack_that_nothing_needs_stays_while_it_is_young() {
    let day = Day::default();
    let repo = create(day.store()).await;
    let first = store(&repo, "a", noise(1 << 20, 1)).await;
    store(&repo, "a", noise(1 << 20, 2)).await;
    forget_these(&repo, &[first]).await;
    let mut options = at_once();
    options.pack_age_min = Duration::from_secs(36 * 3600);
    day.pass(1);
    let report = collect(&repo, &options).await;
    assert_eq!(report.snapshots_dropped, [first]);
    assert!(
        report.packs_young > 0 && report.packs_deleted == 0,
        "{report:?}"
    );
    day.pass(1);
    let report = collect(&repo, &options).await;
    assert!(
        report.packs_young == 0 && report.packs_deleted > 0,
        "{report:?}"
    );
}

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_writes_nothing() {
    let repo = create(Day::default().store()).await;
    let first = store(&repo, "a", noise(1 << 20, 1)).await;
    store(&repo, "a", noise(1 << 20, 2)).await;
    forget_these(&repo, &[first]).await;
    let before = objects(&repo).await;
    let mut options = at_once();
    options.dry_run = true;
    let said = collect(&repo, &options).await;
    assert_eq!(objects(&repo).await, before);
    let done = collect(&repo, &at_once()).await;
    assert!(said.packs_deleted > 0);
    assert_eq!(
        (said.packs_deleted, said.bytes_freed, said.snapshots_dropped),
        (done.packs_deleted, done.bytes_freed, done.snapshots_dropped)
    );
}

/// Gives up a snapshot of `old`, of which the first `kept` bytes of each `step` are in another one as well, and packs anew.
/// The other one must be whole, and a further run must find nothing to do. Returns the bytes of all packs then.
async fn packed_anew(repo: &Repository, old: Vec<u8>, kept: usize, step: usize) -> u64 {
    let new: Vec<u8> = old.chunks(step).flat_map(|c| &c[..kept]).copied().collect();
    let first = store(repo, "a", old).await;
    let second = store(repo, "a", new.clone()).await;
    forget_these(repo, &[first]).await;
    let mut options = at_once();
    options.repack_len_max = 1 << 30;
    let report = collect(repo, &options).await;
    assert!(report.packs_repacked > 0, "{report:?}");
    let after = under(&objects(repo).await, "packs/").1;
    assert_eq!(content(repo, &second).await, new);
    assert_sound(repo).await;
    let again = collect(repo, &options).await;
    assert_eq!((again.packs_repacked, again.packs_deleted), (0, 0));
    after
}

#[tokio::test]
async fn packs_that_are_mostly_garbage_are_packed_anew() {
    let repo = create(Day::default().store()).await;
    let after = packed_anew(&repo, noise(3 << 20, 1), 400 << 10, 1 << 20).await;
    assert!(after < 1400 << 10, "{after} bytes are left");
}

/// Else the old pack would have to stay for what was left behind, and be packed anew for ever.
#[tokio::test]
async fn all_that_stays_of_a_block_is_packed_anew() {
    let mut small = CreateOptions::default();
    small.chunker = ChunkerParams::new(1 << 10, 4 << 10, 16 << 10).unwrap();
    let repo = create_with(Day::default().store(), small).await;
    // Several chunks of each block of the old snapshot are in the new one as well.
    let after = packed_anew(&repo, noise(3 << 20, 1), 48 << 10, 128 << 10).await;
    assert!(after < 1600 << 10, "{after} bytes are left");
}

fn by_policy(policy: RetentionPolicy) -> Forget {
    let mut rules = RetentionRules::default();
    rules.default = policy;
    Forget::ByPolicy(rules)
}

#[tokio::test]
async fn a_policy_keeps_what_it_says_and_the_last_complete_one_stays() {
    let day = Day::default();
    let repo = create(day.store()).await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(store(&repo, "a", noise(10 << 10, n)).await);
        day.pass(1);
    }
    hold(&repo, &made[0]).await.unwrap();
    let mut policy = RetentionPolicy::default();
    policy.keep_last = 2;
    let what = by_policy(policy);
    let report = forget(&repo, &what, &ForgetOptions::default())
        .await
        .unwrap();
    assert_eq!(report.forgotten, made[1..3]);
    assert_eq!(ids(&repo).await, [made[0], made[3], made[4]]);
    release(&repo, &made[0]).await.unwrap();
    let report = forget(&repo, &what, &ForgetOptions::default())
        .await
        .unwrap();
    assert_eq!(report.forgotten, made[..1]);

    let these = Forget::These(vec![made[3], made[4]]);
    let refused = forget(&repo, &these, &ForgetOptions::default()).await;
    assert!(matches!(refused, Err(Error::LastSnapshot { .. })));
    let mut little = ForgetOptions::default();
    little.forget_percent_max = 40;
    let mut policy = RetentionPolicy::default();
    policy.keep_last = 1;
    let what = by_policy(policy);
    assert!(matches!(
        forget(&repo, &what, &little).await,
        Err(Error::TooMuch { percent: 50, .. })
    ));
    assert_eq!(ids(&repo).await, made[3..]);
}

/// The makers' clocks say that all of them were made at once.
#[tokio::test]
async fn a_policy_goes_by_the_times_of_the_store() {
    let day = Day::default();
    let repo = create(day.store()).await;
    let mut made = Vec::new();
    for n in 0..4 {
        made.push(store(&repo, "a", noise(10 << 10, n)).await);
        day.pass(1);
    }
    let mut policy = RetentionPolicy::default();
    policy.daily = 3;
    let report = forget(&repo, &by_policy(policy), &ForgetOptions::default())
        .await
        .unwrap();
    assert_eq!(report.forgotten, made[..1]);
}

#[tokio::test]
async fn a_policy_for_one_source_leaves_the_others_alone() {
    let repo = create(Day::default().store()).await;
    let mut made = Vec::new();
    for n in 0..3 {
        made.push(store(&repo, "a", noise(10 << 10, n)).await);
        store(&repo, "b", noise(10 << 10, n)).await;
    }
    let mut policy = RetentionPolicy::default();
    policy.keep_last = 1;
    let mut options = ForgetOptions::default();
    options.source = Some("a".into());
    let report = forget(&repo, &by_policy(policy), &options).await.unwrap();
    assert_eq!((report.forgotten.len(), report.kept.len()), (2, 1));
    assert_eq!(ids(&repo).await.len(), 4);
}

#[tokio::test]
async fn decisions_tell_what_is_held_and_what_was_given_up() {
    let repo = create(Day::default().store()).await;
    let first = store(&repo, "a", noise(10 << 10, 1)).await;
    let second = store(&repo, "a", noise(10 << 10, 2)).await;
    store(&repo, "a", noise(10 << 10, 3)).await;
    assert!(decisions(&repo).await.unwrap().is_empty());
    forget_these(&repo, &[first]).await;
    assert!(hold(&repo, &second).await.unwrap());
    assert!(!hold(&repo, &second).await.unwrap());
    let verdicts = |decisions: std::collections::BTreeMap<SessionId, backup::Decision>| {
        let verdicts = decisions.into_values().map(|decision| decision.verdict);
        verdicts.collect::<Vec<_>>()
    };
    let known = decisions(&repo).await.unwrap();
    assert!(known[&first].decided_ns > 0);
    assert_eq!(verdicts(known), [Verdict::Forget, Verdict::Hold]);
    assert!(!unforget(&repo, &second).await.unwrap());
    assert!(release(&repo, &second).await.unwrap());
    collect(&repo, &at_once()).await;
    assert_eq!(verdicts(decisions(&repo).await.unwrap()), [Verdict::Keep]);
}

/// Two policies that keep different snapshots would leave none between them.
#[tokio::test]
async fn a_collector_keeps_the_last_complete_snapshot_of_a_source_whoever_forgot_it() {
    let repo = create(Day::default().store()).await;
    let first = store(&repo, "a", noise(1 << 20, 1)).await;
    let second = store(&repo, "a", noise(1 << 20, 2)).await;
    store(&repo, "b", noise(1 << 20, 3)).await;
    forget_these(&repo, &[first]).await;
    // As another host does at the same moment.
    let other = open(repo.backend().clone()).await;
    unforget(&repo, &first).await.unwrap();
    forget_these(&other, &[second]).await;
    let mut forced = ForgetOptions::default();
    forced.reason = "race".into();
    let what = Forget::These(vec![first]);
    assert!(matches!(
        forget(&repo, &what, &forced).await,
        Err(Error::LastSnapshot { .. })
    ));
    forced.force = true;
    forget(&repo, &what, &forced).await.unwrap();
    let report = collect(&repo, &at_once()).await;
    // The one that was forced goes; the other one was not, and is the last.
    assert_eq!(report.snapshots_dropped, [first]);
    assert_eq!((report.snapshots_forgotten, report.snapshots_last), (1, 1));
    unforget(&repo, &second).await.unwrap();
    assert_eq!(content(&repo, &second).await, noise(1 << 20, 2));
}

fn calls(counting: &Counting<Memory>) -> u64 {
    let counts = counting.counts();
    let operations = [
        counts.put,
        counts.get,
        counts.head,
        counts.list,
        counts.delete,
    ];
    operations.iter().map(|operation| operation.calls).sum()
}

#[tokio::test]
async fn a_run_with_nothing_to_do_asks_little() {
    let counting = Counting::new(Day::default().store());
    let repo = create(counting.clone()).await;
    let cache = tempfile::tempdir().unwrap();
    let mut options = at_once();
    options.cache = Some(cache.path().into());
    // Each has an item page of its own, and so a new tree chunk.
    let back_up = async |numbers: std::ops::Range<usize>| {
        for n in numbers {
            store(&repo, "a", noise(100 + n, 1)).await;
        }
    };
    back_up(0..1000).await;
    collect(&repo, &options).await;

    let before = calls(&counting);
    let report = collect(&repo, &options).await;
    assert_eq!(report.snapshots, 1000);
    let nothing = calls(&counting) - before;
    assert!(nothing < 40, "{nothing} requests: {:?}", counting.counts());

    // New snapshots cost their cells, their item lists, and directories that no segment names yet.
    back_up(1000..1010).await;
    let before = calls(&counting);
    let report = collect(&repo, &options).await;
    assert_eq!((report.snapshots, report.packs_deleted), (1010, 0));
    let ten = calls(&counting) - before;
    // Of each: its cell, its page, and two packs that no segment names.
    assert!(ten < 40 + 10 * 4, "{ten} requests: {:?}", counting.counts());
}

/// It is a local file: what others write into it decides nothing.
#[tokio::test]
async fn a_cache_of_marks_that_was_changed_is_not_believed() {
    let repo = create(Day::default().store()).await;
    store(&repo, "a", noise(300 << 10, 1)).await;
    let cache = tempfile::tempdir().unwrap();
    let mut options = at_once();
    options.cache = Some(cache.path().into());
    collect(&repo, &options).await;
    let path = cache.path().join(format!("{}.marks", repo.id()));
    let mut bytes = std::fs::read(&path).unwrap();
    // In the last id that the last page refers to; after it come the end mark and the hash.
    let at = bytes.len() - 34;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    collect(&repo, &options).await;
}

#[tokio::test]
async fn of_two_copies_the_one_in_a_damaged_pack_goes() {
    let memory = Day::default().store();
    let repo = create(memory.clone()).await;
    let first = store(&repo, "a", noise(1 << 20, 1)).await;
    let damaged = names(&memory, "packs/").await;
    for pack in &damaged {
        let id = pack.as_str().rsplit('/').next().unwrap();
        let mark = key(&format!("damaged/{id}"));
        let empty = backup::backup_backend::Bytes::new();
        memory.put(&mark, empty, PutMode::Create).await.unwrap();
    }
    // Nothing relies on them any more, so all is stored anew.
    let second = store(&repo, "a", noise(1 << 20, 1)).await;
    collect(&repo, &at_once()).await;
    let left = names(&memory, "packs/").await;
    assert!(damaged.iter().all(|pack| !left.contains(pack)), "{left:?}");
    for id in [first, second] {
        assert_eq!(content(&repo, &id).await, noise(1 << 20, 1));
    }
}

/// Else each session would read the directories of all packs itself.
#[tokio::test]
async fn segments_written_anew_name_all_packs_that_stay() {
    let memory = Day::default().store();
    let repo = create(memory.clone()).await;
    let first = store(&repo, "a", noise(3 << 20, 1)).await;
    let kept = [noise(100 << 10, 1), noise(3 << 20, 2)].concat();
    store(&repo, "a", kept).await;
    forget_these(&repo, &[first]).await;
    let cache = tempfile::tempdir().unwrap();
    let mut options = at_once();
    options.cache = Some(cache.path().into());
    let report = collect(&repo, &options).await;
    assert!(report.segments_written > 0, "{report:?}");
    let watched = Faulty::new(memory);
    options.dry_run = true;
    collect(&open(watched.clone()).await, &options).await;
    let read = |call: &Call| call.operation == Operation::Get && call.key.starts_with("packs/");
    assert!(!watched.calls().iter().any(read), "{:?}", watched.calls());
}

/// Whatever a collector dies at, the next one goes on, and all that is needed is there all the while.
#[tokio::test]
async fn a_collector_that_dies_anywhere_is_helped_by_the_next() {
    let mut nth: u64 = 1;
    loop {
        let memory = Day::default().store();
        let faulty = Faulty::new(memory.clone());
        let repo = create(memory.clone()).await;
        let first = store(&repo, "a", noise(600 << 10, 1)).await;
        let kept = [noise(100 << 10, 1), noise(300 << 10, 2)].concat();
        let second = store(&repo, "a", kept.clone()).await;
        forget_these(&repo, &[first]).await;
        let dying = open(faulty.clone()).await;
        let made = faulty.calls().len() as u64;
        let point = [FaultPoint::BeforeEffect, FaultPoint::AfterEffect][nth as usize % 2];
        faulty.die_at(made + nth.div_ceil(2), point);
        let mut options = at_once();
        options.repack_len_max = 1 << 30;
        let survived = gc(&dying, &options, &()).await.is_ok();
        assert_eq!(content(&repo, &second).await, kept);
        let third = store(&repo, "b", noise(600 << 10, 1)).await;
        let report = collect(&repo, &options).await;
        assert_eq!(content(&repo, &second).await, kept);
        assert_eq!(content(&repo, &third).await, noise(600 << 10, 1));
        assert_sound(&repo).await;
        if survived {
            assert!(nth > 40, "only {nth} requests");
            break;
        }
        drop(report);
        nth += 1;
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

async fn names(memory: &Memory, prefix: &str) -> Vec<ObjectKey> {
    let prefix = KeyPrefix::parse(prefix).unwrap();
    let objects = memory.list_all(&prefix).await.unwrap();
    objects.into_iter().map(|object| object.key).collect()
}

#[tokio::test]
async fn a_collector_refuses_what_looks_wrong() {
    let memory = Day::default().store();
    let repo = create(memory.clone()).await;
    let first = store(&repo, "a", noise(1 << 20, 1)).await;
    store(&repo, "a", noise(100 << 10, 2)).await;
    forget_these(&repo, &[first]).await;
    let mut options = at_once();
    options.delete_percent_max = 50;
    let before = names(&memory, "packs/").await;
    let refused = gc(&repo, &options, &()).await;
    assert!(
        matches!(refused, Err(Error::Suspicious { .. })),
        "{refused:?}"
    );
    assert_eq!(names(&memory, "packs/").await, before);
    // Nothing was given up for good either.
    assert!(unforget(&repo, &first).await.unwrap());

    // All cells are gone: the wrong place, or a listing that lost them.
    for cell in names(&memory, "snapshots/").await {
        memory.delete_one(&cell).await.unwrap();
    }
    memory.delete_one(&key("config")).await.ok();
    assert_eq!(names(&memory, "packs/").await, before);
}

/// A store that claims less than collecting beside others needs.
#[derive(Debug, Clone)]
struct Claiming(Memory, Capabilities);

#[async_trait]
impl StorageBackend for Claiming {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        // As stores do that take the condition and overwrite all the same.
        let mode = match self.1.create_if_absent && mode.is_create() {
            true => PutMode::Overwrite,
            false => mode,
        };
        self.0.put(key, bytes, mode).await
    }
    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        self.0.get(key, range).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        self.0.head(key).await
    }
    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        self.0.list(prefix)
    }
    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        self.0.delete(keys).await
    }
    fn capabilities(&self) -> Capabilities {
        self.1
    }
}

#[tokio::test]
async fn a_store_that_fails_the_probe_is_collected_only_if_nobody_else_is_there() {
    let mut lists = Capabilities::default();
    lists.consistent_list = true;
    let mut creates = Capabilities::default();
    creates.create_if_absent = true;
    // Claims no create; claims no list; claims everything and overwrites.
    for (claims, what) in [
        (lists, "create-if-absent"),
        (creates, "create-if-absent"),
        (Capabilities::ALL, "create-if-absent"),
    ] {
        let memory = Day::default().store();
        let honest = create(memory.clone()).await;
        let first = store(&honest, "a", noise(1 << 20, 1)).await;
        let second = store(&honest, "a", noise(1 << 20, 2)).await;
        forget_these(&honest, &[first]).await;
        let repo = open(Claiming(memory.clone(), claims)).await;
        let before = names(&memory, "packs/").await;
        match gc(&repo, &at_once(), &()).await {
            Err(Error::UnsafeStore { missing }) => assert_eq!(missing, what),
            other => panic!("{claims:?}: {other:?}"),
        }
        assert_eq!(names(&memory, "packs/").await, before);
        let mut alone = at_once();
        alone.exclusive = true;
        assert!(collect(&repo, &alone).await.packs_deleted > 0);
        assert_eq!(content(&honest, &second).await, noise(1 << 20, 2));
    }
}

/// A restore that holds a session keeps all that is there, even what only a dropped snapshot needs.
#[tokio::test]
async fn a_restore_may_hold_what_it_needs() {
    let repo = create(Day::default().store()).await;
    let first = store(&repo, "a", noise(1 << 20, 1)).await;
    store(&repo, "a", noise(1 << 20, 2)).await;
    let mut options = RestoreOptions::default();
    options.hold = true;
    assert_eq!(bytes_of(&repo, &first, &options).await, noise(1 << 20, 1));
    // Its session has ended: a collector waits for nobody.
    forget_these(&repo, &[first]).await;
    let report = collect(&repo, &at_once()).await;
    assert_eq!(report.sessions_awaited, 0);
    assert!(report.packs_deleted > 0);
}
