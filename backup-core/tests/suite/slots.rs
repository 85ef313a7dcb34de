use backup_core::{
    Argon2Params, ChunkKind, ChunkerParams, ConfigError, KeyError, Keys, MasterKey,
    RepositoryConfig, RepositoryId, SlotError, SlotId, SlotInfo, SlotRandom, SlotSecret,
    create_slot, inspect_slot, open_slot,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::forge::{MASTER, REPOSITORY};
use crate::records::keys;

const PASSPHRASE: SlotSecret<'static> = SlotSecret::Passphrase(b"correct horse");
const HOST_KEY: SlotSecret<'static> = SlotSecret::Key(&[3; 32]);

pub(crate) fn slot(secret: &SlotSecret<'_>, label: &str) -> Vec<u8> {
    let info = SlotInfo {
        slot: SlotId::from_bytes([2; 8]),
        repository: REPOSITORY,
        label,
        argon2: Argon2Params {
            m_kib: 32,
            t: 1,
            p: 2,
        },
    };
    let random = SlotRandom {
        salt: [4; 32],
        nonce: [5; 24],
    };
    create_slot(secret, &MasterKey::from_bytes(MASTER.into()), &info, random).unwrap()
}

pub(crate) fn passphrase_slot() -> Vec<u8> {
    slot(&PASSPHRASE, "laptop")
}

fn opens_as_the_same_keys(bytes: &[u8], secret: &SlotSecret<'_>) -> bool {
    let (master, repository) = open_slot(bytes, secret).unwrap();
    let id = Keys::all(&master).chunk_id(ChunkKind::Data, b"x");
    repository == REPOSITORY && id == keys().chunk_id(ChunkKind::Data, b"x")
}

/// Sets one field and repairs the check value, as an attacker would; the recipe is that of the specification.
fn crafted(bytes: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    edit(&mut value);
    let hex = |field: &str| {
        data_encoding::HEXLOWER
            .decode(value[field].as_str().unwrap().as_bytes())
            .unwrap()
    };
    let label = value["label"].as_str().unwrap();
    let kind = if value["kind"] == "key" { 2 } else { 1 };
    let mut fields = [
        &1_u32.to_le_bytes()[..],
        &[kind],
        &hex("slot"),
        &hex("repository"),
    ]
    .concat();
    fields.extend((label.len() as u32).to_le_bytes());
    fields.extend(label.as_bytes());
    for parameter in ["m_kib", "t", "p"] {
        let number = value["argon2id"]
            .get(parameter)
            .map_or(0, |number| number.as_u64().unwrap());
        fields.extend((number as u32).to_le_bytes());
    }
    for field in ["salt", "commitment", "nonce", "sealed"] {
        fields.extend(hex(field));
    }
    let check = data_encoding::HEXLOWER.encode(&blake3::hash(&fields).as_bytes()[..16]);
    value["check"] = json!(check);
    serde_json::to_vec(&value).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_wrapped_opens(passphrase in prop::collection::vec(any::<u8>(), 0..40), label in "\\PC{0,40}", key in any::<[u8; 32]>()) {
        for secret in [SlotSecret::Passphrase(&passphrase), SlotSecret::Key(&key)] {
            prop_assert!(opens_as_the_same_keys(&slot(&secret, &label), &secret));
        }
    }

    #[test]
    fn no_bytes_make_the_opener_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open_slot(&bytes, &PASSPHRASE).is_err());
    }
}

#[test]
fn the_check_value_is_that_of_the_specification() {
    let bytes = passphrase_slot();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let again: Value = serde_json::from_slice(&crafted(&bytes, |_| ())).unwrap();
    assert_eq!(again, value);
}

#[test]
fn a_slot_tells_what_it_is_without_its_secret() {
    let summary = inspect_slot(&passphrase_slot()).unwrap();
    assert_eq!(summary.slot, SlotId::from_bytes([2; 8]));
    assert_eq!(summary.repository, REPOSITORY);
    assert_eq!(summary.label, "laptop");
    assert_eq!(
        summary.argon2,
        Some(Argon2Params {
            m_kib: 32,
            t: 1,
            p: 2
        })
    );
    assert_eq!(inspect_slot(&slot(&HOST_KEY, "")).unwrap().argon2, None);
    assert!(matches!(
        inspect_slot(b"{}"),
        Err(SlotError::Damaged { .. })
    ));
}

