//! What a directory can do to its objects, and what is in it besides them.
#![allow(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test]"
)]

use std::fs;
use std::future::Future;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use backup_backend::{
    BackendError, ByteRange, Bytes, ErrorKind, KeyPrefix, LocalFs, LocalFsOptions, ObjectKey,
    PutMode, StorageBackend, StorageBackendExt,
};
use futures::{FutureExt, StreamExt};
use rustix::fs::{FlockOperation, Mode, flock, mkfifoat};
use tempfile::TempDir;

const LEFTOVER: &str = "4242-00000000000000000000000000000abc";

fn fresh() -> (TempDir, LocalFs) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (dir, store)
}

fn open(root: &Path) -> LocalFs {
    LocalFs::open(root, LocalFsOptions::default()).unwrap()
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

async fn put(store: &LocalFs, name: &str, mode: PutMode) -> Result<(), ErrorKind> {
    store
        .put(&key(name), Bytes::from(name.to_owned()), mode)
        .await
        .map_err(|error| error.kind())
}

async fn names(store: &LocalFs) -> Vec<String> {
    let all = store.list_all(&KeyPrefix::all()).await.unwrap();
    all.iter().map(|meta| meta.key.to_string()).collect()
}

async fn kind_of<T: std::fmt::Debug>(
    call: impl Future<Output = Result<T, BackendError>>,
) -> ErrorKind {
    call.await.unwrap_err().kind()
}

fn temporaries(root: &Path) -> usize {
    fs::read_dir(root.join(".tmp")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn files_and_folders_belong_to_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/root");
    let store = LocalFs::create(&root, LocalFsOptions::default()).unwrap();
    put(&store, "packs/ab/cd", PutMode::Create).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for folder in ["a", "a/b", "a/b/root", "a/b/root/packs/ab", "a/b/root/.tmp"] {
        assert_eq!(mode(&dir.path().join(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(&root.join("packs/ab/cd")), 0o600);
    assert_eq!(fs::metadata(root.join("packs/ab/cd")).unwrap().nlink(), 1);
    assert_eq!(temporaries(&root), 0);
    LocalFs::create(&root, LocalFsOptions::default()).unwrap();
}

#[test]
fn opening_what_is_not_there_names_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"x").unwrap();
    for missing in ["nothing", "file"] {
        let error = LocalFs::open(dir.path().join(missing), LocalFsOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSuchBucket);
        assert!(error.to_string().contains(missing));
    }
}

#[tokio::test]
async fn leftovers_of_the_dead_are_swept_and_never_listed() {
    let (dir, store) = fresh();
    put(&store, "packs/ab", PutMode::Create).await.unwrap();
    let live = "4242-00000000000000000000000000000def";
    for name in [LEFTOVER, live, "not-ours"] {
        fs::write(dir.path().join(".tmp").join(name), b"half").unwrap();
    }
    // A writer that died after linking: the object is whole, its temporary name is a second one.
    let witness = dir
        .path()
        .join(".tmp/4242-0000000000000000000000000000beef");
    fs::hard_link(dir.path().join("packs/ab"), &witness).unwrap();
    assert_eq!(names(&store).await, ["packs/ab"]);

    let held = fs::File::open(dir.path().join(".tmp").join(live)).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let store = open(dir.path());
    let left = |name: &str| dir.path().join(".tmp").join(name).exists();
    assert!(!left(LEFTOVER) && !witness.exists() && left(live) && left("not-ours"));
    assert_eq!(store.get(&key("packs/ab"), None).await.unwrap(), "packs/ab");
    drop(held);
    open(dir.path());
    assert!(!left(live));
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_over_and_over_disturbs_no_writer() {
    let (dir, store) = fresh();
    let root = dir.path().to_owned();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = done.clone();
    let sweeper = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            open(&root);
        }
    });
    for n in 0..200 {
        put(&store, &format!("packs/{n}"), PutMode::Create)
            .await
            .unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    sweeper.join().unwrap();
    assert_eq!(names(&store).await.len(), 200);
    assert_eq!(temporaries(dir.path()), 0);
}

#[tokio::test]
async fn a_listing_with_a_symlink_in_it_is_an_error_that_names_it() {
    let (dir, store) = fresh();
    put(&store, "packs/aa/1", PutMode::Create).await.unwrap();
    symlink(dir.path(), dir.path().join("packs/ab")).unwrap();
    let error = store.list_all(&KeyPrefix::all()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.key()),
        (ErrorKind::Corrupt, "packs/ab")
    );
    let error = store
        .list_all(&KeyPrefix::parse("packs/ab/").unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // Elsewhere it does no harm.
    assert_eq!(
        store
            .list_all(&KeyPrefix::parse("packs/aa").unwrap())
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn an_overwrite_or_delete_takes_a_symlink_away_and_does_not_follow_it() {
    let (dir, store) = fresh();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), b"x").unwrap();
    fs::create_dir(dir.path().join("keys")).unwrap();
    for name in ["keys/a", "keys/b"] {
        symlink(outside.path().join("precious"), dir.path().join(name)).unwrap();
    }
    put(&store, "keys/a", PutMode::Overwrite).await.unwrap();
    store.delete_one(&key("keys/b")).await.unwrap();
    assert_eq!(names(&store).await, ["keys/a"]);
    assert!(
        fs::symlink_metadata(dir.path().join("keys/a"))
            .unwrap()
            .is_file()
    );
    assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"x");
}

#[tokio::test]
async fn a_pipe_in_place_of_an_object_does_not_block() {
    let (dir, store) = fresh();
    mkfifoat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        Mode::RUSR | Mode::WUSR,
    )
    .unwrap();
    assert_eq!(
        kind_of(store.get(&key("pipe"), None)).await,
        ErrorKind::Corrupt
    );
    assert_eq!(kind_of(store.head(&key("pipe"))).await, ErrorKind::Corrupt);
    assert_eq!(
        kind_of(store.list_all(&KeyPrefix::all())).await,
        ErrorKind::Corrupt
    );
    assert_eq!(
        put(&store, "pipe", PutMode::Create).await,
        Err(ErrorKind::InvalidInput)
    );
}

