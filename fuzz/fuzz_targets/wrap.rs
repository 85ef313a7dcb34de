#![no_main]
//! A wrapped secret opens in its place and in no other state; bytes of a stranger do not open.
use backup_core::{KeyWrap, LocalKeyWrap, WrapContext};
use backup_fuzz::altered;

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str, u16, u8, [u8; 24], &[u8])| {
    let (table, column, row, at, change, random, secret) = input;
    let wrap = LocalKeyWrap::new(*b"key no 1", &[6; 32].into());
    let place = WrapContext { table, column, row };
    assert!(wrap.unwrap(&place, secret).is_err());
    let wrapped = wrap
        .wrap(&place, random, secret)
        .expect("it is short enough");
    assert_eq!(
        wrap.unwrap(&place, &wrapped).expect("it is ours")[..],
        *secret
    );
    assert!(wrap.unwrap(&place, &altered(&wrapped, at, change)).is_err());
    let elsewhere = WrapContext {
        table: column,
        column: table,
        row,
    };
    assert!(table == column || wrap.unwrap(&elsewhere, &wrapped).is_err());
});
