#![no_main]
//! A path survives being shown and parsed, is made of its parent and its name, and never climbs.
use backup_manifest::ItemPath;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(path) = ItemPath::from_bytes(bytes) else {
        return;
    };
    assert_eq!(path.to_string().parse().as_ref(), Ok(&path));
    assert!(
        bytes
            .split(|byte| *byte == b'/')
            .all(|name| name != b"." && name != b"..")
    );
    if let Some(parent) = path.parent() {
        assert!(parent < path && path.starts_with(&parent));
        assert_eq!(parent.join(path.name()).as_ref(), Ok(&path));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<ItemPath>();
    }
});
