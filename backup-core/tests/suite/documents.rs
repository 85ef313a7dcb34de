use std::collections::HashSet;

use backup_core::{
    DOCUMENT_PLAIN_LEN_MAX, DocumentContext, DocumentError, DocumentKind, KeyError, Keys,
    MasterKey, RepositoryId, open_document, seal_document,
};
use proptest::prelude::*;

use crate::forge::{self, MASTER, REPOSITORY};
use crate::records::{keys, noise, text};

pub(crate) const KINDS: [DocumentKind; 7] = [
    DocumentKind::Snapshot,
    DocumentKind::Segment,
    DocumentKind::Directory,
    DocumentKind::GcPlan,
    DocumentKind::SessionOpen,
    DocumentKind::SessionAck,
    DocumentKind::Retired,
];

pub(crate) fn context(kind: DocumentKind) -> DocumentContext<'static> {
    let name: &[u8] = match kind {
        DocumentKind::Directory => &[9; 48],
        _ => b"snapshots/0123-4567",
    };
    DocumentContext {
        kind,
        repository: REPOSITORY,
        name,
    }
}

fn open(context: &DocumentContext<'_>, bytes: &[u8]) -> Result<Vec<u8>, DocumentError> {
    open_document(&keys(), context, bytes, 1 << 20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_sealed_opens(len in 0_usize..50_000, random in any::<[u8; 24]>(), kind in 0..KINDS.len()) {
        let context = context(KINDS[kind]);
        let sealed = seal_document(&keys(), context, random, &text(len)).unwrap();
        prop_assert_eq!(open(&context, &sealed), Ok(text(len)));
    }

    #[test]
    fn no_bytes_make_the_opener_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let context = context(DocumentKind::Segment);
        prop_assert!(open(&context, &bytes).is_err());
        if let Some(head) = bytes.first_chunk_mut::<8>() {
            *head = *b"BKUP\x03\x01\0\0";
        }
        prop_assert!(open(&context, &bytes).is_err());
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    for kind in KINDS {
        let context = context(kind);
        let sealed = seal_document(&keys(), context, [3; 24], b"plain").unwrap();
        assert_eq!(
            sealed,
            forge::document(kind, context.name, [3; 24], &forge::raw(b"plain"))
        );
    }
}

/// SECURITY.md, section 6, item 1: the generator is stuck, and still no two documents share key and nonce.
#[test]
fn a_stuck_generator_repeats_no_nonce() {
    let mut nonces = HashSet::new();
    for kind in KINDS
        .into_iter()
        .filter(|kind| *kind != DocumentKind::Directory)
    {
        for name in ["a", "ab", "abc", "b", "snapshots/1", "snapshots/2"] {
            for plaintext in ["", "a", "b", "ab", "bc", "c"] {
                let context = DocumentContext {
                    kind,
                    repository: REPOSITORY,
                    name: name.as_bytes(),
                };
                let sealed =
                    seal_document(&keys(), context, [0; 24], plaintext.as_bytes()).unwrap();
                assert!(
                    nonces.insert(sealed[8..32].to_vec()),
                    "{kind:?} {name} {plaintext}"
                );
            }
        }
    }
    let again =
        || seal_document(&keys(), context(DocumentKind::Snapshot), [0; 24], b"same").unwrap();
    assert_eq!(again(), again());
}

#[test]
fn random_bytes_change_everything_but_the_header() {
    let seal =
        |random| seal_document(&keys(), context(DocumentKind::Snapshot), random, b"same").unwrap();
    let (one, two) = (seal([0; 24]), seal([1; 24]));
    assert_ne!(one[8..32], two[8..32]);
    assert_ne!(one[32..], two[32..]);
}

/// SECURITY.md, section 6, items 2 and 3.
#[test]
fn a_document_opens_as_its_kind_under_its_name_and_in_its_repository_only() {
    for kind in KINDS {
        let right = context(kind);
        let sealed = seal_document(&keys(), right, [3; 24], &text(500)).unwrap();
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let refused = open(
                &DocumentContext {
                    kind: other,
                    ..right
                },
                &sealed,
            );
            assert_eq!(
                refused,
                Err(DocumentError::WrongKind {
                    expected: other,
                    got: kind.as_u8()
                })
            );
            // Relabelled, so that the header fits: the seal does not.
            let mut relabelled = sealed.clone();
            relabelled[4] = other.as_u8();
            let refused = open(
                &DocumentContext {
                    kind: other,
                    ..context(other)
                },
                &relabelled,
            );
            assert_eq!(refused, Err(DocumentError::Unauthentic));
        }
        let name: &[u8] = if kind == DocumentKind::Directory {
            &[8; 48]
        } else {
            b"snapshots/0123-4568"
        };
        assert_eq!(
            open(&DocumentContext { name, ..right }, &sealed),
            Err(DocumentError::Unauthentic)
        );
        let repository = RepositoryId::from_bytes([2; 16]);
        assert_eq!(
            open(
                &DocumentContext {
                    repository,
                    ..right
                },
                &sealed
            ),
            Err(DocumentError::Unauthentic)
        );
        let other_key = Keys::all(&MasterKey::from_bytes([8; 32].into()));
        let refused = open_document(&other_key, &right, &sealed, 1 << 20);
        assert_eq!(refused, Err(DocumentError::Unauthentic));
    }
}

