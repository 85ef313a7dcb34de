use backup_core::{
    ChunkKind, Directory, DocumentError, DocumentKind, FinishedPack, PACK_HEADER_LEN, PackBuilder,
    PackError, PackFooter, PackHeader, PackId, RepositoryId, Segment, SegmentError, SegmentId,
    SegmentPack, SessionId, ShortId, SourceTag, check_pack, check_padding, open_directory, padme,
};
use proptest::prelude::*;

use crate::forge::{self, REPOSITORY};
use crate::records::{keys, noise, seal, text};

pub(crate) fn session() -> SessionId {
    SessionId::new(SourceTag::from_bytes([5; 8]), 0x0123_4567_89ab, [6; 10])
}

pub(crate) fn short(n: u32) -> ShortId {
    keys().chunk_id(ChunkKind::Data, &n.to_le_bytes()).short()
}

/// A pack of as many blocks as `blocks` has entries, each with chunks of these lengths.
pub(crate) fn pack(blocks: &[Vec<u32>], counter: u32) -> FinishedPack {
    let mut builder = PackBuilder::new(ChunkKind::Data, session(), counter, 0);
    let mut chunk = 0;
    for lens in blocks {
        let plaintext = text(lens.iter().sum::<u32>() as usize);
        let chunks: Vec<_> = lens
            .iter()
            .map(|len| {
                chunk += 1;
                (short(chunk), *len)
            })
            .collect();
        builder
            .push(&seal(ChunkKind::Data, 3, &plaintext), &chunks)
            .unwrap();
    }
    let len_max = builder.len();
    let finished = builder.finish(&keys(), REPOSITORY, [4; 24]).unwrap();
    assert!(finished.bytes.len() as u64 <= padme(len_max as u64));
    finished
}

pub(crate) fn sealed_directory(bytes: &[u8]) -> &[u8] {
    let footer = PackFooter::decode(bytes.last_chunk().unwrap()).unwrap();
    let range = footer.directory_range(bytes.len() as u64).unwrap();
    &bytes[range.start as usize..range.end as usize]
}

fn reopen(bytes: &[u8]) -> Result<Directory, PackError> {
    let header = bytes.first_chunk::<PACK_HEADER_LEN>().unwrap();
    open_directory(
        &keys(),
        REPOSITORY,
        header,
        sealed_directory(bytes),
        bytes.len() as u64,
    )
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn numbers(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| varint(*value)).collect()
}

fn segment_of(packs: &[FinishedPack]) -> Segment {
    let packs = packs.iter().map(|pack| SegmentPack {
        id: pack.id,
        kind: ChunkKind::Data,
        len: pack.bytes.len() as u64,
        directory: pack.directory.clone(),
    });
    Segment {
        packs: packs.collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_finished_pack_says_what_was_pushed(blocks in prop::collection::vec(prop::collection::vec(1_u32..2_000, 1..8), 0..8)) {
        let pack = pack(&blocks, 1);
        prop_assert_eq!(check_pack(&pack.bytes, &pack.id).unwrap().counter, 1);
        check_padding(&pack.bytes, &pack.directory).unwrap();
        let directory = reopen(&pack.bytes).unwrap();
        prop_assert_eq!(&directory, &pack.directory);
        prop_assert_eq!(directory.blocks().len(), blocks.len());
        let lens: Vec<u32> = directory.iter().map(|chunk| chunk.len).collect();
        prop_assert_eq!(lens, blocks.concat());
        for (index, (entry, lens)) in directory.blocks().iter().zip(&blocks).enumerate() {
            prop_assert_eq!(entry.plain_len, lens.iter().sum::<u32>());
            let mut end = 0;
            for chunk in directory.block_chunks(index) {
                prop_assert_eq!((chunk.block as usize, chunk.offset), (index, end));
                end += chunk.len;
            }
            prop_assert_eq!(end, entry.plain_len);
            let record = &pack.bytes[entry.offset as usize..][..entry.record_len as usize];
            let mut opener = backup_core::BlockOpener::new(REPOSITORY).unwrap();
            prop_assert_eq!(opener.open(&keys(), ChunkKind::Data, record, end), Ok(text(end as usize)));
        }
        let segment = segment_of(&[pack]);
        prop_assert_eq!(Segment::decode(&segment.encode()), Ok(segment));
    }

    #[test]
    fn what_a_directory_decodes_it_encodes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(directory) = Directory::decode(&bytes, 1 << 30) {
            prop_assert_eq!(directory.encode(), bytes);
        }
    }

    #[test]
    fn what_a_segment_decodes_it_encodes(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(count) = bytes.first_mut() {
            *count %= 4;
        }
        if let Ok(segment) = Segment::decode(&bytes) {
            prop_assert_eq!(segment.encode(), bytes);
        }
    }

    #[test]
    fn a_changed_directory_never_makes_the_decoder_panic(at in 0_usize..500, byte in any::<u8>()) {
        let mut bytes = pack(&[vec![1, 300, 70_000], vec![20]], 1).directory.encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Directory::decode(&bytes, 1 << 30);
    }

    #[test]
    fn padding_costs_little_and_hides_the_length(len in 0_u64..1 << 50) {
        let padded = padme(len);
        prop_assert!(padded >= len && padded - len <= len * 12 / 100);
        prop_assert_eq!(padme(padded), padded);
    }
}

