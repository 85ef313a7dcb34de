//! A store that hides, cuts, doubles or damages what a collector looks at: nothing that anybody needs is deleted.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    clippy::too_many_lines,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

mod common;

use std::fmt;
use std::io::Cursor;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use backup::backup_backend::{
    BackendError, ByteRange, Bytes, Capabilities, DeleteResult, ErrorKind, KeyPrefix, Memory,
    ObjectKey, ObjectMeta, PutMode, StorageBackend, StorageBackendExt, async_trait,
};
use backup::{
    BackupOptions, Error, Forget, ForgetOptions, GcOptions, Repository, RestoreOptions, SessionId,
    Source, backup, forget, gc,
};
use common::data::noise;
use common::{assert_sound, bytes_of, create, open};
use futures::stream::{BoxStream, StreamExt};

/// What a lying store does to a listing.
type Lie = dyn Fn(Vec<ObjectMeta>) -> Vec<ObjectMeta> + Send + Sync;

/// Tells listings as it likes; everything else is true.
struct Lying {
    inner: Memory,
    /// `None` until the repository is open: a lie about its keys would end it there.
    lie: Arc<OnceLock<Box<Lie>>>,
    /// Refuses to delete packs.
    keeps_packs: bool,
}

impl Lying {
    /// Opens a repository that is lied to from then on.
    async fn open(
        inner: &Memory,
        lie: impl Fn(Vec<ObjectMeta>) -> Vec<ObjectMeta> + Send + Sync + 'static,
    ) -> Repository {
        let inner = inner.clone();
        let told = Arc::new(OnceLock::new());
        let repo = open(Self {
            inner,
            lie: told.clone(),
            keeps_packs: false,
        })
        .await;
        drop(told.set(Box::new(lie) as Box<Lie>));
        repo
    }
}

impl fmt::Debug for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lying").finish_non_exhaustive()
    }
}

#[async_trait]
impl StorageBackend for Lying {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
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
        let all = self.inner.list(prefix);
        let pages = all.map(|page| {
            page.map(|page| match self.lie.get() {
                Some(lie) => lie(page),
                None => page,
            })
        });
        let filled = pages
            .filter(|page| std::future::ready(page.as_ref().map_or(true, |page| !page.is_empty())));
        filled.boxed()
    }
    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let mut results = Vec::new();
        for key in keys {
            let is_kept = self.keeps_packs && key.as_str().starts_with("packs/");
            results.push(match is_kept {
                true => {
                    let kind = ErrorKind::PermissionDenied;
                    Err(BackendError::new(kind, "delete", key.as_str()))
                }
                false => self.inner.delete_one(key).await,
            });
        }
        Ok(results)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

fn at_once() -> GcOptions {
    let mut options = GcOptions::default();
    options.pack_age_min = Duration::ZERO;
    options.undelete_window = Duration::ZERO;
    options.lease = Duration::ZERO;
    options.requests_per_second = None;
    options.poll = Duration::from_millis(1);
    options.delete_percent_max = 100;
    options
}

async fn store(repo: &Repository, name: &str, content: &[u8]) -> SessionId {
    let mut options = BackupOptions::default();
    options.pack_len = 64 << 10;
    options.block_len = 32 << 10;
    options.memory_len_max = 32 << 20;
    let source = Source::stream(Cursor::new(content.to_vec()));
    backup(repo, name, source, &options, &())
        .await
        .unwrap()
        .snapshot
}

async fn give_up(repo: &Repository, id: SessionId) {
    let what = Forget::These(vec![id]);
    forget(repo, &what, &ForgetOptions::default())
        .await
        .unwrap();
}

/// A store with snapshots of two sources, some of them collected before, and one more forgotten.
async fn full_store() -> (Memory, Vec<(SessionId, Vec<u8>)>) {
    let memory =
        Memory::new().with_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000));
    let repo = create(memory.clone()).await;
    let mut kept = Vec::new();
    let old = store(&repo, "a", &noise(200 << 10, 1)).await;
    for (source, seed) in [("a", 2), ("b", 3), ("a", 4)] {
        let content = [noise(100 << 10, 1), noise(100 << 10, seed)].concat();
        kept.push((store(&repo, source, &content).await, content));
    }
    give_up(&repo, old).await;
    let mut tidy = at_once();
    tidy.repack_len_max = 0;
    assert!(gc(&repo, &tidy, &()).await.unwrap().packs_deleted > 0);
    let gone = store(&repo, "b", &noise(200 << 10, 5)).await;
    for (source, seed) in [("b", 6), ("c", 7)] {
        let content = noise(150 << 10, seed);
        kept.push((store(&repo, source, &content).await, content));
    }
    // Nothing of its own is in it but its cell.
    let content = kept[0].1.clone();
    kept.push((store(&repo, "d", &content).await, content));
    give_up(&repo, gone).await;
    (memory, kept)
}

async fn keys(memory: &Memory, prefix: &str) -> Vec<ObjectKey> {
    let prefix = KeyPrefix::parse(prefix).unwrap();
    let objects = memory.list_all(&prefix).await.unwrap();
    objects.into_iter().map(|object| object.key).collect()
}

/// Runs a collector over a lying store, and says whether it deleted any pack. Everything kept must be there afterwards.
async fn collect(
    lie: impl Fn(Vec<ObjectMeta>) -> Vec<ObjectMeta> + Send + Sync + 'static,
) -> (Result<(), Error>, bool) {
    let (memory, kept) = full_store().await;
    let before = keys(&memory, "packs/").await;
    let repo = Lying::open(&memory, lie).await;
    let result = gc(&repo, &at_once(), &()).await.map(drop);
    let after = keys(&memory, "packs/").await;
    let deleted = before.iter().any(|key| !after.contains(key));
    check(&memory, &kept).await;
    (result, deleted)
}

