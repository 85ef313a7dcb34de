//! The bytes of format version 1, kept in `testdata/v1`. A change here is a change of the format: it needs another
//! version, and readers for this one.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use backup_core::{PackId, RepositoryId, SessionId, SourceTag};
use backup_manifest::{
    Ack, Cell, ChainCell, Decision, Extent, GcPlan, Item, ItemKind, ItemPath, Metadata, PageParams,
    PageReader, Pins, Previous, Record, SessionOpen, SkippedItem, SnapshotKind, SnapshotManifest,
    SnapshotStats, TreeRef, TreeRoot, Verdict, Xattr, decode_list,
};
use support::{Entry, chunk_id, extents, made_up_tree, pages};

fn path(text: &str) -> ItemPath {
    ItemPath::from_bytes(text).expect("a valid path")
}

/// One item of every kind, and every way to code a time.
fn every_kind() -> Vec<Entry> {
    let second = 1_000_000_000;
    let time = 1_795_000_000 * second;
    let kinds: Vec<(&str, ItemKind, i64, i64, Vec<Extent>)> = vec![
        ("", ItemKind::Directory, time, time, vec![]),
        (
            "block",
            ItemKind::BlockDevice {
                major: 8,
                minor: 300,
            },
            time,
            time + 5,
            vec![],
        ),
        (
            "char",
            ItemKind::CharDevice { major: 1, minor: 3 },
            time - 7 * second,
            time,
            vec![],
        ),
        ("empty", ItemKind::File, time + 123, time + 123, vec![]),
        ("fifo", ItemKind::Fifo, i64::MIN, i64::MAX, vec![]),
        (
            "hard",
            ItemKind::Hardlink {
                target: path("empty"),
            },
            -second,
            0,
            vec![],
        ),
        ("sock", ItemKind::Socket, 0, 0, vec![]),
        (
            "stream",
            ItemKind::Stream,
            time,
            time + 9,
            extents(1, 200_000),
        ),
        ("sub", ItemKind::Directory, time, time, vec![]),
        (
            "sub/small",
            ItemKind::File,
            time + second,
            time + second + 1,
            extents(2, 5),
        ),
        (
            "sub/sparse",
            ItemKind::File,
            time,
            time,
            vec![
                Extent::Hole { len: 1 << 40 },
                Extent::Data {
                    len: 1,
                    id: chunk_id(3),
                },
            ],
        ),
        (
            "symbolic",
            ItemKind::Symlink {
                target: b"../\xff".to_vec(),
            },
            time,
            time,
            vec![],
        ),
        ("volume", ItemKind::Volume, time, time, extents(4, 65_536)),
    ];
    kinds
        .into_iter()
        .enumerate()
        .map(|(index, (at, kind, mtime_ns, ctime_ns, extents))| {
            let meta = Metadata {
                mode: 0o644 + index as u32 % 3,
                uid: index as u32 / 4,
                gid: index as u32 / 6,
                mtime_ns,
                ctime_ns,
                inode: 1 << (60 - index),
                device: index as u64 / 7,
                len: extents.iter().map(Extent::len).sum(),
                xattrs: match index % 4 {
                    0 => vec![],
                    _ => vec![
                        Xattr {
                            name: b"security.selinux".to_vec(),
                            value: b"label".to_vec(),
                        },
                        Xattr {
                            name: b"user.n".to_vec(),
                            value: vec![index as u8 / 2],
                        },
                    ],
                },
            };
            (
                Item {
                    path: path(at),
                    kind,
                    meta,
                },
                extents,
            )
        })
        .collect()
}

fn root() -> TreeRoot {
    let entry = |n: u64, first: &str, first_offset| TreeRef {
        id: chunk_id(n),
        len: 60_000 + n as u32,
        first: path(first),
        first_offset,
    };
    TreeRoot {
        level: 2,
        refs: vec![
            entry(1, "", 0),
            entry(2, "etc/host", 0),
            entry(3, "etc/hosts", 0),
            entry(4, "etc/hosts", 1 << 33),
        ],
    }
}

fn manifest() -> SnapshotManifest {
    let session = |n| SessionId::from_parts(SourceTag::from_bytes([n; 8]), [n; 16]);
    SnapshotManifest {
        session: session(2),
        nonce: [3; 16],
        source: "tree /etc".to_owned(),
        kind: SnapshotKind::Tree,
        host: "host".to_owned(),
        user: None,
        tags: vec!["nightly".to_owned()],
        started_ns: 1_795_000_000_000_000_000,
        finished_ns: 1_795_000_001_000_000_000,
        previous: Some(Previous {
            id: session(1),
            hash: [4; 32],
        }),
        root: root(),
        stats: SnapshotStats {
            items: 12,
            files: 5,
            bytes: 1 << 40,
        },
        complete: false,
        skipped_count: 1,
        skipped: vec![SkippedItem {
            path: path("etc/shadow"),
            reason: "permission denied".to_owned(),
        }],
        program: "backup 0.1.0".to_owned(),
        extras: BTreeMap::new(),
    }
}

fn decision() -> Decision {
    Decision {
        verdict: Verdict::Forget,
        reason: "by policy".to_owned(),
        decided_ns: 1_795_000_000_000_000_000,
        even_the_last: false,
    }
}

