//! SECURITY.md, section 6, items 10 and 12: a wrong secret, a damaged slot, another repository and another version are
//! told apart, and nothing is downgraded in silence.
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
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, and measures time"
)]

mod attack_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use attack_support::forge::Forge;
use attack_support::*;
use backup::{
    Argon2Params, ChunkerParams, Credential, Error, OpenOptions, Repository, RepositoryId,
    SnapshotFilter, VerifyLevel, Zeroizing, add_key, list_keys, remove_key, snapshots,
};
use backup_core::{
    DocumentKind, RepositoryConfig, SlotId, SlotInfo, SlotRandom, SlotSecret, create_slot,
};
use backup_manifest::slot_key;

async fn open_with(objects: &Objects, credential: Credential) -> Result<Repository, Error> {
    let store = Arc::new(memory_of(objects).await);
    Repository::open(store, credential, OpenOptions::default()).await
}

/// The right secrets: a passphrase, a key, the master key.
fn right() -> [Credential; 3] {
    let master = Credential::Master(master(MASTER));
    [
        Credential::passphrase(PASSPHRASE),
        Credential::Key(HOST_KEY.into()),
        master,
    ]
}

fn id_of(objects: &Objects) -> RepositoryId {
    RepositoryConfig::decode(&objects["config"])
        .unwrap()
        .claimed_repository()
}

/// The slot that opens with a passphrase, then the one that opens with a key.
fn slots(objects: &Objects) -> [String; 2] {
    let is_passphrase = |name: &&String| String::from_utf8_lossy(&objects[*name]).contains("m_kib");
    let names = under(objects, "keys/");
    let one = names.iter().find(is_passphrase).unwrap().clone();
    let other = names
        .iter()
        .find(|name| !is_passphrase(name))
        .unwrap()
        .clone();
    [one, other]
}

/// Replaces text in an object; it must be there.
fn edit(objects: &Objects, name: &str, from: &str, to: &str) -> Objects {
    let text = String::from_utf8(objects[name].to_vec()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    let mut edited = objects.clone();
    edited.insert(name.into(), text.replace(from, to).into());
    edited
}

#[tokio::test]
async fn every_right_secret_opens_and_every_wrong_one_is_told_as_such() {
    let objects = &sample().objects;
    for credential in right() {
        assert_eq!(
            open_with(objects, credential).await.unwrap().id(),
            id_of(objects)
        );
    }
    let mut almost = HOST_KEY;
    almost[31] ^= 1;
    for wrong in [
        Credential::passphrase(""),
        Credential::passphrase("correct horse battery stapl"),
        Credential::passphrase("correct horse battery staple "),
        Credential::Key(almost.into()),
        // The right bytes in the wrong place.
        Credential::Passphrase(Zeroizing::new(HOST_KEY.to_vec())),
        Credential::Key([MASTER; 32].into()),
    ] {
        let error = open_with(objects, wrong).await.unwrap_err();
        assert!(
            matches!(error, Error::WrongSecret { slots: 2 }),
            "{error:?}"
        );
    }
    let error = open_with(objects, Credential::Master(master(8)))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::WrongKey), "{error:?}");
}

#[tokio::test]
async fn a_damaged_slot_is_told_as_damage_and_the_other_slot_still_opens() {
    let objects = &sample().objects;
    let [passphrase, key] = slots(objects);
    let changes = [
        ("\"sealed\": \"", "\"sealed\": \"0"),
        ("\"salt\"", "\"sale\""),
        ("a label", "a lable"),
        ("{", ""),
        ("\"slot\"", "\"extra\": 1, \"slot\""),
    ];
    for (from, to) in changes {
        let damaged = edit(objects, &passphrase, from, to);
        let [asked, other, master] = right();
        match open_with(&damaged, asked).await {
            Err(Error::Damaged { object, .. }) => assert_eq!(object, passphrase, "{from}"),
            unexpected => panic!("{from}: {unexpected:?}"),
        }
        assert!(open_with(&damaged, other).await.is_ok());
        assert!(open_with(&damaged, master).await.is_ok());
        let damaged = edit(objects, &key, from, to);
        let [other, asked, _] = right();
        match open_with(&damaged, asked).await {
            Err(Error::Damaged { object, .. }) => assert_eq!(object, key, "{from}"),
            unexpected => panic!("{from}: {unexpected:?}"),
        }
        assert!(open_with(&damaged, other).await.is_ok());
    }
}