#[test]
fn padme_is_that_of_the_paper() {
    // Nikitin et al. (2019): L = 9 becomes 10; the others follow E = floor(log2 L), S = floor(log2 E) + 1.
    for (len, padded) in [
        (0, 0),
        (1, 1),
        (2, 2),
        (8, 8),
        (9, 10),
        (1000, 1024),
        (33_000_000, 33_030_144),
    ] {
        assert_eq!(padme(len), padded, "{len}");
    }
    assert_eq!(padme(u64::MAX), u64::MAX);
}

#[test]
fn an_empty_pack_is_a_pack() {
    let pack = pack(&[], 0);
    assert_eq!(
        check_pack(&pack.bytes, &pack.id).unwrap().kind,
        ChunkKind::Data
    );
    assert_eq!(reopen(&pack.bytes).unwrap().chunk_count(), 0);
}

#[test]
fn the_builder_refuses_what_is_no_block_and_stays_as_it_was() {
    let mut builder = PackBuilder::new(ChunkKind::Tree, session(), 1, 1 << 20);
    let record = seal(ChunkKind::Tree, 3, &text(100));
    let len = builder.len();
    let chunk_len_max = 16 << 20;
    for (record, chunks) in [
        (&record[..47], vec![(short(1), 1)]),
        (&record[..], vec![]),
        (&record[..], vec![(short(1), 0)]),
        (&record[..], vec![(short(1), 1), (short(2), chunk_len_max)]),
        (
            &record[..],
            vec![(short(1), u32::MAX), (short(2), u32::MAX)],
        ),
    ] {
        assert!(matches!(
            builder.push(record, &chunks),
            Err(PackError::InvalidBlock { .. })
        ));
        assert!(builder.is_empty());
        assert_eq!(builder.len(), len);
    }
    builder
        .push(&record, &[(short(1), 40), (short(2), 60)])
        .unwrap();
    assert!(!builder.is_empty());
    let pack = builder.finish(&keys(), REPOSITORY, [0; 24]).unwrap();
    assert_eq!(reopen(&pack.bytes).unwrap().chunk_count(), 2);
}

/// SECURITY.md, section 6, item 2.
#[test]
fn the_directory_of_another_pack_is_refused() {
    let (one, two) = (pack(&[vec![10]], 1), pack(&[vec![10]], 2));
    let header = one.bytes.first_chunk::<PACK_HEADER_LEN>().unwrap();
    let unauthentic = PackError::Directory {
        source: DocumentError::Unauthentic,
    };
    let directory = sealed_directory(&two.bytes);
    let len = two.bytes.len() as u64;
    let refused = open_directory(&keys(), REPOSITORY, header, directory, len);
    assert_eq!(refused, Err(unauthentic.clone()));
    let elsewhere = RepositoryId::from_bytes([2; 16]);
    let header = two.bytes.first_chunk::<PACK_HEADER_LEN>().unwrap();
    let refused = open_directory(&keys(), elsewhere, header, directory, len);
    assert_eq!(refused, Err(unauthentic));
}

