#![no_main]
//! A sealed document opens as what it is and in no other state; bytes of a stranger do not open.
use backup_core::{open_document, seal_document};
use backup_fuzz::{altered, keys, place};

libfuzzer_sys::fuzz_target!(|input: (u8, u16, u8, [u8; 24], &[u8])| {
    let (kind, at, change, random, bytes) = input;
    let context = place(kind, b"snapshots/0");
    assert!(open_document(keys(), &context, bytes, bytes.len()).is_err());
    let sealed = seal_document(keys(), context, random, bytes).expect("it is short enough");
    let opened = open_document(keys(), &context, &sealed, bytes.len());
    assert_eq!(opened.as_deref(), Ok(bytes));
    let changed = altered(&sealed, at, change);
    assert!(open_document(keys(), &context, &changed, bytes.len()).is_err());
    let elsewhere = place(kind, b"snapshots/1");
    assert!(open_document(keys(), &elsewhere, &sealed, bytes.len()).is_err());
});
