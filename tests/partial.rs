//! What cannot be read, or changes while it is read, is named; the rest is there.
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

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use backup::backup_backend::Memory;
use backup::{
    BackupOptions, BackupReport, Event, ItemPath, Observer, Repository, RestoreOptions,
    RestoreTarget, Source, TreeSource, backup, restore, snapshots,
};
use common::compare::{join, walk};
use common::data::noise;
use common::make::{everything, is_root, set_mode, set_xattr};
use common::{NAME, assert_sound, bytes_of, create, restore_tree};
use tempfile::TempDir;

/// Backs up what may be partial, restores it, and checks that all but what was named is there as it is in the source.
async fn check(source: Source, tree: &Path, observer: &dyn Observer) -> BackupReport {
    let repo = create(Memory::new()).await;
    check_in(&repo, source, tree, observer).await
}

async fn check_in(
    repo: &Repository,
    source: Source,
    tree: &Path,
    observer: &dyn Observer,
) -> BackupReport {
    let report = backup(repo, NAME, source, &BackupOptions::default(), observer)
        .await
        .unwrap();
    assert_eq!(report.skipped_count, report.skipped.len() as u64);
    let manifests = snapshots(repo, &Default::default()).await.unwrap();
    let manifest = manifests
        .iter()
        .find(|m| m.session == report.snapshot)
        .unwrap();
    assert_eq!(manifest.complete, report.is_complete());
    assert_eq!(manifest.skipped, report.skipped);
    assert_sound(repo).await;
    let scratch = TempDir::new().unwrap();
    let restored = scratch.path().join("restored");
    restore_tree(repo, &report.snapshot, &restored).await;
    let named = |path: &[u8]| {
        let path = ItemPath::from_bytes(path).unwrap();
        report
            .skipped
            .iter()
            .any(|skipped| path.starts_with(&skipped.path))
    };
    let there = walk(&restored);
    for (path, seen) in walk(tree) {
        let place = join(tree, &path);
        if named(&path) || File::open(&place).is_err() {
            continue;
        }
        let name = String::from_utf8_lossy(&path).into_owned();
        let twin = there
            .get(&path)
            .unwrap_or_else(|| panic!("{name} is wanting and not named"));
        assert_eq!((seen.mode, seen.len), (twin.mode, twin.len), "{name}");
        if seen.mode & 0o170_000 == 0o100_000 {
            let same = fs::read(&place).unwrap() == fs::read(join(&restored, &path)).unwrap();
            assert!(same, "{name} has other content and is not named");
        }
    }
    report
}

fn names(report: &BackupReport) -> Vec<String> {
    report
        .skipped
        .iter()
        .map(|skipped| skipped.path.to_string())
        .collect()
}

fn place() -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    (scratch, tree)
}

const NOBODY: u32 = 65_534;

/// Runs a test of this file as somebody who may not do everything; it finds its files in its working directory.
fn as_nobody(test: &str, scratch: &Path) {
    // Where nobody may run it, whatever is above the build directory.
    let program = scratch.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    set_mode(&program, 0o755);
    set_mode(scratch, 0o777);
    let mut command = Command::new(program);
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .current_dir(scratch);
    command.env("TMPDIR", scratch);
    let output = command.uid(NOBODY).gid(NOBODY).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed"), "{said}\n{complained}");
}

/// The tree that [`as_nobody`]'s caller has made, unless the test was not started by it.
fn given_tree() -> Option<PathBuf> {
    let tree = std::env::current_dir().unwrap().join("tree");
    (!is_root() && tree.is_dir()).then_some(tree)
}

#[test]
fn what_may_not_be_read_is_named_and_the_rest_is_there() {
    if !is_root() {
        eprintln!("only root can become somebody else: not tested");
        return;
    }
    let (scratch, tree) = place();
    for name in ["open", "closed", "listed", "entered"] {
        fs::create_dir(tree.join(name)).unwrap();
        for (file, mode) in [
            ("readable", 0o644),
            ("secret", 0o600),
            ("large secret", 0o600),
        ] {
            let path = tree.join(name).join(file);
            let len = if file == "large secret" {
                6 << 20
            } else {
                1000
            };
            fs::write(&path, noise(len, 1)).unwrap();
            set_mode(&path, mode);
        }
    }
    fs::hard_link(tree.join("open/secret"), tree.join("open/secret twin")).unwrap();
    fs::hard_link(tree.join("open/readable"), tree.join("open/twin")).unwrap();
    fs::write(tree.join("open/one name"), "secret").unwrap();
    set_mode(&tree.join("open/one name"), 0o600);
    set_mode(&tree.join("closed"), 0o700);
    set_mode(&tree.join("listed"), 0o744);
    set_mode(&tree.join("entered"), 0o711);
    as_nobody("as_nobody_what_may_not_be_read_is_named", scratch.path());
}

