#![no_main]
//! Whatever decodes as the cell of a snapshot means the same when it is written and read again.
use backup_manifest::Cell;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(cell) = Cell::decode(bytes) else {
        return;
    };
    let again = cell.encode().and_then(|bytes| Cell::decode(&bytes));
    assert_eq!(again, Ok(cell));
});
