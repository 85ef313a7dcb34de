//! Backups into a real S3 server, and through a proxy that breaks requests: nothing is lost, nothing wrong comes back, and
//! the number of requests is what it should be.
#![allow(
    clippy::field_reassign_with_default,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod s3_support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup::backup_backend::{Counting, Counts, ErrorKind, RetryPolicy, Retrying};
use backup::{
    BackupOptions, Error, Promise, Repository, RestoreOptions, RestoreTarget, SessionId, Source,
    backup, find_snapshot, probe, restore,
};
use backup_backend_s3::{S3, S3Config};
use common::compare::assert_same;
use common::{assert_sound, back_up, create, open, restore_tree};
use s3_support::Bucket;
use s3_support::proxy::{Fault, Proxy};

type Store = Retrying<Counting<S3>>;

fn store(config: S3Config) -> Store {
    let mut config = config;
    config.answer_ms_max = 5_000;
    let mut policy = RetryPolicy::default();
    policy.delay_ms_base = 10;
    Retrying::new(Counting::new(S3::new(config).unwrap()), policy)
}

/// A tree of some files, some of them long, none of which compresses.
fn make_tree(root: &Path, files: usize, len: usize) {
    fs::create_dir_all(root.join("below")).unwrap();
    for number in 0..files {
        let name = format!("below/{number}");
        fs::write(root.join(name), common::data::noise(len, number as u64)).unwrap();
    }
    fs::write(root.join("letter"), "dear").unwrap();
    // What changed within the last tick of the file system's clock is rightly read again.
    std::thread::sleep(Duration::from_millis(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_to_a_bucket_and_comes_back() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    make_tree(&tree, 20, 300_000);
    let mut config = Bucket::new().config();
    config.prefix = "site/7".into();
    let repo = create(store(config.clone())).await;
    let made = back_up(&repo, Source::tree(&tree)).await;
    let again = open(store(config)).await;
    restore_tree(&again, &made.snapshot, &scratch.path().join("back")).await;
    assert_same(&tree, &scratch.path().join("back"));
    assert_sound(&again).await;
    let seen = probe(&again).await.unwrap();
    assert_eq!(seen.create_if_absent, Promise::Kept);
    assert_eq!(seen.consistent_list, Promise::Kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_only_claims_to_create_is_found_out() {
    let mut config = Bucket::new().config();
    config.create_if_absent = false;
    let repo = create(store(config.clone())).await;
    let unclaimed = probe(&repo).await.unwrap();
    assert_eq!(unclaimed.create_if_absent, Promise::NotClaimed);
    assert!(!unclaimed.is_safe());
    // A proxy that takes the condition away: what such a store does.
    let bucket = Bucket::new();
    let proxy = Proxy::new(bucket.server, |_, _, _| Fault::Unconditional);
    let repo = create(store(bucket.config_at(proxy.address))).await;
    let broken = probe(&repo).await.unwrap();
    assert_eq!(broken.create_if_absent, Promise::Broken);
    assert!(!broken.is_safe());
    // Backups work all the same.
    let scratch = tempfile::tempdir().unwrap();
    make_tree(&scratch.path().join("tree"), 2, 1000);
    let made = back_up(&repo, Source::tree(scratch.path().join("tree"))).await;
    restore_tree(&repo, &made.snapshot, &scratch.path().join("back")).await;
    assert_same(&scratch.path().join("tree"), &scratch.path().join("back"));
}

/// Every `nth` request meets the next of these.
const FAULTS: [Fault; 7] = [
    Fault::LoseAnswer,
    Fault::Status(500),
    Fault::CutRequest(1_000),
    Fault::CutAnswer(20),
    Fault::Throttle { seconds: 0 },
    Fault::Delay(Duration::from_millis(50)),
    Fault::Status(503),
];

#[tokio::test(flavor = "multi_thread")]
async fn faults_at_every_fourth_request_are_masked() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    make_tree(&tree, 30, 400_000);
    for shift in 0..4_u64 {
        let bucket = Bucket::new();
        let repo = create(store(bucket.config())).await;
        let proxy = Proxy::new(bucket.server, move |number, _, _| {
            if number % 4 == shift {
                FAULTS[(number / 4) as usize % FAULTS.len()]
            } else {
                Fault::None
            }
        });
        let repo = {
            drop(repo);
            open(store(bucket.config_at(proxy.address))).await
        };
        let mut options = BackupOptions::default();
        options.pack_len = 1 << 20;
        options.block_len = 256 << 10;
        let made = backup(&repo, common::NAME, Source::tree(&tree), &options, &()).await;
        let made = made.unwrap();
        assert!(made.is_complete());
        let back = scratch.path().join(format!("back-{shift}"));
        restore_tree(&repo, &made.snapshot, &back).await;
        assert_same(&tree, &back);
        assert!(proxy.requests() > 20);
        assert_sound(&open(store(bucket.config())).await).await;
    }
}

/// A restore that meets damage fails, or names what is missing.
async fn assert_noticed(repo: &Repository, snapshot: &SessionId, to: &Path) {
    let target = RestoreTarget::Directory(to.into());
    let back = restore(repo, snapshot, target, &RestoreOptions::default(), &()).await;
    assert!(back.is_err() || back.is_ok_and(|report| !report.is_complete()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_never_comes_back() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    make_tree(&tree, 4, 100_000);
    // On its way up: the store here compares no checksums, so that a damaged pack stands there; a reader notices.
    let bucket = Bucket::new();
    drop(create(store(bucket.config())).await);
    let proxy = Proxy::new(bucket.server, |_, method, path| {
        if method == "PUT" && path.contains("/packs/") {
            Fault::FlipRequest
        } else {
            Fault::None
        }
    });
    let repo = open(store(bucket.config_at(proxy.address))).await;
    let made = backup(
        &repo,
        common::NAME,
        Source::tree(&tree),
        &BackupOptions::default(),
        &(),
    )
    .await;
    if let Ok(made) = made {
        assert_noticed(&repo, &made.snapshot, &scratch.path().join("back")).await;
    }
    // On its way down.
    let bucket = Bucket::new();
    let repo = create(store(bucket.config())).await;
    let made = back_up(&repo, Source::tree(&tree)).await;
    let proxy = Proxy::new(bucket.server, |_, method, path| {
        if method == "GET" && path.contains("/packs/") {
            Fault::FlipAnswer
        } else {
            Fault::None
        }
    });
    let repo = open(store(bucket.config_at(proxy.address))).await;
    assert_noticed(&repo, &made.snapshot, &scratch.path().join("down")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_stops_the_run_and_the_next_one_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    make_tree(&tree, 40, 200_000);
    let bucket = Bucket::new();
    drop(create(store(bucket.config())).await);
    let packs = Arc::new(AtomicU64::new(0));
    let proxy = Proxy::new(bucket.server, {
        let packs = packs.clone();
        move |_, method, path| {
            let is_pack = method == "PUT" && path.contains("/packs/");
            if is_pack && packs.fetch_add(1, Ordering::Relaxed) >= 4 {
                Fault::Status(503)
            } else {
                Fault::None
            }
        }
    });
    let mut options = BackupOptions::default();
    options.pack_len = 1 << 20;
    options.block_len = 256 << 10;
    let repo = open(store(bucket.config_at(proxy.address))).await;
    let stopped = backup(&repo, common::NAME, Source::tree(&tree), &options, &()).await;
    match stopped {
        Err(Error::Backend(error)) => assert_eq!(error.kind(), ErrorKind::Throttled),
        other => panic!("{other:?}"),
    }
    let repo = open(store(bucket.config())).await;
    let none = find_snapshot(&repo, "latest").await;
    assert!(
        matches!(none, Err(Error::SnapshotNotFound { .. })),
        "{none:?}"
    );
    let made = backup(&repo, common::NAME, Source::tree(&tree), &options, &())
        .await
        .unwrap();
    let total = 40 * 200_000;
    assert!(
        made.bytes_new <= total - (3 << 20),
        "{} of {total} were new",
        made.bytes_new
    );
    restore_tree(&repo, &made.snapshot, &scratch.path().join("back")).await;
    assert_same(&tree, &scratch.path().join("back"));
}

/// Runs something as a process of its own would, and returns what was asked of the store.
async fn counted<T>(bucket: &Bucket, work: impl AsyncFnOnce(Repository) -> T) -> (T, Counts) {
    let counting = Counting::new(S3::new(bucket.config()).unwrap());
    let counters = counting.counters();
    let repo = open(Retrying::new(counting, RetryPolicy::default())).await;
    let done = work(repo).await;
    (done, counters.counts())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_few() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    // 256 MiB that do not compress: a quarter of the gibibyte that the limits are for.
    make_tree(&tree, 8, 32 << 20);
    let bucket = Bucket::new();
    drop(create(store(bucket.config())).await);
    let (first, counts) = counted(&bucket, async |repo| {
        back_up(&repo, Source::tree(&tree)).await
    })
    .await;
    assert!(counts.put.calls <= 15, "{counts:?}");
    assert_eq!(counts.head.calls, 0, "{counts:?}");
    let (second, counts) = counted(&bucket, async |repo| {
        back_up(&repo, Source::tree(&tree)).await
    })
    .await;
    assert_eq!(second.bytes_read, 0);
    assert!(counts.total().calls <= 12, "{counts:?}");
    let back = scratch.path().join("back");
    let (_, counts) = counted(&bucket, async |repo| {
        restore_tree(&repo, &first.snapshot, &back).await
    })
    .await;
    assert!(
        counts.get.bytes <= first.bytes_stored * 13 / 10,
        "{counts:?}"
    );
    assert_eq!(counts.head.calls + counts.put.calls, 0, "{counts:?}");
    assert_same(&tree, &back);
}

/// Prints what 40 ms of latency cost: `scripts/s3-servers` runs it against its servers, of which `BACKUP_TEST_S3` names one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server, and measures: scripts/s3-servers"]
#[expect(
    clippy::disallowed_methods,
    reason = "the server is named by the environment, and time is measured"
)]
async fn what_40_ms_of_latency_cost() {
    use backup_backend_s3::Credentials;
    use std::time::Instant;
    let variable = |name| std::env::var(name).expect("scripts/s3-servers sets it");
    let credentials = Credentials::new(variable("BACKUP_S3_KEY_ID"), variable("BACKUP_S3_SECRET"));
    let direct = S3Config::from_url(&variable("BACKUP_TEST_S3"), credentials).unwrap();
    let endpoint = direct.endpoint.clone().unwrap();
    let server = endpoint.trim_start_matches("http://").parse().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    make_tree(&tree, 16, 48 << 20);
    let mut seconds: Vec<[f64; 2]> = Vec::new();
    // The first round warms up.
    for (round, delay_ms) in [0, 0, 40, 0, 40, 0, 40].into_iter().enumerate() {
        let proxy = Proxy::new(server, move |_, _, _| {
            Fault::Delay(Duration::from_millis(delay_ms))
        });
        let mut config = direct.clone();
        config.endpoint = Some(format!("http://{}", proxy.address));
        config.prefix = format!("latency-{}/{round}", std::process::id());
        let repo = create(store(config)).await;
        let begun = Instant::now();
        let made = back_up(&repo, Source::tree(&tree)).await;
        let backed_up = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let back = scratch.path().join("back");
        restore_tree(&repo, &made.snapshot, &back).await;
        let restored = begun.elapsed().as_secs_f64();
        fs::remove_dir_all(back).unwrap();
        println!("{delay_ms:2} ms: backup {backed_up:.2} s, restore {restored:.2} s");
        seconds.push([backed_up, restored]);
    }
    for (number, what) in ["backup", "restore"].into_iter().enumerate() {
        let median = |rounds: [usize; 3]| {
            let mut some = rounds.map(|round| seconds[round][number]);
            some.sort_by(f64::total_cmp);
            some[1]
        };
        let kept = 100.0 * median([1, 3, 5]) / median([2, 4, 6]);
        println!("{what}: {kept:.0} % of the throughput without latency");
    }
}