/// SECURITY.md, section 6, item 12.
#[test]
fn an_altered_header_is_told() {
    let header = *pack(&[vec![10]], 1)
        .bytes
        .first_chunk::<PACK_HEADER_LEN>()
        .unwrap();
    let decode_with = |at: usize, byte: u8| {
        let mut header = header;
        header[at] = byte;
        PackHeader::decode(&header)
    };
    assert_eq!(decode_with(0, 0), Err(PackError::NotAPack));
    assert_eq!(
        decode_with(8, 2),
        Err(PackError::UnsupportedVersion {
            got: 2,
            expected: 1
        })
    );
    assert_eq!(
        decode_with(10, 1),
        Err(PackError::UnknownKeyMode { got: 1 })
    );
    for at in [9, 11, 40, 47] {
        assert!(matches!(
            decode_with(at, 1),
            Err(PackError::Malformed { .. })
        ));
    }
    assert_eq!(PackHeader::decode(&header[..47]), Err(PackError::NotAPack));
    let decoded = PackHeader::decode(&header).unwrap();
    assert_eq!(
        (decoded.session, decoded.counter, decoded.encode()),
        (session(), 1, header)
    );
}

/// SECURITY.md, section 6, item 7: padding that is not zero, or not as long as it should be.
#[test]
fn padding_carries_nothing() {
    let pack = pack(&[vec![1_000], vec![500]], 1);
    let end = pack.directory.records_end() as usize;
    let start = pack.bytes.len() - 16 - sealed_directory(&pack.bytes).len();
    assert!(end < start, "this pack needs no padding");
    let renamed = |bytes: &[u8]| PackId::from_bytes(*blake3::hash(bytes).as_bytes());
    for at in [end, start - 1] {
        let mut bytes = pack.bytes.clone();
        bytes[at] = 1;
        assert!(check_pack(&bytes, &renamed(&bytes)).is_ok());
        assert!(matches!(
            check_padding(&bytes, &pack.directory),
            Err(PackError::Malformed { .. })
        ));
    }
    let mut longer = pack.bytes.clone();
    longer.splice(end..end, vec![0; 7]);
    assert!(matches!(
        check_pack(&longer, &renamed(&longer)),
        Err(PackError::Malformed { .. })
    ));
    assert!(matches!(
        check_padding(&longer, &pack.directory),
        Err(PackError::Malformed { .. })
    ));
    let mut doubled = pack.bytes.clone();
    let more = padme(2 * pack.bytes.len() as u64) as usize - pack.bytes.len();
    doubled.splice(end..end, vec![0; more]);
    assert!(check_pack(&doubled, &renamed(&doubled)).is_ok());
    assert!(matches!(
        check_padding(&doubled, &pack.directory),
        Err(PackError::Malformed { .. })
    ));
}

/// SECURITY.md, section 6, item 8: validly sealed, and hostile.
#[test]
fn hostile_directories_are_refused() {
    let decode = |values: &[u64], ids: usize, records_len_max| {
        Directory::decode(
            &[numbers(values), vec![0; 16 * ids]].concat(),
            records_len_max,
        )
    };
    let (huge, mib_16, most) = (1 << 60, 16 << 20, u64::from(u32::MAX));
    let hostile: [(&str, &[u64], usize, u64); 14] = [
        ("nothing", &[], 0, 1000),
        ("2^60 blocks", &[huge], 0, 1000),
        ("2^60 chunks", &[1, 100, huge, 5], 1, 1000),
        (
            "counts that only sum up to too much",
            &[2, 100, 1, 100, 2, 5, 5, 5],
            2,
            1000,
        ),
        ("a chunk of 0", &[1, 100, 1, 0], 1, 1000),
        ("a chunk of 16 MiB + 1", &[1, 100, 1, mib_16 + 1], 1, 1000),
        ("a chunk of 2^32", &[1, 100, 1, 1 << 32], 1, 1000),
        ("a block of 32 MiB", &[1, 100, 2, mib_16, mib_16], 2, 1000),
        ("a block of no chunks", &[2, 100, 0, 100, 1, 5], 1, 1000),
        ("a record of 47", &[1, 47, 1, 5], 1, 1000),
        ("a record of 2^32", &[1, 1 << 32, 1, 5], 1, u64::MAX),
        ("records past the pack", &[1, 100, 1, 5], 1, 99),
        (
            "records past 32 bits",
            &[2, most, 1, most, 1, 5, 5],
            2,
            u64::MAX,
        ),
        ("an id too few", &[1, 100, 2, 5, 5], 1, 1000),
    ];
    for (what, values, ids, records_len_max) in hostile {
        let refused = decode(values, ids, records_len_max);
        let malformed = matches!(refused, Err(PackError::MalformedDirectory { .. }));
        assert!(malformed, "{what}: {refused:?}");
    }
    assert_eq!(decode(&[1, 100, 1, 5], 1, 100).unwrap().records_end(), 148);
}

