//! A second implementation of the sealed formats, from SECURITY.md and not from the library: it proves the bytes, and it
//! seals what the library's own sealers would never write.

use backup_core::{ChunkKind, DocumentKind, RepositoryId};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

pub(crate) const MASTER: [u8; 32] = [7; 32];
pub(crate) const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

fn seal(context: &str, hedge: &[u8], aad: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut okm = [0; 64];
    blake3::Hasher::new_derive_key(context)
        .update(&MASTER)
        .finalize_xof()
        .fill(&mut okm);
    let nonce_key: [u8; 32] = okm[32..].try_into().unwrap();
    let nonce = blake3::keyed_hash(&nonce_key, &[hedge, aad, inner].concat());
    let nonce = &nonce.as_bytes()[..24];
    let sealed = XChaCha20Poly1305::new(okm[..32].try_into().unwrap())
        .encrypt(
            &XNonce::try_from(nonce).unwrap(),
            Payload { msg: inner, aad },
        )
        .unwrap();
    [nonce, &sealed].concat()
}

/// A record with this `inner`, authentic under [`MASTER`].
pub(crate) fn record(kind: ChunkKind, repository: RepositoryId, inner: &[u8]) -> Vec<u8> {
    let context = match kind {
        ChunkKind::Data => "backup.v1 block seal data",
        ChunkKind::Tree => "backup.v1 block seal tree",
    };
    let aad = [&[kind.as_u8(), 1][..], repository.as_bytes()].concat();
    seal(context, &[], &aad, inner)
}

/// A document with this `inner`, authentic under [`MASTER`].
pub(crate) fn document(kind: DocumentKind, name: &[u8], random: [u8; 24], inner: &[u8]) -> Vec<u8> {
    let context = match kind {
        DocumentKind::Snapshot | DocumentKind::Retired => "backup.v1 snapshot seal",
        _ => "backup.v1 index seal",
    };
    let header = [b"BKUP".as_slice(), &[kind.as_u8(), 1, 0, 0]].concat();
    let aad = [&header, &REPOSITORY.as_bytes()[..], name].concat();
    [header, seal(context, &random, &aad, inner)].concat()
}

/// codec ‖ 3 zero ‖ plain_len ‖ body.
pub(crate) fn inner(codec: u8, plain_len: u32, body: &[u8]) -> Vec<u8> {
    [&[codec, 0, 0, 0][..], &plain_len.to_le_bytes(), body].concat()
}

/// Stored as it is.
pub(crate) fn raw(plaintext: &[u8]) -> Vec<u8> {
    inner(0, plaintext.len() as u32, plaintext)
}
