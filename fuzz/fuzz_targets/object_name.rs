#![no_main]
//! An object has one name, and every backend takes it.
use backup_backend::ObjectKey;
use backup_manifest::ObjectName;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<ObjectName>() {
        assert_eq!(name.to_string(), text);
        assert!(ObjectKey::parse(text).is_ok());
    }
});