async fn check(memory: &Memory, kept: &[(SessionId, Vec<u8>)]) {
    let repo = open(memory.clone()).await;
    for (id, content) in kept {
        assert!(bytes_of(&repo, id, &RestoreOptions::default()).await == *content);
    }
    assert_sound(&repo).await;
}

#[tokio::test]
async fn an_honest_store_loses_only_garbage() {
    let (result, deleted) = collect(|page| page).await;
    result.unwrap();
    assert!(deleted);
}

#[tokio::test]
async fn a_hidden_cell_stops_a_collector() {
    let (memory, kept) = full_store().await;
    for (id, _) in &kept {
        let hidden = format!("snapshots/{id}");
        let before = keys(&memory, "packs/").await;
        let lie = {
            let hidden = hidden.clone();
            move |mut page: Vec<ObjectMeta>| {
                page.retain(|object| object.key.as_str() != hidden);
                page
            }
        };
        let repo = Lying::open(&memory, lie).await;
        let result = gc(&repo, &at_once(), &()).await;
        assert!(
            matches!(result, Err(Error::Suspicious { .. })),
            "{hidden} is hidden: {result:?}"
        );
        assert_eq!(keys(&memory, "packs/").await, before, "{hidden} is hidden");
    }
    check(&memory, &kept).await;
}

#[tokio::test]
async fn no_single_hidden_object_costs_anything_that_is_needed() {
    let (memory, _) = full_store().await;
    for hidden in keys(&memory, "").await {
        let name = hidden.to_string();
        let (result, _) = collect(move |mut page| {
            page.retain(|object| object.key.as_str() != name);
            page
        })
        .await;
        drop(result);
    }
}

#[tokio::test]
async fn a_listing_that_is_cut_or_doubled_deletes_nothing() {
    let (memory, _) = full_store().await;
    let count = keys(&memory, "").await.len();
    // Cells come last. A listing of nothing but cells is shorter than the cut, and shows those that the first one hid: like
    // new ones, which rescue what they need.
    let cells = keys(&memory, "snapshots/").await.len();
    for kept in 0..count {
        let (result, deleted) = collect(move |mut page| {
            page.truncate(kept);
            page
        })
        .await;
        let is_harmless = kept >= count - cells;
        assert!(!deleted || is_harmless, "cut after {kept} of {count}");
        drop(result);
    }
    for doubled in [1, 3, count / 2] {
        let (result, deleted) = collect(move |mut page| {
            if let Some(object) = page.get(doubled).cloned() {
                page.push(object);
            }
            page
        })
        .await;
        assert!(matches!(result, Err(Error::Suspicious { .. })));
        assert!(!deleted);
    }
}

#[tokio::test]
async fn one_unreadable_cell_or_list_stops_a_collector() {
    let (memory, kept) = full_store().await;
    for (id, _) in &kept {
        let key = ObjectKey::parse(format!("snapshots/{id}")).unwrap();
        let sound = memory.get(&key, None).await.unwrap();
        let mut damaged = sound.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        let overwrite = PutMode::Overwrite;
        memory.put(&key, damaged.into(), overwrite).await.unwrap();
        let before = keys(&memory, "packs/").await;
        let repo = open(memory.clone()).await;
        let result = gc(&repo, &at_once(), &()).await;
        assert!(matches!(result, Err(Error::Damaged { .. })), "{result:?}");
        assert_eq!(keys(&memory, "packs/").await, before);
        memory.put(&key, sound, overwrite).await.unwrap();
    }
    check(&memory, &kept).await;
}

/// What was needed of a pack and cannot be read any more must not make others go.
#[tokio::test]
async fn one_unreadable_pack_makes_no_other_pack_go() {
    let (memory, _) = full_store().await;
    for number in 0..keys(&memory, "packs/").await.len() {
        let (memory, kept) = full_store().await;
        let before = keys(&memory, "packs/").await;
        let Some(key) = before.get(number) else { break };
        let sound = memory.get(key, None).await.unwrap();
        let half = sound.slice(..sound.len() / 2);
        memory.put(key, half, PutMode::Overwrite).await.unwrap();
        let result = gc(&open(memory.clone()).await, &at_once(), &()).await;
        let after = keys(&memory, "packs/").await;
        assert!(after.contains(key), "{key}: {result:?}");
        memory.put(key, sound, PutMode::Overwrite).await.unwrap();
        check(&memory, &kept).await;
    }
}

#[tokio::test]
async fn a_round_is_not_done_while_a_pack_cannot_be_deleted() {
    let (memory, kept) = full_store().await;
    let done = |keys: &[ObjectKey]| {
        keys.iter()
            .filter(|key| key.as_str().ends_with("done"))
            .count()
    };
    let before = keys(&memory, "gc/").await;
    let repo = open(Lying {
        inner: memory.clone(),
        lie: Arc::default(),
        keeps_packs: true,
    })
    .await;
    let report = gc(&repo, &at_once(), &()).await.unwrap();
    assert!(!report.undeletable.is_empty());
    assert_eq!((report.packs_deleted, report.is_complete()), (0, false));
    let after = keys(&memory, "gc/").await;
    assert!(after.len() > before.len());
    assert_eq!(done(&after), done(&before), "{after:?}");

    let repo = open(memory.clone()).await;
    let report = gc(&repo, &at_once(), &()).await.unwrap();
    assert!(report.is_complete() && report.packs_deleted > 0);
    check(&memory, &kept).await;
}
