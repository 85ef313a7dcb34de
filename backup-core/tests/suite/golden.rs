//! `testdata/v1/vectors.json`: what version 1 of every derivation and format looks like. It never changes; a change of
//! these bytes is a new version, with a directory of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backup_core::{
    BlockOpener, ChunkKind, Chunker, ChunkerParams, HashAlgorithm, Hasher, KeyWrap, LocalKeyWrap,
    RepositoryConfig, Segment, SegmentId, SegmentPack, SessionId, SlotSecret, WrapContext,
    open_document, open_slot, seal_document, sha256,
};
use data_encoding::HEXLOWER;

use crate::documents::{KINDS, context};
use crate::forge::REPOSITORY;
use crate::records::{keys, noise, seal, text};
use crate::{packs, slots};

type Vectors = BTreeMap<String, String>;

fn file() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/testdata/v1/vectors.json"
    ))
}

/// Everything that is a function of its input alone. What zstd writes is not: see [`compressed`].
fn exact() -> Vectors {
    let mut vectors = Vectors::new();
    let mut add = |name: &str, value: &[u8]| {
        let earlier = vectors.insert(name.to_owned(), HEXLOWER.encode(value));
        assert!(earlier.is_none(), "{name} is there twice");
    };
    add_names_and_blocks(&mut add);
    add_packs(&mut add);
    add_objects(&mut add);
    vectors
}

fn add_names_and_blocks(add: &mut dyn FnMut(&str, &[u8])) {
    let keys = keys();
    let [data, tree] = [ChunkKind::Data, ChunkKind::Tree];
    add(
        "chunk id, data, of abc",
        keys.chunk_id(data, b"abc").as_bytes(),
    );
    add(
        "chunk id, tree, of abc",
        keys.chunk_id(tree, b"abc").as_bytes(),
    );
    add("source tag of vm-17", keys.source_tag("vm-17").as_bytes());
    add("segment id of abc", keys.segment_id(b"abc").as_bytes());
    add("key check value", &keys.key_check_value(REPOSITORY));
    add("session id", &packs::session().to_bytes());
    let content = noise(0, 1 << 20);
    let small = ChunkerParams::new(2 << 10, 8 << 10, 32 << 10).unwrap();
    let cuts = |params| cuts(params, &content);
    add(
        "cuts 8/32/128 KiB of 1 MiB noise, u32 each",
        &cuts(ChunkerParams::new(8 << 10, 32 << 10, 128 << 10).unwrap()),
    );
    add("cuts 2/8/32 KiB of 1 MiB noise, u32 each", &cuts(small));
    add("record, data, of plain, stored", &seal(data, 0, b"plain"));
    add("record, tree, of plain, stored", &seal(tree, 0, b"plain"));
}

fn add_packs(add: &mut dyn FnMut(&str, &[u8])) {
    let pack = tiny_pack();
    add("pack", &pack.bytes);
    add("pack id", pack.id.as_bytes());
    add("directory plaintext", &pack.directory.encode());
    let entry = SegmentPack {
        id: pack.id,
        kind: ChunkKind::Data,
        len: pack.bytes.len() as u64,
        directory: pack.directory,
    };
    let segment = Segment { packs: vec![entry] };
    add("segment plaintext", &segment.encode());
    let (id, bytes) = segment.seal(&keys(), REPOSITORY, [9; 24]).unwrap();
    add("segment id", id.as_bytes());
    add("segment", &bytes);
}

fn add_objects(add: &mut dyn FnMut(&str, &[u8])) {
    for kind in KINDS {
        let document = seal_document(&keys(), context(kind), [3; 24], b"plain").unwrap();
        add(&format!("document {kind:?} of plain"), &document);
    }
    let keyed = slots::slot(&SlotSecret::Key(&[3; 32]), "host");
    add("slot, passphrase correct horse", &slots::passphrase_slot());
    add("slot, key 03..03", &keyed);
    let config = RepositoryConfig::new(REPOSITORY, ChunkerParams::DEFAULT);
    add("config", &config.encode(&keys()).unwrap());
    let place = WrapContext {
        table: "stores",
        column: "secret",
        row: "17",
    };
    let wrapper = LocalKeyWrap::new([1; 8], &[1; 32].into());
    add(
        "wrapped secret",
        &wrapper.wrap(&place, [2; 24], b"secret").unwrap(),
    );
}

/// Frames that this zstd wrote, and that every later one must read.
fn compressed() -> Vectors {
    let plaintext = text(2_000);
    let document = seal_document(&keys(), context(KINDS[0]), [3; 24], &plaintext).unwrap();
    Vectors::from([
        (
            "zstd: record, data, of text".to_owned(),
            HEXLOWER.encode(&seal(ChunkKind::Data, 3, &plaintext)),
        ),
        (
            "zstd: record, data, of text, level 19".to_owned(),
            HEXLOWER.encode(&seal(ChunkKind::Data, 19, &plaintext)),
        ),
        (
            "zstd: document Snapshot of text".to_owned(),
            HEXLOWER.encode(&document),
        ),
    ])
}

