//! A run that ends in the middle leaves everything committed whole, and what it stored to the next run.
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

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use backup::backup_backend::testing::{Call, Fault, FaultPoint, Faulty, Operation};
use backup::backup_backend::{
    Counting, ErrorKind, LocalFs, LocalFsOptions, Memory, StorageBackend,
};
use backup::{
    BackupOptions, BackupReport, Error, Event, Observer, Repository, RestoreOptions, RestoreTarget,
    SessionId, Source, VerifyLevel, backup, find_snapshot, restore, snapshots, stats, verify,
};
use common::compare::assert_same;
use common::data::{Random, noise};
use common::{
    NAME, assert_sound, back_up_with, bytes_of, create, objects, open, restore_tree, under,
};
use tempfile::TempDir;

/// Small packs, so that there are many moments between them.
fn options() -> BackupOptions {
    let mut options = BackupOptions::default();
    options.pack_len = 256 << 10;
    options.block_len = 128 << 10;
    options.memory_len_max = 64 << 20;
    options
}

/// Polls a future at most `polls` times and drops it then. Without a limit: says how often it was polled.
async fn polled<F: Future>(future: F, polls: usize) -> (Option<F::Output>, usize) {
    let mut future = pin!(future);
    let mut left = polls;
    let output = std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    });
    (output.await, polls - left)
}

/// Backs up for so many polls, as [`polled`] does.
async fn run_for(
    repo: &Repository,
    source: Source,
    polls: usize,
) -> (Option<Result<BackupReport, Error>>, usize) {
    polled(backup(repo, NAME, source, &options(), &()), polls).await
}

/// A tree of two versions: files that stay, files that change, one long file.
struct Sources {
    _scratch: TempDir,
    tree: PathBuf,
    restored: PathBuf,
    rounds: usize,
}

const FILES: usize = 60;
const FILE_LEN: usize = 50_000;
const LONG_LEN: usize = 6 << 20;

impl Sources {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let tree = scratch.path().join("tree");
        for number in 0..FILES {
            let directory = tree.join(format!("{}", number % 7));
            fs::create_dir_all(&directory).unwrap();
            let bytes = noise(FILE_LEN, number as u64);
            fs::write(directory.join(format!("{number}")), bytes).unwrap();
        }
        let restored = scratch.path().join("restored");
        Self {
            _scratch: scratch,
            tree,
            restored,
            rounds: 0,
        }
    }

    fn source(&self) -> Source {
        Source::tree(&self.tree)
    }

    /// Writes the long file, and one of the short ones anew. Returns how many bytes are new.
    fn change(&mut self) -> u64 {
        self.rounds += 1;
        let seed = 1000 * self.rounds as u64;
        let number = self.rounds % FILES;
        let path = self.tree.join(format!("{}/{number}", number % 7));
        fs::write(path, noise(FILE_LEN, seed)).unwrap();
        if self.rounds > 1 {
            return FILE_LEN as u64;
        }
        fs::write(self.tree.join("long"), noise(LONG_LEN, 7)).unwrap();
        (FILE_LEN + LONG_LEN) as u64
    }

    async fn assert_restores(&self, repo: &Repository, snapshot: &SessionId) {
        let _ = fs::remove_dir_all(&self.restored);
        restore_tree(repo, snapshot, &self.restored).await;
        assert_same(&self.tree, &self.restored);
    }
}

/// What a snapshot holds, as a fingerprint: its files' bytes by path.
async fn fingerprint(repo: &Repository, snapshot: &SessionId) -> Vec<(Vec<u8>, Vec<u8>)> {
    let scratch = TempDir::new().unwrap();
    let restored = scratch.path().join("restored");
    restore_tree(repo, snapshot, &restored).await;
    let seen = common::compare::walk(&restored).into_keys();
    let read = |path: Vec<u8>| {
        let bytes = fs::read(common::compare::join(&restored, &path)).unwrap_or_default();
        (path, bytes)
    };
    seen.map(read).collect()
}

