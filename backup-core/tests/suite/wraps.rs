use backup_core::{KeyWrap, LocalKeyWrap, WRAP_LEN_MAX, WrapContext, WrapError};
use proptest::prelude::*;

const PLACE: WrapContext<'static> = WrapContext {
    table: "stores",
    column: "secret",
    row: "17",
};

fn wrapper(id: u8, key: u8) -> LocalKeyWrap {
    LocalKeyWrap::new([id; 8], &[key; 32].into())
}

proptest! {
    #[test]
    fn what_is_wrapped_unwraps(secret in prop::collection::vec(any::<u8>(), 0..200), random in any::<[u8; 24]>()) {
        let wrapped = wrapper(1, 1).wrap(&PLACE, random, &secret).unwrap();
        prop_assert_eq!(wrapper(1, 1).unwrap(&PLACE, &wrapped).unwrap().to_vec(), secret);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(wrapper(1, 1).unwrap(&PLACE, &bytes).is_err());
    }
}

/// SECURITY.md, section 6, item 11.
#[test]
fn an_envelope_moved_elsewhere_does_not_open() {
    let wrapped = wrapper(1, 1).wrap(&PLACE, [0; 24], b"secret").unwrap();
    let places = [
        WrapContext { row: "18", ..PLACE },
        WrapContext {
            column: "secre",
            row: "t17",
            ..PLACE
        },
        WrapContext {
            table: "storess",
            column: "ecret",
            ..PLACE
        },
        WrapContext {
            table: "",
            column: "storessecret17",
            row: "",
        },
        WrapContext {
            table: "secret",
            column: "stores",
            ..PLACE
        },
    ];
    for place in places {
        assert_eq!(
            wrapper(1, 1).unwrap(&place, &wrapped),
            Err(WrapError::Unauthentic)
        );
    }
    assert_eq!(
        wrapper(1, 2).unwrap(&PLACE, &wrapped),
        Err(WrapError::Unauthentic)
    );
    assert_eq!(
        wrapper(2, 1).unwrap(&PLACE, &wrapped),
        Err(WrapError::WrongKey {
            expected: [2; 8],
            got: [1; 8]
        })
    );
    let mut relabelled = wrapped.clone();
    relabelled[9..17].fill(2);
    assert_eq!(
        wrapper(2, 1).unwrap(&PLACE, &relabelled),
        Err(WrapError::Unauthentic)
    );
    let mut newer = wrapped.clone();
    newer[8] = 2;
    let refused = wrapper(1, 1).unwrap(&PLACE, &newer);
    assert_eq!(
        refused,
        Err(WrapError::UnsupportedVersion {
            got: 2,
            expected: 1
        })
    );
}

#[test]
fn a_stuck_generator_repeats_no_nonce() {
    let mut nonces = std::collections::HashSet::new();
    for row in ["1", "2", "12"] {
        for secret in ["", "1", "2", "12"] {
            let wrapped =
                wrapper(1, 1).wrap(&WrapContext { row, ..PLACE }, [0; 24], secret.as_bytes());
            assert!(nonces.insert(wrapped.unwrap()[17..41].to_vec()));
        }
    }
}

#[test]
fn a_secret_is_bounded() {
    let secret = vec![0; WRAP_LEN_MAX + 1];
    let len = secret.len();
    assert_eq!(
        wrapper(1, 1).wrap(&PLACE, [0; 24], &secret),
        Err(WrapError::TooLong { len })
    );
}
