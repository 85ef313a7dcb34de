//! What the tests of the verbs share: repositories, sources, and a comparison that knows nothing of the library.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod compare;
pub(crate) mod data;
pub(crate) mod make;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use backup::backup_backend::{KeyPrefix, StorageBackend, StorageBackendExt};
use backup::{
    BackupOptions, BackupReport, CreateOptions, Credential, Env, OpenOptions, Repository,
    RestoreOptions, RestoreReport, RestoreTarget, SessionId, Source, VerifyLevel, backup, restore,
    verify,
};

/// The name under which the tests back up, unless they say otherwise.
pub(crate) const NAME: &str = "source";

/// A key: it opens a slot at once, unlike a passphrase.
pub(crate) fn credential() -> Credential {
    Credential::Key([7; 32].into())
}

pub(crate) async fn create(backend: impl StorageBackend + 'static) -> Repository {
    create_with(backend, CreateOptions::default()).await
}

pub(crate) async fn create_with(
    backend: impl StorageBackend + 'static,
    options: CreateOptions,
) -> Repository {
    Repository::create(Arc::new(backend), credential(), options)
        .await
        .unwrap()
}

/// Opens a repository as a new process would.
pub(crate) async fn open(backend: impl StorageBackend + 'static) -> Repository {
    open_in(backend, Env::default()).await
}

pub(crate) async fn open_in(backend: impl StorageBackend + 'static, env: Env) -> Repository {
    let mut options = OpenOptions::default();
    options.env = env;
    Repository::open(Arc::new(backend), credential(), options)
        .await
        .unwrap()
}

/// Backs a source up under [`NAME`]; it must succeed, completely.
pub(crate) async fn back_up(repo: &Repository, source: Source) -> BackupReport {
    back_up_with(repo, source, &BackupOptions::default()).await
}

pub(crate) async fn back_up_with(
    repo: &Repository,
    source: Source,
    options: &BackupOptions,
) -> BackupReport {
    let report = backup(repo, NAME, source, options, &()).await.unwrap();
    assert!(report.is_complete(), "{:?}", report.skipped);
    report
}

/// Restores a tree; everything about it must have been set.
pub(crate) async fn restore_tree(
    repo: &Repository,
    snapshot: &SessionId,
    to: &Path,
) -> RestoreReport {
    let target = RestoreTarget::Directory(to.into());
    let report = restore(repo, snapshot, target, &RestoreOptions::default(), &())
        .await
        .unwrap();
    assert!(
        report.is_complete(),
        "{:?} {:?}",
        report.skipped,
        report.unset
    );
    report
}

/// The bytes of a volume, a stream or one file, through a writer.
pub(crate) async fn bytes_of(
    repo: &Repository,
    snapshot: &SessionId,
    options: &RestoreOptions,
) -> Vec<u8> {
    let sink = Sink::default();
    let target = RestoreTarget::Writer(Box::new(sink.clone()));
    let report = restore(repo, snapshot, target, options, &()).await.unwrap();
    assert!(report.is_complete());
    let bytes = std::mem::take(&mut *sink.0.lock().unwrap());
    assert_eq!(report.bytes, bytes.len() as u64);
    bytes
}

/// Fails unless verify, reading all data, finds nothing.
pub(crate) async fn assert_sound(repo: &Repository) {
    let report = verify(repo, VerifyLevel::AllData, &()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!(report.packs, report.packs_read);
}

/// All objects of a repository with their lengths in bytes.
pub(crate) async fn objects(repo: &Repository) -> BTreeMap<String, u64> {
    let all = KeyPrefix::parse("").unwrap();
    let objects = repo.backend().list_all(&all).await.unwrap();
    objects
        .into_iter()
        .map(|o| (o.key.to_string(), o.len))
        .collect()
}

/// The number and the bytes of the objects under a prefix.
pub(crate) fn under(objects: &BTreeMap<String, u64>, prefix: &str) -> (usize, u64) {
    let lens = objects.iter().filter(|(name, _)| name.starts_with(prefix));
    lens.fold((0, 0), |(count, bytes), (_, len)| (count + 1, bytes + len))
}

/// A writer whose bytes can be had afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sink(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A clock that stands until it is set; in nanoseconds since the epoch.
#[derive(Debug, Clone, Default)]
pub(crate) struct SetClock(Arc<AtomicI64>);

impl SetClock {
    pub(crate) fn set(&self, now_ns: i64) {
        self.0.store(now_ns, Ordering::SeqCst);
    }

    pub(crate) fn env(&self) -> Env {
        let mut env = Env::default();
        env.clock = Arc::new(self.clone());
        env
    }
}

impl backup::Clock for SetClock {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}
