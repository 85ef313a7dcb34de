#![no_main]
//! A block opens as what was sealed, or not at all; bytes of a stranger do not open.
use backup_core::{BlockOpener, BlockSealer};
use backup_fuzz::{REPOSITORY, altered, block_kind, keys};

libfuzzer_sys::fuzz_target!(|input: (bool, i8, u16, u8, &[u8])| {
    let (kind, level, at, change, bytes) = input;
    let (kind, other, len) = (block_kind(kind), block_kind(!kind), bytes.len() as u32);
    let mut opener = BlockOpener::new(REPOSITORY).expect("there is memory");
    assert!(opener.open(keys(), kind, bytes, len).is_err());
    let mut sealer = BlockSealer::new(REPOSITORY, i32::from(level % 8)).expect("a level of zstd");
    let mut record = Vec::new();
    if sealer.seal(keys(), kind, bytes, &mut record).is_err() {
        return assert!(bytes.is_empty());
    }
    assert_eq!(
        opener.open(keys(), kind, &record, len).as_deref(),
        Ok(bytes)
    );
    assert!(opener.open(keys(), other, &record, len).is_err());
    assert!(opener.open(keys(), kind, &record, len + 1).is_err());
    assert!(
        opener
            .open(keys(), kind, &altered(&record, at, change), len)
            .is_err()
    );
});