#[tokio::test]
#[ignore = "started by what_may_not_be_read_is_named_and_the_rest_is_there"]
async fn as_nobody_what_may_not_be_read_is_named() {
    let Some(tree) = given_tree() else { return };
    let report = check(Source::tree(&tree), &tree, &()).await;
    let mut found = names(&report);
    found.sort();
    // Of a directory, both that its names and that its attributes cannot be read is told.
    found.dedup();
    let expected = [
        "closed",
        "entered",
        "listed/large secret",
        "listed/readable",
        "listed/secret",
        "open/large secret",
        "open/one name",
        "open/secret",
        "open/secret twin",
    ];
    assert_eq!(found, expected, "{:?}", report.skipped);
    assert!(
        report
            .skipped
            .iter()
            .all(|skipped| !skipped.reason.is_empty())
    );
}

#[test]
fn somebody_who_is_not_root_restores_what_he_may_and_is_told_the_rest() {
    if !is_root() {
        return;
    }
    let (scratch, tree) = place();
    everything(&tree);
    // Everything readable by nobody, and his own: no owner stands in the way.
    for path in walk(&tree).into_keys() {
        let place = join(&tree, &path);
        if !place.is_symlink() {
            let mode = if place.is_dir() { 0o555 } else { 0o444 };
            chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
            set_mode(&place, mode);
        }
    }
    as_nobody("as_nobody_what_may_be_restored_is", scratch.path());
}

#[tokio::test]
#[ignore = "started by somebody_who_is_not_root_restores_what_he_may_and_is_told_the_rest"]
async fn as_nobody_what_may_be_restored_is() {
    let Some(tree) = given_tree() else { return };
    let repo = create(Memory::new()).await;
    let made = backup(
        &repo,
        NAME,
        Source::tree(&tree),
        &BackupOptions::default(),
        &(),
    )
    .await
    .unwrap();
    assert!(made.is_complete(), "{:?}", made.skipped);
    let restored = std::env::current_dir().unwrap().join("restored");
    let target = RestoreTarget::Directory(restored.clone());
    let back = restore(
        &repo,
        &made.snapshot,
        target,
        &RestoreOptions::default(),
        &(),
    )
    .await
    .unwrap();
    let (there, mut here) = (walk(&tree), walk(&restored));
    let skipped: Vec<String> = back.skipped.iter().map(|s| s.path.to_string()).collect();
    assert_eq!(
        skipped,
        [
            "nodes/large numbers",
            "nodes/loop",
            "nodes/minor 256",
            "nodes/null"
        ]
    );
    // Attributes of root alone are told; attributes of users, also of files that nobody may write, are set.
    let is_users = |name: &&(Vec<u8>, Vec<u8>)| name.0.starts_with(b"user.");
    for (path, seen) in there {
        let name = String::from_utf8_lossy(&path).into_owned();
        let Some(twin) = here.remove(&path) else {
            assert!(skipped.contains(&name), "{name}");
            continue;
        };
        assert_eq!(
            (seen.mode, seen.mtime, seen.len),
            (twin.mode, twin.mtime, twin.len),
            "{name}"
        );
        assert_eq!(seen.twin, twin.twin, "{name}");
        let (one, other) = (seen.xattrs.iter(), twin.xattrs.iter());
        let same = one.filter(is_users).eq(other.filter(is_users));
        assert!(same, "attributes of {name}: {:?}", back.unset);
    }
    assert!(here.is_empty());
    assert!(back.unset.iter().all(|unset| !unset.reason.is_empty()));
}

/// Does something at the first event of a kind.
struct Once<W, D> {
    when: W,
    what: D,
    done: AtomicBool,
}

impl<W: Fn(&Event<'_>) -> bool + Send + Sync, D: Fn() + Send + Sync> Once<W, D> {
    fn new(when: W, what: D) -> Self {
        Self {
            when,
            what,
            done: AtomicBool::new(false),
        }
    }
}

impl<W: Fn(&Event<'_>) -> bool + Send + Sync, D: Fn() + Send + Sync> Observer for Once<W, D> {
    fn event(&self, event: &Event<'_>) {
        if (self.when)(event) && !self.done.swap(true, Ordering::SeqCst) {
            (self.what)();
        }
    }
}

fn is_bytes(event: &Event<'_>) -> bool {
    matches!(event, Event::Bytes { .. })
}