async fn assert_structure_is_sound(repo: &Repository) {
    let report = verify(repo, VerifyLevel::Structure, &()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
}

async fn count_snapshots(repo: &Repository) -> usize {
    snapshots(repo, &Default::default()).await.unwrap().len()
}

async fn pack_bytes(repo: &Repository) -> u64 {
    under(&objects(repo).await, "packs/").1
}

/// Interrupts runs in one repository, at many moments; the tree changes in between.
async fn check<B: StorageBackend + Clone + 'static>(store: B, drops: usize) {
    let mut sources = Sources::new();
    let repo = create(store.clone()).await;
    let first = back_up_with(&repo, sources.source(), &options()).await;
    let as_first = fingerprint(&repo, &first.snapshot).await;
    let mut unique = first.bytes_new;
    // How many polls a run takes is learnt from one in another repository.
    unique += sources.change();
    let elsewhere = create(Memory::new()).await;
    let (done, polls) = run_for(&elsewhere, sources.source(), usize::MAX).await;
    done.unwrap().unwrap();
    let mut interrupted = 0;
    for number in 0..drops {
        let after = 1 + polls * number / drops;
        let repo = open(store.clone()).await;
        let before = count_snapshots(&repo).await;
        let (done, _) = run_for(&repo, sources.source(), after).await;
        interrupted += usize::from(done.is_none());
        if let Some(done) = done {
            done.unwrap();
        }
        drop(repo);
        let repo = open(store.clone()).await;
        assert_structure_is_sound(&repo).await;
        let now = count_snapshots(&repo).await;
        assert!(now == before || now == before + 1, "after {after} polls");
        if number % 10 == 0 {
            assert!(
                fingerprint(&repo, &first.snapshot).await == as_first,
                "after {after} polls"
            );
        }
        unique += sources.change();
    }
    assert!(
        interrupted * 4 > drops,
        "only {interrupted} of {drops} runs were interrupted"
    );
    let repo = open(store).await;
    let last = back_up_with(&repo, sources.source(), &options()).await;
    sources.assert_restores(&repo, &last.snapshot).await;
    assert!(fingerprint(&repo, &first.snapshot).await == as_first);
    assert_sound(&repo).await;
    assert_stored_once(&repo, unique, drops).await;
}

/// Noise does not compress, so the packs can be no shorter than what is new; chunks of a run that was interrupted are
/// found by the next, so they are not much longer. Beside the content there are pages of items, at most two
/// for each changed file, and padding, at most an eighth.
async fn assert_stored_once(repo: &Repository, unique: u64, runs: usize) {
    let stored = pack_bytes(repo).await;
    let pages = (runs as u64 + 1) * 2 * 40_000;
    assert!(
        stored <= (unique + pages) * 9 / 8,
        "{stored} bytes for {unique} that are unique"
    );
}

