//! Authenticated encryption that needs no chance: AES-256-GCM whose nonce is a MAC of what is encrypted. Value.
//!
//! Two keys come from the secret by HKDF-SHA256 (RFC 5869), one for the cipher and one for the nonce; the salt says what
//! the secret is used for.
//!
//! Invariant: two different plain texts get different nonces, so that a secret may be used again, and the same build made twice.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};

/// Bytes by which the sealed form is longer: the nonce before it and the tag behind it.
pub(super) const OVERHEAD: usize = NONCE_LEN + 16;

/// Keys for one purpose.
pub(super) struct Sealer {
    cipher: LessSafeKey,
    nonce: hmac::Key,
}

impl Sealer {
    pub(super) fn new(secret: &[u8], salt: &[u8]) -> Sealer {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
        let expanded = |what: &'static [u8]| {
            let mut key = [0; 32];
            extracted
                .expand(&[what], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut key))
                .expect("32 bytes are one block of HKDF-SHA256");
            key
        };
        let cipher = UnboundKey::new(&AES_256_GCM, &expanded(b"cipher"))
            .expect("AES-256 takes a key of 32 bytes");
        Sealer {
            cipher: LessSafeKey::new(cipher),
            nonce: hmac::Key::new(hmac::HMAC_SHA256, &expanded(b"nonce")),
        }
    }

    /// Nonce, encrypted bytes and tag. `bound` has the same length wherever this secret and salt are used.
    pub(super) fn seal(&self, bound: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut mac = hmac::Context::with_key(&self.nonce);
        mac.update(bound);
        mac.update(plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&mac.sign().as_ref()[..NONCE_LEN]);
        let mut sealed = [&nonce[..], plain].concat();
        let tag = self.cipher.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound),
            &mut sealed[NONCE_LEN..],
        );
        sealed.extend(tag.expect("GCM takes 64 GiB").as_ref());
        sealed
    }

    /// The plain bytes, or nothing when `sealed` was not made with this secret, salt and `bound`, or was altered.
    pub(super) fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, encrypted) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = encrypted.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self
            .cipher
            .open_in_place(nonce, Aad::from(bound), &mut bytes);
        let length = plain.ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_anything_else_does_not(
            plain in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8u8
        ) {
            let sealer = Sealer::new(&[1; 32], b"salt");
            let sealed = sealer.seal(b"one", &plain);
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(sealer.open(b"one", &sealed), Some(plain));
            prop_assert_eq!(sealer.open(b"two", &sealed), None);
            prop_assert_eq!(Sealer::new(&[2; 32], b"salt").open(b"one", &sealed), None);
            prop_assert_eq!(Sealer::new(&[1; 32], b"tlas").open(b"one", &sealed), None);
            let mut altered = sealed.clone();
            altered[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(sealer.open(b"one", &altered), None);
            prop_assert_eq!(sealer.open(b"one", &sealed[..at.index(sealed.len())]), None);
        }
    }

    #[test]
    fn a_key_that_is_used_again_meets_no_nonce_twice() {
        let sealer = Sealer::new(&[1; 32], b"salt");
        let nonce = |bound, plain| sealer.seal(bound, plain)[..NONCE_LEN].to_vec();
        assert_ne!(nonce(b"one", b"this"), nonce(b"one", b"that"));
        assert_ne!(nonce(b"one", b"this"), nonce(b"two", b"this"));
        assert_eq!(nonce(b"one", b"this"), nonce(b"one", b"this"));
    }
}
