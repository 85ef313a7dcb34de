//! Keys: what is accepted is safe as a path and as an S3 name, and comes back unchanged.
#![allow(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test]"
)]

use backup_backend::{KEY_LEN_MAX, KeyError, KeyPrefix, ObjectKey, SEGMENT_LEN_MAX};
use proptest::prelude::*;

#[test]
fn each_rule_has_its_error() {
    let segment = "s".repeat(SEGMENT_LEN_MAX + 1);
    let long = ["s"; KEY_LEN_MAX].join("/");
    let refused = |text: &str| ObjectKey::parse(text).unwrap_err();
    assert_eq!(refused(""), KeyError::Empty);
    assert!(matches!(
        refused(&long),
        KeyError::TooLong { len: 2047, .. }
    ));
    assert!(matches!(
        refused(&segment),
        KeyError::SegmentTooLong { len: 255, .. }
    ));
    for text in ["/", "/a", "a/", "a//b"] {
        assert!(
            matches!(refused(text), KeyError::EmptySegment { .. }),
            "{text:?}"
        );
    }
    for text in [".", "..", "../a", "a/..", "a/./b", ".tmp/a", "a/.hidden"] {
        assert!(
            matches!(refused(text), KeyError::DotSegment { .. }),
            "{text:?}"
        );
    }
    for text in ["a\0b", "a\nb", "a\u{7f}", "a\u{85}b", "a\\b", "C:\\x"] {
        assert!(
            matches!(refused(text), KeyError::Character { .. }),
            "{text:?}"
        );
    }
    assert!(!refused("a\u{1b}[2Jb").to_string().contains('\u{1b}'));
}

#[test]
fn a_prefix_may_end_anywhere_in_a_key() {
    let key = ObjectKey::parse("snapshots/ab12-3/x").unwrap();
    for end in 0..=key.as_str().len() {
        let prefix = KeyPrefix::parse(&key.as_str()[..end]).unwrap();
        assert!(prefix.matches(&key));
    }
    for text in ["/", "a//", "..", "../", "a/..", "a/.", ".t", "a\0"] {
        assert!(KeyPrefix::parse(text).is_err(), "{text:?}");
    }
    assert!(!KeyPrefix::parse("snapshots/ab2").unwrap().matches(&key));
    assert_eq!(KeyPrefix::all().as_str(), "");
}

proptest! {
    #[test]
    fn a_key_is_safe_and_comes_back_unchanged(text in any::<String>()) {
        if let Ok(key) = ObjectKey::parse(&*text) {
            prop_assert_eq!(key.as_str(), &text);
            prop_assert_eq!(&text.parse::<ObjectKey>().unwrap(), &key);
            prop_assert_eq!(key.to_string(), text.clone());
            prop_assert!((1..=KEY_LEN_MAX).contains(&text.len()));
            prop_assert!(!text.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == b'\\'));
            prop_assert!(text.split('/').all(|s| (1..=SEGMENT_LEN_MAX).contains(&s.len()) && !s.starts_with('.')));
        }
    }

    #[test]
    fn almost_all_of_what_looks_like_a_key_is_one(text in "[a-z0-9%+ é日-]{1,20}(/[A-Z~!a-z][.A-Za-z0-9-]{0,9}){0,4}") {
        let key = ObjectKey::parse(&*text).unwrap();
        let mut bytes = text.clone().into_bytes();
        bytes.push(b'0');
        prop_assert!(key < ObjectKey::parse(String::from_utf8(bytes).unwrap()).unwrap());
    }

    #[test]
    fn keys_order_as_their_bytes(a in "[a-c/-]{1,6}", b in "[a-c/-]{1,6}") {
        if let (Ok(left), Ok(right)) = (ObjectKey::parse(&*a), ObjectKey::parse(&*b)) {
            prop_assert_eq!(left.cmp(&right), a.as_bytes().cmp(b.as_bytes()));
        }
    }
}
