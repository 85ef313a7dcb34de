#![no_main]
//! An authentic block that holds anything: any codec, any length, any zstd frame. What opens is as long as was asked for.
use backup_core::BlockOpener;
use backup_fuzz::{REPOSITORY, block_kind, keys, record};

libfuzzer_sys::fuzz_target!(|input: (bool, Option<u32>, &[u8])| {
    let (kind, plain_len, inner) = input;
    let kind = block_kind(kind);
    // Mostly the length that the block itself states: with another one nothing more happens.
    let stated = inner
        .get(4..8)
        .map(|len| u32::from_le_bytes([len[0], len[1], len[2], len[3]]));
    let plain_len = plain_len.or(stated).unwrap_or_default();
    let mut opener = BlockOpener::new(REPOSITORY).expect("there is memory");
    if let Ok(opened) = opener.open(keys(), kind, &record(kind, inner), plain_len) {
        assert_eq!(opened.len(), plain_len as usize);
    }
});
