//! The store fails at every call, and runs are dropped at every await: TESTING.md, P1, P2, P8 and P12.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    clippy::too_many_lines,
    clippy::cloned_ref_to_slice_refs,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking, and tells how much it tried"
)]

mod attack_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use attack_support::yielding::{Yielding, dropped_after};
use attack_support::*;
use backup::{
    BackupReport, Credential, Error, Repository, RestoreOptions, RestoreTarget, Source,
    VerifyLevel, backup, restore, snapshots, verify,
};
use backup_backend::testing::{Fault, FaultPoint, Faulty, Operation};
use backup_backend::{ErrorKind, LocalFs, LocalFsOptions, Memory, StorageBackend};

/// What a store may answer when it fails. Of no other answers does the protocol make something.
const KINDS: [ErrorKind; 9] = [
    ErrorKind::Unavailable,
    ErrorKind::TimedOut,
    ErrorKind::Throttled,
    ErrorKind::PermissionDenied,
    ErrorKind::Unauthenticated,
    ErrorKind::NoSuchBucket,
    ErrorKind::StorageFull,
    ErrorKind::ClockSkew,
    ErrorKind::Io,
];

const OPERATIONS: [Operation; 5] = [
    Operation::Put,
    Operation::Get,
    Operation::Head,
    Operation::List,
    Operation::Delete,
];

const POINTS: [FaultPoint; 2] = [FaultPoint::BeforeEffect, FaultPoint::AfterEffect];

/// A repository with one acknowledged snapshot, and the source with something new in it.
struct Stage {
    objects: Objects,
    acked: Taken,
    source: tempfile::TempDir,
}

async fn stage() -> Stage {
    let source = tempfile::TempDir::new().unwrap();
    trees::make_tiny(source.path());
    let store = Memory::new();
    let repo = create(Arc::new(store.clone()), MASTER).await;
    let acked = take(&repo, "tiny", source.path()).await;
    std::fs::write(source.path().join("new"), trees::noise(41, 60_000)).unwrap();
    std::fs::write(source.path().join("newer"), b"small").unwrap();
    Stage {
        objects: objects_of(&store).await,
        acked,
        source,
    }
}

async fn open_on(store: impl StorageBackend + 'static) -> Repository {
    let credential = Credential::Master(master(MASTER));
    Repository::open(Arc::new(store), credential, Default::default())
        .await
        .unwrap()
}

async fn run(repo: &Repository, source: &Path) -> Result<BackupReport, Error> {
    backup(repo, "tiny", Source::tree(source), &small_packs(), &()).await
}

/// After whatever happened: nothing acknowledged is lost, what is there is complete, and the next run succeeds.
async fn check_after(stage: &Stage, store: &Memory, made: Option<&BackupReport>, what: &str) {
    let repo = open_on(store.clone()).await;
    let report = verified(&repo, VerifyLevel::AllData).await;
    assert!(report.is_sound(), "{what}: {:?}", report.damage);
    assert_eq!(
        restore_checked(&repo, &stage.acked).await.unwrap(),
        [""; 0],
        "{what}"
    );
    let all = snapshots(&repo, &Default::default()).await.unwrap();
    assert!(
        all.len() == 1 || all.len() == 2,
        "{what}: {} snapshots",
        all.len()
    );
    if let Some(made) = made {
        assert!(
            all.iter().any(|manifest| manifest.session == made.snapshot),
            "{what}: not there"
        );
    }
    // Acknowledged or not: what is there has everything.
    for manifest in all
        .iter()
        .filter(|manifest| manifest.session != stage.acked.id)
    {
        assert!(manifest.complete && manifest.skipped_count == 0, "{what}");
        check_whole(&repo, manifest.session, stage, what).await;
    }
    let next = run(&repo, stage.source.path()).await;
    let next = next.unwrap_or_else(|error| panic!("{what}: the next run: {error:?}"));
    check_whole(&repo, next.snapshot, stage, what).await;
}

