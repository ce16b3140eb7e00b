//! The certificates in an answer of an EST server: base64 of a PKCS#7 that holds nothing else
//! (RFC 7030, 4.1.3 and 4.2.3; RFC 5652, 5). Core.
//!
//! Invariant: content, signers and anything behind the end are refused, and at most so many
//! certificates come out.

use base64ct::{Base64, Encoding};
use rustls::pki_types::CertificateDer;

use super::der::{INTEGER, NotDer, OBJECT_IDENTIFIER, Reader, SEQUENCE, SET, TAGGED_0, TAGGED_1};

/// Most certificates in an answer.
const CERTIFICATES_MAX: usize = 16;
/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

/// Why an answer holds no certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Pkcs7Error {
    /// It is not base64.
    #[error("it is not base64")]
    Base64,
    /// It is not the structure that certificates come in.
    #[error("it is no PKCS#7 of certificates alone")]
    Structure,
    /// None at all, or too many.
    #[error("it holds {0} certificates; 1 to {CERTIFICATES_MAX} are taken")]
    Count(usize),
}

impl From<NotDer> for Pkcs7Error {
    fn from(_: NotDer) -> Pkcs7Error {
        Pkcs7Error::Structure
    }
}

/// The certificates of an answer's body, in its order.
pub(crate) fn certificates(body: &[u8]) -> Result<Vec<CertificateDer<'static>>, Pkcs7Error> {
    let text: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let text = std::str::from_utf8(&text).map_err(|_| Pkcs7Error::Base64)?;
    let der = Base64::decode_vec(text).map_err(|_| Pkcs7Error::Base64)?;
    of_der(&der)
}

fn of_der(der: &[u8]) -> Result<Vec<CertificateDer<'static>>, Pkcs7Error> {
    let mut outer = Reader(der);
    let mut info = Reader(outer.content(SEQUENCE)?);
    let kind = info.content(OBJECT_IDENTIFIER)?;
    let mut explicit = Reader(info.content(TAGGED_0)?);
    let mut signed = Reader(explicit.content(SEQUENCE)?);
    let _version = signed.content(INTEGER)?;
    let algorithms = signed.content(SET)?;
    let mut content = Reader(signed.content(SEQUENCE)?);
    let content_kind = content.content(OBJECT_IDENTIFIER)?;
    let mut inside = Reader(signed.optional(TAGGED_0)?.unwrap_or_default());
    let _revocations = signed.optional(TAGGED_1)?;
    let signers = signed.content(SET)?;
    let is_degenerate = algorithms.is_empty() && signers.is_empty() && content.is_empty();
    let is_whole = [outer, info, explicit, signed]
        .iter()
        .all(|rest| rest.is_empty());
    if kind != SIGNED_DATA || content_kind != DATA || !is_degenerate || !is_whole {
        return Err(Pkcs7Error::Structure);
    }
    let mut found = Vec::new();
    while !inside.is_empty() {
        let (tag, whole, _) = inside.element()?;
        if tag != SEQUENCE {
            return Err(Pkcs7Error::Structure);
        }
        found.push(CertificateDer::from(whole.to_vec()));
        if found.len() > CERTIFICATES_MAX {
            break;
        }
    }
    match found.len() {
        1..=CERTIFICATES_MAX => Ok(found),
        count => Err(Pkcs7Error::Count(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `openssl crl2pkcs7 -nocrl` makes, around elements that stand for certificates.
    fn degenerate(certificates: &[u8]) -> Vec<u8> {
        let signed = [
            &wrap(INTEGER, &[1])[..],
            &wrap(SET, &[]),
            &wrap(SEQUENCE, &wrap(OBJECT_IDENTIFIER, DATA)),
            &wrap(TAGGED_0, certificates),
            &wrap(SET, &[]),
        ]
        .concat();
        let explicit = wrap(TAGGED_0, &wrap(SEQUENCE, &signed));
        let info = [&wrap(OBJECT_IDENTIFIER, SIGNED_DATA)[..], &explicit].concat();
        wrap(SEQUENCE, &info)
    }

    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        let head = match length {
            0..0x80 => vec![tag, length],
            _ => vec![tag, 0x81, length],
        };
        [&head[..], content].concat()
    }

    #[test]
    fn certificates_come_out_in_order_and_whole() {
        let two = [wrap(SEQUENCE, b"one"), wrap(SEQUENCE, b"two")];
        let text = Base64::encode_string(&degenerate(&two.concat()));
        let (first, second) = text.split_at(20);
        let found = certificates(format!("{first}\r\n{second}\n").as_bytes()).unwrap();
        assert_eq!(found.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(), two);
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(certificates(b"*"), Err(Pkcs7Error::Base64));
        assert_eq!(of_der(&degenerate(&[])), Err(Pkcs7Error::Count(0)));
        let many = wrap(SEQUENCE, &[]).repeat(CERTIFICATES_MAX + 1);
        assert_eq!(of_der(&degenerate(&many)), Err(Pkcs7Error::Count(17)));
        let no_certificate = degenerate(&wrap(INTEGER, &[1]));
        assert_eq!(of_der(&no_certificate), Err(Pkcs7Error::Structure));
        let good = degenerate(&wrap(SEQUENCE, b"one"));
        let behind = [&good[..], &[0]].concat();
        assert_eq!(of_der(&behind), Err(Pkcs7Error::Structure));
    }

    #[test]
    fn no_byte_too_few_or_changed_makes_it_panic() {
        let good = degenerate(&wrap(SEQUENCE, b"one"));
        for length in 0..good.len() {
            assert!(of_der(&good[..length]).is_err(), "{length}");
        }
        for index in 0..good.len() {
            for value in 0..=u8::MAX {
                let mut bytes = good.clone();
                bytes[index] = value;
                let _either = of_der(&bytes);
            }
        }
    }
}
