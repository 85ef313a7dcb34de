//! The suite that every backend passes, against a real server over HTTP.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

#[path = "../../tests/s3_support/mod.rs"]
mod s3_support;

use backup_backend::testing::{ConformanceOptions, Outcome, Report, conformance};
use backup_backend::{RetryPolicy, Retrying, StorageBackend};
use backup_backend_s3::{Checksum, S3, S3Config};
use s3_support::Bucket;

async fn run(change: impl Fn(&mut S3Config)) -> Report {
    let mut options = ConformanceOptions::default();
    let mut probe = Bucket::new().config();
    change(&mut probe);
    // The prefix, and the slash behind it.
    options.key_len_max -= probe.prefix.len() + usize::from(!probe.prefix.is_empty());
    let page_len = options.page_len;
    let factory = || async {
        let mut config = Bucket::new().config();
        config.list_page_len = page_len;
        change(&mut config);
        Retrying::new(S3::new(config).unwrap(), RetryPolicy::default())
    };
    conformance(factory, options).await
}

fn all_passed(report: &Report) {
    report.assert_ok();
    let is_passed = |check: &backup_backend::testing::Check| check.outcome == Outcome::Passed;
    assert!(report.checks.iter().all(is_passed), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms() {
    all_passed(&run(|_| {}).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_below_a_prefix_conforms_without_batches_and_with_md5() {
    let report = run(|config| {
        config.prefix = "some/site-7".into();
        config.batch_delete = false;
        config.checksum = Checksum::Md5;
    });
    all_passed(&report.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditions_conforms_to_what_it_claims() {
    let report = run(|config| config.create_if_absent = false).await;
    report.assert_ok();
    assert!(!report.capabilities.create_if_absent);
}

#[cfg(feature = "object-store")]
#[tokio::test(flavor = "multi_thread")]
async fn any_object_store_conforms() {
    use backup_backend::Capabilities;
    use backup_backend_s3::AnyObjectStore;
    use object_store::{RetryConfig, aws::AmazonS3Builder};
    let options = ConformanceOptions::default();
    // What whoever builds a store with `object_store` chooses.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let factory = || async {
        let bucket = Bucket::new();
        let retries = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let store = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", bucket.server))
            .with_allow_http(true)
            .with_bucket_name(&bucket.name)
            .with_access_key_id("id")
            .with_secret_access_key("secret")
            .with_retry(retries)
            .build()
            .unwrap();
        let store = AnyObjectStore::new(std::sync::Arc::new(store), Capabilities::ALL);
        let store = store.with_page_len(ConformanceOptions::default().page_len);
        Retrying::new(store, RetryPolicy::default())
    };
    conformance(factory, options).await.assert_ok();
}

/// A backend is `Send`, `Sync`, and can be shared.
#[test]
fn a_bucket_can_be_shared() {
    fn is_backend<B: StorageBackend + 'static>() {}
    is_backend::<S3>();
    is_backend::<std::sync::Arc<S3>>();
}

/// Any server: `scripts/s3-servers` says how. `BACKUP_TEST_S3` is a URL of a bucket; what is below each check's prefix is
/// new.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: scripts/s3-servers"]
#[expect(
    clippy::disallowed_methods,
    reason = "the server is named by the environment"
)]
async fn the_server_of_the_environment_conforms() {
    use backup_backend_s3::Credentials;
    use std::sync::atomic::{AtomicU64, Ordering};
    let variable = |name| std::env::var(name).expect("scripts/s3-servers sets it");
    let url = variable("BACKUP_TEST_S3");
    let credentials = Credentials::new(variable("BACKUP_S3_KEY_ID"), variable("BACKUP_S3_SECRET"));
    let mut options = ConformanceOptions::default();
    let page_len = options.page_len;
    let prefix = format!("conformance/{:016x}", std::process::id());
    options.key_len_max -= prefix.len() + 8;
    let number = AtomicU64::new(0);
    let factory = || async {
        let mut config = S3Config::from_url(&url, credentials.clone()).unwrap();
        config.prefix = format!("{prefix}/{:06}", number.fetch_add(1, Ordering::Relaxed));
        config.list_page_len = page_len;
        Retrying::new(S3::new(config).unwrap(), RetryPolicy::default())
    };
    let report = conformance(factory, options).await;
    println!("{report}");
    report.assert_ok();
}
