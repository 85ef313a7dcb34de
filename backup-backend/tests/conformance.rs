//! Every backend and every decorator passes the suite; a backend that lies does not.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test]"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_backend::testing::{ConformanceOptions, Faulty, Outcome, Report, conformance};
use backup_backend::{
    Counting, Limiting, Limits, LocalFs, LocalFsOptions, Memory, RetryPolicy, Retrying,
    StorageBackend,
};
use common::{Liar, Lie};

async fn check<B: StorageBackend>(wrap: impl Fn(Memory, LocalFs) -> B) {
    let dir = tempfile::tempdir().unwrap();
    let (options, made) = (ConformanceOptions::default(), AtomicU64::new(0));
    let page_len = options.page_len;
    let factory = || async {
        let root = dir
            .path()
            .join(made.fetch_add(1, Ordering::Relaxed).to_string());
        let mut options = LocalFsOptions::default();
        options.page_len = page_len;
        wrap(
            Memory::new().with_page_len(page_len),
            LocalFs::create(root, options).unwrap(),
        )
    };
    let report = conformance(factory, options).await;
    report.assert_ok();
    assert!(
        report
            .checks
            .iter()
            .all(|check| check.outcome == Outcome::Passed),
        "{report}"
    );
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.bytes_per_second = Some(1 << 40);
    limits.requests_per_second = Some(1 << 30);
    limits
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    check(|memory, _| memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_directory_conforms() {
    check(|_, local| local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pointers_to_a_backend_conform() {
    check(|memory, _| Arc::new(memory) as Arc<dyn StorageBackend>).await;
    check(|memory, _| Box::new(memory) as Box<dyn StorageBackend>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retrying_backend_conforms() {
    check(|memory, _| Retrying::new(memory, RetryPolicy::default())).await;
    check(|_, local| Retrying::new(local, RetryPolicy::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limiting_backend_conforms() {
    check(|memory, _| Limiting::new(memory, limits())).await;
    check(|_, local| Limiting::new(local, limits())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counting_backend_conforms() {
    check(|memory, _| Counting::new(memory)).await;
    check(|_, local| Counting::new(local)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_decorators_on_top_of_each_other_conform() {
    check(|memory, _| {
        Counting::new(Retrying::new(
            Limiting::new(Faulty::new(memory), limits()),
            RetryPolicy::default(),
        ))
    })
    .await;
}

async fn report_of(lie: Lie) -> Report {
    let options = ConformanceOptions::default();
    let page_len = options.page_len;
    conformance(
        || async {
            Liar {
                inner: Memory::new().with_page_len(page_len),
                lie,
            }
        },
        options,
    )
    .await
}

#[tokio::test]
async fn every_lie_is_found_out() {
    for (lie, found_by) in [
        (
            Lie::CreateOverwrites,
            "a create refuses a key that is taken and leaves the object as it is",
        ),
        (
            Lie::FirstPageOnly,
            "listings of every number of pages are whole, ordered and paged",
        ),
        (
            Lie::FolderOrder,
            "keys are listed in byte order across folders",
        ),
        (
            Lie::PrefixIsFolder,
            "a prefix ends where it is said to, also within a segment",
        ),
        (
            Lie::RangeIsCutShort,
            "a range comes back exactly, and only from within the object",
        ),
        (
            Lie::DeleteOfMissingFails,
            "deleting is per key, in order, and again a success",
        ),
        (
            Lie::PutInTwoHalves,
            "a put that is dropped leaves the whole object or none",
        ),
    ] {
        let report = report_of(lie).await;
        assert!(
            report.failed().any(|check| check.name == found_by),
            "{lie:?} was not found out: {report}"
        );
    }
}

#[tokio::test]
async fn what_is_not_claimed_is_skipped() {
    let report = report_of(Lie::ClaimsNothing).await;
    report.assert_ok();
    assert!(
        report
            .checks
            .iter()
            .any(|check| check.outcome == Outcome::Skipped)
    );
}