#[tokio::test]
async fn a_long_file_that_changes_while_it_is_read_is_named() {
    let changes: [(&str, fn(&File)); 4] = [
        ("grows", |file| {
            file.write_all_at(b"more", 64 << 20).unwrap()
        }),
        ("shrinks", |file| file.set_len(1 << 20).unwrap()),
        ("is rewritten", |file| {
            file.write_all_at(b"other", 60 << 20).unwrap()
        }),
        ("is emptied", |file| file.set_len(0).unwrap()),
    ];
    for (what, change) in changes {
        let (_scratch, tree) = place();
        let path = tree.join("long");
        fs::write(&path, noise(64 << 20, 1)).unwrap();
        fs::write(tree.join("other"), "as it was").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let observer = Once::new(is_bytes, || change(&file));
        let report = check(Source::tree(&tree), &tree, &observer).await;
        assert_eq!(names(&report), ["long"], "it {what}");
    }
}

#[tokio::test]
async fn a_volume_that_changes_while_it_is_read_is_named() {
    let changes: [(&str, fn(&File)); 2] = [
        ("shrinks", |file| file.set_len(1 << 20).unwrap()),
        ("is rewritten", |file| {
            file.write_all_at(b"other", 60 << 20).unwrap()
        }),
    ];
    for (what, change) in changes {
        let (_scratch, tree) = place();
        let path = tree.join("volume");
        fs::write(&path, noise(64 << 20, 1)).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let observer = Once::new(is_bytes, || change(&file));
        let repo = create(Memory::new()).await;
        let source = Source::volume(&path);
        let made = backup(&repo, NAME, source, &BackupOptions::default(), &observer).await;
        let told = made.as_ref().map_or(true, |report| !report.is_complete());
        assert!(told, "it {what}: {made:?}");
    }
}

