use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};

use super::ConformanceOptions;
use super::conformance::{Case, Checked, Wrong, cases, if_listing, is_true, key, listed, pattern};
use crate::{KeyPrefix, PutMode, StorageBackend, StorageBackendExt};

cases! {
    if_listing "a put or delete is listed at once" => at_once,
    if_listing "listings of every number of pages are whole, ordered and paged" => pages,
    if_listing "a prefix ends where it is said to, also within a segment" => prefixes,
    if_listing "keys are listed in byte order across folders" => order,
    if_listing "objects that stay are listed exactly once while others come and go" => while_changing,
    if_listing "a listing or get that is dropped early leaves the backend usable" => dropped_early,
}

async fn put_all(backend: &dyn StorageBackend, names: &[&str]) -> Checked {
    for name in names {
        backend
            .put(
                &key(*name)?,
                pattern(name.len() as u64, name.len()),
                PutMode::Create,
            )
            .await?;
    }
    Ok(())
}

async fn at_once(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    for round in 0..20 {
        let name = key(format!("at/once/{round}"))?;
        backend
            .put(&name, pattern(round, 10), PutMode::Create)
            .await?;
        let shown = listed(backend, "at/once/").await?;
        is_true(shown.iter().any(|shown| shown == name.as_str()), || {
            format!("{name} is not listed")
        })?;
        if round % 2 == 0 {
            backend.delete_one(&name).await?;
            let shown = listed(backend, "at/once/").await?;
            is_true(!shown.iter().any(|shown| shown == name.as_str()), || {
                format!("{name} is still listed")
            })?;
        }
    }
    Ok(())
}

async fn pages(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    let page = options.page_len.max(2);
    let mut wanted = Vec::new();
    for count in [
        0,
        1,
        page - 1,
        page,
        page + 1,
        2 * page,
        3 * page,
        3 * page + 1,
    ] {
        while wanted.len() < count {
            // Two folders and the top: pages that end within and between folders.
            let name = format!("pages/{}/{:06}", ["a", "b"][wanted.len() % 2], wanted.len());
            backend
                .put(&key(&*name)?, pattern(1, count), PutMode::Create)
                .await?;
            wanted.push(name);
        }
        wanted.sort();
        let shown: Vec<Vec<_>> = backend
            .list(&KeyPrefix::parse("pages/")?)
            .try_collect()
            .await?;
        is_true(shown.iter().all(|page| !page.is_empty()), || {
            format!("an empty page among {count} objects")
        })?;
        let longest = shown.iter().map(Vec::len).max().unwrap_or(0);
        is_true(longest <= options.page_len, || {
            format!("a page of {longest}, longer than {}", options.page_len)
        })?;
        let names: Vec<&str> = shown
            .iter()
            .flatten()
            .map(|meta| meta.key.as_str())
            .collect();
        is_true(names == wanted, || {
            format!("of {count} objects the listing shows {names:?}")
        })?;
    }
    Ok(())
}

async fn prefixes(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    put_all(
        backend,
        &[
            "p/a",
            "p/ab/1",
            "p/ab/2",
            "p/ab-1",
            "p/abc",
            "p2/a",
            "q/a/b/c/d",
            "p-",
        ],
    )
    .await?;
    let expected: [(&str, &[&str]); 12] = [
        (
            "",
            &[
                "p-",
                "p/a",
                "p/ab-1",
                "p/ab/1",
                "p/ab/2",
                "p/abc",
                "p2/a",
                "q/a/b/c/d",
            ],
        ),
        (
            "p",
            &["p-", "p/a", "p/ab-1", "p/ab/1", "p/ab/2", "p/abc", "p2/a"],
        ),
        ("p/", &["p/a", "p/ab-1", "p/ab/1", "p/ab/2", "p/abc"]),
        ("p/a", &["p/a", "p/ab-1", "p/ab/1", "p/ab/2", "p/abc"]),
        ("p/ab", &["p/ab-1", "p/ab/1", "p/ab/2", "p/abc"]),
        ("p/ab/", &["p/ab/1", "p/ab/2"]),
        ("p/ab/2", &["p/ab/2"]),
        ("p/ab/3", &[]),
        ("q/a/b", &["q/a/b/c/d"]),
        ("q/a/b/c/d", &["q/a/b/c/d"]),
        ("q/a/b/c/d/", &[]),
        ("nowhere/at/", &[]),
    ];
    for (prefix, wanted) in expected {
        let shown = listed(backend, prefix).await?;
        is_true(shown == wanted, || {
            format!("prefix {prefix:?} shows {shown:?}")
        })?;
    }
    for meta in backend.list_all(&KeyPrefix::all()).await? {
        is_true(meta.len == meta.key.as_str().len() as u64, || {
            format!("a wrong length: {meta:?}")
        })?;
    }
    Ok(())
}

async fn order(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    // A slash sorts after "-" and "!" and before "0": sorting folders by their names alone gets this wrong.
    let mut names = [
        "o/a/x", "o/a-b", "o/a!", "o/a0", "o/a-/y", "o/A", "o/a/-", "o/é", "o/z", "o/a/x0", "o/~",
    ];
    put_all(backend, &names).await?;
    names.sort_unstable();
    let shown = listed(backend, "o/").await?;
    is_true(shown == names, || format!("the order is {shown:?}"))
}

async fn while_changing(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    let staying: Vec<String> = (0..3 * options.page_len)
        .map(|n| format!("busy/{n:04}/stays"))
        .collect();
    put_all(
        backend,
        &staying.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await?;
    let change = async {
        for round in 0..30_usize {
            let name = key(format!(
                "busy/{:04}/comes-{round}",
                (round * 7) % staying.len().max(1)
            ))?;
            backend.put(&name, pattern(1, 100), PutMode::Create).await?;
            backend.delete_one(&name).await?;
        }
        Ok::<(), Wrong>(())
    };
    let look = async {
        for _ in 0..10 {
            let mut seen: HashMap<String, usize> = HashMap::new();
            for name in listed(backend, "busy/").await? {
                *seen.entry(name).or_default() += 1;
            }
            let once = staying.iter().all(|name| seen.get(name) == Some(&1));
            is_true(once, || {
                format!("objects that stay are not listed once: {seen:?}")
            })?;
            let known = seen
                .keys()
                .all(|name| name.ends_with("/stays") || name.contains("/comes-"));
            is_true(known, || {
                format!("a listing shows what never was: {seen:?}")
            })?;
        }
        Ok::<(), Wrong>(())
    };
    futures::future::try_join(change, look).await.map(|_| ())
}

async fn dropped_early(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    let names: Vec<String> = (0..3 * options.page_len)
        .map(|n| format!("early/{n:04}"))
        .collect();
    put_all(
        backend,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await?;
    for _ in 0..10 {
        let mut pages = backend.list(&KeyPrefix::all());
        let first = pages.next().await.transpose()?;
        is_true(first.is_some_and(|page| !page.is_empty()), || {
            "the first page is missing".to_owned()
        })?;
        drop(pages);
        let name = key(&*names[0])?;
        let mut get = backend.get(&name, None);
        let _ = futures::poll!(&mut get);
        drop(get);
    }
    let shown = listed(backend, "early/").await?;
    is_true(shown == names, || {
        format!("afterwards the listing shows {shown:?}")
    })
}
