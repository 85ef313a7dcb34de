//! Paths: what is one, their order, their text.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

use backup_manifest::{ItemPath, NAME_LEN_MAX, PATH_LEN_MAX, PathError, PathView};
use proptest::prelude::*;

fn path(bytes: &[u8]) -> ItemPath {
    ItemPath::from_bytes(bytes).expect("a valid path")
}

fn any_path() -> impl Strategy<Value = ItemPath> {
    let byte = prop_oneof![4 => 0x2d_u8..0x32, 1 => any::<u8>()];
    prop::collection::vec(prop::collection::vec(byte, 1..4), 0..4).prop_map(|names| {
        let mut path = ItemPath::root();
        for name in names {
            // Some names are not valid; without them the path is.
            let _ = path.push(&name);
        }
        path
    })
}

#[test]
fn bytes_that_are_no_path_are_refused() {
    for (bytes, error) in [
        (&b"/a"[..], PathError::EmptyName { offset: 0 }),
        (b"a/", PathError::EmptyName { offset: 2 }),
        (b"a//b", PathError::EmptyName { offset: 2 }),
        (b"/", PathError::EmptyName { offset: 0 }),
        (b"a/./b", PathError::DotName { offset: 2 }),
        (b"..", PathError::DotName { offset: 0 }),
        (b"a/b/..", PathError::DotName { offset: 4 }),
        (b"a/b\0c", PathError::Nul { offset: 3 }),
    ] {
        assert_eq!(ItemPath::from_bytes(bytes), Err(error));
        assert_eq!(PathView::from_bytes(bytes), Err(error));
    }
    let long = vec![b'a'; NAME_LEN_MAX + 1];
    let error = PathError::NameTooLong {
        offset: 0,
        len: long.len(),
    };
    assert_eq!(ItemPath::from_bytes(long.as_slice()), Err(error));
    assert!(ItemPath::from_bytes(&long[1..]).is_ok());
    let long = b"ab/".repeat(PATH_LEN_MAX / 3 + 1);
    assert_eq!(
        ItemPath::from_bytes(long.as_slice()),
        Err(PathError::TooLong { len: long.len() })
    );
    assert!(ItemPath::from_bytes("..a/.b/c..").is_ok());
}

#[test]
fn join_takes_one_name_only() {
    let dir = path(b"a");
    assert_eq!(dir.join(b"b").expect("a name"), path(b"a/b"));
    assert_eq!(ItemPath::root().join(b"b").expect("a name"), path(b"b"));
    for name in [&b""[..], b".", b"..", b"b/c", b"/", b"b\0"] {
        assert!(dir.join(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_directory_is_followed_by_what_it_holds() {
    let ordered = [
        "", "a", "a/b", "a/b/c", "a/c", "a b", "a-b", "a.b", "a0", "aa", "b",
    ];
    for pair in ordered.windows(2) {
        assert!(
            path(pair[0].as_bytes()) < path(pair[1].as_bytes()),
            "{pair:?}"
        );
    }
}

#[test]
fn text_shows_no_control_characters() {
    let text = path(b"a\n\x1b[2Jb\\\xff\xe2\x80\xae\xc3\xa4").to_string();
    assert_eq!(text, "a\\x0a\\x1b[2Jb\\\\\\xff\\xe2\\x80\\xae\u{e4}");
    for bad in [
        "a\\", "a\\x1", "a\\x1G", "a\\xAA", "a\\n", "\\x2e", "a\\x2f", "\\x00",
    ] {
        assert!(bad.parse::<ItemPath>().is_err(), "{bad}");
    }
}

#[test]
fn beneath_means_the_whole_name() {
    assert!(path(b"a/b").starts_with(&path(b"a")));
    assert!(path(b"a").starts_with(&path(b"a")));
    assert!(path(b"a").starts_with(&ItemPath::root()));
    assert!(!path(b"ab").starts_with(&path(b"a")));
    assert!(!path(b"a").starts_with(&path(b"a/b")));
}

proptest! {
    #[test]
    fn order_is_that_of_components(one in any_path(), other in any_path()) {
        let names = |path: &ItemPath| path.view().components().map(<[u8]>::to_vec).collect::<Vec<_>>();
        prop_assert_eq!(one.cmp(&other), names(&one).cmp(&names(&other)));
        prop_assert_eq!(one.view().cmp(&other.view()), one.cmp(&other));
    }

    #[test]
    fn text_reads_back(path in any_path()) {
        prop_assert_eq!(path.to_string().parse::<ItemPath>(), Ok(path));
    }

    #[test]
    fn parent_and_name_make_the_path(path in any_path()) {
        let mut copy = path.clone();
        match path.parent() {
            Some(parent) => {
                prop_assert_eq!(parent.join(path.name()), Ok(path.clone()));
                prop_assert!(parent < path && path.starts_with(&parent));
                prop_assert!(copy.pop());
                prop_assert_eq!(copy, parent);
            }
            None => prop_assert!(path.is_root() && !copy.pop()),
        }
    }

    #[test]
    fn any_bytes_are_a_path_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(path) = ItemPath::from_bytes(bytes.as_slice()) {
            prop_assert_eq!(path.as_bytes(), bytes.as_slice());
        }
        let _ = String::from_utf8_lossy(&bytes).parse::<ItemPath>();
    }
}