#[tokio::test]
async fn a_key_cannot_be_the_folder_of_another() {
    let (dir, store) = fresh();
    put(&store, "a/b", PutMode::Create).await.unwrap();
    for mode in [PutMode::Create, PutMode::Overwrite] {
        assert_eq!(put(&store, "a", mode).await, Err(ErrorKind::InvalidInput));
        assert_eq!(
            put(&store, "a/b/c", mode).await,
            Err(ErrorKind::InvalidInput)
        );
    }
    assert_eq!(
        kind_of(store.get(&key("a/b/c"), None)).await,
        ErrorKind::NotFound
    );
    store.delete_one(&key("a")).await.unwrap();
    store.delete_one(&key("a/b/c")).await.unwrap();
    assert_eq!(names(&store).await, ["a/b"]);
    assert_eq!(temporaries(dir.path()), 0);
}

#[tokio::test]
async fn folders_that_others_remove_are_made_again() {
    let (dir, store) = fresh();
    for n in 0..3 {
        let name = format!("packs/ab/{n}");
        put(&store, &name, PutMode::Create).await.unwrap();
        assert_eq!(names(&store).await, [name]);
        fs::remove_dir_all(dir.path().join("packs")).unwrap();
        fs::remove_dir_all(dir.path().join(".tmp")).unwrap();
    }
    assert!(names(&store).await.is_empty());
}

#[tokio::test]
async fn names_that_are_no_keys_are_passed_over() {
    let (dir, store) = fresh();
    put(&store, "kept", PutMode::Create).await.unwrap();
    for foreign in [".hidden", "back\\slash", "new\nline"] {
        fs::write(dir.path().join(foreign), b"x").unwrap();
    }
    fs::create_dir_all(dir.path().join(".git/objects")).unwrap();
    fs::create_dir_all(dir.path().join("empty/folder")).unwrap();
    assert_eq!(names(&store).await, ["kept"]);
}

#[tokio::test]
async fn what_vanishes_while_listing_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LocalFsOptions::default();
    options.page_len = 1;
    let store = LocalFs::open(dir.path(), options).unwrap();
    for name in ["a/1", "a/2", "b/1", "c"] {
        put(&store, name, PutMode::Create).await.unwrap();
    }
    let mut pages = store.list(&KeyPrefix::all());
    assert_eq!(pages.next().await.unwrap().unwrap()[0].key, key("a/1"));
    fs::remove_file(dir.path().join("a/2")).unwrap();
    fs::remove_dir_all(dir.path().join("b")).unwrap();
    assert_eq!(pages.next().await.unwrap().unwrap()[0].key, key("c"));
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn many_folders_are_deleted_from_in_one_call() {
    let (_dir, store) = fresh();
    let keys: Vec<ObjectKey> = (0..300)
        .map(|n| key(&format!("packs/{:03}/{n}", n % 150)))
        .collect();
    for key in &keys {
        store
            .put(key, Bytes::from("x"), PutMode::Create)
            .await
            .unwrap();
    }
    let results = store.delete(&keys).await.unwrap();
    assert!(results.len() == 300 && results.iter().all(Result::is_ok));
    assert!(names(&store).await.is_empty());
}

#[tokio::test]
async fn objects_outlive_the_store_and_its_clones() {
    let (dir, store) = fresh();
    put(&store.clone(), "a", PutMode::Create).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(
        put(&store, "a", PutMode::Create).await,
        Err(ErrorKind::AlreadyExists)
    );
    let range = Some(ByteRange { start: 0, len: 1 });
    assert_eq!(store.get(&key("a"), range).await.unwrap(), "a");
    assert!(store.head(&key("a")).await.unwrap().modified.is_some());
}

#[test]
fn without_a_runtime_a_call_is_an_error_and_no_panic() {
    let (_dir, store) = fresh();
    let answer = store.get(&key("a"), None).now_or_never().unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotSupported);
}

#[tokio::test]
async fn an_error_says_operation_key_and_remedy_and_keeps_its_source() {
    let (_dir, store) = fresh();
    let error = store.get(&key("packs/ab"), None).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot get \"packs/ab\": no such object");
    let step = std::error::Error::source(&error).unwrap();
    assert_eq!(step.to_string(), "cannot open the object");
    assert!(step.source().unwrap().to_string().contains("No such file"));
}

#[tokio::test]
#[ignore = "mounts a tmpfs of 1 MiB: needs root"]
async fn a_full_disk_is_said_so_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path());
    assert!(
        mount.status().unwrap().success(),
        "this test needs root and mount(8)"
    );
    let store = open(dir.path());
    put(&store, "small", PutMode::Create).await.unwrap();
    let large = Bytes::from(vec![1; 2 << 20]);
    let mut kinds = Vec::new();
    for name in ["packs/large", "small"] {
        kinds.push(kind_of(store.put(&key(name), large.clone(), PutMode::Overwrite)).await);
    }
    let (shown, left) = (names(&store).await, temporaries(dir.path()));
    let small = store.get(&key("small"), None).await;
    drop(store);
    let unmounted = std::process::Command::new("umount")
        .arg(dir.path())
        .status()
        .unwrap();
    assert_eq!(kinds, [ErrorKind::StorageFull; 2]);
    assert_eq!((shown, left), (vec!["small".to_owned()], 0));
    assert_eq!(small.unwrap(), "small");
    assert!(unmounted.success());
}
