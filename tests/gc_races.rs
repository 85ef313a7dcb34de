//! What others do in the middle of a collector's run, or of a session's, in the very moments that count.
#![allow(
    clippy::field_reassign_with_default,
    reason = "options are made that way outside of their crate"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

mod common;

use std::fmt;
use std::future::Future;
use std::io::Cursor;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use backup::backup_backend::{
    BackendError, ByteRange, Bytes, Capabilities, DeleteResult, KeyPrefix, Memory, ObjectKey,
    ObjectMeta, PutMode, StorageBackend, async_trait,
};
use backup::{
    BackupOptions, Forget, ForgetOptions, GcOptions, Repository, RestoreOptions, SessionId, Source,
    backup, forget, gc, unforget,
};
use common::data::noise;
use common::{assert_sound, bytes_of, create, open};
use futures::stream::BoxStream;

/// Lets something happen just before the first put of a certain name.
struct Meanwhile {
    inner: Memory,
    is_it: fn(&str) -> bool,
    what: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Meanwhile {
    async fn open(
        inner: &Memory,
        is_it: fn(&str) -> bool,
        what: impl FnOnce() + Send + 'static,
    ) -> Repository {
        open(Self {
            inner: inner.clone(),
            is_it,
            what: Mutex::new(Some(Box::new(what))),
        })
        .await
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

#[async_trait]
impl StorageBackend for Meanwhile {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        if (self.is_it)(key.as_str()) {
            let what = self.what.lock().unwrap().take();
            if let Some(what) = what {
                tokio::task::spawn_blocking(what).await.unwrap();
            }
        }
        self.inner.put(key, bytes, mode).await
    }
    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        self.inner.get(key, range).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        self.inner.head(key).await
    }
    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        self.inner.list(prefix)
    }
    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        self.inner.delete(keys).await
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

/// Runs it to its end, in a world of its own.
fn elsewhere(what: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(what);
}

fn at_once() -> GcOptions {
    let mut options = GcOptions::default();
    options.pack_age_min = Duration::ZERO;
    options.undelete_window = Duration::ZERO;
    options.requests_per_second = None;
    options.poll = Duration::from_millis(1);
    options.repack_len_max = 0;
    options.delete_percent_max = 100;
    options
}

fn memory() -> Memory {
    Memory::new().with_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000))
}

async fn store(repo: &Repository, name: &str, content: &[u8]) -> SessionId {
    let mut options = BackupOptions::default();
    options.pack_len = 1 << 20;
    options.block_len = 32 << 10;
    options.memory_len_max = 32 << 20;
    let source = Source::stream(Cursor::new(content.to_vec()));
    backup(repo, name, source, &options, &())
        .await
        .unwrap()
        .snapshot
}

async fn content(repo: &Repository, id: &SessionId) -> Vec<u8> {
    bytes_of(repo, id, &RestoreOptions::default()).await
}

/// A store with a snapshot that is given up and one that is not.
async fn with_garbage(garbage: &[u8]) -> (Memory, Repository, SessionId) {
    let memory = memory();
    let repo = create(memory.clone()).await;
    let given_up = store(&repo, "a", garbage).await;
    store(&repo, "a", &noise(300 << 10, 99)).await;
    let what = Forget::These(vec![given_up]);
    let done = forget(&repo, &what, &ForgetOptions::default()).await;
    assert_eq!(done.unwrap().forgotten, [given_up]);
    (memory, repo, given_up)
}

#[tokio::test]
async fn a_snapshot_that_is_taken_back_meanwhile_is_not_dropped() {
    let bytes = noise(600 << 10, 1);
    let (memory, repo, given_up) = with_garbage(&bytes).await;
    let other = open(memory.clone()).await;
    let take_back = move || {
        elsewhere(async move { assert!(unforget(&other, &given_up).await.unwrap()) });
    };
    let collector = Meanwhile::open(&memory, |key| key.starts_with("retired/"), take_back).await;
    let report = gc(&collector, &at_once(), &()).await.unwrap();
    assert!(report.snapshots_dropped.is_empty(), "{report:?}");
    assert!(content(&repo, &given_up).await == bytes);
    assert_sound(&repo).await;
}

/// Another collector has rescued a pack, and ended the round; since then somebody relies on that pack.
#[tokio::test]
async fn the_first_final_list_counts() {
    let bytes = noise(600 << 10, 1);
    let (memory, repo, _) = with_garbage(&bytes).await;
    let (other, again) = (open(memory.clone()).await, bytes.clone());
    let help = move || {
        elsewhere(async move {
            store(&other, "b", &again[..200 << 10]).await;
            let mut options = at_once();
            options.pack_age_min = Duration::from_secs(1000);
            let report = gc(&other, &options, &()).await.unwrap();
            assert!(report.packs_rescued > 0, "{report:?}");
            store(&other, "c", &again).await;
        })
    };
    let collector = Meanwhile::open(&memory, |key| key.ends_with("final"), help).await;
    gc(&collector, &at_once(), &()).await.unwrap();
    for manifest in backup::snapshots(&repo, &Default::default()).await.unwrap() {
        if manifest.source == "c" {
            assert!(content(&repo, &manifest.session).await == bytes);
        }
    }
    assert_sound(&repo).await;
}