#[test]
fn a_wrong_secret_is_told_from_a_damaged_slot() {
    let bytes = passphrase_slot();
    let refused = |bytes: &[u8], secret| open_slot(bytes, &secret).map(|_| ()).unwrap_err();
    assert_eq!(
        refused(&bytes, SlotSecret::Passphrase(b"wrong")),
        SlotError::WrongSecret
    );
    assert_eq!(
        refused(&bytes, SlotSecret::Passphrase(b"")),
        SlotError::WrongSecret
    );
    assert_eq!(
        refused(&bytes, HOST_KEY),
        SlotError::WrongSecretKind {
            expected: "passphrase"
        }
    );
    let keyed = slot(&HOST_KEY, "");
    assert_eq!(
        refused(&keyed, SlotSecret::Key(&[4; 32])),
        SlotError::WrongSecret
    );
    assert_eq!(
        refused(&keyed, PASSPHRASE),
        SlotError::WrongSecretKind { expected: "key" }
    );
    let half = &bytes[..bytes.len() / 2];
    assert!(matches!(
        refused(half, PASSPHRASE),
        SlotError::Damaged { .. }
    ));
    assert!(matches!(
        refused(&[b' '; 20_000], PASSPHRASE),
        SlotError::Damaged { .. }
    ));
}

/// SECURITY.md, section 6, item 10. The 4 TiB alone would end the test.
#[test]
fn absurd_parameters_are_refused_before_anything_is_allocated() {
    let bytes = passphrase_slot();
    let absurd = [
        (4 << 30, 3, 4),
        ((2 << 20) + 1, 3, 4),
        (1 << 40, 3, 4),
        (256 << 10, 1 << 31, 4),
        (256 << 10, 17, 4),
        (256 << 10, 0, 4),
        (256 << 10, 3, 255),
        (256 << 10, 3, 0),
        (31, 3, 4),
        (0, 0, 0),
    ];
    for (m_kib, t, p) in absurd {
        let bytes = crafted(&bytes, |slot| {
            slot["argon2id"] = json!({ "m_kib": m_kib, "t": t, "p": p })
        });
        let refused = open_slot(&bytes, &PASSPHRASE).map(|_| ()).unwrap_err();
        assert_eq!(refused, SlotError::ParamsOutOfBounds { m_kib, t, p });
    }
    let info = SlotInfo {
        slot: SlotId::from_bytes([2; 8]),
        repository: REPOSITORY,
        label: "",
        argon2: Argon2Params {
            m_kib: u32::MAX,
            t: 1,
            p: 1,
        },
    };
    let master = MasterKey::from_bytes(MASTER.into());
    let random = SlotRandom {
        salt: [4; 32],
        nonce: [5; 24],
    };
    let refused = create_slot(&PASSPHRASE, &master, &info, random);
    assert!(matches!(refused, Err(SlotError::ParamsOutOfBounds { .. })));
}

#[test]
fn a_slot_crafted_without_the_secret_does_not_open() {
    let bytes = passphrase_slot();
    let refused = |edit: &dyn Fn(&mut Value)| {
        let bytes = crafted(&bytes, edit);
        open_slot(&bytes, &PASSPHRASE).map(|_| ()).unwrap_err()
    };
    let unauthentic = SlotError::Damaged {
        what: "the sealed key is not authentic",
    };
    assert_eq!(
        refused(&|slot| slot["label"] = json!("desktop")),
        unauthentic
    );
    assert_eq!(
        refused(&|slot| slot["repository"] = json!("22".repeat(16))),
        unauthentic
    );
    assert_eq!(
        refused(&|slot| slot["slot"] = json!("22".repeat(8))),
        unauthentic
    );
    assert_eq!(
        refused(&|slot| slot["nonce"] = json!("22".repeat(24))),
        unauthentic
    );
    assert_eq!(
        refused(&|slot| slot["sealed"] = json!("22".repeat(48))),
        unauthentic
    );
    assert_eq!(
        refused(&|slot| slot["salt"] = json!("22".repeat(32))),
        SlotError::WrongSecret
    );
    assert_eq!(
        refused(&|slot| slot["commitment"] = json!("22".repeat(32))),
        SlotError::WrongSecret
    );
    let weaker = json!({ "m_kib": 16, "t": 1, "p": 2 });
    assert_eq!(
        refused(&|slot| slot["argon2id"] = weaker.clone()),
        SlotError::WrongSecret
    );
}

/// SECURITY.md, section 6, item 12.
#[test]
fn a_newer_slot_is_told_even_if_its_fields_are_unknown() {
    let newer = br#"{"version": 2, "suite": "of the future"}"#;
    let refused = open_slot(newer, &PASSPHRASE).map(|_| ()).unwrap_err();
    assert_eq!(
        refused,
        SlotError::UnsupportedVersion {
            got: 2,
            expected: 1
        }
    );
    let bytes = crafted(&passphrase_slot(), |slot| slot["suite"] = json!("none"));
    let refused = open_slot(&bytes, &PASSPHRASE).map(|_| ()).unwrap_err();
    assert!(matches!(refused, SlotError::Damaged { .. }));
    let stripped = crafted(&passphrase_slot(), |slot| {
        slot.as_object_mut().unwrap().remove("argon2id");
    });
    let refused = open_slot(&stripped, &PASSPHRASE).map(|_| ()).unwrap_err();
    assert!(matches!(refused, SlotError::Damaged { .. }));
}

