use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};

/// 24 bytes: XChaCha20's nonce. Source: draft-irtf-cfrg-xchacha-03, section 2.
pub(crate) const NONCE_LEN: usize = 24;
/// 16 bytes: Poly1305's tag. Source: RFC 8439, section 2.5.
pub(crate) const TAG_LEN: usize = 16;

/// More than XChaCha20-Poly1305 seals under one nonce (256 GiB), or not authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AeadError;

/// Encrypts `buffer` in place and returns the tag. For what is small and secret: chacha20poly1305 erases its keys. Blocks go
/// through [`bulk`], which gives the same bytes faster.
pub(crate) fn seal_in_place(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG_LEN], AeadError> {
    XChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(nonce.into(), aad, buffer.into())
        .map(Into::into)
        .map_err(|_| AeadError)
}

/// Verifies `sealed` (ciphertext ‖ tag) and only then decrypts it into `plaintext`, which must be as long as the
/// ciphertext.
pub(crate) fn open_into(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    sealed: &[u8],
    plaintext: &mut [u8],
) -> Result<(), AeadError> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(AeadError)?;
    let buffer = InOutBuf::new(ciphertext, plaintext).map_err(|_| AeadError)?;
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(nonce.into(), aad, buffer, tag.into())
        .map_err(|_| AeadError)
}

/// The first 24 bytes of a keyed hash over `parts`, one after the other.
pub(crate) fn synthetic_nonce(key: &[u8; 32], parts: &[&[u8]]) -> [u8; NONCE_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    crate::ids::split_array(hasher.finalize().as_bytes()).0
}

/// XChaCha20-Poly1305 for blocks: ring's ChaCha20-Poly1305 under the subkey that HChaCha20 makes of key and nonce.
///
/// ring does not erase the subkey from the stack; it opens one block, whose plaintext is in memory at the same time.
/// Source: draft-irtf-cfrg-xchacha-03, section 2.3.
pub(crate) mod bulk {
    use chacha20::{R20, hchacha};
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::{AeadError, NONCE_LEN, TAG_LEN};

    /// Encrypts `buffer` in place and returns the tag.
    pub(crate) fn seal_in_place(
        key: &[u8; 32],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_LEN], AeadError> {
        let (key, nonce) = subkey(key, nonce)?;
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), buffer)
            .map_err(|_| AeadError)?;
        tag.as_ref().try_into().map_err(|_| AeadError)
    }

    /// Verifies and decrypts `sealed` (ciphertext ‖ tag) in place and returns the plaintext at its start. On an error, `sealed`
    /// holds nothing of use.
    pub(crate) fn open_in_place<'a>(
        key: &[u8; 32],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], AeadError> {
        let (key, nonce) = subkey(key, nonce)?;
        key.open_in_place(nonce, Aad::from(aad), sealed)
            .map(|plaintext| &*plaintext)
            .map_err(|_| AeadError)
    }

    /// HChaCha20 takes the first 16 bytes of the nonce; four zero bytes and the last 8 are ChaCha20's.
    fn subkey(key: &[u8; 32], nonce: &[u8; NONCE_LEN]) -> Result<(LessSafeKey, Nonce), AeadError> {
        let (head, tail) = nonce.split_first_chunk::<16>().ok_or(AeadError)?;
        let subkey =
            zeroize::Zeroizing::new(<[u8; 32]>::from(hchacha::<R20>(key.into(), head.into())));
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(tail);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*subkey).map_err(|_| AeadError)?;
        Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_example_of_the_draft_is_reproduced() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1.
        let plaintext = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let aad = HEXLOWER.decode(b"50515253c0c1c2c3c4c5c6c7").unwrap();
        let key: [u8; 32] = std::array::from_fn(|n| 0x80 + n as u8);
        let nonce: [u8; 24] = std::array::from_fn(|n| 0x40 + n as u8);
        let mut buffer = plaintext.to_vec();
        let tag = seal_in_place(&key, &nonce, &aad, &mut buffer).unwrap();
        assert_eq!(
            HEXLOWER.encode(&buffer[..16]),
            "bd6d179d3e83d43b9576579493c0e939"
        );
        assert_eq!(HEXLOWER.encode(&tag), "c0875924c1c7987947deafd8780acf49");
        buffer.extend_from_slice(&tag);
        let mut opened = vec![0; plaintext.len()];
        assert_eq!(open_into(&key, &nonce, &aad, &buffer, &mut opened), Ok(()));
        assert_eq!(opened, plaintext);
    }

    #[test]
    fn both_implementations_give_the_same_bytes() {
        let mut noise = vec![0; 70_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let key: [u8; 32] = std::array::from_fn(|n| n as u8);
        // Every length up to some blocks of ChaCha20 (64 B) and of Poly1305 (16 B), then around larger steps.
        let lens = (0..700)
            .chain((1_000..70_000).step_by(997))
            .chain([65_535, 65_536, 65_537]);
        for len in lens {
            let nonce: [u8; 24] = std::array::from_fn(|n| (n * len) as u8);
            let aad = &noise[..len % 40];
            let (mut one, mut two) = (noise[..len].to_vec(), noise[..len].to_vec());
            let tag = seal_in_place(&key, &nonce, aad, &mut one).unwrap();
            assert_eq!(bulk::seal_in_place(&key, &nonce, aad, &mut two), Ok(tag));
            assert_eq!(one, two);
            two.extend_from_slice(&tag);
            let mut sealed = two.clone();
            assert_eq!(
                bulk::open_in_place(&key, &nonce, aad, &mut sealed),
                Ok(&noise[..len])
            );
            assert_eq!(open_into(&key, &nonce, aad, &two, &mut one), Ok(()));
            assert_eq!(one, noise[..len]);
            let last = two.len() - 1;
            two[last] ^= 1;
            assert_eq!(
                bulk::open_in_place(&key, &nonce, aad, &mut two),
                Err(AeadError)
            );
            assert_eq!(open_into(&key, &nonce, aad, &two, &mut one), Err(AeadError));
        }
    }
}
