//! A store that cuts, delays, forgets and lies: every fault is masked or has a name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

#[path = "../../tests/s3_support/mod.rs"]
mod s3_support;

use std::sync::Arc;
use std::time::Duration;

use backup_backend::{
    BackendError, ByteRange, Bytes, ErrorKind, KeyPrefix, ObjectKey, PutMode, RetryPolicy,
    Retrying, StorageBackend, StorageBackendExt,
};
use backup_backend_s3::{ObjectRule, Retention, RetentionMode, S3, S3Config};
use s3_support::Bucket;
use s3_support::proxy::{Fault, Proxy};

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

fn quick(config: S3Config) -> S3 {
    let mut config = config;
    config.answer_ms_max = 1_000;
    S3::new(config).unwrap()
}

fn patient(store: S3) -> Retrying<S3> {
    let mut policy = RetryPolicy::default();
    policy.delay_ms_base = 10;
    Retrying::new(store, policy)
}

/// The first request of `method` meets `fault`, the others pass.
fn once(method: &'static str, fault: Fault) -> impl Fn(u64, &str, &str) -> Fault + Send + Sync {
    let met = std::sync::atomic::AtomicBool::new(false);
    move |_, asked, _| {
        let is_it = asked == method && !met.swap(true, std::sync::atomic::Ordering::Relaxed);
        if is_it { fault } else { Fault::None }
    }
}

