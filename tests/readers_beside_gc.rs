//! A reader holds nothing: what a collector moves while it reads, it finds again.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use backup::backup_backend::{
    BackendError, ByteRange, Bytes, Capabilities, DeleteResult, KeyPrefix, Memory, ObjectKey,
    ObjectMeta, PutMode, StorageBackend, async_trait,
};
use backup::{
    BackupOptions, Forget, ForgetOptions, GcOptions, GcReport, Repository, RestoreOptions,
    SessionId, Source, backup, forget, gc,
};
use common::compare::assert_same;
use common::data::noise;
use common::{bytes_of, create, open, restore_tree};
use futures::stream::BoxStream;
use tempfile::TempDir;

/// Lets a collector run, to its end, before the n-th read of a pack.
#[derive(Debug, Clone)]
struct Interrupting {
    inner: Memory,
    reads_left: Arc<AtomicU64>,
}

#[async_trait]
impl StorageBackend for Interrupting {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        self.inner.put(key, bytes, mode).await
    }
    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let is_pack = key.as_str().starts_with("packs/");
        if is_pack && self.reads_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let report = collect(&open(self.inner.clone()).await).await;
            assert!(report.packs_deleted > 0 && report.packs_repacked > 0);
        }
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

async fn collect(repo: &Repository) -> GcReport {
    let mut options = GcOptions::default();
    options.pack_age_min = Duration::ZERO;
    options.undelete_window = Duration::ZERO;
    options.requests_per_second = None;
    options.delete_percent_max = 100;
    options.repack_dead_percent_min = 10;
    gc(repo, &options, &()).await.unwrap()
}

async fn store(repo: &Repository, source: Source) -> SessionId {
    let mut options = BackupOptions::default();
    options.pack_len = 128 << 10;
    options.block_len = 32 << 10;
    options.memory_len_max = 64 << 20;
    let report = backup(repo, "source", source, &options, &()).await.unwrap();
    assert!(report.is_complete());
    report.snapshot
}

/// A store in which a collector will pack anew what the last snapshot needs.
async fn store_with_garbage(first: Source, second: Source) -> (Memory, SessionId) {
    let memory =
        Memory::new().with_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000));
    let repo = create(memory.clone()).await;
    let old = store(&repo, first).await;
    let kept = store(&repo, second).await;
    let what = Forget::These(vec![old]);
    forget(&repo, &what, &ForgetOptions::default())
        .await
        .unwrap();
    (memory, kept)
}

fn interrupting(memory: &Memory, nth: u64) -> Interrupting {
    Interrupting {
        inner: memory.clone(),
        reads_left: Arc::new(AtomicU64::new(nth)),
    }
}

#[tokio::test]
async fn a_tree_is_restored_while_all_its_packs_move() {
    let scratch = TempDir::new().unwrap();
    let (old, new) = (scratch.path().join("old"), scratch.path().join("new"));
    for (root, step) in [(&old, 1), (&new, 2)] {
        fs::create_dir(root).unwrap();
        for n in (0..40).step_by(step) {
            fs::write(root.join(format!("{n}")), noise(20 << 10, n as u64)).unwrap();
        }
        fs::write(root.join("large"), noise((300 << 10) / step, 99)).unwrap();
    }
    let mut interrupted = 0;
    for nth in 1.. {
        let (memory, kept) = store_with_garbage(Source::tree(&old), Source::tree(&new)).await;
        let backend = interrupting(&memory, nth);
        let target = scratch.path().join(format!("restored {nth}"));
        restore_tree(&open(backend.clone()).await, &kept, &target).await;
        assert_same(&new, &target);
        let left = backend.reads_left.load(Ordering::SeqCst);
        if left > 0 && left <= nth {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted > 8, "only {interrupted} reads of packs");
}

#[tokio::test]
async fn a_stream_is_restored_while_all_its_packs_move() {
    let old = noise(900 << 10, 1);
    let new: Vec<u8> = old
        .chunks(100 << 10)
        .flat_map(|part| &part[..60 << 10])
        .copied()
        .collect();
    for nth in 1.. {
        let stream = |bytes: &Vec<u8>| Source::stream(std::io::Cursor::new(bytes.clone()));
        let (memory, kept) = store_with_garbage(stream(&old), stream(&new)).await;
        let backend = interrupting(&memory, nth);
        let repo = open(backend.clone()).await;
        assert!(bytes_of(&repo, &kept, &RestoreOptions::default()).await == new);
        let left = backend.reads_left.load(Ordering::SeqCst);
        if left > 0 && left <= nth {
            assert!(nth > 5, "only {nth} reads of packs");
            break;
        }
    }
}