async fn check_whole(repo: &Repository, id: backup::SessionId, stage: &Stage, what: &str) {
    let expected = Expected::Tree(trees::listing(stage.source.path()));
    let skipped = restore_checked(
        repo,
        &Taken {
            source: "tiny",
            id,
            expected,
        },
    )
    .await;
    assert_eq!(skipped.unwrap(), [""; 0], "{what}");
}

fn counts(store: &Faulty<Memory>) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    for call in store.calls() {
        let number = OPERATIONS
            .iter()
            .position(|operation| *operation == call.operation);
        *counts.entry(number.unwrap()).or_default() += 1;
    }
    counts
}

/// All faults that a run without any would have met.
fn faults(before: &BTreeMap<usize, u64>, after: &BTreeMap<usize, u64>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, last) in after {
        let first = before.get(number).copied().unwrap_or(0);
        for nth in first + 1..=*last {
            for point in POINTS {
                let operation = OPERATIONS[*number];
                faults.extend(KINDS.map(|kind| Fault {
                    operation,
                    nth,
                    point,
                    kind,
                }));
            }
        }
    }
    faults
}

#[tokio::test]
async fn a_backup_says_what_failed_at_every_call_and_loses_nothing() {
    let stage = stage().await;
    let probe = Faulty::new(memory_of(&stage.objects).await);
    let repo = open_on(probe.clone()).await;
    let opened = counts(&probe);
    run(&repo, stage.source.path()).await.unwrap();
    let all = faults(&opened, &counts(&probe));
    // Each of ten calls at least, at both points, with every kind of error.
    assert!(
        all.len() >= 10 * POINTS.len() * KINDS.len(),
        "{}",
        all.len()
    );
    let (mut masked, mut failed) = (0, 0);
    for fault in &all {
        let what = format!("{fault:?}");
        let memory = memory_of(&stage.objects).await;
        let store = Faulty::new(memory.clone());
        let repo = open_on(store.clone()).await;
        store.fail(*fault);
        let result = run(&repo, stage.source.path()).await;
        assert!(
            store.calls().iter().any(|call| call.fault.is_some()),
            "{what}: not met"
        );
        match &result {
            // A fault of the store is never one of the source.
            Ok(report) => {
                assert!(
                    report.is_complete() && report.skipped.is_empty(),
                    "{what}: {report:?}"
                );
                masked += 1;
            }
            Err(Error::Backend(error)) => {
                assert_eq!(error.kind(), fault.kind, "{what}");
                // The cell is there and says whose it is: a lost answer is no failure.
                let is_commit = error.operation() == "put" && error.key().starts_with("snapshots/");
                assert!(
                    !is_commit || fault.point != FaultPoint::AfterEffect,
                    "{what}"
                );
                failed += 1;
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
        check_after(&stage, &memory, result.as_ref().ok(), &what).await;
    }
    println!("{} faults: {masked} masked, {failed} told", all.len());
    assert!(masked > 0 && failed > 0);
}

/// Answers that have a meaning of their own, where they have none: something typed comes of it, and nothing is lost.
#[tokio::test]
async fn a_backup_survives_answers_that_make_no_sense() {
    let stage = stage().await;
    let probe = Faulty::new(memory_of(&stage.objects).await);
    let repo = open_on(probe.clone()).await;
    let opened = counts(&probe);
    run(&repo, stage.source.path()).await.unwrap();
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Corrupt,
        ErrorKind::InvalidRange,
        ErrorKind::InvalidInput,
        ErrorKind::NotSupported,
    ];
    let all = faults(&opened, &counts(&probe))
        .into_iter()
        .filter(|fault| fault.kind == KINDS[0]);
    for fault in all {
        for kind in kinds {
            let fault = Fault { kind, ..fault };
            let what = format!("{fault:?}");
            let memory = memory_of(&stage.objects).await;
            let store = Faulty::new(memory.clone());
            let repo = open_on(store.clone()).await;
            store.fail(fault);
            let result = run(&repo, stage.source.path()).await;
            match &result {
                Ok(report) => assert!(report.is_complete(), "{what}: {report:?}"),
                Err(Error::Backend(_) | Error::Damaged { .. }) => {}
                Err(error) => panic!("{what}: {error:?}"),
            }
            check_after(&stage, &memory, result.as_ref().ok(), &what).await;
        }
    }
}

/// The process dies at its n-th call, before or after the effect.
#[tokio::test]
async fn a_backup_may_die_at_any_call() {
    let stage = stage().await;
    let probe = Faulty::new(memory_of(&stage.objects).await);
    let repo = open_on(probe.clone()).await;
    let opened = probe.calls().len() as u64;
    run(&repo, stage.source.path()).await.unwrap();
    for nth in opened + 1..=probe.calls().len() as u64 {
        for point in POINTS {
            let memory = memory_of(&stage.objects).await;
            let store = Faulty::new(memory.clone());
            let repo = open_on(store.clone()).await;
            store.die_at(nth, point);
            let result = run(&repo, stage.source.path()).await;
            let what = format!("death at {nth} {point:?}");
            if let Err(error) = &result {
                assert!(
                    matches!(error, Error::Backend(e) if e.kind() == ErrorKind::Io),
                    "{what}"
                );
            }
            check_after(&stage, &memory, result.as_ref().ok(), &what).await;
        }
    }
}

#[tokio::test]
async fn a_restore_says_what_failed_at_every_call_and_leaves_nothing() {
    let stage = stage().await;
    let probe = Faulty::new(memory_of(&stage.objects).await);
    let repo = open_on(probe.clone()).await;
    let opened = counts(&probe);
    restore_checked(&repo, &stage.acked).await.unwrap();
    let all = faults(&opened, &counts(&probe));
    assert!(all.len() > 50, "{}", all.len());
    let memory = memory_of(&stage.objects).await;
    for fault in &all {
        let store = Faulty::new(memory.clone());
        let repo = open_on(store.clone()).await;
        store.fail(*fault);
        // It looks for itself that nothing is left behind.
        match restore_checked(&repo, &stage.acked).await {
            Err(Error::Backend(error)) => assert_eq!(error.kind(), fault.kind, "{fault:?}"),
            other => panic!("{fault:?}: {other:?}"),
        }
    }
    assert_eq!(
        objects_of(&memory).await,
        stage.objects,
        "a restore writes nothing to the store"
    );
}

#[tokio::test]
async fn a_verify_that_cannot_look_says_so_and_does_not_call_it_damage() {
    let stage = stage().await;
    let probe = Faulty::new(memory_of(&stage.objects).await);
    let repo = open_on(probe.clone()).await;
    let opened = counts(&probe);
    verified(&repo, VerifyLevel::AllData).await;
    let all = faults(&opened, &counts(&probe));
    assert!(all.len() > 50, "{}", all.len());
    let memory = memory_of(&stage.objects).await;
    for fault in &all {
        let store = Faulty::new(memory.clone());
        let repo = open_on(store.clone()).await;
        store.fail(*fault);
        match verify(&repo, VerifyLevel::AllData, &()).await {
            Err(Error::Backend(error)) => assert_eq!(error.kind(), fault.kind, "{fault:?}"),
            other => panic!("{fault:?}: {other:?}"),
        }
    }
    assert_eq!(
        objects_of(&memory).await,
        stage.objects,
        "a look writes nothing to the store"
    );
}

#[tokio::test]
async fn a_repository_is_made_whole_or_not_at_all() {
    let probe = Faulty::new(Memory::new());
    let make = |store: Faulty<Memory>| async move {
        let mut options = backup::CreateOptions::default();
        options.argon2 = CHEAP;
        let credential = Credential::passphrase(PASSPHRASE);
        Repository::create(Arc::new(store), credential, options).await
    };
    make(probe.clone()).await.unwrap();
    for fault in faults(&BTreeMap::new(), &counts(&probe)) {
        let store = Faulty::new(Memory::new());
        store.fail(fault);
        let made = make(store.clone()).await;
        store.heal();
        if let Err(error) = &made {
            assert!(
                matches!(error, Error::Backend(e) if e.kind() == fault.kind),
                "{fault:?}: {error:?}"
            );
        }
        let open = || {
            let credential = Credential::passphrase(PASSPHRASE);
            Repository::open(Arc::new(store.clone()), credential, Default::default())
        };
        match open().await {
            Ok(_) => {}
            Err(Error::NotARepository) => {
                assert!(made.is_err(), "{fault:?}");
                make(store.clone()).await.unwrap();
                open()
                    .await
                    .unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
            }
            Err(error) => panic!("{fault:?}: {error:?}"),
        }
    }
}

/// Drops a run at every await, with effects that may come after.
#[tokio::test]
async fn a_backup_may_be_dropped_at_any_await() {
    let stage = stage().await;
    for late in [false, true] {
        let mut polls = 0;
        loop {
            let memory = memory_of(&stage.objects).await;
            let repo = open_on(Yielding {
                inner: memory.clone(),
                late,
            })
            .await;
            let made = dropped_after(polls, run(&repo, stage.source.path())).await;
            let made = made.transpose().unwrap();
            check_after(
                &stage,
                &memory,
                made.as_ref(),
                &format!("{polls} polls, late: {late}"),
            )
            .await;
            // The same repository, in the same process.
            run(&repo, stage.source.path()).await.unwrap();
            if made.is_some() {
                break;
            }
            polls += 1;
        }
        println!("late {late}: dropped after 0 to {polls} polls");
        assert!(polls > 8, "{polls}");
    }
}

#[tokio::test]
async fn a_backup_to_a_directory_may_be_dropped_at_any_await() {
    let stage = stage().await;
    let mut polls = 0;
    loop {
        let scratch = tempfile::TempDir::new().unwrap();
        let open_dir = || LocalFs::create(scratch.path(), LocalFsOptions::default()).unwrap();
        for (name, bytes) in &stage.objects {
            let mode = backup_backend::PutMode::Create;
            open_dir()
                .put(&key(name), bytes.clone(), mode)
                .await
                .unwrap();
        }
        let repo = open_on(open_dir()).await;
        let made = dropped_after(polls, run(&repo, stage.source.path())).await;
        let made = made.transpose().unwrap();
        // What was on its way may arrive while the next run is at work.
        let next = run(&repo, stage.source.path()).await.unwrap();
        drop(repo);
        let what = format!("{polls} polls");
        let memory = memory_of(&objects_of(&open_dir()).await).await;
        let repo = open_on(memory.clone()).await;
        assert!(
            verified(&repo, VerifyLevel::AllData).await.is_sound(),
            "{what}"
        );
        for manifest in snapshots(&repo, &Default::default()).await.unwrap() {
            if manifest.session != stage.acked.id {
                check_whole(&repo, manifest.session, &stage, &what).await;
            }
        }
        check_whole(&repo, next.snapshot, &stage, &what).await;
        if made.is_some() {
            break;
        }
        polls += 1 + polls / 8;
    }
}

/// A restore that is dropped: its target is not there, or whole.
#[tokio::test]
async fn a_restore_may_be_dropped_at_any_await() {
    let stage = stage().await;
    let Expected::Tree(expected) = &stage.acked.expected else {
        panic!()
    };
    let mut polls = 0;
    loop {
        let repo = open_on(Yielding {
            inner: memory_of(&stage.objects).await,
            late: false,
        })
        .await;
        let spot = spot();
        let over = dropped_after(polls, restore_to(&repo, &stage.acked.id, &spot)).await;
        if spot.target.exists() {
            let found = trees::listing(&spot.target);
            assert_eq!(
                found.len(),
                expected.len(),
                "{polls} polls: half of it is there"
            );
            assert!(
                expected
                    .iter()
                    .all(|(path, node)| found[path].same_but_names(node))
            );
        }
        if let Some(over) = over {
            assert!(over.unwrap().is_complete());
            break;
        }
        restore_to(&repo, &stage.acked.id, &spot_after(&spot))
            .await
            .unwrap();
        polls += 1;
    }
    assert!(polls > 5, "{polls}");
}

/// Another target beside the first one.
fn spot_after(spot: &Spot) -> Spot {
    let above = tempfile::TempDir::new_in(spot.above.path()).unwrap();
    let target = above.path().join("target");
    Spot { above, target }
}

/// Into what is there: every file is the old one or the new one.
#[tokio::test]
async fn a_restore_into_something_may_be_dropped_and_leaves_whole_files() {
    let stage = stage().await;
    let (old, new) = (b"old".to_vec(), b"a few bytes that are not secret".to_vec());
    let mut polls = 0;
    loop {
        let repo = open_on(Yielding {
            inner: memory_of(&stage.objects).await,
            late: false,
        })
        .await;
        let spot = spot();
        std::fs::create_dir_all(spot.target.join("a")).unwrap();
        std::fs::write(spot.target.join("a/file"), &old).unwrap();
        let mut options = RestoreOptions::default();
        options.into_existing = true;
        let into = || RestoreTarget::Directory(spot.target.clone());
        let over = dropped_after(
            polls,
            restore(&repo, &stage.acked.id, into(), &options, &()),
        )
        .await;
        let found = std::fs::read(spot.target.join("a/file")).unwrap();
        assert!(
            found == old || found == new,
            "{polls} polls: {} bytes",
            found.len()
        );
        restore(&repo, &stage.acked.id, into(), &options, &())
            .await
            .unwrap();
        assert_eq!(std::fs::read(spot.target.join("a/file")).unwrap(), new);
        if over.is_some() {
            break;
        }
        polls += 1;
    }
    assert!(polls > 5, "{polls}");
}

/// Nothing of a dropped restore stays for ever: what is left beside the target goes, at the latest with the next restore to
/// the same place.
#[tokio::test]
async fn a_dropped_restore_leaves_nothing_beside_its_target_for_ever() {
    let stage = stage().await;
    for polls in [20, 25, 30, 35] {
        let repo = open_on(Yielding {
            inner: memory_of(&stage.objects).await,
            late: false,
        })
        .await;
        let spot = spot();
        let over = dropped_after(polls, restore_to(&repo, &stage.acked.id, &spot)).await;
        if over.is_some() {
            // How many polls a restore takes depends on the threads that work for it.
            continue;
        }
        match restore_to(&repo, &stage.acked.id, &spot).await {
            // A publication under way when the future was dropped completes, later and whole.
            Ok(_) | Err(Error::TargetNotEmpty { .. }) => {}
            Err(error) => panic!("{polls} polls: {error:?}"),
        }
        spot.assert_only_target(&format!("{polls} polls"));
    }
}

#[tokio::test]
async fn a_verify_may_be_dropped_at_any_await() {
    let stage = stage().await;
    let memory = memory_of(&stage.objects).await;
    let repo = open_on(Yielding {
        inner: memory.clone(),
        late: false,
    })
    .await;
    let mut polls = 0;
    while dropped_after(polls, verify(&repo, VerifyLevel::AllData, &()))
        .await
        .is_none()
    {
        polls += 1;
    }
    assert!(polls > 5, "{polls}");
    assert!(verified(&repo, VerifyLevel::AllData).await.is_sound());
    assert_eq!(objects_of(&memory).await, stage.objects);
}
