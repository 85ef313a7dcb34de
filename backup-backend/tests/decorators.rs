//! Retrying, limiting, counting and failing, on a clock that stands still.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test]"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use backup_backend::testing::{Fault, FaultPoint, Faulty, Operation};
use backup_backend::{
    BackendError, BoxStream, ByteRange, Bytes, Capabilities, Counting, DeleteResult, ErrorKind,
    KeyPrefix, Limiting, Limits, Memory, ObjectKey, ObjectMeta, PutMode, RetryPolicy, Retrying,
    StorageBackend, StorageBackendExt,
};
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

type Flaky = Retrying<Faulty<Memory>>;

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

// With the smallest jitter: delays are exactly half of what the policy says.
fn flaky() -> Flaky {
    let memory = Memory::new().with_page_len(2);
    Retrying::with_jitter(Faulty::new(memory), RetryPolicy::default(), Arc::new(|| 0))
}

fn fail(store: &Flaky, operation: Operation, nths: &[u64], point: FaultPoint) {
    for nth in nths {
        store.inner().fail(Fault {
            operation,
            nth: *nth,
            point,
            kind: ErrorKind::Unavailable,
        });
    }
}

async fn put(
    store: &impl StorageBackend,
    name: &str,
    bytes: &'static str,
    mode: PutMode,
) -> Result<(), ErrorKind> {
    store
        .put(&key(name), Bytes::from(bytes), mode)
        .await
        .map_err(|error| error.kind())
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_was_lost_finds_its_own_bytes() {
    for point in [FaultPoint::BeforeEffect, FaultPoint::AfterEffect] {
        let store = flaky();
        fail(&store, Operation::Put, &[1, 2], point);
        fail(&store, Operation::Get, &[1], point);
        put(&store, "a", "mine", PutMode::Create).await.unwrap();
        assert_eq!(store.get(&key("a"), None).await.unwrap(), "mine");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_after_a_lost_answer_does_not_take_others_bytes_for_its_own() {
    for other in ["else", "longer than mine"] {
        let store = flaky();
        put(store.inner().inner(), "a", other, PutMode::Create)
            .await
            .unwrap();
        fail(&store, Operation::Put, &[1], FaultPoint::BeforeEffect);
        assert_eq!(
            put(&store, "a", "mine", PutMode::Create).await,
            Err(ErrorKind::AlreadyExists)
        );
        assert_eq!(store.get(&key("a"), None).await.unwrap(), other);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_arrive_late_is_sent_once() {
    for point in [FaultPoint::BeforeEffect, FaultPoint::AfterEffect] {
        let store = flaky();
        fail(&store, Operation::Put, &[1], point);
        let sent = put(&store, "a", "mine", PutMode::CreateOnce).await;
        assert_eq!(sent, Err(ErrorKind::Unavailable));
        assert_eq!(store.inner().calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_create_that_finds_equal_bytes_is_refused() {
    let store = flaky();
    put(&store, "a", "same", PutMode::Create).await.unwrap();
    assert_eq!(
        put(&store, "a", "same", PutMode::Create).await,
        Err(ErrorKind::AlreadyExists)
    );
}

#[tokio::test(start_paused = true)]
async fn delays_double_and_attempts_end() {
    let begin = Instant::now();
    let store = flaky();
    fail(
        &store,
        Operation::Get,
        &[1, 2, 3, 4, 5],
        FaultPoint::BeforeEffect,
    );
    assert_eq!(
        store.get(&key("a"), None).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // Half of 200, 400, 800 and 1,600 ms.
    assert_eq!(begin.elapsed(), Duration::from_millis(1500));
    assert_eq!(store.inner().calls().len(), 5);
    assert_eq!(
        store.get(&key("a"), None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(store.inner().calls().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_change_is_not_tried_again() {
    for kind in [
        ErrorKind::PermissionDenied,
        ErrorKind::StorageFull,
        ErrorKind::Io,
        ErrorKind::NotFound,
    ] {
        let store = flaky();
        store.inner().fail(Fault {
            operation: Operation::Head,
            nth: 1,
            point: FaultPoint::BeforeEffect,
            kind,
        });
        assert_eq!(store.head(&key("a")).await.unwrap_err().kind(), kind);
        assert_eq!(store.inner().calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_breaks_off_goes_on_without_doubles() {
    for point in [FaultPoint::BeforeEffect, FaultPoint::AfterEffect] {
        for nths in [&[1_u64][..], &[2], &[3, 4], &[1, 3, 6], &[4, 5, 6, 7]] {
            let store = flaky();
            let names = ["a", "b/1", "b/2", "c", "d", "e", "f"];
            for name in names {
                put(&store, name, "x", PutMode::Create).await.unwrap();
            }
            fail(&store, Operation::List, nths, point);
            let pages: Vec<Vec<ObjectMeta>> =
                store.list(&KeyPrefix::all()).try_collect().await.unwrap();
            let shown: Vec<&str> = pages
                .iter()
                .flatten()
                .map(|meta| meta.key.as_str())
                .collect();
            assert_eq!(shown, names, "{nths:?} {point:?}");
            assert!(pages.iter().all(|page| !page.is_empty()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn deletes_are_tried_again_key_by_key() {
    let store = flaky();
    for name in ["a", "b"] {
        put(&store, name, "x", PutMode::Create).await.unwrap();
    }
    fail(&store, Operation::Delete, &[1, 2], FaultPoint::AfterEffect);
    let results = store
        .delete(&[key("a"), key("never"), key("b")])
        .await
        .unwrap();
    assert!(results.len() == 3 && results.iter().all(Result::is_ok));
    assert!(store.inner().inner().is_empty());
    fail(
        &store,
        Operation::Delete,
        &[4, 5, 6, 7, 8],
        FaultPoint::BeforeEffect,
    );
    assert_eq!(
        store.delete(&[key("a")]).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

/// Answers each call in its own bad way.
#[derive(Debug)]
struct Bad;

#[async_trait]
impl StorageBackend for Bad {
    async fn put(&self, key: &ObjectKey, _: Bytes, _: PutMode) -> Result<(), BackendError> {
        let error = BackendError::new(ErrorKind::Throttled, "put", key.as_str());
        Err(error.with_retry_after(Duration::from_secs(60)))
    }
    async fn get(&self, _: &ObjectKey, _: Option<ByteRange>) -> Result<Bytes, BackendError> {
        std::future::pending().await
    }
    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        Ok(ObjectMeta {
            key: key.clone(),
            len: 0,
            modified: Some(SystemTime::UNIX_EPOCH),
        })
    }
    fn list<'a>(&'a self, _: &KeyPrefix) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let pages = ["a", "c", "b"].map(|name| {
            Ok(vec![ObjectMeta {
                key: key(name),
                len: 0,
                modified: None,
            }])
        });
        futures::stream::iter(pages).boxed()
    }
    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let fail = |key: &ObjectKey| match key.as_str() {
            "busy" => Err(BackendError::new(
                ErrorKind::Unavailable,
                "delete",
                key.as_str(),
            )),
            "locked" => Err(BackendError::new(
                ErrorKind::PermissionDenied,
                "delete",
                key.as_str(),
            )),
            _ => Ok(()),
        };
        Ok(keys.iter().map(fail).collect())
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_left_alone_as_long_as_it_asks() {
    let begin = Instant::now();
    let store = Counting::new(Bad);
    let retrying = Retrying::new(&store, RetryPolicy::default());
    assert_eq!(
        put(&retrying, "a", "x", PutMode::Create).await,
        Err(ErrorKind::Throttled)
    );
    assert_eq!(
        (begin.elapsed(), store.counts().put.calls),
        (Duration::from_secs(240), 5)
    );
}

#[tokio::test(start_paused = true)]
async fn one_throttled_call_holds_up_all_of_them() {
    let begin = Instant::now();
    let store = flaky();
    put(&store, "a", "here", PutMode::Create).await.unwrap();
    store.inner().fail(Fault {
        operation: Operation::Head,
        nth: 1,
        point: FaultPoint::BeforeEffect,
        kind: ErrorKind::Throttled,
    });
    let (name, other) = (key("a"), store.clone());
    let throttled = store.head(&name);
    let later = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let got = other.get(&name, None).await;
        (got, begin.elapsed())
    };
    let (head, (got, got_after)) = futures::join!(throttled, later);
    assert!(head.is_ok() && got.is_ok());
    // Half of 200 ms, as the other call had to wait.
    assert_eq!(got_after, Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_its_deadline() {
    let begin = Instant::now();
    let mut policy = RetryPolicy::default();
    policy.elapsed_ms_max = 10_000;
    let store = Retrying::new(Bad, policy);
    assert_eq!(
        store.get(&key("a"), None).await.unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    assert_eq!(begin.elapsed(), Duration::from_secs(10));
    // Asked to wait a minute with ten seconds left, it gives up at once.
    assert_eq!(
        put(&store, "a", "x", PutMode::Create).await,
        Err(ErrorKind::Throttled)
    );
    assert_eq!(begin.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn one_bad_key_does_not_hide_the_others() {
    let store = Counting::new(Bad);
    let retrying = Retrying::new(&store, RetryPolicy::default());
    let keys = ["fine", "busy", "locked", "fine"].map(key);
    let results = retrying.delete(&keys).await.unwrap();
    let kinds: Vec<_> = results
        .into_iter()
        .map(|result| result.map_err(|error| error.kind()))
        .collect();
    assert_eq!(
        kinds,
        [
            Ok(()),
            Err(ErrorKind::Unavailable),
            Err(ErrorKind::PermissionDenied),
            Ok(())
        ]
    );
    assert_eq!(store.counts().delete.calls, 5);
}

#[tokio::test(start_paused = true)]
async fn a_listing_out_of_order_is_found_out() {
    let store = Retrying::new(Bad, RetryPolicy::default());
    assert_eq!(
        store.list_all(&KeyPrefix::all()).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_and_requests_keep_to_their_rates() {
    let mut limits = Limits::default();
    limits.bytes_per_second = Some(1000);
    let store = Limiting::new(Memory::new(), limits);
    let begin = Instant::now();
    for n in 0..11 {
        store
            .put(
                &key(&format!("{n}")),
                Bytes::from(vec![0; 1000]),
                PutMode::Create,
            )
            .await
            .unwrap();
    }
    // One second's worth is in the bucket at the start, and the last put does not wait for itself.
    assert_eq!(begin.elapsed().as_secs(), 9);
    for n in 0..10 {
        store.get(&key(&format!("{n}")), None).await.unwrap();
    }
    assert_eq!(begin.elapsed().as_secs(), 19);

    let mut limits = Limits::default();
    limits.requests_per_second = Some(10);
    let store = Limiting::new(Memory::new(), limits);
    let begin = Instant::now();
    let same = key("the/same");
    let heads = (0..60).map(|_| store.exists(&same));
    futures::future::try_join_all(heads).await.unwrap();
    assert_eq!(begin.elapsed().as_millis() / 100, 49);
}

#[tokio::test]
async fn every_call_is_counted() {
    let store = Counting::new(Memory::new().with_page_len(2));
    for name in ["a", "b", "c"] {
        put(&store, name, "12345", PutMode::Create).await.unwrap();
    }
    put(&store, "a", "12345", PutMode::Create)
        .await
        .unwrap_err();
    store
        .get(&key("a"), Some(ByteRange { start: 1, len: 3 }))
        .await
        .unwrap();
    store.head(&key("nothing")).await.unwrap_err();
    store.list_all(&KeyPrefix::all()).await.unwrap();
    store
        .list_all(&KeyPrefix::parse("no/").unwrap())
        .await
        .unwrap();
    store.delete(&["a", "b", "x"].map(key)).await.unwrap();
    let (counters, total) = (store.counters(), store.counts().total());
    drop(store);
    let counts = counters.counts();
    assert_eq!(
        (
            counts.put.calls,
            counts.put.failures,
            counts.put.items,
            counts.put.bytes
        ),
        (4, 1, 3, 15)
    );
    assert_eq!((counts.get.calls, counts.get.bytes), (1, 3));
    assert_eq!((counts.head.calls, counts.head.failures), (1, 1));
    assert_eq!((counts.list.calls, counts.list.items), (3, 3));
    assert_eq!((counts.delete.calls, counts.delete.items), (1, 3));
    assert_eq!((total.calls, total.failures, total.bytes), (10, 2, 18));
}

#[tokio::test]
async fn the_dead_do_nothing_until_they_are_healed() {
    for (point, there) in [
        (FaultPoint::BeforeEffect, false),
        (FaultPoint::AfterEffect, true),
    ] {
        let store = Faulty::new(Memory::new());
        put(&store, "a", "x", PutMode::Create).await.unwrap();
        store.die_at(2, point);
        assert_eq!(
            put(&store, "b", "x", PutMode::Create).await,
            Err(ErrorKind::Io)
        );
        assert_eq!(
            put(&store, "c", "x", PutMode::Create).await,
            Err(ErrorKind::Io)
        );
        assert!(store.get(&key("a"), None).await.is_err());
        assert!(store.list_all(&KeyPrefix::all()).await.is_err());
        store.heal();
        assert_eq!(store.exists(&key("b")).await.unwrap(), there);
        assert!(!store.exists(&key("c")).await.unwrap());
        let failed: Vec<bool> = store
            .calls()
            .iter()
            .map(|call| call.fault.is_some())
            .collect();
        assert_eq!(failed, [false, true, true, true, true, false, false]);
    }
}

#[tokio::test]
async fn an_idempotent_put_survives_a_lost_answer() {
    for point in [FaultPoint::BeforeEffect, FaultPoint::AfterEffect] {
        let store = Faulty::new(Memory::new());
        store.fail(Fault {
            operation: Operation::Put,
            nth: 1,
            point,
            kind: ErrorKind::TimedOut,
        });
        store
            .put_idempotent(&key("a"), Bytes::from("mine"))
            .await
            .unwrap();
        assert_eq!(store.get(&key("a"), None).await.unwrap(), "mine");
        let refused = store
            .put_idempotent(&key("a"), Bytes::from("else"))
            .await
            .unwrap_err();
        assert_eq!(
            (refused.kind(), refused.key()),
            (ErrorKind::AlreadyExists, "a")
        );
    }
}
