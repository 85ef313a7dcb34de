use backup_core::{
    BlockOpener, BlockSealer, ChunkKind, Chunker, ChunkerParams, Compressor, HashAlgorithm, Hasher,
    Keys, LocalKeyWrap, MasterKey, SlotRandom, SlotSecret, blake3, sha256,
};

use crate::forge::{MASTER, REPOSITORY};
use crate::packs;
use crate::records::{keys, seal, text};

/// SECURITY.md, section 6, item 15.
#[test]
fn debug_output_tells_no_secret() {
    let shown = [
        format!("{:?}", MasterKey::from_bytes(MASTER.into())),
        format!("{:?}", keys()),
        format!(
            "{:?}",
            Chunker::new(ChunkerParams::DEFAULT, &keys()).unwrap()
        ),
        format!("{:?}", LocalKeyWrap::new([1; 8], &MASTER.into())),
        format!("{:?}", SlotSecret::Key(&MASTER)),
        format!("{:?}", SlotSecret::Passphrase(b"correct horse")),
        format!(
            "{:?}",
            SlotRandom {
                salt: MASTER,
                nonce: [7; 24]
            }
        ),
        format!("{:?}", Compressor::new(3).unwrap()),
        format!("{:?}", BlockSealer::new(REPOSITORY, 3).unwrap()),
        format!("{:?}", BlockOpener::new(REPOSITORY).unwrap()),
        format!("{:?}", Hasher::new(HashAlgorithm::Blake3)),
    ];
    for text in shown {
        assert!(
            text.ends_with("(..)") || text.contains("RepositoryId(01010101..)"),
            "{text}"
        );
        assert!(!text.contains('7') && !text.contains("horse"), "{text}");
    }
}

/// SECURITY.md, section 6, item 16.
#[test]
fn no_hash_of_known_plaintext_is_visible() {
    let plaintext = text(3_000);
    let record = seal(ChunkKind::Data, 3, &plaintext);
    let mut visible = record.clone();
    visible.extend(packs::pack(&[vec![3_000]], 1).bytes);
    visible.extend(keys().source_tag("vm-17").as_bytes());
    visible.extend(keys().key_check_value(REPOSITORY));
    let compressed = zstd::bulk::compress(&plaintext, 3).unwrap();
    for known in [&plaintext[..], &compressed, b"vm-17", REPOSITORY.as_bytes()] {
        for hash in [sha256(known), blake3(known)] {
            let prefix = &hash.as_bytes()[..4];
            assert!(!visible.windows(4).any(|window| window == prefix));
        }
    }
    let id = keys().chunk_id(ChunkKind::Data, &plaintext);
    assert!(
        !visible
            .windows(4)
            .any(|window| window == &id.as_bytes()[..4])
    );
}

/// SECURITY.md, section 6, item 16.
#[test]
fn two_repositories_share_no_id() {
    let other = Keys::all(&MasterKey::from_bytes([8; 32].into()));
    for kind in [ChunkKind::Data, ChunkKind::Tree] {
        assert_ne!(keys().chunk_id(kind, b"x"), other.chunk_id(kind, b"x"));
    }
    assert_ne!(keys().source_tag("x"), other.source_tag("x"));
    assert_ne!(keys().segment_id(b"x"), other.segment_id(b"x"));
    assert_ne!(
        keys().key_check_value(REPOSITORY),
        other.key_check_value(REPOSITORY)
    );
}

#[test]
fn what_workers_share_may_cross_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Keys>();
    shared::<Chunker>();
    sent::<BlockSealer>();
    sent::<BlockOpener>();
    sent::<Compressor>();
}
