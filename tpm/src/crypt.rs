//! The key derivations, the stream cipher and the proofs that sessions are made of (TPM 2.0 Part 1, 11.4). Core.
//!
//! Invariant: proofs are compared in constant time.

use aes::{Aes128, cipher::KeyIvInit};
use ring::{digest, hmac};

/// Bytes of a SHA-256 digest, the only hash used here.
pub(crate) const DIGEST: usize = 32;
/// Bytes of an AES-128 key, and of its block.
const AES_KEY: usize = 16;

/// SHA-256 over parts, one after another.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; DIGEST] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut result = [0; DIGEST];
    result.copy_from_slice(context.finish().as_ref());
    result
}

/// HMAC-SHA-256 over parts, one after another.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut result = [0; DIGEST];
    result.copy_from_slice(context.sign().as_ref());
    result
}

/// Whether `proof` is the HMAC-SHA-256 of the parts, without telling by time where it differs.
pub(crate) fn hmac_holds(key: &[u8], parts: &[&[u8]], proof: &[u8]) -> bool {
    hmac::verify(
        &hmac::Key::new(hmac::HMAC_SHA256, key),
        &parts.concat(),
        proof,
    )
    .is_ok()
}

/// `KDFa` with SHA-256 for at most 32 bytes (Part 1, 11.4.10.2; SP 800-108 in counter mode).
pub(crate) fn kdfa<const N: usize>(key: &[u8], label: &str, u: &[u8], v: &[u8]) -> [u8; N] {
    const { assert!(N <= DIGEST) };
    let bits = (N as u32 * 8).to_be_bytes();
    let block = hmac(
        key,
        &[&1u32.to_be_bytes(), label.as_bytes(), &[0], u, v, &bits],
    );
    let mut result = [0; N];
    result.copy_from_slice(&block[..N]);
    result
}

/// `KDFe` with SHA-256 for 32 bytes (Part 1, 11.4.10.3; SP 800-56A): `z`, `u` and `v` are x coordinates.
pub(crate) fn kdfe(z: &[u8], label: &str, u: &[u8], v: &[u8]) -> [u8; DIGEST] {
    sha256(&[&1u32.to_be_bytes(), z, label.as_bytes(), &[0], u, v])
}

/// Which way the stream cipher goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Encrypt,
    Decrypt,
}

/// AES-128 in CFB mode with full blocks, in place.
pub(crate) fn cfb(way: Way, key: &[u8; AES_KEY], iv: &[u8; AES_KEY], bytes: &mut [u8]) {
    match way {
        Way::Encrypt => cfb_mode::Encryptor::<Aes128>::new(key.into(), iv.into()).encrypt(bytes),
        Way::Decrypt => cfb_mode::Decryptor::<Aes128>::new(key.into(), iv.into()).decrypt(bytes),
    }
}

/// A session's encryption of one parameter (Part 1, 21.3): the key and the start come from both nonces.
pub(crate) fn parameter(way: Way, secret: &[u8], newer: &[u8], older: &[u8], bytes: &mut [u8]) {
    let material = kdfa::<DIGEST>(secret, "CFB", newer, older);
    let mut key = [0; AES_KEY];
    let mut iv = [0; AES_KEY];
    key.copy_from_slice(&material[..AES_KEY]);
    iv.copy_from_slice(&material[AES_KEY..]);
    cfb(way, &key, &iv, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        crate::hex::decode(text).unwrap()
    }

    // RFC 4231, test case 2.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let expected = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        assert_eq!(hmac(b"Jefe", &parts), expected[..]);
        assert!(hmac_holds(b"Jefe", &parts, &expected));
        assert!(!hmac_holds(b"Jefe", &parts, &expected[..31]));
    }

    // SP 800-38A, F.3.13 and F.3.14.
    #[test]
    fn the_cipher_is_that_of_the_standard() {
        let key: [u8; 16] = hex("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        let iv: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let mut bytes = plain.clone();
        cfb(Way::Encrypt, &key, &iv, &mut bytes);
        assert_eq!(
            bytes,
            hex("3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b")
        );
        cfb(Way::Decrypt, &key, &iv, &mut bytes);
        assert_eq!(bytes, plain);
    }

    // Computed with Python's hmac and hashlib from the formulas of Part 1, 11.4.10.
    #[test]
    fn the_key_derivations_are_those_of_the_specification() {
        let key: Vec<u8> = (0..32).collect();
        let long = kdfa::<32>(&key, "ATH", &[0xaa; 16], &[0xbb; 20]);
        assert_eq!(
            long,
            hex("3a416b269dfa918794e21dd0de9570509cd96899011ac8c5a84b5e9370e34e2e")[..]
        );
        let short = kdfa::<16>(&key, "ATH", &[0xaa; 16], &[0xbb; 20]);
        assert_eq!(short, hex("fba30891c5734ccd55fc77fc7edcafbc")[..]);
        let exchanged = kdfe(&[1; 32], "SECRET", &[2; 32], &[3; 32]);
        assert_eq!(
            exchanged,
            hex("e1619cfe448bd19480b151fd69fd170a7d15fc3627e3bafe0a01c25783fca2fc")[..]
        );
    }

    #[test]
    fn a_parameter_decrypts_only_with_the_same_nonces_in_the_same_order() {
        let mut bytes = *b"nineteen bytes long";
        parameter(Way::Encrypt, b"secret", &[1; 32], &[2; 32], &mut bytes);
        let mut swapped = bytes;
        parameter(Way::Decrypt, b"secret", &[2; 32], &[1; 32], &mut swapped);
        parameter(Way::Decrypt, b"secret", &[1; 32], &[2; 32], &mut bytes);
        assert_eq!(&bytes, b"nineteen bytes long");
        assert_ne!(swapped, bytes);
    }
}
