use std::collections::HashSet;

use backup_core::{
    BLOCK_PLAIN_LEN_MAX, BlockOpener, BlockSealer, Capability, ChunkKind, CompressError,
    DocumentContext, DocumentError, DocumentKind, KeyError, Keys, MasterKey, OpenError,
    RECORD_OVERHEAD, RepositoryId, SealError, open_document,
};
use proptest::prelude::*;

use crate::forge::{self, MASTER, REPOSITORY};

pub(crate) fn keys() -> Keys {
    Keys::all(&MasterKey::from_bytes(MASTER.into()))
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub(crate) fn text(len: usize) -> Vec<u8> {
    let lines =
        (0..).map(|n: u64| format!("line {n} of a log, worker {} says hello\n", n * n % 97));
    lines.flat_map(String::into_bytes).take(len).collect()
}

pub(crate) fn seal(kind: ChunkKind, level: i32, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = BlockSealer::new(REPOSITORY, level)
        .unwrap()
        .seal(&keys(), kind, plaintext, &mut out);
    assert_eq!(len, Ok(out.len()));
    out
}

fn open(kind: ChunkKind, record: &[u8], plain_len: u32) -> Result<Vec<u8>, OpenError> {
    BlockOpener::new(REPOSITORY)
        .unwrap()
        .open(&keys(), kind, record, plain_len)
}

fn malformed(error: Result<Vec<u8>, OpenError>) -> &'static str {
    match error {
        Err(OpenError::Malformed { what }) => what,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_opens(
        seed in any::<u64>(), len in 1_usize..100_000, noisy in 0_usize..100_000, level in -7_i32..=9, tree in any::<bool>(),
    ) {
        let kind = if tree { ChunkKind::Tree } else { ChunkKind::Data };
        let mut plaintext = text(len);
        let noisy = noisy.min(len);
        plaintext[..noisy].copy_from_slice(&noise(seed, noisy));
        let record = seal(kind, level, &plaintext);
        prop_assert!(record.len() <= len + RECORD_OVERHEAD);
        prop_assert_eq!(open(kind, &record, len as u32), Ok(plaintext));
    }

    #[test]
    fn no_bytes_make_the_opener_panic(record in prop::collection::vec(any::<u8>(), 0..300), plain_len in any::<u32>()) {
        prop_assert!(open(ChunkKind::Data, &record, plain_len).is_err());
    }

    #[test]
    fn no_authentic_inner_makes_the_opener_panic(
        mut inner in prop::collection::vec(any::<u8>(), 0..200), frame in any::<bool>(), plain_len in 1_u32..300,
    ) {
        if frame && inner.len() >= 12 {
            inner[..8].copy_from_slice(&forge::inner(1, plain_len, &[]));
            inner[8..12].copy_from_slice(&0xFD2F_B528_u32.to_le_bytes());
        }
        let record = forge::record(ChunkKind::Data, REPOSITORY, &inner);
        if let Ok(plaintext) = open(ChunkKind::Data, &record, plain_len) {
            prop_assert_eq!(plaintext.len(), plain_len as usize);
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let plaintext = noise(4, 20_000);
    for kind in [ChunkKind::Data, ChunkKind::Tree] {
        let specified = forge::record(kind, REPOSITORY, &forge::raw(&plaintext));
        assert_eq!(seal(kind, 0, &plaintext), specified);
        assert_eq!(seal(kind, 3, &plaintext), specified);
    }
}

#[test]
fn records_are_appended_and_an_error_appends_nothing() {
    let keys = keys();
    let mut sealer = BlockSealer::new(REPOSITORY, 3).unwrap();
    let mut out = b"before".to_vec();
    let first = sealer
        .seal(&keys, ChunkKind::Data, &text(5000), &mut out)
        .unwrap();
    let second = sealer
        .seal(&keys, ChunkKind::Data, &noise(1, 5000), &mut out)
        .unwrap();
    assert_eq!(out.len(), 6 + first + second);
    assert_eq!(
        open(ChunkKind::Data, &out[6..6 + first], 5000),
        Ok(text(5000))
    );
    assert_eq!(
        open(ChunkKind::Data, &out[6 + first..], 5000),
        Ok(noise(1, 5000))
    );

    let before = out.clone();
    let none = Keys::only(&MasterKey::from_bytes(MASTER.into()), &[]);
    assert!(matches!(
        sealer.seal(&none, ChunkKind::Data, b"x", &mut out),
        Err(SealError::Key {
            source: KeyError::MissingCapability { key: "data block" }
        })
    ));
    assert_eq!(
        sealer.seal(&keys, ChunkKind::Data, &[], &mut out),
        Err(SealError::Length { len: 0 })
    );
    let too_long = vec![0; BLOCK_PLAIN_LEN_MAX as usize + 1];
    assert!(matches!(
        sealer.seal(&keys, ChunkKind::Data, &too_long, &mut out),
        Err(SealError::Length { .. })
    ));
    assert_eq!(out, before);
}

#[test]
fn the_longest_block_passes_at_the_highest_level_and_as_noise() {
    let len = BLOCK_PLAIN_LEN_MAX;
    let zeros = vec![0; len as usize];
    let record = seal(ChunkKind::Data, 22, &zeros);
    assert_eq!(open(ChunkKind::Data, &record, len), Ok(zeros));
    let noise = noise(5, len as usize);
    let record = seal(ChunkKind::Data, 3, &noise);
    assert_eq!(record.len(), noise.len() + RECORD_OVERHEAD);
    assert_eq!(open(ChunkKind::Data, &record, len), Ok(noise));
}

/// SECURITY.md, section 6, item 1.
#[test]
fn every_level_gives_a_nonce_of_its_own_and_equal_blocks_equal_bytes() {
    let plaintext = text(200_000);
    let mut nonces = std::collections::HashMap::new();
    for level in -7..=22 {
        let record = seal(ChunkKind::Data, level, &plaintext);
        assert_eq!(record, seal(ChunkKind::Data, level, &plaintext));
        assert_eq!(
            open(ChunkKind::Data, &record, 200_000).as_ref(),
            Ok(&plaintext)
        );
        let (nonce, sealed) = record.split_at(24);
        // Two levels may compress to the same bytes; then the nonce is the same, and so is all the rest.
        let earlier = nonces.insert(nonce.to_vec(), sealed.to_vec());
        assert!(earlier.is_none_or(|earlier| earlier == sealed));
    }
    assert!(nonces.len() > 10);
}

#[test]
fn equal_blocks_are_equal_bytes_whatever_was_sealed_before_and_wherever_it_goes() {
    let keys = keys();
    let mut sealer = BlockSealer::new(REPOSITORY, 3).unwrap();
    let fresh = seal(ChunkKind::Data, 3, &text(150_000));
    for capacity in [0, 1_000, 10_000_000] {
        let mut out = Vec::with_capacity(capacity);
        sealer
            .seal(&keys, ChunkKind::Tree, &text(777), &mut out)
            .unwrap();
        let start = out.len();
        sealer
            .seal(&keys, ChunkKind::Data, &text(150_000), &mut out)
            .unwrap();
        assert_eq!(out[start..], fresh);
    }
}

#[test]
fn distinct_blocks_have_distinct_nonces() {
    let mut nonces = HashSet::new();
    for n in 0..2_000_u32 {
        assert!(nonces.insert(seal(ChunkKind::Data, 0, &n.to_le_bytes())[..24].to_vec()));
        assert!(nonces.insert(seal(ChunkKind::Tree, 0, &n.to_le_bytes())[..24].to_vec()));
    }
}

/// SECURITY.md, section 6, item 2.
#[test]
fn a_block_opens_as_its_kind_and_in_its_repository_only() {
    let plaintext = text(3_000);
    let record = seal(ChunkKind::Data, 3, &plaintext);
    assert_eq!(
        open(ChunkKind::Tree, &record, 3_000),
        Err(OpenError::Unauthentic)
    );

    let mut elsewhere = BlockOpener::new(RepositoryId::from_bytes([2; 16])).unwrap();
    let opened = elsewhere.open(&keys(), ChunkKind::Data, &record, 3_000);
    assert_eq!(opened, Err(OpenError::Unauthentic));

    let other_key = Keys::all(&MasterKey::from_bytes([8; 32].into()));
    let opened =
        BlockOpener::new(REPOSITORY)
            .unwrap()
            .open(&other_key, ChunkKind::Data, &record, 3_000);
    assert_eq!(opened, Err(OpenError::Unauthentic));

    let context = DocumentContext {
        kind: DocumentKind::Snapshot,
        repository: REPOSITORY,
        name: b"snapshots/1",
    };
    let opened = open_document(&keys(), &context, &record, 1 << 20);
    assert_eq!(opened, Err(DocumentError::NotADocument));
}

#[test]
fn data_and_tree_chunks_of_the_same_bytes_have_different_ids() {
    let keys = keys();
    assert_ne!(
        keys.chunk_id(ChunkKind::Data, b"x"),
        keys.chunk_id(ChunkKind::Tree, b"x")
    );
    assert_eq!(
        keys.chunk_id(ChunkKind::Data, b"x").as_bytes()[..16],
        keys.chunk_id(ChunkKind::Data, b"x").short().as_bytes()[..]
    );
}

#[test]
fn another_length_than_the_directorys_is_refused() {
    let record = seal(ChunkKind::Data, 3, &text(3_000));
    assert_eq!(
        open(ChunkKind::Data, &record, 2_999),
        Err(OpenError::LengthMismatch {
            expected: 2_999,
            got: 3_000
        })
    );
    for plain_len in [0, 1, BLOCK_PLAIN_LEN_MAX + 1, u32::MAX] {
        assert!(matches!(
            open(ChunkKind::Data, &record, plain_len),
            Err(OpenError::RecordLength { .. })
        ));
    }
}

#[test]
fn an_authentic_but_malformed_inner_is_refused() {
    let open = |inner: &[u8], plain_len| {
        malformed(open(
            ChunkKind::Data,
            &forge::record(ChunkKind::Data, REPOSITORY, inner),
            plain_len,
        ))
    };
    assert_eq!(
        open(&forge::inner(2, 5, b"hello"), 5),
        "the codec is unknown"
    );
    assert_eq!(
        open(&[0, 0, 1, 0, 5, 0, 0, 0, 1, 2, 3, 4, 5], 5),
        "reserved bytes are not zero"
    );
    assert_eq!(
        open(&forge::inner(0, 5, b"hell"), 5),
        "the raw body has another length than stated"
    );
    assert_eq!(
        open(&forge::inner(1, 5, b"hell"), 5),
        "the body is not a zstd frame"
    );
    assert_eq!(
        open(&forge::inner(1, 5, b"hello"), 5),
        "the zstd frame is no shorter than its content"
    );
}

#[test]
fn levels_out_of_range_are_refused() {
    for level in [-8, 23, i32::MIN, i32::MAX] {
        assert!(matches!(
            BlockSealer::new(REPOSITORY, level),
            Err(SealError::Compress {
                source: CompressError::Level { .. }
            })
        ));
    }
}

/// SECURITY.md, section 6, item 17.
#[test]
fn a_key_set_opens_only_what_it_was_made_for() {
    let master = MasterKey::from_bytes(MASTER.into());
    let agent = Keys::only(
        &master,
        &[
            Capability::Chunking,
            Capability::DataBlocks,
            Capability::Index,
        ],
    );
    let mut opener = BlockOpener::new(REPOSITORY).unwrap();
    let tree = seal(ChunkKind::Tree, 3, &text(100));
    assert!(matches!(
        opener.open(&agent, ChunkKind::Tree, &tree, 100),
        Err(OpenError::Key {
            source: KeyError::MissingCapability { key: "tree block" }
        })
    ));
    // It still names chunks as everybody does, so it deduplicates with everybody.
    assert_eq!(
        agent.chunk_id(ChunkKind::Data, b"x"),
        keys().chunk_id(ChunkKind::Data, b"x")
    );
    let mut out = Vec::new();
    let mut sealer = BlockSealer::new(REPOSITORY, 3).unwrap();
    sealer
        .seal(&agent, ChunkKind::Data, &text(100), &mut out)
        .unwrap();
    assert_eq!(out, seal(ChunkKind::Data, 3, &text(100)));
}
