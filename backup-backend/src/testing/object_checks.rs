use bytes::Bytes;

use super::ConformanceOptions;
use super::conformance::{
    Case, Checked, always, cases, fails_with, holds, if_creating, is_true, key, listed, pattern,
};
use crate::{
    ByteRange, ErrorKind, ObjectKey, PutMode, SEGMENT_LEN_MAX, StorageBackend, StorageBackendExt,
};

cases! {
    always "objects of all lengths come back as they went in" => round_trip,
    always "an overwrite replaces the whole object" => overwrite,
    if_creating "a create refuses a key that is taken and leaves the object as it is" => create_refuses,
    always "what is missing is not found" => missing,
    always "a range comes back exactly, and only from within the object" => ranges,
    always "deleting is per key, in order, and again a success" => deletes,
    always "a deleted key can be created again" => recreate,
    always "every legal key names its own object" => legal_keys,
    always "an idempotent put accepts equal bytes and refuses others" => idempotent,
    always "the time of an object is the store's own and does not run backwards" => times,
}

async fn round_trip(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    const MIB: usize = 1 << 20;
    let lens = [
        0,
        1,
        4096,
        5 * MIB - 1,
        5 * MIB,
        5 * MIB + 1,
        16 * MIB - 1,
        16 * MIB,
        16 * MIB + 1,
    ];
    for len in lens
        .into_iter()
        .filter(|len| *len <= options.object_len_max)
    {
        for mode in [PutMode::Create, PutMode::CreateOnce, PutMode::Overwrite] {
            let name = key(format!("round/{mode:?}/{len}"))?;
            let bytes = pattern(len as u64, len);
            backend.put(&name, bytes.clone(), mode).await?;
            holds(backend, &name, &bytes).await?;
        }
    }
    Ok(())
}

async fn overwrite(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    let name = key("over/written")?;
    for len in [100_000, 10, 0, 50_000] {
        let bytes = pattern(len as u64, len);
        backend
            .put(&name, bytes.clone(), PutMode::Overwrite)
            .await?;
        holds(backend, &name, &bytes).await?;
    }
    let all = listed(backend, "").await?;
    is_true(all == ["over/written"], || {
        format!("the listing shows {all:?}")
    })
}

async fn create_refuses(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    let name = key("created/once")?;
    let first = pattern(1, 1000);
    backend.put(&name, first.clone(), PutMode::Create).await?;
    for other in [
        pattern(2, 1000),
        pattern(2, 10),
        Bytes::new(),
        first.clone(),
    ] {
        let second = backend.put(&name, other, PutMode::Create).await;
        fails_with(ErrorKind::AlreadyExists, "a second create", second)?;
        holds(backend, &name, &first).await?;
    }
    Ok(())
}

async fn missing(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    backend
        .put(&key("there/is")?, pattern(1, 10), PutMode::Create)
        .await?;
    for absent in [
        "nothing",
        "there/is-not",
        "there/i",
        "elsewhere/is",
        "there",
    ] {
        let absent = key(absent)?;
        fails_with(
            ErrorKind::NotFound,
            "a get",
            backend.get(&absent, None).await,
        )?;
        let range = Some(ByteRange { start: 0, len: 1 });
        fails_with(
            ErrorKind::NotFound,
            "a ranged get",
            backend.get(&absent, range).await,
        )?;
        fails_with(ErrorKind::NotFound, "a head", backend.head(&absent).await)?;
        is_true(!backend.exists(&absent).await?, || {
            format!("{absent} exists")
        })?;
    }
    Ok(())
}

async fn ranges(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    let (name, empty) = (key("ranges/some")?, key("ranges/empty")?);
    let bytes = pattern(7, 10_000);
    backend.put(&name, bytes.clone(), PutMode::Create).await?;
    backend.put(&empty, Bytes::new(), PutMode::Create).await?;
    for (start, len) in [
        (0, 10_000),
        (0, 1),
        (9_999, 1),
        (4_095, 2),
        (1, 9_998),
        (5_000, 5_000),
        (0, 0),
        (10_000, 0),
    ] {
        let got = backend.get(&name, Some(ByteRange { start, len })).await?;
        let wanted = bytes.slice(start as usize..(start + len) as usize);
        is_true(got == wanted, || {
            format!("{len} bytes from {start} are wrong")
        })?;
    }
    for (start, len) in [
        (0, 10_001),
        (9_999, 2),
        (10_000, 1),
        (10_001, 0),
        (u64::MAX, 1),
        (1, u64::MAX),
    ] {
        let got = backend.get(&name, Some(ByteRange { start, len })).await;
        fails_with(
            ErrorKind::InvalidRange,
            &format!("{len} bytes from {start} of 10,000"),
            got,
        )?;
    }
    is_true(backend.get(&empty, None).await?.is_empty(), || {
        "an empty object has bytes".to_owned()
    })?;
    let got = backend
        .get(&empty, Some(ByteRange { start: 0, len: 1 }))
        .await;
    fails_with(ErrorKind::InvalidRange, "a byte of an empty object", got)
}