const CONTENT: &[u8] = &[7; 100_000];

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_once_to_a_put_is_masked() {
    let bucket = Bucket::new();
    for (number, fault) in [
        Fault::LoseAnswer,
        Fault::CutRequest(70_000),
        Fault::CutAnswer(0),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Throttle { seconds: 0 },
        Fault::Delay(Duration::from_millis(1_500)),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::new(bucket.server, once("PUT", fault));
        let store = patient(quick(bucket.config_at(proxy.address)));
        let object = key(&format!("put/{number}"));
        let put = store.put(&object, Bytes::from_static(CONTENT), PutMode::Create);
        put.await
            .unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert_eq!(
            store.get(&object, None).await.unwrap(),
            CONTENT,
            "{fault:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_once_to_a_get_or_a_listing_is_masked() {
    let bucket = Bucket::new();
    let direct = quick(bucket.config());
    let object = key("there/it-is");
    direct
        .put(&object, Bytes::from_static(CONTENT), PutMode::Create)
        .await
        .unwrap();
    for fault in [
        Fault::LoseAnswer,
        Fault::CutAnswer(40),
        Fault::Status(502),
        Fault::Throttle { seconds: 0 },
        Fault::Delay(Duration::from_millis(1_500)),
    ] {
        let proxy = Proxy::new(bucket.server, once("GET", fault));
        let store = patient(quick(bucket.config_at(proxy.address)));
        let range = ByteRange {
            start: 10,
            len: 500,
        };
        let got = store.get(&object, Some(range)).await;
        assert_eq!(got.unwrap(), &CONTENT[10..510], "{fault:?}");
        let proxy = Proxy::new(bucket.server, once("GET", fault));
        let store = patient(quick(bucket.config_at(proxy.address)));
        let listed = store.list_all(&KeyPrefix::all()).await.unwrap();
        assert_eq!(listed.len(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_call_says_what_it_met() {
    let bucket = Bucket::new();
    for (fault, kind) in [
        (Fault::LoseAnswer, ErrorKind::Unavailable),
        (Fault::CutRequest(10), ErrorKind::Unavailable),
        (Fault::Status(500), ErrorKind::Unavailable),
        (Fault::Status(501), ErrorKind::NotSupported),
        (Fault::Status(507), ErrorKind::StorageFull),
        (Fault::Status(403), ErrorKind::PermissionDenied),
        (Fault::Throttle { seconds: 9 }, ErrorKind::Throttled),
        (Fault::Delay(Duration::from_secs(3)), ErrorKind::TimedOut),
    ] {
        let proxy = Proxy::new(bucket.server, move |_, _, _| fault);
        let store = quick(bucket.config_at(proxy.address));
        let object = key("a");
        let put = store.put(&object, Bytes::from_static(CONTENT), PutMode::Create);
        let error = put.await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
        if let Fault::Throttle { seconds } = fault {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(proxy.requests(), 1, "{fault:?}: one call is one request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_has_a_name_of_its_own() {
    let bucket = Bucket::new();
    let store = quick(bucket.config());
    let missing = |error: BackendError| assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    missing(store.get(&key("a"), None).await.unwrap_err());
    missing(store.head(&key("a")).await.unwrap_err());
    let mut config = bucket.config();
    config.bucket = "nobody-made-this-bucket".into();
    let store = quick(config);
    let no_bucket =
        |error: BackendError| assert_eq!(error.kind(), ErrorKind::NoSuchBucket, "{error:?}");
    no_bucket(store.get(&key("a"), None).await.unwrap_err());
    no_bucket(store.list_all(&KeyPrefix::all()).await.unwrap_err());
    let object = key("a");
    let put = store.put(&object, Bytes::new(), PutMode::Create);
    no_bucket(put.await.unwrap_err());
    no_bucket(store.delete_one(&key("a")).await.unwrap_err());
    let mut config = bucket.config();
    config.endpoint = Some(format!("http://{}", s3_support::free_address()));
    let error = quick(config).head(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_store_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bucket = Bucket::new();
    let mut config = bucket.config_at(listener.local_addr().unwrap());
    config.answer_ms_max = 300;
    let store = S3::new(config.clone()).unwrap();
    let error = store.head(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    config.answer_ms_max = 600_000;
    config.call_ms_max = 300;
    let error = S3::new(config).unwrap().head(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
}

/// Answers every request with the same bytes.
fn parrot(answer: String) -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_listings_and_deletions_are_refused() {
    let bucket = Bucket::new();
    let page = |keys: &[&str], rest: &str| {
        let contents: String = keys
            .iter()
            .map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>"))
            .collect();
        format!("<ListBucketResult>{contents}{rest}</ListBucketResult>")
    };
    let more = "<IsTruncated>true</IsTruncated>";
    let token = "<NextContinuationToken>t</NextContinuationToken>";
    for (what, document, kind) in [
        (
            "not ascending",
            page(&["a/2", "a/1"], ""),
            ErrorKind::Corrupt,
        ),
        ("twice", page(&["a/1", "a/1"], ""), ErrorKind::Corrupt),
        (
            "not asked for",
            page(&["a/1", "b/1"], ""),
            ErrorKind::Corrupt,
        ),
        ("no token", page(&["a/1"], more), ErrorKind::Corrupt),
        (
            "a loop",
            page(&["a/1"], &format!("{more}{token}")),
            ErrorKind::Corrupt,
        ),
        (
            "no end",
            page(&[], &format!("{more}{token}")),
            ErrorKind::Corrupt,
        ),
        ("a page in HTML", "<html/>".into(), ErrorKind::Unavailable),
        (
            "cut short",
            "<ListBucketResult><Cont".into(),
            ErrorKind::Unavailable,
        ),
    ] {
        let store = quick(bucket.config_at(parrot(document)));
        let listed = store.list_all(&KeyPrefix::parse("a/").unwrap()).await;
        assert_eq!(listed.unwrap_err().kind(), kind, "{what}");
    }
    // Folders and hidden files that somebody else made are passed over.
    let others = page(&["a/", "a/.hidden", "a/1"], "");
    let store = quick(bucket.config_at(parrot(others)));
    assert_eq!(store.list_all(&KeyPrefix::all()).await.unwrap().len(), 1);
    // Of the two, one was deleted; nothing was asked of a third.
    let told = "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>c</Key><Code>X</Code></Error></DeleteResult>";
    let store = quick(bucket.config_at(parrot(told.into())));
    let results = store.delete(&[key("a"), key("b")]).await.unwrap();
    assert!(results[0].is_ok());
    assert_eq!(
        results[1].as_ref().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // More than was asked for is never taken in.
    let store = quick(bucket.config_at(parrot("x".repeat(5_000))));
    let range = ByteRange { start: 0, len: 10 };
    let error = store.get(&key("a"), Some(range)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deletions_are_few_requests() {
    let bucket = Bucket::new();
    let proxy = Proxy::new(bucket.server, |_, _, _| Fault::None);
    let store = quick(bucket.config_at(proxy.address));
    let keys: Vec<ObjectKey> = (0..1_500).map(|n| key(&format!("many/{n:04}"))).collect();
    for key in keys.iter().take(3) {
        store
            .put(key, Bytes::from_static(b"x"), PutMode::Create)
            .await
            .unwrap();
    }
    let before = proxy.requests();
    let results = store.delete(&keys).await.unwrap();
    assert_eq!(results.len(), keys.len());
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(proxy.requests() - before, 2);
    assert!(store.list_all(&KeyPrefix::all()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_object_says_so_and_others_do_not() {
    let bucket = Bucket::with_lock();
    let until = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let mut rule = ObjectRule::new("packs/");
    rule.retention = Some(Retention::new(RetentionMode::Governance, until));
    rule.storage_class = Some("STANDARD_IA".into());
    let mut config = bucket.config();
    config.rules.push(rule.clone());
    let store = Arc::new(quick(config));
    for name in ["packs/a", "keys/a"] {
        store
            .put(&key(name), Bytes::from_static(b"x"), PutMode::Create)
            .await
            .unwrap();
    }
    assert_eq!(
        store.retention(&key("packs/a")).await.unwrap(),
        rule.retention
    );
    assert_eq!(store.retention(&key("keys/a")).await.unwrap(), None);
    let error = store.retention(&key("packs/b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_that_the_store_refuses_is_left_out_from_then_on() {
    for (refused, more) in [("x-amz-checksum-sha256", 1), ("content-md5", 0)] {
        let bucket = Bucket::new();
        let proxy = Proxy::new(bucket.server, move |_, _, _| Fault::RefuseHeader(refused));
        let store = S3::new(bucket.config_at(proxy.address)).unwrap();
        for name in ["first", "second"] {
            let (name, bytes) = (key(name), Bytes::from_static(CONTENT));
            store.put(&name, bytes, PutMode::CreateOnce).await.unwrap();
            assert_eq!(store.get(&name, None).await.unwrap(), CONTENT);
        }
        assert_eq!(proxy.requests(), 4 + more, "{refused}");
    }
}
