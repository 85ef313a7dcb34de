#![no_main]
//! Keys and prefixes show what was parsed; no key leaves its root or names a hidden file.
use backup_backend::{KeyPrefix, ObjectKey};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let prefix = KeyPrefix::parse(text);
    if let Ok(prefix) = &prefix {
        assert_eq!(prefix.to_string(), text);
    }
    if let Ok(key) = ObjectKey::parse(text) {
        assert_eq!(key.to_string(), text);
        assert!(prefix.is_ok_and(|prefix| prefix.matches(&key)));
        assert!(
            text.split('/')
                .all(|segment| !segment.is_empty() && !segment.starts_with('.'))
        );
        assert!(!text.contains(['\0', '\\']));
    }
});
