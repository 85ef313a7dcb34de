#![no_main]
//! An authentic document that holds anything: what opens is within its limit, and can be sealed again.
use backup_core::{open_document, seal_document};
use backup_fuzz::{document, keys, place};

libfuzzer_sys::fuzz_target!(|input: (u8, u16, &[u8])| {
    let (kind, len_max, inner) = (input.0, usize::from(input.1), input.2);
    let context = place(kind, b"index/0");
    let Ok(opened) = open_document(keys(), &context, &document(&context, inner), len_max) else {
        return;
    };
    assert!(opened.len() <= len_max);
    let sealed = seal_document(keys(), context, [1; 24], &opened).expect("it is short enough");
    assert_eq!(
        open_document(keys(), &context, &sealed, len_max),
        Ok(opened)
    );
});
