#![no_main]
//! Whatever decodes as pins means the same when it is written and read again.
use backup_manifest::Pins;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(pins) = Pins::decode(bytes) else {
        return;
    };
    let again = pins.encode().and_then(|bytes| Pins::decode(&bytes));
    assert_eq!(again, Ok(pins));
});