async fn deletes(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    let (kept, gone) = (key("deletes/kept")?, key("deletes/gone")?);
    for name in [&kept, &gone] {
        backend.put(name, pattern(1, 10), PutMode::Create).await?;
    }
    let keys = [
        key("deletes/never")?,
        gone.clone(),
        key("nowhere/at/all")?,
        gone.clone(),
    ];
    for round in ["first", "second"] {
        let results = backend.delete(&keys).await?;
        is_true(results.len() == keys.len(), || {
            format!("{} results for {} keys", results.len(), keys.len())
        })?;
        for result in results {
            result?;
        }
        is_true(!backend.exists(&gone).await?, || {
            format!("after the {round} delete the object is there")
        })?;
    }
    holds(backend, &kept, &pattern(1, 10)).await?;
    let none = backend.delete(&[]).await?;
    is_true(none.is_empty(), || {
        "deleting nothing gave results".to_owned()
    })
}

async fn recreate(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    let name = key("deleted/and/back")?;
    for seed in 0..3 {
        let bytes = pattern(seed, 100);
        backend.put(&name, bytes.clone(), PutMode::Create).await?;
        holds(backend, &name, &bytes).await?;
        backend.delete_one(&name).await?;
    }
    is_true(listed(backend, "").await?.is_empty(), || {
        "the listing is not empty".to_owned()
    })
}

// All printable ASCII, percent signs that look encoded, unicode in both normal forms, both letter cases, the longest.
fn key_samples(key_len_max: usize) -> Vec<String> {
    let mut names: Vec<String> = (0x20_u8..0x7f)
        .map(char::from)
        .filter(|c| !matches!(c, '/' | '\\' | '.'))
        .flat_map(|c| [format!("bytes/{c}"), format!("bytes/a{c}b")])
        .collect();
    let more = [
        "a.b",
        "a..",
        "%2f",
        "%2F",
        "%",
        "%%",
        "a+b",
        "a b",
        " ",
        "é",
        "e\u{301}",
        "日本語",
        "😀",
        "A",
        "a",
        "-",
        "~",
    ];
    names.extend(more.map(|name| format!("more/{name}")));
    names.push("s".repeat(SEGMENT_LEN_MAX));
    let segments = key_len_max.saturating_sub(1) / (SEGMENT_LEN_MAX + 1);
    let mut longest = format!("{}/", "n".repeat(SEGMENT_LEN_MAX)).repeat(segments);
    longest.push_str(&"m".repeat(key_len_max.saturating_sub(longest.len())));
    names.push(longest);
    names
}

async fn legal_keys(backend: &dyn StorageBackend, options: &ConformanceOptions) -> Checked {
    let mut keys = key_samples(options.key_len_max)
        .into_iter()
        .map(key)
        .collect::<Result<Vec<ObjectKey>, _>>()?;
    keys.sort();
    keys.dedup();
    for (seed, name) in (0..).zip(&keys) {
        backend
            .put(name, pattern(seed, 32), PutMode::Create)
            .await?;
    }
    for (seed, name) in (0..).zip(&keys) {
        holds(backend, name, &pattern(seed, 32)).await?;
    }
    let wanted: Vec<&str> = keys.iter().map(ObjectKey::as_str).collect();
    let shown = listed(backend, "").await?;
    is_true(shown == wanted, || format!("the listing shows {shown:?}"))?;
    for result in backend.delete(&keys).await? {
        result?;
    }
    is_true(listed(backend, "").await?.is_empty(), || {
        "not all could be deleted".to_owned()
    })
}

async fn idempotent(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    let name = key("idempotent/put")?;
    let bytes = pattern(3, 5000);
    for _ in 0..3 {
        backend.put_idempotent(&name, bytes.clone()).await?;
    }
    holds(backend, &name, &bytes).await?;
    if !backend.capabilities().create_if_absent {
        return Ok(());
    }
    for other in [pattern(4, 5000), pattern(3, 4999), Bytes::new()] {
        let refused = backend.put_idempotent(&name, other).await;
        fails_with(
            ErrorKind::AlreadyExists,
            "an idempotent put of other bytes",
            refused,
        )?;
    }
    holds(backend, &name, &bytes).await
}

async fn times(backend: &dyn StorageBackend, _: &ConformanceOptions) -> Checked {
    let (first, second) = (key("times/1")?, key("times/2")?);
    backend.put(&first, pattern(1, 1), PutMode::Create).await?;
    backend.put(&second, pattern(2, 1), PutMode::Create).await?;
    let (a, b) = (
        backend.head(&first).await?.modified,
        backend.head(&second).await?.modified,
    );
    is_true(a <= b, || {
        format!("the second object is older: {a:?}, then {b:?}")
    })?;
    is_true(a.is_some() == b.is_some(), || {
        "only one of two objects has a time".to_owned()
    })?;
    let mut shown = backend
        .list_all(&crate::KeyPrefix::parse("times/")?)
        .await?
        .into_iter();
    let same = shown.next().map(|meta| meta.modified) == Some(a)
        && shown.next().map(|meta| meta.modified) == Some(b);
    is_true(same, || "head and list disagree about the time".to_owned())
}
