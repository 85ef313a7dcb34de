//! Snapshot cells, sessions' and collectors' documents, and the names of objects.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;

use backup_core::{PackId, SegmentId, SessionId, SlotId, SourceTag};
use backup_manifest::{
    Ack, CELL_LEN_MAX, Cell, CellError, DECISION_LEN_MAX, Decision, GcPlan, ItemPath, ObjectName,
    Previous, SKIPPED_MAX, SessionError, SessionOpen, SkippedItem, SnapshotKind, SnapshotManifest,
    SnapshotStats, TreeRef, TreeRoot, Verdict, damaged_key, decision_key, gc_done_key,
    gc_final_key, gc_plan_key, gone_key, pack_key, packs_prefix, segment_key, session_ack_key,
    session_beat_key, session_open_key, session_prefix, slot_key, snapshot_key,
    snapshots_of_source_prefix,
};
use proptest::prelude::*;
use support::chunk_id;

fn session(n: u8) -> SessionId {
    SessionId::from_parts(SourceTag::from_bytes([n; 8]), [0xa0 ^ n; 16])
}

fn pack(n: u8) -> PackId {
    PackId::from_bytes([n; 32])
}

fn manifest() -> SnapshotManifest {
    SnapshotManifest {
        session: session(1),
        nonce: [7; 16],
        source: "db \u{1f40b} \"main\"".to_owned(),
        kind: SnapshotKind::Tree,
        host: "host.example".to_owned(),
        user: Some("root".to_owned()),
        tags: vec!["nightly".to_owned(), "db".to_owned()],
        started_ns: i64::MIN,
        finished_ns: 1_795_000_000_123_456_789,
        previous: Some(Previous {
            id: session(0),
            hash: [9; 32],
        }),
        root: TreeRoot {
            level: 2,
            refs: vec![TreeRef {
                id: chunk_id(1),
                len: 70_000,
                first: ItemPath::root(),
                first_offset: 0,
            }],
        },
        stats: SnapshotStats {
            items: u64::MAX,
            files: 3,
            bytes: 1 << 60,
        },
        complete: false,
        skipped_count: 1,
        skipped: vec![SkippedItem {
            path: ItemPath::from_bytes(&b"a\xff/\n\\"[..]).expect("a valid path"),
            reason: "permission denied".to_owned(),
        }],
        program: "backup 0.1.0".to_owned(),
        extras: BTreeMap::from([(
            "future".to_owned(),
            serde_json::json!({ "n": [1, null, "x"] }),
        )]),
    }
}

fn text(manifest: &SnapshotManifest) -> String {
    let bytes = Cell::Snapshot(manifest.clone())
        .encode()
        .expect("a valid manifest");
    String::from_utf8(bytes).expect("JSON is text")
}

#[test]
fn cells_read_back_with_what_they_do_not_know() {
    let mut plain = manifest();
    plain.user = None;
    plain.previous = None;
    plain.extras.clear();
    plain.root = TreeRoot::empty();
    for cell in [
        Cell::Snapshot(manifest()),
        Cell::Snapshot(plain),
        Cell::Aborted,
    ] {
        let bytes = cell.encode().expect("a valid cell");
        assert_eq!(Cell::decode(&bytes), Ok(cell));
    }
    assert_eq!(Cell::Aborted.encode().expect("a valid cell"), b"aborted");
}

#[test]
fn an_extra_cannot_replace_a_field() {
    let mut manifest = manifest();
    manifest.extras.insert("host".to_owned(), "other".into());
    assert!(text(&manifest).contains("host.example"));
    let Ok(Cell::Snapshot(decoded)) = Cell::decode(text(&manifest).as_bytes()) else {
        panic!("a valid cell");
    };
    assert!(!decoded.extras.contains_key("host"));
}

