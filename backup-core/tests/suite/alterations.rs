//! SECURITY.md, section 6, item 6: bit flips in every byte of every kind of small object; truncation, extension,
//! concatenation at each boundary; empty; huge.

use backup_core::{
    BlockOpener, ChunkKind, ChunkerParams, KeyWrap, LocalKeyWrap, PACK_HEADER_LEN, PackFooter,
    RepositoryConfig, Segment, SegmentPack, SlotSecret, WrapContext, check_pack, open_directory,
    open_document, open_slot, seal_document,
};

use crate::documents::{KINDS, context};
use crate::forge::REPOSITORY;
use crate::records::{keys, noise, seal, text};
use crate::{packs, slots};

/// Every altered version of `object` must be refused; `accepts` says whether the library takes it.
fn check(what: &str, object: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(object), "{what} itself is refused");
    let mut altered = object.to_vec();
    for at in 0..object.len() {
        for bit in 0..8 {
            altered[at] ^= 1 << bit;
            assert!(
                !accepts(&altered),
                "{what}: bit {bit} of byte {at} may be flipped"
            );
            altered[at] ^= 1 << bit;
        }
    }
    for len in 0..object.len() {
        assert!(
            !accepts(&object[..len]),
            "{what}: may be cut to {len} bytes"
        );
        assert!(
            !accepts(&object[object.len() - len..]),
            "{what}: may lose its start"
        );
        let doubled = [&object[..len], object].concat();
        assert!(
            len == 0 || !accepts(&doubled),
            "{what}: {len} bytes of it may precede it"
        );
        let doubled = [object, &object[object.len() - len..]].concat();
        assert!(
            len == 0 || !accepts(&doubled),
            "{what}: {len} bytes of it may follow it"
        );
    }
    assert!(
        !accepts(&[object, &[0]].concat()),
        "{what}: a zero byte may follow it"
    );
    assert!(
        !accepts(&[object, object].concat()),
        "{what}: may be doubled"
    );
    assert!(
        !accepts(&[object, &noise(1, 20 << 20)].concat()),
        "{what}: noise may follow it"
    );
}

#[test]
fn records() {
    let opens = |record: &[u8], plain_len| {
        let mut opener = BlockOpener::new(REPOSITORY).unwrap();
        opener
            .open(&keys(), ChunkKind::Data, record, plain_len)
            .is_ok()
    };
    check(
        "a stored record",
        &seal(ChunkKind::Data, 0, b"plain"),
        |record| opens(record, 5),
    );
    check(
        "a compressed record",
        &seal(ChunkKind::Data, 3, &text(300)),
        |record| opens(record, 300),
    );
}

#[test]
fn documents() {
    for kind in KINDS {
        let context = context(kind);
        let document = seal_document(&keys(), context, [3; 24], b"plain").unwrap();
        check(&format!("{kind:?}"), &document, |document| {
            open_document(&keys(), &context, document, 1 << 10).is_ok()
        });
    }
}

#[test]
fn packs_and_segments() {
    let pack = packs::pack(&[vec![10, 20], vec![30]], 1);
    check("a pack", &pack.bytes, |bytes| {
        check_pack(bytes, &pack.id).is_ok()
    });
    let len = pack.bytes.len() as u64;
    let header = pack.bytes.first_chunk::<PACK_HEADER_LEN>().unwrap();
    let directory = packs::sealed_directory(&pack.bytes);
    check("a directory", directory, |sealed| {
        open_directory(&keys(), REPOSITORY, header, sealed, len).is_ok()
    });
    check("a pack's header", header, |header| {
        match header.try_into() {
            Ok(header) => open_directory(&keys(), REPOSITORY, header, directory, len).is_ok(),
            Err(_) => false,
        }
    });
    check(
        "a pack's footer",
        pack.bytes.last_chunk::<16>().unwrap(),
        |footer| {
            let range = footer.try_into().ok().and_then(|footer| {
                let range = PackFooter::decode(footer).ok()?.directory_range(len).ok()?;
                pack.bytes.get(range.start as usize..range.end as usize)
            });
            range.is_some_and(|sealed| {
                open_directory(&keys(), REPOSITORY, header, sealed, len).is_ok()
            })
        },
    );
    let entry = SegmentPack {
        id: pack.id,
        kind: ChunkKind::Data,
        len,
        directory: pack.directory,
    };
    let (id, segment) = Segment { packs: vec![entry] }
        .seal(&keys(), REPOSITORY, [1; 24])
        .unwrap();
    check("a segment", &segment, |bytes| {
        Segment::open(&keys(), REPOSITORY, &id, bytes).is_ok()
    });
}

#[test]
fn slots_and_wrapped_secrets() {
    let keyed = slots::slot(&SlotSecret::Key(&[3; 32]), "host");
    check("a key's slot", &keyed, |bytes| {
        open_slot(bytes, &SlotSecret::Key(&[3; 32])).is_ok()
    });
    let passphrase = SlotSecret::Passphrase(b"correct horse");
    check("a passphrase's slot", &slots::passphrase_slot(), |bytes| {
        open_slot(bytes, &passphrase).is_ok()
    });
    let wrapper = LocalKeyWrap::new([1; 8], &[1; 32].into());
    let place = WrapContext {
        table: "t",
        column: "c",
        row: "r",
    };
    let wrapped = wrapper.wrap(&place, [0; 24], b"secret").unwrap();
    check("a wrapped secret", &wrapped, |bytes| {
        wrapper.unwrap(&place, bytes).is_ok()
    });
}

#[test]
fn configurations() {
    let config = RepositoryConfig::new(REPOSITORY, ChunkerParams::DEFAULT);
    check("a config", &config.encode(&keys()).unwrap(), |bytes| {
        RepositoryConfig::decode(bytes).is_ok_and(|config| config.verify(&keys()).is_ok())
    });
}