/// Two sources, one of them with two newest snapshots.
fn pins() -> Pins {
    let cell = |number, source: &str| ChainCell {
        id: SessionId::from_parts(SourceTag::from_bytes([number; 8]), [number; 16]),
        source: source.to_owned(),
        previous: None,
        hash: [number + 16; 32],
        retired: false,
    };
    let cells = [
        cell(1, "tree /etc"),
        cell(2, "tree /etc"),
        cell(3, "vm \"7\""),
    ];
    let repository = RepositoryId::from_bytes([9; 16]);
    let report = Pins::new(repository).check(repository, &cells);
    report.expect("the same repository").pins().clone()
}

/// All documents of the format, by file name.
fn documents() -> Vec<(String, Vec<u8>)> {
    let pack = |n| PackId::from_bytes([n; 32]);
    let session = |n| SessionId::from_parts(SourceTag::from_bytes([n; 8]), [n; 16]);
    let open = SessionOpen {
        host: "host".to_owned(),
        started_ns: 5,
        purpose: "backup".to_owned(),
    };
    let ack = Ack {
        round: 300,
        claims: vec![pack(1), pack(2)],
    };
    let plan = GcPlan {
        round: 300,
        condemned: vec![pack(1)],
        covered: vec![session(1), session(2)],
    };
    let mut documents = vec![
        ("root.bin".to_owned(), root().encode().expect("valid")),
        (
            "cell.json".to_owned(),
            Cell::Snapshot(manifest()).encode().expect("valid"),
        ),
        (
            "cell-aborted.txt".to_owned(),
            Cell::Aborted.encode().expect("valid"),
        ),
        (
            "session-open.json".to_owned(),
            open.encode().expect("valid"),
        ),
        ("session-ack.bin".to_owned(), ack.encode().expect("valid")),
        ("gc-plan.bin".to_owned(), plan.encode().expect("valid")),
        (
            "decision.json".to_owned(),
            decision().encode().expect("valid"),
        ),
        ("pins.json".to_owned(), pins().encode().expect("valid")),
    ];
    let small = PageParams {
        len_min: 300,
        len_target: 400,
        len_max: 500,
    };
    for (index, page) in pages(&every_kind(), small).into_iter().enumerate() {
        documents.push((format!("page-{index}.bin"), page.bytes));
    }
    documents
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

#[test]
fn documents_are_written_as_in_version_1() {
    let documents = documents();
    for (name, bytes) in &documents {
        let kept = std::fs::read(folder().join(name)).expect("testdata is complete");
        assert!(kept == *bytes, "{name} differs");
    }
    let files = std::fs::read_dir(folder())
        .expect("testdata is there")
        .count();
    assert_eq!(files, documents.len(), "a file of testdata is not tested");
}

#[test]
fn documents_of_version_1_are_read() {
    let read = |name: &str| std::fs::read(folder().join(name)).expect("testdata is complete");
    assert_eq!(
        Cell::decode(&read("cell.json")),
        Ok(Cell::Snapshot(manifest()))
    );
    assert_eq!(Cell::decode(&read("cell-aborted.txt")), Ok(Cell::Aborted));
    assert_eq!(TreeRoot::decode(&read("root.bin")), Ok(root()));
    assert_eq!(decode_list(&read("root.bin"), 2), Ok(root().refs));
    assert_eq!(
        SessionOpen::decode(&read("session-open.json"))
            .expect("valid")
            .purpose,
        "backup"
    );
    assert_eq!(
        Ack::decode(&read("session-ack.bin")).expect("valid").round,
        300
    );
    assert_eq!(
        GcPlan::decode(&read("gc-plan.bin"))
            .expect("valid")
            .covered
            .len(),
        2
    );
    assert_eq!(Decision::decode(&read("decision.json")), Ok(decision()));
    assert_eq!(Pins::decode(&read("pins.json")), Ok(pins()));
    let mut entries: Vec<Entry> = Vec::new();
    for (name, _) in documents()
        .iter()
        .filter(|(name, _)| name.starts_with("page"))
    {
        for record in PageReader::new(&read(name)).expect("a valid page") {
            match record.expect("a valid page") {
                Record::Item(item) => entries.push((item, Vec::new())),
                Record::Extent(extent) => entries.last_mut().expect("an item").1.push(extent),
                Record::Continued { .. } => {}
            }
        }
    }
    assert_eq!(entries, every_kind());
}

/// Cuts are no part of the format, but other ones would store all lists once more.
#[test]
fn pages_are_cut_where_they_always_were() {
    let lens: Vec<usize> = pages(&made_up_tree(10_000), PageParams::default())
        .iter()
        .map(|page| page.bytes.len())
        .collect();
    assert_eq!(lens, LENS);
}

const LENS: [usize; 8] = [19896, 34434, 108753, 19213, 34095, 79935, 49994, 6850];

#[test]
#[ignore = "writes testdata/v1 anew"]
fn write_testdata() {
    for (name, bytes) in documents() {
        std::fs::write(folder().join(name), bytes).expect("testdata can be written");
    }
}
