#![no_main]
//! What the writer of pages takes, however it cuts, the reader gives back.
use backup_fuzz::{Entry, pages, records, stream};
use backup_manifest::PageParams;

libfuzzer_sys::fuzz_target!(|input: (u8, u8, Vec<(u8, Entry)>)| {
    let (len_min, span) = (usize::from(input.0), usize::from(input.1));
    let params = PageParams {
        len_min,
        len_target: len_min + span,
        len_max: len_min + 2 * span,
    };
    let written = stream(&input.2);
    assert_eq!(records(&pages(&written, params)), written);
});