#[tokio::test]
async fn a_future_dropped_at_any_poll_costs_nothing_that_was_committed() {
    check(Memory::new(), 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_dropped_at_any_poll_leaves_a_directory_in_order() {
    let scratch = TempDir::new().unwrap();
    let store = LocalFs::create(scratch.path().join("repo"), LocalFsOptions::default()).unwrap();
    check(store, 30).await;
    // Puts that outlived their futures are done or gone.
    let left = fs::read_dir(scratch.path().join("repo/.tmp")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_run_after_an_interrupted_one_uploads_only_what_is_missing() {
    let mut sources = Sources::new();
    let store = Memory::new();
    let repo = create(store.clone()).await;
    back_up_with(&repo, sources.source(), &options()).await;
    let new = sources.change();
    let elsewhere = create(Memory::new()).await;
    let (_, polls) = run_for(&elsewhere, sources.source(), usize::MAX).await;
    let base = pack_bytes(&repo).await;
    let mut left_behind = 0;
    // Ever later, until something was left behind.
    for tenth in 3..10 {
        let (done, _) = run_for(&repo, sources.source(), polls * tenth / 10).await;
        assert!(done.is_none_or(|done| done.is_ok()));
        left_behind = pack_bytes(&repo).await - base;
        if left_behind > new / 3 {
            break;
        }
    }
    assert!(
        left_behind > new / 3,
        "only {left_behind} of {new} bytes were stored"
    );
    let counting = Counting::new(store);
    let repo = open(counting.clone()).await;
    let report = back_up_with(&repo, sources.source(), &options()).await;
    let put = counting.counts().put.bytes;
    let missing = new.saturating_sub(left_behind);
    assert!(
        put <= missing + 500_000,
        "{put} bytes were put, {missing} were missing"
    );
    assert!(report.bytes_new <= missing + 100_000);
    sources.assert_restores(&repo, &report.snapshot).await;
}

/// Asks to stop once so many packs are stored.
struct StopAfter {
    packs: usize,
    stored: AtomicUsize,
    asked: AtomicBool,
}

impl StopAfter {
    fn packs(packs: usize) -> Self {
        Self {
            packs,
            stored: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
        }
    }
}

impl Observer for StopAfter {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::PackStored { .. }) {
            self.stored.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn should_stop(&self) -> bool {
        let stop = self.stored.load(Ordering::SeqCst) >= self.packs;
        self.asked.fetch_or(stop, Ordering::SeqCst);
        stop
    }
}

#[tokio::test]
async fn a_polite_stop_keeps_what_was_stored_for_the_next_run() {
    let scratch = TempDir::new().unwrap();
    let volume = scratch.path().join("volume");
    fs::write(&volume, noise(60 << 20, 3)).unwrap();
    let repo = create(Memory::new()).await;
    let mut stored = 0;
    for packs in [0, 1, 20, 40] {
        let observer = StopAfter::packs(packs);
        let source = Source::volume(&volume);
        let stopped = backup(&repo, NAME, source, &options(), &observer).await;
        assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
        assert!(stopped.unwrap_err().is_retryable());
        assert!(observer.asked.load(Ordering::SeqCst));
        assert_eq!(count_snapshots(&repo).await, 0);
        assert_structure_is_sound(&repo).await;
        let now = pack_bytes(&repo).await;
        assert!(
            now >= stored + packs as u64 * 100_000,
            "what was under way is kept"
        );
        // It stops soon: what is in the buffers and channels goes through, no more.
        assert!(
            now <= stored + packs as u64 * 300_000 + (40 << 20),
            "{stored} {now}"
        );
        stored = now;
    }
    let last = back_up_with(&repo, Source::volume(&volume), &options()).await;
    assert!(
        last.bytes_new < (60 << 20) - stored * 8 / 9,
        "{} new, {stored} stored",
        last.bytes_new
    );
    let restored = bytes_of(&repo, &last.snapshot, &RestoreOptions::default()).await;
    assert!(restored == fs::read(&volume).unwrap());
    assert_sound(&repo).await;
    let chunks = stats(&repo).await.unwrap().chunk_bytes;
    assert!(
        pack_bytes(&repo).await <= chunks * 9 / 8,
        "no chunk is stored twice"
    );
}

#[tokio::test]
async fn a_tree_can_be_stopped_too() {
    let mut sources = Sources::new();
    sources.change();
    let repo = create(Memory::new()).await;
    for packs in [0, 3, 10] {
        let observer = StopAfter::packs(packs);
        let stopped = backup(&repo, NAME, sources.source(), &options(), &observer).await;
        // It may be done before it is asked again.
        assert!(
            matches!(stopped, Err(Error::Stopped)) || packs > 0,
            "{stopped:?}"
        );
        assert_structure_is_sound(&repo).await;
    }
    let last = back_up_with(&repo, sources.source(), &options()).await;
    sources.assert_restores(&repo, &last.snapshot).await;
}

/// Plans a fault for the calls of a run, which begins after so many calls and puts.
type Plan = fn(&Faulty<Memory>, calls: u64, puts: u64, nth: u64);

/// Has one run after the other fail at its first, second, third call, to the end, and goes on with a new process.
async fn fail_at_every_call(plan: Plan) {
    let mut sources = Sources::new();
    fs::remove_dir_all(sources.tree.join("1")).unwrap();
    let mut nth = 0;
    let mut unharmed = 0;
    while unharmed < 3 {
        nth += 1;
        let store = Memory::new();
        let faulty = Faulty::new(store.clone());
        let repo = create(faulty.clone()).await;
        fs::write(sources.tree.join("old"), "before").unwrap();
        let first = back_up_with(&repo, sources.source(), &options()).await;
        let as_first = fingerprint(&repo, &first.snapshot).await;
        sources.rounds = 1;
        sources.change();
        fs::write(sources.tree.join("old"), noise(700_000, 99)).unwrap();
        let before = faulty.calls();
        let is_put = |call: &&Call| call.operation == Operation::Put;
        let puts = before.iter().filter(is_put).count() as u64;
        plan(&faulty, before.len() as u64, puts, nth);
        let failed = backup(&repo, NAME, sources.source(), &options(), &()).await;
        let is_harmed = faulty.calls().iter().any(|call| call.fault.is_some());
        drop(repo);
        let repo = open(store.clone()).await;
        assert_structure_is_sound(&repo).await;
        assert!(
            fingerprint(&repo, &first.snapshot).await == as_first,
            "call {nth}"
        );
        let count = count_snapshots(&repo).await;
        match &failed {
            Ok(made) => sources.assert_restores(&repo, &made.snapshot).await,
            // When the answer of the last call is lost, the snapshot is there, and whole.
            Err(_) if count == 2 => {
                let newest = find_snapshot(&repo, "latest").await.unwrap().session;
                sources.assert_restores(&repo, &newest).await;
            }
            Err(_) => assert_eq!(count, 1, "call {nth}"),
        }
        assert_sound(&repo).await;
        let next = back_up_with(&repo, sources.source(), &options()).await;
        sources.assert_restores(&repo, &next.snapshot).await;
        let unique = (FILES * FILE_LEN + 2 * FILE_LEN + 700_000) as u64;
        assert_stored_once(&repo, unique, 3).await;
        if !is_harmed {
            assert!(failed.is_ok(), "call {nth}: {failed:?}");
            unharmed += 1;
        }
    }
    assert!(nth > 8, "a run is more than {nth} calls");
}

#[tokio::test]
async fn a_store_that_dies_before_any_call_keeps_what_was_committed() {
    let dies = |faulty: &Faulty<Memory>, calls, _, nth| {
        faulty.die_at(calls + nth, FaultPoint::BeforeEffect);
    };
    fail_at_every_call(dies).await;
}

#[tokio::test]
async fn a_store_that_dies_after_any_call_keeps_what_was_committed() {
    let dies = |faulty: &Faulty<Memory>, calls, _, nth| {
        faulty.die_at(calls + nth, FaultPoint::AfterEffect);
    };
    fail_at_every_call(dies).await;
}

fn failing_put(puts: u64, nth: u64, point: FaultPoint, kind: ErrorKind) -> Fault {
    Fault {
        operation: Operation::Put,
        nth: puts + nth,
        point,
        kind,
    }
}

#[tokio::test]
async fn one_put_that_is_refused_makes_no_snapshot_with_a_gap() {
    let fails = |faulty: &Faulty<Memory>, _, puts, nth| {
        let refused = ErrorKind::PermissionDenied;
        faulty.fail(failing_put(puts, nth, FaultPoint::BeforeEffect, refused));
    };
    fail_at_every_call(fails).await;
}

#[tokio::test]
async fn one_put_whose_answer_is_lost_is_no_gap_and_no_second_copy() {
    let fails = |faulty: &Faulty<Memory>, _, puts, nth| {
        let lost = ErrorKind::Unavailable;
        faulty.fail(failing_put(puts, nth, FaultPoint::AfterEffect, lost));
    };
    fail_at_every_call(fails).await;
}

/// A request that is long on its way would bring back a pack that a collector has deleted, or its helpers delete it again.
#[tokio::test(start_paused = true)]
async fn a_pack_whose_answer_was_lost_is_put_under_another_name() {
    let mut lost = 0;
    for nth in 1..10 {
        let faulty = Faulty::new(Memory::new());
        let repo = create(faulty.clone()).await;
        let puts = |call: &Call| call.operation == Operation::Put;
        let before = faulty.calls().into_iter().filter(puts).count() as u64;
        let (point, kind) = (FaultPoint::AfterEffect, ErrorKind::TimedOut);
        faulty.fail(failing_put(before, nth, point, kind));
        let source = Source::stream(Cursor::new(noise(600_000, 1)));
        backup(&repo, NAME, source, &options(), &()).await.unwrap();
        let calls = faulty.calls().into_iter();
        let packs: Vec<Call> = calls
            .filter(|call| puts(call) && call.key.starts_with("packs/"))
            .collect();
        let names: BTreeSet<&String> = packs.iter().map(|call| &call.key).collect();
        assert_eq!(names.len(), packs.len(), "put {nth}: {packs:?}");
        lost += packs.iter().filter(|call| call.fault.is_some()).count();
        assert_sound(&repo).await;
    }
    assert!(lost > 2, "{lost}");
}

#[tokio::test]
async fn a_restore_that_is_stopped_or_dropped_leaves_the_target_as_it_was() {
    let mut sources = Sources::new();
    sources.change();
    let repo = create(Memory::new()).await;
    let made = back_up_with(&repo, sources.source(), &options()).await;
    let place = sources.restored.parent().unwrap().join("targets");
    fs::create_dir(&place).unwrap();
    let target = place.join("target");
    let stop = StopAfter::packs(0);
    let to = RestoreTarget::Directory(target.clone());
    let stopped = restore(&repo, &made.snapshot, to, &RestoreOptions::default(), &stop).await;
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "nothing is left");
    let mut random = Random(4);
    for _ in 0..20 {
        let to = RestoreTarget::Directory(target.clone());
        let nothing = RestoreOptions::default();
        let run = restore(&repo, &made.snapshot, to, &nothing, &());
        let (done, _) = polled(run, 1 + random.below(25) as usize).await;
        match done {
            Some(done) => {
                done.unwrap();
                assert_same(&sources.tree, &target);
                fs::remove_dir_all(&target).unwrap();
            }
            None => assert!(is_absent_or_whole(&sources.tree, &target)),
        }
    }
    restore_tree(&repo, &made.snapshot, &target).await;
    assert_same(&sources.tree, &target);
}

fn is_absent_or_whole(tree: &Path, target: &Path) -> bool {
    if !target.exists() {
        return true;
    }
    // A job under way when the future was dropped may still give the whole tree its name.
    assert_same(tree, target);
    fs::remove_dir_all(target).unwrap();
    true
}
