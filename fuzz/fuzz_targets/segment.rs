#![no_main]
//! A segment that decodes encodes to the same bytes, and survives being sealed.
use backup_core::Segment;
use backup_fuzz::{REPOSITORY, keys};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(segment) = Segment::decode(bytes) else {
        return;
    };
    assert_eq!(segment.encode(), bytes);
    let (id, sealed) = segment
        .seal(keys(), REPOSITORY, [3; 24])
        .expect("it was decoded");
    assert_eq!(Segment::open(keys(), REPOSITORY, &id, &sealed), Ok(segment));
});
