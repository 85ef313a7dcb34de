#![no_main]
//! There is one way to write a top list: what decodes encodes to the same bytes.
use backup_manifest::TreeRoot;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(root) = TreeRoot::decode(bytes) {
        assert_eq!(root.encode().as_deref(), Ok(bytes));
    }
});
