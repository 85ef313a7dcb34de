//! SECURITY.md, section 6, item 7: what is validly sealed and decompresses to far more than stated costs no memory.
//! A process of its own, since it looks at the peak of the whole process.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic in its helpers, too"
)]

use backup_core::{
    BlockOpener, ChunkKind, DocumentContext, DocumentError, DocumentKind, Keys, MasterKey,
    OpenError, open_document,
};

#[expect(dead_code, reason = "shared with the suite, which uses all of it")]
#[path = "suite/forge.rs"]
mod forge;

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
const NAME: &[u8] = b"index/0";

/// A frame of `blocks` run-length blocks of 128 KiB zeros: 4 bytes each.
fn frame(descriptor: u8, window: &[u8], content_size: &[u8], blocks: usize) -> Vec<u8> {
    let mut frame = [&MAGIC[..], &[descriptor], window, content_size].concat();
    for block in 1..=blocks {
        let header = u32::from(block == blocks) | 1 << 1 | (128 << 10) << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Content size in 4 bytes, window of 2^log.
fn windowed(log: u8, content_size: u32, blocks: usize) -> Vec<u8> {
    frame(
        0x80,
        &[(log - 10) << 3],
        &content_size.to_le_bytes(),
        blocks,
    )
}

/// The peak of the process's memory, in bytes; zero where /proc does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

fn open(frame: &[u8], plain_len: u32) -> Result<usize, OpenError> {
    let keys = Keys::all(&MasterKey::from_bytes(forge::MASTER.into()));
    let inner = forge::inner(1, plain_len, frame);
    let record = forge::record(ChunkKind::Data, forge::REPOSITORY, &inner);
    let mut opener = BlockOpener::new(forge::REPOSITORY).unwrap();
    let block = opener
        .open(&keys, ChunkKind::Data, &record, plain_len)
        .map(|plain| plain.len());

    let context = DocumentContext {
        kind: DocumentKind::Segment,
        repository: forge::REPOSITORY,
        name: NAME,
    };
    let document = forge::document(context.kind, NAME, [0; 24], &inner);
    let document = open_document(&keys, &context, &document, 16 << 20);
    match (&block, &document) {
        (Ok(len), Ok(plain)) => assert_eq!(*len, plain.len()),
        (Err(OpenError::Malformed { what }), Err(DocumentError::Malformed { what: other })) => {
            assert_eq!(what, other);
        }
        // A block of an impossible length is refused for its length alone.
        (Err(OpenError::RecordLength { .. }), Err(_)) => (),
        other => panic!("{other:?}"),
    }
    block
}

fn check(what: &str, frame: &[u8], expected: &str) {
    match open(frame, MIB) {
        Err(OpenError::Malformed { what: got }) => assert_eq!(got, expected, "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

fn check_sizes() {
    let bomb = 512 * MIB;
    let blocks = (bomb >> 17) as usize;
    let another = "the zstd frame states another content size";
    let undecodable = "the zstd frame does not decode";
    assert!(windowed(24, bomb, blocks).len() < 17 << 10);
    check(
        "16 KiB to 512 MiB, truthfully",
        &windowed(24, bomb, blocks),
        another,
    );
    check(
        "16 KiB to 512 MiB, stated as 1 MiB",
        &windowed(24, MIB, blocks),
        undecodable,
    );
    check("less than stated", &windowed(24, MIB, 7), undecodable);
    let wide = frame(0xe0, &[], &(u64::MAX - 1).to_le_bytes(), 8);
    check("a content size of 2^64", &wide, another);
    let unstated = "the zstd frame does not state its content size";
    check(
        "no content size",
        &frame(0x00, &[14 << 3], &[], 8),
        unstated,
    );
    for (frame, len) in [
        (windowed(24, u32::MAX, 8), u32::MAX),
        (windowed(24, bomb, blocks), bomb),
    ] {
        assert!(matches!(
            open(&frame, len),
            Err(OpenError::RecordLength { .. })
        ));
    }
}

fn check_features() {
    let too_large = "the zstd window is too large";
    for log in 25..=41 {
        check("a large window", &windowed(log, MIB, 8), too_large);
    }
    let size = MIB.to_le_bytes();
    check(
        "a window of 2^24 and an eighth",
        &frame(0x80, &[(14 << 3) | 1], &size, 8),
        too_large,
    );
    for descriptor in [0x84, 0x88, 0x90, 0x81, 0x83] {
        let features = "the zstd frame has a checksum, a dictionary or reserved bits";
        check(
            "unknown features",
            &frame(descriptor, &[14 << 3], &size, 8),
            features,
        );
    }
}

fn check_frames(one: &[u8]) {
    let skippable = [
        &0x184D_2A50_u32.to_le_bytes()[..],
        &4_u32.to_le_bytes(),
        b"skip",
    ]
    .concat();
    let follow = "bytes follow the zstd frame";
    check("two frames", &[one, one].concat(), follow);
    check(
        "a skippable frame after it",
        &[one, &skippable].concat(),
        follow,
    );
    check("a byte after it", &[one, b"x"].concat(), follow);
    let no_frame = "the body is not a zstd frame";
    check(
        "a skippable frame before it",
        &[&skippable, one].concat(),
        no_frame,
    );
    check("a skippable frame alone", &skippable, no_frame);
    check(
        "a frame cut short",
        &one[..one.len() - 1],
        "the zstd frame ends early",
    );
    check(
        "a header cut short",
        &one[..7],
        "the zstd frame does not state its content size",
    );
}

#[test]
fn a_bomb_is_refused_and_costs_no_memory() {
    let honest = windowed(24, MIB, 8);
    assert_eq!(open(&honest, MIB), Ok(MIB as usize));
    let before = peak();
    check_sizes();
    check_features();
    check_frames(&honest);
    let grown = peak() - before;
    assert!(grown < 8 << 20, "memory grew by {grown} bytes");
}

const MIB: u32 = 1 << 20;
