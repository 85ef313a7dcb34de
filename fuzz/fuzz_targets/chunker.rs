#![no_main]
//! Sizes that are accepted never panic; chunks add up to the input, within bounds, however it is windowed.
use backup_core::{Chunker, ChunkerParams};
use backup_fuzz::keys;

libfuzzer_sys::fuzz_target!(|input: (u16, u16, u16, u16, &[u8])| {
    let [min, avg, max] = [input.0, input.1, input.2].map(u32::from);
    let Ok(params) = ChunkerParams::new(min, avg, max) else {
        return;
    };
    let chunker = Chunker::new(params, keys()).expect("the keys are complete");
    let (content, window) = (input.4.repeat(8), (max + u32::from(input.3)) as usize);
    let mut rest = &content[..];
    while let Some(len) = chunker.cut(rest, true) {
        let seen = &rest[..window.min(rest.len())];
        assert_eq!(chunker.cut(seen, seen.len() == rest.len()), Some(len));
        assert!(len >= 1 && len <= max as usize && (len >= min as usize || len == rest.len()));
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
});
