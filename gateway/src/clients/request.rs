//! Certificate requests (PKCS#10, RFC 2986) of clients. Core.
//!
//! Invariant: of a request only its key and its name are taken, and the key only if whoever asks
//! holds it.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::{
    certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer,
    public_key::PublicKey,
};

use super::ClientName;

/// Longest request that is read, in bytes: an RSA key of 4096 bits with extensions, thrice.
pub(crate) const REQUEST_MAX: usize = 8 * 1024;
/// Shorter RSA keys are not certified, in bits (NIST SP 800-131A).
const RSA_BITS_MIN: usize = 2_048;

/// A request whose signature was verified with its own key.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: SubjectPublicKeyInfo,
    common_name: Option<String>,
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is too long to be one.
    #[error("the request has {0} bytes, more than the {REQUEST_MAX} that one may have")]
    Long(usize),
    /// It is something else.
    #[error("this is no certificate request (PKCS#10) in PEM; `openssl req -new` makes one")]
    Form,
    /// Whoever sent it does not hold the key in it.
    #[error("the request's signature is not its own key's")]
    Signature,
    /// A key of a kind that is not certified.
    #[error(
        "keys of this kind are not certified; known are P-256, P-384, Ed25519 and RSA from 2048 bits"
    )]
    Key,
    /// It names somebody else, or several.
    #[error(
        "the request names {found}, not {wanted}; `openssl req -new -subj /CN={wanted}` makes one that does"
    )]
    Name {
        /// Whom it names.
        found: String,
        /// Who asks.
        wanted: ClientName,
    },
}

impl Request {
    /// Reads a request in PEM.
    pub(crate) fn parse(text: &str) -> Result<Request, RequestError> {
        if text.len() > REQUEST_MAX {
            return Err(RequestError::Long(text.len()));
        }
        let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| RequestError::Form)?;
        match pem.label.ends_with("CERTIFICATE REQUEST") {
            true => Request::read(&pem.contents),
            false => Err(RequestError::Form),
        }
    }

    fn read(der: &[u8]) -> Result<Request, RequestError> {
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| RequestError::Form)?;
        if !rest.is_empty() {
            return Err(RequestError::Form);
        }
        let info = &request.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw);
        let key = key.map_err(|_| RequestError::Key)?;
        if let Ok(PublicKey::RSA(rsa)) = info.subject_pki.parsed()
            && rsa.key_size() < RSA_BITS_MIN
        {
            return Err(RequestError::Key);
        }
        request
            .verify_signature()
            .map_err(|_| RequestError::Signature)?;
        let names: Vec<String> = info
            .subject
            .iter_common_name()
            .map(|name| name.as_str().map_or_else(|_| "?".to_owned(), str::to_owned))
            .collect();
        let common_name = (!names.is_empty()).then(|| names.join(" and "));
        Ok(Request { key, common_name })
    }

    /// Refuses one that names somebody else; one without a name is for whoever asks.
    pub(crate) fn is_for(&self, name: &ClientName) -> Result<(), RequestError> {
        match &self.common_name {
            Some(found) if found != name.as_str() => Err(RequestError::Name {
                found: format!("{found:?}"),
                wanted: name.clone(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        SignatureAlgorithm,
    };

    use super::*;

    fn made(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        let key = KeyPair::generate_for(algorithm).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_is_for_the_name_that_it_bears_or_for_whoever_asks() {
        let press: ClientName = "press-3".parse().unwrap();
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ED25519,
        ] {
            let named = Request::read(&made(&["press-3"], algorithm)).unwrap();
            assert_eq!(named.is_for(&press), Ok(()));
            assert!(named.is_for(&"press-4".parse().unwrap()).is_err());
            let nameless = Request::read(&made(&[], algorithm)).unwrap();
            assert_eq!(nameless.is_for(&press), Ok(()));
        }
    }

    #[test]
    fn a_request_with_any_signed_byte_changed_is_refused() {
        let whole = made(&["press-3"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, request) = X509CertificationRequest::from_der(&whole).unwrap();
        let signed = request.certification_request_info.raw;
        let begin = whole.windows(signed.len()).position(|part| part == signed);
        let begin = begin.unwrap();
        for place in begin..begin + signed.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(Request::read(&changed).is_err(), "byte {place}");
        }
        assert_eq!(Request::parse("").unwrap_err(), RequestError::Form);
        assert_eq!(
            Request::parse(&"x".repeat(REQUEST_MAX + 1)).unwrap_err(),
            RequestError::Long(REQUEST_MAX + 1)
        );
    }
}