/// Too long for a slot is damage, too, and no wrong passphrase.
#[tokio::test]
async fn a_slot_longer_than_any_slot_is_told_as_damage() {
    let [passphrase, _] = slots(&sample().objects);
    let mut objects = sample().objects.clone();
    let mut long = objects[&passphrase].to_vec();
    long.resize(backup_core::SLOT_LEN_MAX + 1, b' ');
    objects.insert(passphrase.clone(), long.into());
    match open_with(&objects, Credential::passphrase(PASSPHRASE)).await {
        Err(Error::Damaged { object, .. }) => assert_eq!(object, passphrase),
        unexpected => panic!("{unexpected:?}"),
    }
}

/// A slot that asks for the machine: refused before it gets anything, and the good ones still open.
#[tokio::test]
async fn a_slot_that_asks_for_terabytes_costs_nothing() {
    let objects = &sample().objects;
    let [passphrase, _] = slots(objects);
    let begin = Instant::now();
    for (from, to) in [
        ("\"m_kib\": 8", "\"m_kib\": 4294967296"),
        ("\"m_kib\": 8", "\"m_kib\": 4294967295"),
        ("\"t\": 1", "\"t\": 2147483648"),
        ("\"p\": 1", "\"p\": 255"),
        ("\"p\": 1", "\"p\": 0"),
        ("\"m_kib\": 8", "\"m_kib\": -1"),
        ("\"m_kib\": 8", "\"m_kib\": 1e400"),
    ] {
        let hostile = edit(objects, &passphrase, from, to);
        match open_with(&hostile, Credential::passphrase(PASSPHRASE)).await {
            Err(Error::Damaged { object, .. }) => assert_eq!(object, passphrase, "{to}"),
            unexpected => panic!("{to}: {unexpected:?}"),
        }
        // Beside the good one, and in front of it.
        let mut beside = objects.clone();
        beside.insert("keys/0000000000000000".into(), hostile[&passphrase].clone());
        assert!(
            open_with(&beside, Credential::passphrase(PASSPHRASE))
                .await
                .is_ok(),
            "{to}"
        );
    }
    assert!(begin.elapsed() < Duration::from_secs(20));
    let greedy = Argon2Params {
        m_kib: 4 << 30 >> 10,
        t: 1 << 31,
        p: 255,
    };
    let repo = open(objects).await;
    let (opener, added) = (
        Credential::Master(master(MASTER)),
        Credential::passphrase("x"),
    );
    let error = add_key(&repo, opener, added, "greedy", greedy)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::BadOption { .. }), "{error:?}");
}

/// A slot made by somebody who knows the passphrase and nothing else, with a master key of their own in it.
#[tokio::test]
async fn a_forged_slot_opens_nothing_with_a_key_that_is_not_the_repositorys() {
    let objects = &sample().objects;
    let forged = |repository| {
        let slot = SlotId::from_bytes([0; 8]);
        let info = SlotInfo {
            slot,
            repository,
            label: "forged",
            argon2: CHEAP,
        };
        let random = SlotRandom {
            salt: [1; 32],
            nonce: [2; 24],
        };
        let secret = SlotSecret::Passphrase(PASSPHRASE.as_bytes());
        let bytes = create_slot(&secret, &master(66), &info, random).unwrap();
        let mut objects = objects.clone();
        objects.insert(slot_key(&slot), bytes.into());
        objects
    };
    let mine = id_of(objects);
    let opened = open_with(&forged(mine), Credential::passphrase(PASSPHRASE)).await;
    assert!(matches!(opened, Err(Error::WrongKey)), "{opened:?}");
    // One that names another repository is none of ours.
    let other = RepositoryId::from_bytes([3; 16]);
    let opened = open_with(&forged(other), Credential::passphrase(PASSPHRASE)).await;
    assert_eq!(opened.unwrap().id(), mine);
}

