#![no_main]
//! Documents of sessions and of collectors: the binary ones can be written in one way only.
use backup_manifest::{Ack, GcPlan, SessionOpen};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(open) = SessionOpen::decode(bytes) {
        let again = open.encode().and_then(|bytes| SessionOpen::decode(&bytes));
        assert_eq!(again, Ok(open));
    }
    if let Ok(ack) = Ack::decode(bytes) {
        assert_eq!(ack.encode().as_deref(), Ok(bytes));
    }
    if let Ok(plan) = GcPlan::decode(bytes) {
        assert_eq!(plan.encode().as_deref(), Ok(bytes));
    }
});
