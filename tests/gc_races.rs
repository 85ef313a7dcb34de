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
use std::io::{self, Cursor, Read};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use backup::backup_backend::{
    BackendError, ByteRange, Bytes, Capabilities, DeleteResult, KeyPrefix, Memory, ObjectKey,
    ObjectMeta, PutMode, StorageBackend, StorageBackendExt, async_trait,
};
use backup::{
    BackupOptions, Forget, ForgetOptions, GcOptions, Repository, RestoreOptions, SessionId,
    SnapshotFilter, Source, backup, forget, gc, snapshots, unforget,
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
    store_stream(repo, name, Cursor::new(content.to_vec())).await
}

async fn store_stream(
    repo: &Repository,
    name: &str,
    stream: impl Read + Send + 'static,
) -> SessionId {
    let mut options = BackupOptions::default();
    options.pack_len = 1 << 20;
    options.block_len = 32 << 10;
    options.memory_len_max = 32 << 20;
    options.beat = Duration::from_millis(20);
    backup(repo, name, Source::stream(stream), &options, &())
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
    for manifest in snapshots(&repo, &SnapshotFilter::default()).await.unwrap() {
        if manifest.source == "c" {
            assert!(content(&repo, &manifest.session).await == bytes);
        }
    }
    assert_sound(&repo).await;
}

/// The collector has seen no session when this one is announced, and deletes when it has read what there is.
#[tokio::test]
async fn a_session_that_begins_within_a_round_knows_of_it() {
    let bytes = noise(600 << 10, 1);
    let (memory, repo, _) = with_garbage(&bytes).await;
    let (settled, is_settled) = channel();
    let (opened, is_open) = channel();
    let (deleted, has_deleted) = channel();
    let place = memory.clone();
    let begin = move || {
        let wait = move || {
            settled.send(()).unwrap();
            is_open.recv().unwrap();
        };
        let run = move || {
            elsewhere(async move {
                let collector = Meanwhile::open(&place, |key| key.ends_with("/final"), wait).await;
                gc(&collector, &at_once(), &()).await.unwrap();
                deleted.send(()).unwrap();
            });
        };
        std::thread::spawn(run);
        is_settled.recv().unwrap();
    };
    let writer = Meanwhile::open(&memory, |key| key.ends_with("/open"), begin).await;
    let wait = move || {
        opened.send(()).unwrap();
        has_deleted.recv().unwrap();
    };
    let stream = Then(Some(wait)).chain(Cursor::new(bytes.clone()));
    let made = store_stream(&writer, "b", stream).await;
    assert!(content(&repo, &made).await == bytes);
    assert_sound(&repo).await;
}

/// What it found and what it has stored, no snapshot needs when a collector comes.
#[tokio::test]
async fn what_a_session_relies_on_and_made_is_claimed() {
    let garbage = noise(600 << 10, 1);
    let (memory, repo, _) = with_garbage(&garbage).await;
    let other = open(memory.clone()).await;
    let (known, place) = (packs_but(&memory, &[]).await, memory.clone());
    let collect = move || {
        elsewhere(async move {
            // The first pack is held up, those after it are not.
            while packs_but(&place, &known).await.len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let report = gc(&other, &at_once(), &()).await.unwrap();
            assert!(report.packs_rescued > 2, "{report:?}");
        });
    };
    let writer = Meanwhile::open(&memory, |key| key.starts_with("packs/"), collect).await;
    let bytes = [garbage, noise(4 << 20, 2)].concat();
    let made = store(&writer, "b", &bytes).await;
    assert!(content(&repo, &made).await == bytes);
    assert_sound(&repo).await;
}

