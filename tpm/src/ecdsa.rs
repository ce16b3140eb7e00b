//! Public keys and signatures of P-256 in the forms that others want. Value.
//!
//! Invariant: a public key is an uncompressed point of the right length; whether it is on the curve, whoever uses it
//! checks (ring and the TPM both do).

use base64ct::{Base64, Encoding};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

/// What stands before the point in a `SubjectPublicKeyInfo` of P-256 (RFC 5480, 2).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// A public key of P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 65]);

impl PublicKey {
    /// From `x` and `y`, or nothing when one is longer than 32 bytes.
    #[must_use]
    pub fn from_coordinates(x: &[u8], y: &[u8]) -> Option<PublicKey> {
        let mut point = [0; 65];
        point[0] = 4;
        point[1..33].copy_from_slice(&padded(x)?);
        point[33..].copy_from_slice(&padded(y)?);
        Some(PublicKey(point))
    }

    /// From an uncompressed point (SEC 1, 2.3.3).
    #[must_use]
    pub fn from_sec1(point: &[u8]) -> Option<PublicKey> {
        let point: [u8; 65] = point.try_into().ok()?;
        (point[0] == 4).then_some(PublicKey(point))
    }

    /// From a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<PublicKey> {
        PublicKey::from_sec1(der.strip_prefix(&SPKI_PREFIX)?)
    }

    /// From the PEM form that `openssl pkey -pubout` writes.
    #[must_use]
    pub fn from_pem(text: &str) -> Option<PublicKey> {
        let (_, body) = text.split_once(PEM_BEGIN)?;
        let (body, _) = body.split_once(PEM_END)?;
        let body: String = body.split_whitespace().collect();
        PublicKey::from_spki(&Base64::decode_vec(&body).ok()?)
    }

    /// The uncompressed point (SEC 1, 2.3.3).
    #[must_use]
    pub fn sec1(&self) -> &[u8; 65] {
        &self.0
    }

    /// The `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// The PEM form that OpenSSL reads.
    #[must_use]
    pub fn pem(&self) -> String {
        let body = Base64::encode_string(&self.spki());
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", lines.join("\n"))
    }

    /// Whether `signature` is this key's over `message`, in software.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0[..])
            .verify(message, &signature.fixed())
            .is_ok()
    }

    pub(crate) fn x(&self) -> &[u8] {
        &self.0[1..33]
    }

    pub(crate) fn y(&self) -> &[u8] {
        &self.0[33..]
    }
}

/// An ECDSA signature of P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// The first number.
    pub r: [u8; 32],
    /// The second number.
    pub s: [u8; 32],
}

impl Signature {
    /// From both numbers, or nothing when one is longer than 32 bytes.
    #[must_use]
    pub fn from_numbers(r: &[u8], s: &[u8]) -> Option<Signature> {
        Some(Signature {
            r: padded(r)?,
            s: padded(s)?,
        })
    }

    /// From both numbers one behind the other.
    #[must_use]
    pub fn from_fixed(bytes: &[u8]) -> Option<Signature> {
        let (r, s) = bytes.split_at_checked(32)?;
        (s.len() == 32).then(|| Signature::from_numbers(r, s))?
    }

    /// From DER, as TLS, X.509 and TUF carry it.
    #[must_use]
    pub fn from_der(bytes: &[u8]) -> Option<Signature> {
        let body = der_value(bytes, 0x30)
            .filter(|(_, rest)| rest.is_empty())?
            .0;
        let (r, rest) = der_value(body, 0x02)?;
        let (s, rest) = der_value(rest, 0x02)?;
        if !rest.is_empty() {
            return None;
        }
        Signature::from_numbers(positive(r)?, positive(s)?)
    }

    /// Both numbers one behind the other.
    #[must_use]
    pub fn fixed(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..].copy_from_slice(&self.s);
        bytes
    }

    /// DER, as TLS and X.509 want it.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        let mut body = der_integer(&self.r);
        body.extend(der_integer(&self.s));
        // At most 70 bytes: one byte of length is enough.
        let mut der = vec![0x30, body.len() as u8];
        der.extend(body);
        der
    }
}

fn padded(number: &[u8]) -> Option<[u8; 32]> {
    let start = 32usize.checked_sub(number.len())?;
    let mut bytes = [0; 32];
    bytes[start..].copy_from_slice(number);
    Some(bytes)
}

fn der_integer(number: &[u8; 32]) -> Vec<u8> {
    let zeros = number
        .iter()
        .take(31)
        .take_while(|byte| **byte == 0)
        .count();
    let digits = &number[zeros..];
    let sign = usize::from(digits[0] >= 0x80);
    let mut der = vec![0x02, (digits.len() + sign) as u8];
    der.extend(std::iter::repeat_n(0, sign));
    der.extend(digits);
    der
}

/// The value of a short element with `tag`, and what follows it.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = bytes else {
        return None;
    };
    (*found == tag && *length < 0x80).then(|| rest.split_at_checked(usize::from(*length)))?
}

/// A positive number's digits, written as shortly as DER demands.
fn positive(number: &[u8]) -> Option<&[u8]> {
    match number {
        [0, rest @ ..] => rest
            .first()
            .is_some_and(|byte| *byte >= 0x80)
            .then_some(rest),
        [1..=0x7f, ..] => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_public_key_survives_its_forms() {
        let key = PublicKey::from_coordinates(&[7; 32], &[9; 31]).unwrap();
        assert_eq!(PublicKey::from_pem(&key.pem()), Some(key));
        assert_eq!(PublicKey::from_spki(&key.spki()), Some(key));
        assert_eq!(PublicKey::from_sec1(&key.sec1()[..64]), None);
        assert_eq!(key.sec1()[33], 0);
    }

    proptest! {
        #[test]
        fn a_signature_survives_der(r in any::<[u8; 32]>(), s in any::<[u8; 32]>(), zeros in 0usize..31) {
            let mut signature = Signature { r, s };
            signature.r[..zeros].fill(0);
            prop_assume!(signature.r != [0; 32] && s != [0; 32]);
            prop_assert_eq!(Signature::from_der(&signature.der()), Some(signature));
            prop_assert_eq!(Signature::from_fixed(&signature.fixed()), Some(signature));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Signature::from_der(&bytes);
            let _ = PublicKey::from_spki(&bytes);
            let _ = PublicKey::from_pem(&String::from_utf8_lossy(&bytes));
        }
    }
}