/// Appends to a file as fast as it can until dropped.
struct Appender {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Appender {
    /// Byte `n` of the file is `n % 251`.
    fn start(path: &Path, len: usize) -> Self {
        fs::write(path, pattern(len)).unwrap();
        let mut file = File::options().append(true).open(path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut at = len;
            while !stopped.load(Ordering::SeqCst) && at < len + (4 << 20) {
                file.write_all(&[(at % 251) as u8]).unwrap();
                at += 1;
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn a_file_that_grows_all_the_time_is_taken_as_it_was_at_some_moment_or_named() {
    let mut only = RestoreOptions::default();
    only.paths = vec![ItemPath::from_bytes("log").unwrap()];
    let mut named = 0;
    for round in 0..60 {
        let (_scratch, tree) = place();
        let _appender = Appender::start(&tree.join("log"), 3_000_000);
        let repo = create(Memory::new()).await;
        let report = backup(
            &repo,
            NAME,
            Source::tree(&tree),
            &BackupOptions::default(),
            &(),
        )
        .await
        .unwrap();
        let bytes = bytes_of(&repo, &report.snapshot, &only).await;
        assert!(
            bytes.len() >= 3_000_000 && bytes == pattern(bytes.len()),
            "round {round}"
        );
        named += usize::from(names(&report) == ["log"]);
        if round >= 10 && named > 0 {
            break;
        }
    }
    assert!(named > 0, "in sixty runs, no change was noticed");
}

/// Does `what` when the walk has come to the last name of the root, and nothing was read yet.
fn when_walked(tree: &Path, what: impl Fn() + Send + Sync + 'static) -> Source {
    fs::write(tree.join("~last"), "").unwrap();
    let mut source = TreeSource::new(tree);
    source.exclude = Some(Arc::new(move |path: &ItemPath, _| {
        if path.as_bytes() == b"~last" {
            what();
        }
        false
    }));
    Source::Tree(source)
}

#[tokio::test]
async fn what_vanishes_meanwhile_is_as_if_it_had_gone_before() {
    let (_scratch, tree) = place();
    for name in ["directory", "few", "many"] {
        fs::create_dir(tree.join(name)).unwrap();
    }
    let files = ["a", "b", "directory/c", "few/d"];
    for name in files.into_iter().chain(["stays"]) {
        fs::write(tree.join(name), name).unwrap();
    }
    fs::write(tree.join("long"), noise(6 << 20, 1)).unwrap();
    let root = tree.clone();
    let source = when_walked(&tree, move || {
        for name in files.into_iter().chain(["long"]) {
            fs::remove_file(root.join(name)).unwrap();
        }
        fs::remove_dir(root.join("directory")).unwrap();
    });
    let report = check(source, &tree, &()).await;
    assert!(report.is_complete(), "{:?}", report.skipped);
    // stays, ~last
    assert_eq!(report.files, 2);
}

#[tokio::test]
async fn directories_that_vanish_before_they_are_looked_into_are_no_failure() {
    let (_scratch, tree) = place();
    // Deeper than one look goes.
    let deep = tree.join("deep").join(vec!["d"; 80].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "gone").unwrap();
    let root = tree.clone();
    let source = when_walked(&tree, move || {
        fs::remove_dir_all(root.join("deep")).unwrap()
    });
    let report = check(source, &tree, &()).await;
    assert!(report.is_complete(), "{:?}", report.skipped);
}

#[tokio::test]
async fn a_hard_link_whose_first_name_vanishes_is_not_lost_in_silence() {
    for len in [10, 6 << 20] {
        let (_scratch, tree) = place();
        fs::write(tree.join("first"), noise(len, 1)).unwrap();
        fs::hard_link(tree.join("first"), tree.join("second")).unwrap();
        fs::hard_link(tree.join("first"), tree.join("third")).unwrap();
        let root = tree.clone();
        let source = when_walked(&tree, move || fs::remove_file(root.join("first")).unwrap());
        let repo = create(Memory::new()).await;
        check_in(&repo, source, &tree, &()).await;
        // The next run has them.
        let report = check_in(&repo, Source::tree(&tree), &tree, &()).await;
        assert!(report.is_complete());
    }
}

#[tokio::test]
async fn a_file_that_becomes_something_else_meanwhile_is_named_or_taken_as_that() {
    let becomes: [(&str, fn(&Path)); 4] = [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a symlink", |path| {
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap()
        }),
        ("a pipe", |path| {
            common::make::node(path, rustix::fs::FileType::Fifo, (0, 0))
        }),
        ("another file", |path| fs::write(path, "another").unwrap()),
    ];
    for len in [10, 6 << 20] {
        for (what, make) in becomes {
            let (_scratch, tree) = place();
            fs::write(tree.join("changing"), noise(len, 1)).unwrap();
            fs::write(tree.join("stays"), "stays").unwrap();
            let path = tree.join("changing");
            let source = when_walked(&tree, move || {
                fs::remove_file(&path).unwrap();
                make(&path);
            });
            let repo = create(Memory::new()).await;
            let report = backup(&repo, NAME, source, &BackupOptions::default(), &())
                .await
                .unwrap();
            let scratch = TempDir::new().unwrap();
            let restored = scratch.path().join("restored");
            restore_tree(&repo, &report.snapshot, &restored).await;
            let (there, here) = (walk(&tree), walk(&restored));
            let kind = |seen: Option<&common::compare::Seen>| {
                seen.map(|seen| (seen.mode, seen.len, seen.link_target.clone()))
            };
            let name = &b"changing"[..];
            let same = kind(there.get(name)) == kind(here.get(name));
            assert!(
                same || names(&report) == ["changing"],
                "{what}, {len} bytes: {report:?}"
            );
            assert_eq!(fs::read(restored.join("stays")).unwrap(), b"stays");
        }
    }
}

#[tokio::test]
async fn many_skipped_items_are_counted_and_the_first_are_named() {
    let (_scratch, tree) = place();
    for number in 0..300 {
        fs::write(tree.join(format!("{number}")), "x").unwrap();
    }
    // An attribute that is too long to be recorded cannot be made here; files replaced by directories can.
    let root = tree.clone();
    let source = when_walked(&tree, move || {
        for number in 0..300 {
            fs::remove_file(root.join(format!("{number}"))).unwrap();
            fs::create_dir(root.join(format!("{number}"))).unwrap();
        }
    });
    let told = AtomicUsize::new(0);
    let observer = |event: &Event<'_>| {
        let skipped = matches!(event, Event::ItemSkipped { .. });
        told.fetch_add(usize::from(skipped), Ordering::SeqCst);
    };
    let repo = create(Memory::new()).await;
    let report = backup(&repo, NAME, source, &BackupOptions::default(), &observer)
        .await
        .unwrap();
    assert_eq!((report.skipped_count, report.skipped.len()), (300, 100));
    assert_eq!(
        told.load(Ordering::SeqCst),
        300,
        "each is told to the observer"
    );
}

#[tokio::test]
async fn attributes_of_a_read_only_file_are_taken() {
    let (_scratch, tree) = place();
    fs::write(tree.join("file"), "x").unwrap();
    set_xattr(&tree.join("file"), "user.note", b"kept");
    set_mode(&tree.join("file"), 0o000);
    let report = check(Source::tree(&tree), &tree, &()).await;
    assert!(report.is_complete() || !is_root());
}
