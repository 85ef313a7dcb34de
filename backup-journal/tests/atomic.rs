//! Files are written whole or not at all, whatever is in their way.
#![allow(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test]"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use backup_journal::atomic::{
    AtomicError, Step, create_durable, read_bounded, replace_durable, sweep,
};
use rustix::fs::{FlockOperation, Mode, flock, mkfifoat};

const LEFTOVER: &str = ".tmp-4242-00000000000000000000000000000abc";

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn replace_writes_whole_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    for bytes in [&b"first"[..], b"", &[7; 3_000_000], b"last"] {
        replace_durable(&path, bytes, 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(names(dir.path()), ["state"]);
    }
}

#[test]
fn the_mode_is_exact_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o644, 0o666, 0o400] {
        let path = dir.path().join("state");
        replace_durable(&path, b"x", mode).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            mode
        );
    }
}

#[test]
fn create_refuses_what_exists_and_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("once");
    create_durable(&path, b"first", 0o600).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let refused = create_durable(&path, b"second", 0o600);
    assert!(matches!(refused, Err(AtomicError::AlreadyExists { path: named }) if named == path));
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(names(dir.path()), ["once"]);
}

#[test]
fn of_many_creates_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/down/once");
    let won: Vec<u8> = std::thread::scope(|scope| {
        let create = |n: u8| create_durable(&path, &[n; 100], 0o600).is_ok().then_some(n);
        let threads: Vec<_> = (0..16).map(|n| scope.spawn(move || create(n))).collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(won.len(), 1);
    assert_eq!(fs::read(&path).unwrap(), [won[0]; 100]);
    assert_eq!(names(path.parent().unwrap()), ["once"]);
}

#[test]
fn missing_directories_are_made_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    replace_durable(dir.path().join("a/b/c/state"), b"x", 0o600).unwrap();
    for made in ["a", "a/b", "a/b/c"] {
        assert_eq!(
            fs::metadata(dir.path().join(made))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
    }
}

#[test]
fn a_bare_name_is_in_the_current_directory() {
    // The working directory of a test is the package's folder; the name is unique and removed.
    let name = format!("bare-{}", std::process::id());
    replace_durable(&name, b"x", 0o600).unwrap();
    let read = read_bounded(&name, 1);
    fs::remove_file(&name).unwrap();
    assert_eq!(read.unwrap(), b"x");
}

#[test]
fn a_path_without_a_file_name_is_refused() {
    for path in ["", "/", ".", "..", "a/..", "name/", "name/."] {
        let refused = replace_durable(path, b"x", 0o600);
        assert!(
            matches!(refused, Err(AtomicError::NoFileName { .. })),
            "{path:?}: {refused:?}"
        );
    }
    assert!(!Path::new("name").exists());
}

#[test]
fn a_symlink_in_place_of_the_file_is_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, path) = (dir.path().join("outside"), dir.path().join("state"));
    fs::write(&outside, b"precious").unwrap();
    for target in [outside.clone(), dir.path().join("dangling")] {
        symlink(&target, &path).unwrap();
        assert!(matches!(
            replace_durable(&path, b"x", 0o600),
            Err(AtomicError::NotAFile { .. })
        ));
        assert!(matches!(
            create_durable(&path, b"x", 0o600),
            Err(AtomicError::AlreadyExists { .. })
        ));
        assert!(matches!(
            read_bounded(&path, 100),
            Err(AtomicError::NotAFile { .. })
        ));
        assert_eq!(fs::read_link(&path).unwrap(), target);
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(names(dir.path()), ["outside"]);
}

#[test]
fn a_directory_or_pipe_in_place_of_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    mkfifoat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        Mode::RUSR | Mode::WUSR,
    )
    .unwrap();
    for name in ["folder", "pipe"] {
        let path = dir.path().join(name);
        assert!(matches!(
            replace_durable(&path, b"x", 0o600),
            Err(AtomicError::NotAFile { .. })
        ));
        assert!(matches!(
            create_durable(&path, b"x", 0o600),
            Err(AtomicError::AlreadyExists { .. })
        ));
        assert!(matches!(
            read_bounded(&path, 100),
            Err(AtomicError::NotAFile { .. })
        ));
    }
    assert_eq!(names(dir.path()), ["folder", "pipe"]);
}