#[tokio::test]
async fn versions_of_tomorrow_are_told_as_such_and_those_of_nobody_never_pass() {
    let objects = &sample().objects;
    let [passphrase, _] = slots(objects);
    for version in ["2", "99", "18446744073709551615"] {
        let newer = edit(
            objects,
            "config",
            "\"version\": 1",
            &format!("\"version\": {version}"),
        );
        for credential in right() {
            match open_with(&newer, credential).await {
                Err(Error::NewerFormat {
                    object,
                    got,
                    supported: 1,
                }) => {
                    assert_eq!(
                        (object.as_str(), got.to_string().as_str()),
                        ("config", version)
                    );
                }
                unexpected => panic!("{unexpected:?}"),
            }
        }
        let newer = edit(
            objects,
            &passphrase,
            "\"version\": 1",
            &format!("\"version\": {version}"),
        );
        match open_with(&newer, Credential::passphrase(PASSPHRASE)).await {
            Err(Error::NewerFormat { object, .. }) => assert_eq!(object, passphrase),
            unexpected => panic!("{unexpected:?}"),
        }
    }
    for version in ["0", "-1", "1.0", "\"1\"", "null", "1e0", "[1]"] {
        let strange = edit(
            objects,
            "config",
            "\"version\": 1",
            &format!("\"version\": {version}"),
        );
        for credential in right() {
            let error = open_with(&strange, credential).await.unwrap_err();
            let told = matches!(error, Error::Damaged { .. } | Error::NewerFormat { .. });
            assert!(told, "{version}: {error:?}");
        }
    }
}

