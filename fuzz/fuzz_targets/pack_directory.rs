#![no_main]
//! A directory that decodes encodes to the same bytes, and describes a pack that is possible.
use backup_core::{Directory, PACK_HEADER_LEN};

libfuzzer_sys::fuzz_target!(|input: (u32, &[u8])| {
    let (room, bytes) = (u64::from(input.0), input.1);
    let Ok(directory) = Directory::decode(bytes, room) else {
        return;
    };
    assert_eq!(directory.encode(), bytes);
    assert!(directory.records_end() <= PACK_HEADER_LEN as u64 + room);
    assert_eq!(directory.iter().count(), directory.chunk_count());
    let blocks = (0..directory.blocks().len()).map(|block| directory.block_chunks(block).count());
    assert_eq!(blocks.sum::<usize>(), directory.chunk_count());
});
