use backup_core::{
    Capability, ChunkKind, Chunker, ChunkerParams, ChunkerParamsError, KeyError, Keys, MasterKey,
};
use proptest::prelude::*;

use crate::records::{keys, noise};

fn small() -> Chunker {
    Chunker::new(ChunkerParams::new(64, 256, 1024).unwrap(), &keys()).unwrap()
}

fn cuts(chunker: &Chunker, content: &[u8]) -> Vec<usize> {
    let mut rest = content;
    let mut lens = Vec::new();
    while let Some(len) = chunker.cut(rest, true) {
        lens.push(len);
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
    lens
}

/// Feeds `content` in pieces of these sizes, as a reader with a window would.
fn cuts_windowed(chunker: &Chunker, content: &[u8], pieces: &[usize]) -> Vec<usize> {
    let (mut start, mut end) = (0, 0);
    let mut pieces = pieces.iter().cycle();
    let mut lens = Vec::new();
    loop {
        match chunker.cut(&content[start..end], end == content.len()) {
            Some(len) => {
                lens.push(len);
                start += len;
            }
            None if end == content.len() => return lens,
            None => end = content.len().min(end + pieces.next().unwrap()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cuts_do_not_depend_on_the_window(
        seed in any::<u64>(),
        len in 0_usize..20_000,
        zeros in 0_usize..5_000,
        pieces in prop::collection::vec(1_usize..4_000, 1..8),
    ) {
        let mut content = noise(seed, len);
        content.splice(len / 2..len / 2, vec![0; zeros]);
        let chunker = small();
        let lens = cuts(&chunker, &content);
        prop_assert_eq!(lens.iter().sum::<usize>(), content.len());
        prop_assert!(lens.iter().all(|len| (1..=1024).contains(len)));
        prop_assert!(lens.iter().rev().skip(1).all(|len| *len >= 64));
        prop_assert_eq!(cuts_windowed(&chunker, &content, &pieces), lens);
    }

    #[test]
    fn any_sizes_are_accepted_or_refused_without_panic(
        min in any::<u32>(), avg in any::<u32>(), max in any::<u32>(), shift in 0_u32..32,
    ) {
        if let Ok(params) = ChunkerParams::new(min >> shift & !1, avg >> shift & !1, max >> shift & !1) {
            let chunker = Chunker::new(params, &keys()).unwrap();
            let _ = chunker.cut(&[0; 100], true);
        }
    }
}

#[test]
fn an_insertion_moves_only_the_cuts_around_it() {
    let chunker = small();
    let content = noise(1, 200_000);
    let mut changed = content.clone();
    changed.splice(100_000..100_000, [1, 2, 3]);
    let ids = |content: &[u8]| {
        let mut rest = content;
        let mut ids = std::collections::HashSet::new();
        for len in cuts(&chunker, content) {
            ids.insert(keys().chunk_id(ChunkKind::Data, &rest[..len]));
            rest = &rest[len..];
        }
        ids
    };
    let new = ids(&changed).difference(&ids(&content)).count();
    assert!(new <= 4, "{new} chunks are new");
}

#[test]
fn chunk_lengths_stay_near_the_average_and_rarely_hit_the_upper_limit() {
    let chunker = Chunker::new(ChunkerParams::DEFAULT, &keys()).unwrap();
    let lens = cuts(&chunker, &noise(2, 64 << 20));
    let mean = (64 << 20) / lens.len();
    assert!((28 << 10..44 << 10).contains(&mean), "mean {mean}");
    assert_eq!(lens.iter().filter(|len| **len == 128 << 10).count(), 0);
}

#[test]
fn another_master_key_cuts_elsewhere() {
    let other = Keys::all(&MasterKey::from_bytes([8; 32].into()));
    let other = Chunker::new(ChunkerParams::new(64, 256, 1024).unwrap(), &other).unwrap();
    let content = noise(3, 100_000);
    let positions = |chunker: &Chunker| {
        let ends = cuts(chunker, &content).into_iter().scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        ends.collect::<std::collections::HashSet<_>>()
    };
    let (mine, theirs) = (positions(&small()), positions(&other));
    // Of some 350 cuts among 100,000 places, about one coincides by chance; and the end of the content.
    assert!(mine.intersection(&theirs).count() < 10);
}

#[test]
fn impossible_sizes_are_told_apart() {
    assert!(matches!(
        ChunkerParams::new(62, 256, 1024),
        Err(ChunkerParamsError::OutOfRange {
            which: "smallest",
            got: 62,
            ..
        })
    ));
    assert!(matches!(
        ChunkerParams::new(64, 257, 1024),
        Err(ChunkerParamsError::Odd {
            which: "average",
            got: 257
        })
    ));
    assert!(matches!(
        ChunkerParams::new(64, 256, 32 << 20),
        Err(ChunkerParamsError::OutOfRange {
            which: "largest",
            ..
        })
    ));
    assert!(matches!(
        ChunkerParams::new(4096, 2048, 1024),
        Err(ChunkerParamsError::Order { .. })
    ));
}

#[test]
fn a_reader_cannot_cut() {
    let master = MasterKey::from_bytes([7; 32].into());
    let refused = Chunker::new(ChunkerParams::DEFAULT, &Keys::reader(&master)).unwrap_err();
    assert_eq!(refused, KeyError::MissingCapability { key: "gear table" });
    let only = Keys::only(&master, &[Capability::Chunking]);
    assert!(Chunker::new(ChunkerParams::DEFAULT, &only).is_ok());
}
