use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;

use super::ConformanceOptions;
use super::conformance::{
    Case, Checked, always, cases, fails_with, holds, if_creating, is_true, key, listed, pattern,
};
use crate::{ErrorKind, PutMode, StorageBackend, StorageBackendExt};

cases! {
    if_creating "of many creates at once exactly one wins, and its bytes stay" => one_winner,
    always "equal bytes put at once under one key all succeed" => same_bytes,
    always "overwrites at once leave one of the objects whole" => overwrites,
    always "many puts at once into new folders all arrive" => new_folders,
    always "a put that is dropped leaves the whole object or none" => dropped_put,
}

async fn one_winner(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    for round in 0..4 {
        let name = key(format!("race/{round}/won"))?;
        let create = |caller| {
            backend.put(
                &name,
                pattern(caller, 20_000 + caller as usize),
                PutMode::Create,
            )
        };
        let results = join_all((0..options.callers as u64).map(create)).await;
        let mut winner = None;
        for (caller, result) in (0..).zip(results) {
            if result.is_ok() {
                is_true(winner.is_none(), || {
                    "two creates of one key succeeded".to_owned()
                })?;
                winner = Some(caller);
            } else {
                fails_with(ErrorKind::AlreadyExists, "a create that lost", result)?;
            }
        }
        let Some(winner) = winner else {
            return is_true(false, || "no create succeeded".to_owned());
        };
        holds(backend, &name, &pattern(winner, 20_000 + winner as usize)).await?;
    }
    Ok(())
}

async fn same_bytes(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    let name = key("race/same")?;
    let bytes = pattern(1, 100_000);
    for result in
        join_all((0..options.callers).map(|_| backend.put_idempotent(&name, bytes.clone()))).await
    {
        result?;
    }
    holds(backend, &name, &bytes).await
}

async fn overwrites(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    let name = key("race/over")?;
    let put = |caller| {
        backend.put(
            &name,
            pattern(caller, 10_000 + caller as usize),
            PutMode::Overwrite,
        )
    };
    for result in join_all((0..options.callers as u64).map(put)).await {
        result?;
    }
    let stored = backend.get(&name, None).await?;
    let whole = (0..options.callers as u64)
        .any(|caller| stored == pattern(caller, 10_000 + caller as usize));
    is_true(whole, || "the object is a mix".to_owned())
}

async fn new_folders(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    let keys = (0..options.callers)
        .map(|n| key(format!("new/{}/{}/{n}", n % 3, n % 2)))
        .collect::<Result<Vec<_>, _>>()?;
    let puts = keys
        .iter()
        .map(|name| backend.put(name, pattern(1, 1000), PutMode::Create));
    for result in join_all(puts).await {
        result?;
    }
    let shown = listed(backend, "new/").await?;
    is_true(shown.len() == keys.len(), || {
        format!("{} of {} objects are listed", shown.len(), keys.len())
    })
}

// Dropped after each number of polls, until it finishes. What was under way may still land, but whole.
async fn dropped_put(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    const POLLS_MAX: usize = 12;
    let bytes = pattern(9, 3 << 20);
    for polls in 0..POLLS_MAX {
        let name = key(format!("dropped/{polls}"))?;
        let mut put = backend.put(&name, bytes.clone(), PutMode::Create);
        for _ in 0..polls {
            if let Poll::Ready(result) = futures::poll!(&mut put) {
                result?;
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(put);
        for _ in 0..5 {
            let stored = backend.get_opt(&name).await?;
            is_true(stored.is_none_or(|stored| stored == bytes), || {
                format!("{name} is there in part")
            })?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        backend.put_idempotent(&name, bytes.clone()).await?;
        holds(backend, &name, &bytes).await?;
    }
    let shown = listed(backend, "").await?;
    is_true(shown.len() == POLLS_MAX, || {
        format!("something else is listed: {shown:?}")
    })
}