/// One that is announced just before the plan is there does not know it and is waited for.
#[tokio::test]
async fn a_session_that_begins_just_before_a_plan_is_waited_for() {
    let bytes = noise(600 << 10, 1);
    let (memory, repo, _) = with_garbage(&bytes).await;
    let (stores, has_begun) = channel();
    let (collected, may_go_on) = channel();
    let content_too = [bytes, noise(1 << 20, 2)].concat();
    let (place, all) = (memory.clone(), content_too.clone());
    let begin = move || {
        let wait = move || {
            stores.send(()).unwrap();
            may_go_on.recv().unwrap();
        };
        let run = async move {
            let writer = Meanwhile::open(&place, |key| key.starts_with("packs/"), wait).await;
            store(&writer, "b", &all).await;
        };
        std::thread::spawn(|| elsewhere(run));
        has_begun.recv().unwrap();
    };
    let collector = Meanwhile::open(&memory, |key| key.ends_with("/plan"), begin).await;
    let report = gc(&collector, &at_once(), &()).await.unwrap();
    assert!(report.sessions_awaited > 0, "{report:?}");
    collected.send(()).unwrap();
    let mut made = None;
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let all = snapshots(&repo, &SnapshotFilter::default()).await.unwrap();
        made = all.into_iter().find(|manifest| manifest.source == "b");
        if made.is_some() {
            break;
        }
    }
    let made = made.unwrap().session;
    assert!(content(&repo, &made).await == content_too);
    assert_sound(&repo).await;
}

/// Something that happens when a source has been read so far.
struct Then<F>(Option<F>);

impl<F: FnOnce()> Read for Then<F> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if let Some(what) = self.0.take() {
            what();
        }
        Ok(0)
    }
}

#[tokio::test]
async fn nothing_comes_to_rely_on_what_a_plan_has_condemned() {
    let garbage = noise(6 << 20, 1);
    let (memory, repo, _) = with_garbage(&garbage).await;
    let other = open(memory.clone()).await;
    let collect = move || {
        elsewhere(async move {
            let report = gc(&other, &at_once(), &()).await.unwrap();
            assert!(report.packs_deleted > 1, "{report:?}");
        });
    };
    let first = noise(600 << 10, 2);
    let stream = Cursor::new(first.clone()).chain(Then(Some(collect)));
    let stream = stream.chain(Cursor::new(garbage.clone()));
    let made = store_stream(&repo, "b", stream).await;
    assert!(content(&repo, &made).await == [first, garbage].concat());
    assert_sound(&repo).await;
}

/// The ids of all packs but these.
async fn packs_but(memory: &Memory, known: &[String]) -> Vec<String> {
    let prefix = KeyPrefix::parse("packs/").unwrap();
    let objects = memory.list_all(&prefix).await.unwrap().into_iter();
    let ids = objects.filter_map(|object| Some(object.key.as_str().rsplit_once('/')?.1.to_owned()));
    ids.filter(|id| !known.contains(id)).collect()
}

fn marks_of(packs: &[String]) -> Vec<ObjectKey> {
    let mark = |id: &String| ObjectKey::parse(format!("damaged/{id}")).unwrap();
    packs.iter().map(mark).collect()
}

async fn set_aside(memory: &Memory, packs: &[String]) {
    for mark in marks_of(packs) {
        let put = memory.put(&mark, Bytes::new(), PutMode::Create);
        put.await.unwrap();
    }
}

/// Of two copies one collector chose to keep the one, and another collector, meanwhile, the other.
#[tokio::test]
async fn two_collectors_do_not_delete_one_copy_each() {
    for keep_old in [false, true] {
        let (memory, repo, _) = with_garbage(&noise(600 << 10, 1)).await;
        let bytes = noise(300 << 10, 3);
        let known = packs_but(&memory, &[]).await;
        let one = store(&repo, "b", &bytes).await;
        let old = packs_but(&memory, &known).await;
        set_aside(&memory, &old).await;
        let two = store(&repo, "c", &bytes).await;
        let new = packs_but(&memory, &[known, old.clone()].concat()).await;
        assert_eq!(old.len(), new.len());
        memory.delete(&marks_of(&old)).await.unwrap();
        let (other, place) = (open(memory.clone()).await, memory.clone());
        let collect = move || {
            elsewhere(async move {
                set_aside(&place, if keep_old { &new } else { &old }).await;
                let report = gc(&other, &at_once(), &()).await.unwrap();
                assert!(report.packs_deleted > 1, "{report:?}");
            });
        };
        // All is marked by then, and no plan is there.
        let collector = Meanwhile::open(&memory, |key| key.starts_with("retired/"), collect).await;
        gc(&collector, &at_once(), &()).await.unwrap();
        for id in [one, two] {
            assert!(content(&repo, &id).await == bytes);
        }
        assert_sound(&repo).await;
    }
}