#[test]
fn a_stuck_generator_repeats_no_nonce_under_one_passphrase() {
    let sealed = |master: u8| {
        let info = SlotInfo {
            slot: SlotId::from_bytes([2; 8]),
            repository: REPOSITORY,
            label: "",
            argon2: Argon2Params {
                m_kib: 8,
                t: 1,
                p: 1,
            },
        };
        let random = SlotRandom {
            salt: [0; 32],
            nonce: [0; 24],
        };
        let master = MasterKey::from_bytes([master; 32].into());
        let bytes = create_slot(&PASSPHRASE, &master, &info, random).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["nonce"].clone()
    };
    assert_ne!(sealed(1), sealed(2));
}

#[test]
fn a_label_is_bounded() {
    let info = SlotInfo {
        slot: SlotId::from_bytes([2; 8]),
        repository: REPOSITORY,
        label: &"x".repeat(257),
        argon2: Argon2Params::DEFAULT,
    };
    let master = MasterKey::from_bytes(MASTER.into());
    let random = SlotRandom {
        salt: [0; 32],
        nonce: [0; 24],
    };
    let refused = create_slot(&HOST_KEY, &master, &info, random);
    assert_eq!(refused, Err(SlotError::LabelTooLong { len: 257 }));
}

#[test]
fn a_config_passes_and_its_keys_are_checked_first() {
    let config = RepositoryConfig::new(REPOSITORY, ChunkerParams::DEFAULT);
    let bytes = config.encode(&keys()).unwrap();
    let unverified = RepositoryConfig::decode(&bytes).unwrap();
    assert_eq!(unverified.claimed_repository(), REPOSITORY);
    assert_eq!(unverified.verify(&keys()), Ok(config));
    let other = Keys::all(&MasterKey::from_bytes([8; 32].into()));
    assert_eq!(
        unverified.verify(&other),
        Err(ConfigError::WrongKey {
            repository: REPOSITORY
        })
    );
    let writer = Keys::writer(&MasterKey::from_bytes(MASTER.into()));
    assert_eq!(unverified.check_keys(&writer), Ok(()));
    let source = KeyError::MissingCapability { key: "config" };
    assert_eq!(
        unverified.verify(&writer),
        Err(ConfigError::Key {
            source: source.clone()
        })
    );
    assert_eq!(config.encode(&writer), Err(ConfigError::Key { source }));
}

/// SECURITY.md, section 6, item 12.
#[test]
fn an_altered_config_never_passes() {
    let bytes = RepositoryConfig::new(REPOSITORY, ChunkerParams::DEFAULT)
        .encode(&keys())
        .unwrap();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        edit(&mut value);
        RepositoryConfig::decode(&serde_json::to_vec(&value).unwrap())
            .and_then(|config| config.verify(&keys()))
    };
    let repository = REPOSITORY;
    assert_eq!(
        with(&|config| config["chunker"]["min"] = json!(64)),
        Err(ConfigError::Unauthentic { repository })
    );
    assert_eq!(
        with(&|config| config["mac"] = json!("00".repeat(32))),
        Err(ConfigError::Unauthentic { repository })
    );
    assert_eq!(
        with(&|config| config["kcv"] = json!("00".repeat(16))),
        Err(ConfigError::WrongKey { repository })
    );
    let swapped = RepositoryId::from_bytes([2; 16]);
    assert_eq!(
        with(&|config| config["repository"] = json!(swapped.to_string())),
        Err(ConfigError::WrongKey {
            repository: swapped
        })
    );
    assert_eq!(
        with(
            &|config| *config = json!({ "format": "backup repository", "version": 7, "new": true })
        ),
        Err(ConfigError::UnsupportedVersion {
            got: 7,
            expected: 1
        })
    );
    for version in [0_u64, 2, u64::MAX] {
        let refused = with(&|config| config["version"] = json!(version));
        assert_eq!(
            refused,
            Err(ConfigError::UnsupportedVersion {
                got: version,
                expected: 1
            })
        );
    }
    assert!(matches!(
        with(&|config| config["extra"] = json!(1)),
        Err(ConfigError::NotAConfig { .. })
    ));
    assert!(matches!(
        with(&|config| config["format"] = json!("restic")),
        Err(ConfigError::NotAConfig { .. })
    ));
    assert!(matches!(
        with(&|config| config["chunker"]["avg"] = json!(3)),
        Err(ConfigError::Chunker { .. })
    ));
    assert!(matches!(
        with(&|config| config["mac"] = json!("AA".repeat(32))),
        Err(ConfigError::NotAConfig { .. })
    ));
}