fn tiny_pack() -> backup_core::FinishedPack {
    let mut builder = backup_core::PackBuilder::new(ChunkKind::Data, packs::session(), 7, 0);
    builder
        .push(
            &seal(ChunkKind::Data, 0, b"helloworld"),
            &[(packs::short(1), 5), (packs::short(2), 5)],
        )
        .unwrap();
    builder
        .push(&seal(ChunkKind::Data, 0, b"!"), &[(packs::short(3), 1)])
        .unwrap();
    builder.finish(&keys(), REPOSITORY, [4; 24]).unwrap()
}

fn cuts(params: ChunkerParams, content: &[u8]) -> Vec<u8> {
    let chunker = Chunker::new(params, &keys()).unwrap();
    let mut rest = content;
    let mut lens = Vec::new();
    while let Some(len) = chunker.cut(rest, true) {
        lens.extend((len as u32).to_le_bytes());
        rest = &rest[len..];
    }
    lens
}

fn stored() -> Vectors {
    serde_json::from_slice(&std::fs::read(file()).unwrap()).unwrap()
}

fn bytes(vectors: &Vectors, name: &str) -> Vec<u8> {
    HEXLOWER.decode(vectors[name].as_bytes()).unwrap()
}

#[test]
fn version_1_is_written_as_ever() {
    let stored = stored();
    let exact = exact();
    for (name, value) in &exact {
        assert_eq!(Some(value), stored.get(name), "{name}");
    }
    assert_eq!(
        stored.len(),
        exact.len() + compressed().len(),
        "a vector is missing or extra"
    );
}

#[test]
fn version_1_is_read_as_ever() {
    let stored = stored();
    let mut opener = BlockOpener::new(REPOSITORY).unwrap();
    for name in [
        "zstd: record, data, of text",
        "zstd: record, data, of text, level 19",
    ] {
        let opened = opener.open(&keys(), ChunkKind::Data, &bytes(&stored, name), 2_000);
        assert_eq!(opened, Ok(text(2_000)));
    }
    let document = bytes(&stored, "zstd: document Snapshot of text");
    assert_eq!(
        open_document(&keys(), &context(KINDS[0]), &document, 2_000),
        Ok(text(2_000))
    );
    let id: SegmentId = stored["segment id"].parse().unwrap();
    let segment = Segment::open(&keys(), REPOSITORY, &id, &bytes(&stored, "segment")).unwrap();
    assert_eq!(segment.encode(), bytes(&stored, "segment plaintext"));
    let slot = bytes(&stored, "slot, passphrase correct horse");
    assert!(open_slot(&slot, &SlotSecret::Passphrase(b"correct horse")).is_ok());
    let config = RepositoryConfig::decode(&bytes(&stored, "config")).unwrap();
    assert!(config.verify(&keys()).is_ok());
}

#[test]
#[ignore = "writes testdata: run it when a vector is added, and look at the difference"]
fn write_the_vectors() {
    let mut vectors = exact();
    vectors.extend(compressed());
    std::fs::write(file(), serde_json::to_vec_pretty(&vectors).unwrap()).unwrap();
}

#[test]
fn ids_are_shown_and_read_as_lower_case_hex() {
    let session = packs::session();
    assert_eq!(
        session.to_string(),
        "0505050505050505-0123456789ab06060606060606060606"
    );
    assert_eq!(session.to_string().parse::<SessionId>(), Ok(session));
    assert_eq!(session.unix_ms(), 0x0123_4567_89ab);
    assert_eq!(
        serde_json::to_string(&session).unwrap(),
        format!("\"{session}\"")
    );
    let id = keys().chunk_id(ChunkKind::Data, b"abc");
    assert_eq!(id.to_string().parse(), Ok(id));
    let json = serde_json::to_string(&id).unwrap();
    assert_eq!(
        serde_json::from_str::<backup_core::ChunkId>(&json).unwrap(),
        id
    );
    let upper = id.to_string().to_uppercase();
    for wrong in [&upper[..], "", &id.to_string()[1..], "zz", &"é".repeat(32)] {
        assert!(wrong.parse::<backup_core::ChunkId>().is_err(), "{wrong}");
    }
    for wrong in [
        "0505050505050505_0123456789ab06060606060606060606",
        "-",
        "é",
        &"-".repeat(49),
    ] {
        assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
    }
    let (early, late) = (
        SessionId::new(session.tag(), 255, [9; 10]),
        SessionId::new(session.tag(), 256, [0; 10]),
    );
    assert!(early < late && early.to_string() < late.to_string());
}

#[test]
fn digests_are_those_of_the_standards() {
    // FIPS 180-2, appendix B.1; BLAKE3 test vectors, input_len 0.
    assert_eq!(
        sha256(b"abc").hex(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        backup_core::blake3(b"").hex(),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    );
    assert_eq!(sha256(b"abc").first8(), "ba7816bf");
    assert_eq!(
        sha256(b"abc").base64(),
        "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    );
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Blake3] {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(b"a").update(b"bc");
        let digest = hasher.finish();
        assert_eq!(digest.verify(b"abc"), Ok(()));
        assert_eq!(digest.verify(b"abd").unwrap_err().expected, digest);
    }
}