#[test]
fn a_file_in_place_of_a_directory_is_an_error_that_names_path_and_step() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"x").unwrap();
    let path = dir.path().join("file/below/state");
    let error = replace_durable(&path, b"x", 0o600).unwrap_err();
    assert!(
        matches!(&error, AtomicError::Io { path: named, step: Step::MakeDirectories, .. } if *named == path)
    );
    assert!(error.to_string().contains("file/below/state"));
}

#[test]
fn sweep_removes_leftovers_of_the_dead_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let live = ".tmp-4242-00000000000000000000000000000def";
    for name in [LEFTOVER, live, ".tmp-other", "state", ".tmp-12-short"] {
        fs::write(dir.path().join(name), b"x").unwrap();
    }
    let held = fs::File::open(dir.path().join(live)).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    assert_eq!(sweep(dir.path()).unwrap(), 1);
    assert_eq!(
        names(dir.path()),
        [".tmp-12-short", live, ".tmp-other", "state"]
    );
    drop(held);
    assert_eq!(sweep(dir.path()).unwrap(), 1);
    assert_eq!(sweep(dir.path()).unwrap(), 0);
    assert_eq!(sweep(dir.path().join("missing")).unwrap(), 0);
}

#[test]
fn sweep_does_not_follow_a_symlink_with_a_temporarys_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), b"x").unwrap();
    symlink("precious", dir.path().join(LEFTOVER)).unwrap();
    assert_eq!(sweep(dir.path()).unwrap(), 0);
    assert_eq!(fs::read(dir.path().join("precious")).unwrap(), b"x");
}

#[test]
fn sweeps_and_writes_at_once_lose_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                sweep(dir.path()).unwrap();
            }
        });
        for n in 0..200_u32 {
            let path = dir.path().join("state");
            replace_durable(&path, &n.to_le_bytes(), 0o600).unwrap();
            assert_eq!(fs::read(&path).unwrap(), n.to_le_bytes());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn read_is_bounded_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    assert!(matches!(
        read_bounded(&path, 10),
        Err(AtomicError::NotFound { .. })
    ));
    fs::write(&path, [1; 10]).unwrap();
    assert_eq!(read_bounded(&path, 10).unwrap(), [1; 10]);
    assert!(matches!(
        read_bounded(&path, 9),
        Err(AtomicError::TooLong { len_max: 9, .. })
    ));
    fs::write(&path, b"").unwrap();
    assert_eq!(read_bounded(&path, 0).unwrap(), b"");
    // A file whose length the system does not know beforehand.
    assert!(
        !read_bounded("/proc/self/status", 100_000)
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        read_bounded("/proc/self/status", 10),
        Err(AtomicError::TooLong { .. })
    ));
}

#[test]
#[ignore = "mounts a tmpfs of 1 MiB: needs root"]
fn a_full_disk_leaves_the_old_file_and_no_temporary() {
    let dir = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path());
    assert!(
        mount.status().unwrap().success(),
        "this test needs root and mount(8)"
    );
    let path = dir.path().join("state");
    replace_durable(&path, b"old", 0o600).unwrap();
    let replaced = replace_durable(&path, &vec![1; 2 << 20], 0o600);
    let created = create_durable(dir.path().join("new"), &vec![1; 2 << 20], 0o600);
    let (left, old) = (names(dir.path()), fs::read(&path).unwrap());
    let unmounted = std::process::Command::new("umount")
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(
        matches!(
            replaced,
            Err(AtomicError::StorageFull {
                step: Step::Write,
                ..
            })
        ),
        "{replaced:?}"
    );
    assert!(
        matches!(
            created,
            Err(AtomicError::StorageFull {
                step: Step::Write,
                ..
            })
        ),
        "{created:?}"
    );
    assert_eq!(left, ["state"]);
    assert_eq!(old, b"old");
    assert!(unmounted.success());
}
