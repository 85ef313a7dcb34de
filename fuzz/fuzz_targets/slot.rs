#![no_main]
//! A key slot opens with its key and in no other state; nothing is stretched or allocated for a slot that is damaged.
use backup_core::{MasterKey, SlotRandom, SlotSecret, create_slot, inspect_slot, open_slot};
use backup_fuzz::{REPOSITORY, altered, slot_info};

libfuzzer_sys::fuzz_target!(|input: (u16, u8, [u8; 32], [u8; 24], &str)| {
    let (at, change, salt, nonce, text) = input;
    let (secret, other) = (SlotSecret::Key(&[1; 32]), SlotSecret::Key(&[2; 32]));
    assert!(open_slot(text.as_bytes(), &secret).is_err());
    let (master, random) = (
        MasterKey::from_bytes([5; 32].into()),
        SlotRandom { salt, nonce },
    );
    let Ok(bytes) = create_slot(&secret, &master, &slot_info(text), random) else {
        return;
    };
    assert_eq!(inspect_slot(&bytes).expect("it is ours").label, text);
    assert!(open_slot(&bytes, &secret).is_ok_and(|(_, repository)| repository == REPOSITORY));
    assert!(open_slot(&bytes, &other).is_err());
    // JSON takes other white space; every other change is found.
    let changed = inspect_slot(&altered(&bytes, at, change));
    assert!(changed.is_err() || changed == inspect_slot(&bytes));
});