#[test]
fn a_newer_version_is_told_even_when_nothing_else_is_known() {
    let newer = br#"{"version":2,"something":"else"}"#;
    assert_eq!(
        Cell::decode(newer),
        Err(CellError::UnsupportedVersion {
            got: 2,
            expected: 1
        })
    );
    assert!(matches!(
        SessionOpen::decode(newer),
        Err(SessionError::UnsupportedVersion {
            got: 2,
            expected: 1,
            ..
        })
    ));
    assert!(matches!(
        Ack::decode(&[2, 0, 0]),
        Err(SessionError::UnsupportedVersion { got: 2, .. })
    ));
    assert!(matches!(
        GcPlan::decode(&[0, 0, 0, 0]),
        Err(SessionError::UnsupportedVersion { got: 0, .. })
    ));
}

#[test]
fn cells_with_a_bad_field_are_refused() {
    let good = text(&manifest());
    for (from, to) in [
        ("\"version\":1", "\"version\":0"),
        ("\"version\":1", "\"version\":\"1\""),
        (",\"version\":1", ""),
        ("\"nonce\":\"07", "\"nonce\":\""),
        ("\"nonce\":\"07", "\"nonce\":\"0G"),
        ("\"kind\":\"tree\"", "\"kind\":\"Tree\""),
        ("\"hash\":\"09", "\"hash\":\"AA"),
        ("\"session\":\"01", "\"session\":\"0"),
        ("\"root\":\"A", "\"root\":\"!"),
        ("\"root\":\"A", "\"root\":\"/"),
        ("\"complete\":false", "\"complete\":0"),
        ("\"files\":3", "\"files\":-3"),
        ("\"files\":3", "\"files\":3,\"files\":3"),
        ("a\\\\xff/", "/a"),
        ("a\\\\xff/", "../"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(Cell::decode(bad.as_bytes()).is_err(), "{from} -> {to}");
    }
    for bad in [
        &b""[..],
        b"abort",
        b"aborted ",
        b"null",
        b"[]",
        b"{}",
        b"{\"version\":1}",
    ] {
        assert!(Cell::decode(bad).is_err());
    }
    for end in 0..good.len() {
        assert!(Cell::decode(&good.as_bytes()[..end]).is_err());
    }
    let nested = ["{\"version\":1,\"x\":".to_owned(), "[".repeat(100_000)].concat();
    assert!(Cell::decode(nested.as_bytes()).is_err());
}

#[test]
fn errors_quote_nothing_of_a_cell() {
    let secret = text(&manifest()).replace("\"complete\":false", "\"complete\":\"SECRET\"");
    let error = Cell::decode(secret.as_bytes()).expect_err("a bad field");
    assert!(!format!("{error} {error:?}").contains("SECRET"));
}

#[test]
fn cells_are_bounded() {
    let mut manifest = manifest();
    manifest.skipped = (0..3 * SKIPPED_MAX)
        .map(|n| SkippedItem {
            path: ItemPath::from_bytes(n.to_string()).expect("a valid path"),
            reason: "x".to_owned(),
        })
        .collect();
    let Ok(Cell::Snapshot(decoded)) = Cell::decode(text(&manifest).as_bytes()) else {
        panic!("a valid cell");
    };
    assert_eq!(decoded.skipped, manifest.skipped[..SKIPPED_MAX]);

    for skipped in &mut manifest.skipped {
        skipped.reason = "\u{1}".repeat(60_000);
    }
    assert!(
        text(&manifest).len() < CELL_LEN_MAX / 2,
        "a long list of reasons never stops a commit"
    );
    manifest.skipped.clear();
    manifest.tags = vec!["t".repeat(CELL_LEN_MAX)];
    assert!(matches!(
        Cell::Snapshot(manifest).encode(),
        Err(CellError::TooLong { .. })
    ));
    assert!(matches!(
        Cell::decode(&vec![b' '; CELL_LEN_MAX + 1]),
        Err(CellError::TooLong { .. })
    ));
}

#[test]
fn sessions_documents_read_back_sorted() {
    let open = SessionOpen {
        host: "h\u{0}\"".to_owned(),
        started_ns: -1,
        purpose: "backup".to_owned(),
    };
    assert_eq!(
        SessionOpen::decode(&open.encode().expect("short")),
        Ok(open)
    );

    let ack = Ack {
        round: u64::MAX,
        claims: vec![pack(3), pack(1), pack(3)],
    };
    let decoded = Ack::decode(&ack.encode().expect("short")).expect("valid");
    assert_eq!(
        decoded,
        Ack {
            round: u64::MAX,
            claims: vec![pack(1), pack(3)]
        }
    );

    let plan = GcPlan {
        round: 5,
        condemned: vec![pack(2), pack(1)],
        covered: vec![session(9), session(8)],
    };
    let decoded = GcPlan::decode(&plan.encode().expect("short")).expect("valid");
    let sorted = GcPlan {
        round: 5,
        condemned: vec![pack(1), pack(2)],
        covered: vec![session(8), session(9)],
    };
    assert_eq!(decoded, sorted);
    let empty = GcPlan::default();
    assert_eq!(GcPlan::decode(&empty.encode().expect("short")), Ok(empty));
}

#[test]
fn sessions_documents_are_refused_when_cut_grown_or_unsorted() {
    let plan = GcPlan {
        round: 5,
        condemned: vec![pack(1), pack(2)],
        covered: vec![session(8)],
    };
    let bytes = plan.encode().expect("short");
    for end in 0..bytes.len() {
        assert!(GcPlan::decode(&bytes[..end]).is_err());
        assert!(Ack::decode(&bytes[..end.min(66)]).is_err());
    }
    assert!(GcPlan::decode(&[&bytes[..], &[0]].concat()).is_err());
    let mut unsorted = bytes.clone();
    unsorted[3] = 9;
    assert_eq!(
        GcPlan::decode(&unsorted),
        Err(SessionError::Unsorted { part: "condemned" })
    );
    let huge = [1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert!(matches!(Ack::decode(&huge), Err(SessionError::Wire(_))));
    assert!(matches!(GcPlan::decode(&huge), Err(SessionError::Wire(_))));
}

#[test]
fn decisions_read_back_and_other_versions_are_told() {
    for verdict in [Verdict::Forget, Verdict::Keep, Verdict::Hold, Verdict::Drop] {
        let decision = Decision {
            verdict,
            reason: "not one of the last 7 \u{7}\"".to_owned(),
            decided_ns: -3,
            even_the_last: verdict == Verdict::Forget,
        };
        let bytes = decision.encode().expect("short");
        assert_eq!(Decision::decode(&bytes), Ok(decision));
        for end in 0..bytes.len() {
            assert!(Decision::decode(&bytes[..end]).is_err());
        }
    }
    let newer = br#"{"version":2,"verdict":"shred"}"#;
    assert!(matches!(
        Decision::decode(newer),
        Err(SessionError::UnsupportedVersion { got: 2, .. })
    ));
    let unknown =
        br#"{"version":1,"verdict":"shred","reason":"","decided_ns":0,"even_the_last":false}"#;
    for bad in [&unknown[..], b"{}", b"[]", b"1", b""] {
        assert!(matches!(
            Decision::decode(bad),
            Err(SessionError::Malformed { .. })
        ));
    }
    let long = Decision {
        verdict: Verdict::Keep,
        reason: "r".repeat(DECISION_LEN_MAX),
        decided_ns: 0,
        even_the_last: false,
    };
    assert!(matches!(long.encode(), Err(SessionError::TooLong { .. })));
}

fn names() -> Vec<(ObjectName, String, &'static str)> {
    let (id, hex) = (
        session(1),
        "0101010101010101-a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
    );
    let pack_hex = "abababababababababababababababababababababababababababababababab";
    let pack = PackId::from_bytes([0xab; 32]);
    let segment = SegmentId::from_bytes([0xab; 32]);
    let slot = SlotId::from_bytes([0xcd; 8]);
    let leak = |text: String| -> &'static str { text.leak() };
    vec![
        (
            ObjectName::Config,
            backup_manifest::CONFIG.to_owned(),
            "config",
        ),
        (
            ObjectName::Slot(slot),
            slot_key(&slot),
            "keys/cdcdcdcdcdcdcdcd",
        ),
        (
            ObjectName::Pack(pack),
            pack_key(&pack),
            leak(format!("packs/ab/{pack_hex}")),
        ),
        (
            ObjectName::Segment(segment),
            segment_key(&segment),
            leak(format!("index/{pack_hex}")),
        ),
        (
            ObjectName::SessionOpen(id),
            session_open_key(&id),
            leak(format!("sessions/{hex}/open")),
        ),
        (
            ObjectName::SessionAck(id, 7),
            session_ack_key(&id, 7),
            leak(format!("sessions/{hex}/ack/00000000000000000007")),
        ),
        (
            ObjectName::SessionBeat(id, u64::MAX),
            session_beat_key(&id, u64::MAX),
            leak(format!("sessions/{hex}/beat/18446744073709551615")),
        ),
        (
            ObjectName::Snapshot(id),
            snapshot_key(&id),
            leak(format!("snapshots/{hex}")),
        ),
        (
            ObjectName::Decision(id, 3),
            decision_key(&id, 3),
            leak(format!("retired/{hex}/00000000000000000003")),
        ),
        (
            ObjectName::Gone(id),
            gone_key(&id),
            leak(format!("retired/{hex}/gone")),
        ),
        (
            ObjectName::Damaged(pack),
            damaged_key(&pack),
            leak(format!("damaged/{}", "ab".repeat(32))),
        ),
        (
            ObjectName::GcPlan(0),
            gc_plan_key(0),
            "gc/00000000000000000000/plan",
        ),
        (
            ObjectName::GcFinal(12),
            gc_final_key(12),
            "gc/00000000000000000012/final",
        ),
        (
            ObjectName::GcDone(12),
            gc_done_key(12),
            "gc/00000000000000000012/done",
        ),
    ]
}

#[test]
fn names_are_what_the_format_says_and_read_back() {
    for (name, key, expected) in names() {
        assert_eq!(key, expected);
        assert_eq!(name.to_string(), expected);
        assert_eq!(key.parse(), Ok(name));
        assert!(
            key.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'/' | b'-'))
        );
    }
    let id = session(1);
    assert!(session_open_key(&id).starts_with(&session_prefix(&id)));
    assert!(snapshot_key(&id).starts_with(&snapshots_of_source_prefix(id.tag())));
    assert!(pack_key(&pack(0xab)).starts_with(&packs_prefix(0xab)));
}

