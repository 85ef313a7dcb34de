#![no_main]
//! A configuration verifies as what was signed, or not at all.
use backup_core::{ChunkerParams, RepositoryConfig};
use backup_fuzz::{REPOSITORY, altered, keys};

libfuzzer_sys::fuzz_target!(|input: (u32, u32, u32, u16, u8, &[u8])| {
    let (min, avg, max, at, change, bytes) = input;
    if let Ok(config) = RepositoryConfig::decode(bytes) {
        assert!(config.verify(keys()).is_err());
    }
    let Ok(params) = ChunkerParams::new(min, avg, max) else {
        return;
    };
    let config = RepositoryConfig::new(REPOSITORY, params);
    let bytes = config.encode(keys()).expect("the keys are complete");
    let verify = |bytes: &[u8]| RepositoryConfig::decode(bytes)?.verify(keys());
    assert_eq!(verify(&bytes), Ok(config));
    let changed = verify(&altered(&bytes, at, change));
    assert!(changed.is_err() || changed == Ok(config));
});