/// Version, kind and flags of every sealed document: no change passes.
#[tokio::test]
async fn no_document_passes_with_another_version_kind_or_flags() {
    let objects = &sample().objects;
    for prefix in ["snapshots/", "index/", "sessions/"] {
        for name in under(objects, prefix).into_iter().take(2) {
            for (at, byte) in [(4, 0), (4, 7), (5, 0), (5, 2), (5, 255), (6, 1), (7, 128)] {
                let mut changed = objects.clone();
                let mut bytes = changed[&name].to_vec();
                bytes[at] = byte;
                changed.insert(name.clone(), bytes.into());
                let repo = open(&changed).await;
                match backup::verify(&repo, VerifyLevel::Structure, &()).await {
                    Ok(report) => assert_names(&report, &name, None),
                    Err(Error::NewerFormat { object, .. }) => assert_eq!(object, name),
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }
}

/// A cell of tomorrow, validly sealed: this program says so, and does not take it for damage.
#[tokio::test]
async fn a_snapshot_of_a_newer_version_is_told_as_such() {
    let mut forge = Forge::new(&sample().objects);
    let id = forge.session("tomorrow");
    let name = backup_manifest::snapshot_key(&id);
    let sealed = forge.seal(
        DocumentKind::Snapshot,
        &name,
        br#"{"version": 2, "new": true}"#,
    );
    forge.objects.insert(name.clone(), sealed);
    let repo = open(&forge.objects).await;
    let error = restore_to(&repo, &id, &spot()).await.unwrap_err();
    assert!(
        matches!(&error, Error::NewerFormat { object, got: 2, supported: 1 } if *object == name),
        "{error:?}"
    );
    assert_rest_whole(&repo, sample(), &[]).await;
}

#[tokio::test]
async fn an_altered_configuration_is_not_authentic() {
    let objects = &sample().objects;
    for (from, to) in [
        ("\"min\": 4096", "\"min\": 2048"),
        ("\"avg\": 16384", "\"avg\": 32768"),
        ("\"max\": 65536", "\"max\": 131072"),
        ("\"mac\": \"", "\"mac\": \"0"),
        ("\"version\"", "\"suite\": 0, \"version\""),
        ("backup repository", "backup repositorY"),
    ] {
        let altered = edit(objects, "config", from, to);
        for credential in right() {
            match open_with(&altered, credential).await {
                Err(Error::Damaged { object, .. }) => assert_eq!(object, "config", "{from}"),
                unexpected => panic!("{from}: {unexpected:?}"),
            }
        }
    }
    // Signed anew by somebody without the key: with keys of their own.
    let chunker = ChunkerParams::new(4096, 16384, 131_072).unwrap();
    let config = RepositoryConfig::new(id_of(objects), chunker);
    let bytes = config.encode(&backup_core::Keys::all(&master(66))).unwrap();
    let mut altered = objects.clone();
    altered.insert("config".into(), bytes.into());
    for credential in right() {
        let error = open_with(&altered, credential).await.unwrap_err();
        assert!(matches!(error, Error::WrongKey), "{error:?}");
    }
    let mut none = objects.clone();
    none.remove("config");
    for credential in right() {
        let error = open_with(&none, credential).await.unwrap_err();
        assert!(matches!(error, Error::NotARepository), "{error:?}");
    }
}

#[tokio::test]
async fn the_configuration_of_another_repository_is_told() {
    let mut objects = sample().objects.clone();
    // Of other keys.
    objects.insert("config".into(), stranger().objects["config"].clone());
    let [passphrase, key, master] = right();
    for credential in [passphrase, key] {
        match open_with(&objects, credential).await {
            Err(Error::RepositoryMismatch { expected, found }) => {
                assert_eq!(expected, id_of(&sample().objects));
                assert_eq!(found, id_of(&stranger().objects));
            }
            unexpected => panic!("{unexpected:?}"),
        }
    }
    let error = open_with(&objects, master).await.unwrap_err();
    assert!(matches!(error, Error::WrongKey), "{error:?}");

    // Of the same keys: slots tell it, and with the master key alone nothing inside opens.
    objects.insert("config".into(), twin().objects["config"].clone());
    let [passphrase, _, master] = right();
    let error = open_with(&objects, passphrase).await.unwrap_err();
    assert!(
        matches!(error, Error::RepositoryMismatch { .. }),
        "{error:?}"
    );
    let repo = open_with(&objects, master).await.unwrap();
    let error = snapshots(&repo, &SnapshotFilter::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    assert!(!verified(&repo, VerifyLevel::Structure).await.is_sound());
}

/// The whole store swapped for another that the same secrets open: only a caller who remembers can tell.
#[tokio::test]
async fn a_repository_that_is_not_the_one_expected_is_refused() {
    for credential in right() {
        let store = Arc::new(memory_of(&twin().objects).await);
        let mut options = OpenOptions::default();
        options.expected = Some(id_of(&sample().objects));
        match Repository::open(store, credential, options).await {
            Err(Error::RepositoryMismatch { expected, found }) => {
                assert_eq!(expected, id_of(&sample().objects));
                assert_eq!(found, id_of(&twin().objects));
            }
            unexpected => panic!("{unexpected:?}"),
        }
    }
}

#[tokio::test]
async fn a_second_create_is_refused_whatever_stands_there() {
    for config in [
        None,
        Some(&b""[..]),
        Some(b"garbage"),
        Some(br#"{"version": 2}"#),
    ] {
        let mut objects = sample().objects.clone();
        if let Some(config) = config {
            objects.insert("config".into(), config.into());
        }
        let store = memory_of(&objects).await;
        let credential = Credential::passphrase("another");
        let made =
            Repository::create(Arc::new(store.clone()), credential, Default::default()).await;
        assert!(matches!(made, Err(Error::RepositoryExists)), "{made:?}");
        assert_eq!(objects_of(&store).await, objects);
    }
}

#[tokio::test]
async fn keys_are_added_and_removed_by_who_may_and_the_last_one_stays() {
    let repo = open(&sample().objects).await;
    let wrong = Credential::passphrase("wrong");
    let added = add_key(&repo, wrong, Credential::Key([1; 32].into()), "x", CHEAP).await;
    assert!(
        matches!(added, Err(Error::WrongSecret { slots: 2 })),
        "{added:?}"
    );
    let keys = list_keys(&repo).await.unwrap();
    assert_eq!(keys.len(), 2);
    remove_key(&repo, &keys[0].slot).await.unwrap();
    let error = remove_key(&repo, &keys[1].slot).await.unwrap_err();
    assert!(matches!(error, Error::BadOption { .. }), "{error:?}");
    let error = remove_key(&repo, &keys[0].slot).await.unwrap_err();
    assert!(matches!(error, Error::BadOption { .. }), "{error:?}");
    assert_eq!(list_keys(&repo).await.unwrap().len(), 1);
}