#[test]
fn names_that_differ_in_anything_are_refused() {
    for (_, key, _) in names() {
        for bad in [
            format!("{key}/"),
            format!("/{key}"),
            format!("{key}x"),
            format!("x{key}"),
            key.to_uppercase(),
            key.replacen('/', "//", 1).replace("config", "Config"),
            key[..key.len() - 1].to_owned(),
            format!("{key}/00000000000000000007"),
        ] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
        }
    }
    let other_folder = pack_key(&pack(0xab)).replacen("/ab/", "/ac/", 1);
    for bad in [
        other_folder.as_str(),
        "",
        "gc/+0000000000000000001/plan",
        "gc/1/plan",
        "gc/99999999999999999999/plan",
        "keys/\u{e4}",
    ] {
        assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn documents_survive_damage(at in any::<usize>(), flip in 1..=255_u8) {
        let plan = GcPlan { round: 5, condemned: vec![pack(1), pack(2)], covered: vec![session(8)] };
        let mut bytes = plan.encode().expect("short");
        let index = at % bytes.len();
        bytes[index] ^= flip;
        if let Ok(plan) = GcPlan::decode(&bytes) {
            prop_assert_eq!(plan.encode(), Ok(bytes.clone()));
        }
        let _ = Ack::decode(&bytes);
        let mut bytes = text(&manifest()).into_bytes();
        let index = at % bytes.len();
        bytes[index] ^= flip;
        if let Ok(cell) = Cell::decode(&bytes) {
            let again = cell.encode().expect("what was read can be written");
            prop_assert_eq!(Cell::decode(&again), Ok(cell));
        }
    }

    #[test]
    fn any_text_is_a_name_or_an_error(key in "[a-z0-9/-]{0,40}") {
        if let Ok(name) = key.parse::<ObjectName>() {
            prop_assert_eq!(name.to_string(), key);
        }
    }
}