/// SECURITY.md, section 6, item 12.
#[test]
fn an_altered_version_or_flag_is_told_and_never_passes() {
    let context = context(DocumentKind::Snapshot);
    let sealed = seal_document(&keys(), context, [3; 24], b"plain").unwrap();
    let open_with = |at: usize, byte: u8| {
        let mut sealed = sealed.clone();
        sealed[at] = byte;
        open(&context, &sealed)
    };
    assert_eq!(open_with(0, b'b'), Err(DocumentError::NotADocument));
    assert_eq!(
        open_with(5, 2),
        Err(DocumentError::UnsupportedVersion {
            got: 2,
            expected: 1
        })
    );
    assert_eq!(
        open_with(5, 0),
        Err(DocumentError::UnsupportedVersion {
            got: 0,
            expected: 1
        })
    );
    assert_eq!(
        open_with(6, 1),
        Err(DocumentError::UnknownFlags { flags: 1 })
    );
    assert_eq!(
        open_with(7, 0x80),
        Err(DocumentError::UnknownFlags { flags: 0x8000 })
    );
}

#[test]
fn the_limit_of_the_caller_is_kept() {
    let context = context(DocumentKind::Segment);
    let sealed = seal_document(&keys(), context, [3; 24], &text(5_000)).unwrap();
    assert_eq!(
        open_document(&keys(), &context, &sealed, 5_000),
        Ok(text(5_000))
    );
    assert_eq!(
        open_document(&keys(), &context, &sealed, 4_999),
        Err(DocumentError::TooLong {
            len: 5_000,
            len_max: 4_999
        })
    );
    let refused = open_document(&keys(), &context, &sealed, 10);
    assert!(matches!(refused, Err(DocumentError::TooLong { .. })));
    let too_long = vec![0; DOCUMENT_PLAIN_LEN_MAX + 1];
    assert!(matches!(
        seal_document(&keys(), context, [3; 24], &too_long),
        Err(DocumentError::TooLong { .. })
    ));
}

#[test]
fn a_lying_length_inside_an_authentic_document_is_refused() {
    let context = context(DocumentKind::Segment);
    let open = |inner: &[u8]| {
        open(
            &context,
            &forge::document(context.kind, context.name, [0; 24], inner),
        )
    };
    let lies = forge::inner(0, 1 << 30, b"five.");
    assert!(matches!(
        open(&lies),
        Err(DocumentError::TooLong {
            len: 0x4000_0000,
            ..
        })
    ));
    assert!(matches!(
        open(&forge::inner(0, 6, b"five.")),
        Err(DocumentError::Malformed { .. })
    ));
    assert!(matches!(
        open(&[0, 0, 0]),
        Err(DocumentError::Malformed { .. })
    ));
}

#[test]
fn a_long_document_that_does_not_fit_a_window_passes() {
    // 24 MiB: more than the largest window, so the frame states one. Half of it shrinks.
    let mut plaintext = noise(1, 12 << 20);
    plaintext.extend(text(12 << 20));
    let context = context(DocumentKind::Segment);
    let sealed = seal_document(&keys(), context, [3; 24], &plaintext).unwrap();
    assert!(sealed.len() < 20 << 20);
    assert_eq!(
        open_document(&keys(), &context, &sealed, 24 << 20),
        Ok(plaintext)
    );
}

#[test]
fn names_that_are_no_keys_are_refused() {
    let refused = |kind, name: &[u8]| {
        let context = DocumentContext {
            kind,
            repository: REPOSITORY,
            name,
        };
        let sealed = seal_document(&keys(), context, [0; 24], b"");
        matches!(sealed, Err(DocumentError::InvalidName { .. })) && open(&context, b"BKUP").is_err()
    };
    assert!(refused(DocumentKind::Snapshot, b""));
    assert!(refused(DocumentKind::Snapshot, b"Snapshots/1"));
    assert!(refused(DocumentKind::Snapshot, b"snapshots/1\0"));
    assert!(refused(DocumentKind::Snapshot, &[b'a'; 1025]));
    assert!(refused(DocumentKind::Directory, &[0; 47]));
}

#[test]
fn a_missing_key_is_named() {
    let none = Keys::only(&MasterKey::from_bytes(MASTER.into()), &[]);
    for kind in KINDS {
        let key = match kind {
            DocumentKind::Snapshot | DocumentKind::Retired => "snapshot",
            _ => "index",
        };
        let refused = seal_document(&none, context(kind), [0; 24], b"");
        let source = KeyError::MissingCapability { key };
        assert_eq!(refused, Err(DocumentError::Key { source }));
    }
}