#[test]
fn a_number_has_one_encoding() {
    let refused = |start: &[u8], rest: usize| {
        let bytes = [start, &vec![0; rest]].concat();
        matches!(
            Directory::decode(&bytes, 1000),
            Err(PackError::MalformedDirectory { .. })
        )
    };
    assert!(refused(&[0x81, 0x00, 100, 1, 5], 16), "padded");
    assert!(refused(&[0xff; 11], 64), "of 11 bytes");
    assert!(
        refused(
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            64
        ),
        "of 65 bits"
    );
    assert!(refused(&[1, 100, 1, 5], 17), "a byte follows");
    assert!(!refused(&[1, 100, 1, 5], 16));
}

#[test]
fn hostile_segments_are_refused() {
    let pack = pack(&[vec![10]], 1);
    let entry = segment_of(std::slice::from_ref(&pack)).encode()[1..].to_vec();
    let with = |count: u64, rest: &[u8]| Segment::decode(&[varint(count), rest.to_vec()].concat());
    assert!(with(1, &entry).is_ok());
    assert_eq!(
        with(2, &entry.repeat(2)),
        Err(SegmentError::DuplicatePack { pack: pack.id })
    );
    assert!(matches!(
        with(1 << 60, &entry),
        Err(SegmentError::Malformed { .. })
    ));
    assert!(matches!(
        with(1, &entry.repeat(2)),
        Err(SegmentError::Malformed { .. })
    ));
    assert!(matches!(
        with(2, &entry),
        Err(SegmentError::Malformed { .. })
    ));
    let edited = |range: std::ops::Range<usize>, by: Vec<u8>| {
        let mut entry = entry.clone();
        entry.splice(range, by);
        with(1, &entry)
    };
    assert!(matches!(
        edited(32..33, vec![7]),
        Err(SegmentError::Malformed { .. })
    ));
    // 63 bytes cannot hold header and footer, and 2^60 no object is; both before the directory is looked at.
    assert!(matches!(
        edited(33..35, vec![63]),
        Err(SegmentError::Pack { .. })
    ));
    assert!(matches!(
        edited(33..35, varint(1 << 60)),
        Err(SegmentError::Pack { .. })
    ));
    assert!(matches!(
        edited(35..36, varint(1 << 60)),
        Err(SegmentError::Malformed { .. })
    ));
}

#[test]
fn a_segment_opens_under_its_name_only() {
    let segment = segment_of(&[pack(&[vec![10, 20]], 1), pack(&[vec![5]], 2)]);
    let (id, bytes) = segment.seal(&keys(), REPOSITORY, [8; 24]).unwrap();
    let open = |id: &SegmentId, bytes: &[u8]| Segment::open(&keys(), REPOSITORY, id, bytes);
    assert_eq!(open(&id, &bytes), Ok(segment.clone()));
    let other = SegmentId::from_bytes([0; 32]);
    let unauthentic = SegmentError::Document {
        source: DocumentError::Unauthentic,
    };
    assert_eq!(open(&other, &bytes), Err(unauthentic));
    // Sealed by a key holder under a name that its content does not have.
    let name = format!("index/{other}");
    let inner = forge::raw(&segment.encode());
    let renamed = forge::document(DocumentKind::Segment, name.as_bytes(), [0; 24], &inner);
    assert_eq!(
        open(&other, &renamed),
        Err(SegmentError::WrongName {
            expected: other,
            got: id
        })
    );
    let twice = Segment {
        packs: segment
            .packs
            .iter()
            .chain(&segment.packs)
            .cloned()
            .collect(),
    };
    let refused = twice.seal(&keys(), REPOSITORY, [8; 24]);
    assert!(matches!(refused, Err(SegmentError::DuplicatePack { .. })));
}

#[test]
fn a_directory_of_many_chunks_passes() {
    let mut builder = PackBuilder::new(ChunkKind::Data, session(), 1, 1 << 20);
    let record = noise(1, 1_000);
    for block in 0..2_000 {
        let chunks: Vec<_> = (0..16)
            .map(|chunk| (short(block * 16 + chunk), 65_536))
            .collect();
        builder.push(&record, &chunks).unwrap();
    }
    let pack = builder.finish(&keys(), REPOSITORY, [0; 24]).unwrap();
    let directory = reopen(&pack.bytes).unwrap();
    assert_eq!(directory.chunk_count(), 32_000);
    assert_eq!(
        directory.iter().nth(31_999).map(|chunk| chunk.id),
        Some(short(31_999))
    );
}
