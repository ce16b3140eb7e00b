//! Puts the certificates that an authority sent into the order in which TLS wants them. Core.
//!
//! Invariant: the first is our key's; self-signed ones, which the other side has or does not trust,
//! are left out.

use base64ct::{Base64, Encoding};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest chain that is kept.
const CHAIN_MAX: usize = 8;
/// Characters of a line (RFC 7468, 2).
const LINE: usize = 64;

/// None of them is for our key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("none of its certificates is for the key that was asked for")]
pub(crate) struct NotOurs;

/// Our certificate, then each one's issuer as far as it is there. `public_key` is our key's point.
pub(crate) fn ordered(
    found: Vec<CertificateDer<'static>>,
    public_key: &[u8],
) -> Result<Vec<CertificateDer<'static>>, NotOurs> {
    let parsed: Vec<X509Certificate<'_>> = found
        .iter()
        .filter_map(|der| X509Certificate::from_der(der).ok())
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
        .collect();
    let is_ours = |certificate: &&X509Certificate<'_>| {
        certificate.public_key().subject_public_key.data.as_ref() == public_key
    };
    let mut last = parsed.iter().find(is_ours).ok_or(NotOurs)?;
    let mut chain = vec![CertificateDer::from(last.as_raw().to_vec())];
    while chain.len() < CHAIN_MAX {
        let issuer = parsed.iter().find(|certificate| {
            certificate.subject() == last.issuer() && certificate.subject() != certificate.issuer()
        });
        let Some(issuer) = issuer else { break };
        chain.push(CertificateDer::from(issuer.as_raw().to_vec()));
        last = issuer;
    }
    Ok(chain)
}

/// As a file holds them.
pub(crate) fn to_pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text += "-----BEGIN CERTIFICATE-----\n";
        let encoded = Base64::encode_string(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE));
            text += line;
            text += "\n";
            rest = after;
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData,
    };
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn authority(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    #[test]
    fn our_certificate_comes_first_and_the_root_not_at_all() {
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
        let middle = CertifiedIssuer::signed_by(authority("middle"), key(), &root).unwrap();
        let ours = key();
        let leaf = CertificateParams::new(["gw".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&ours, &middle).unwrap();
        let sent = vec![root.der().clone(), middle.der().clone(), leaf.der().clone()];
        let chain = ordered(sent.clone(), ours.der_bytes()).unwrap();
        assert_eq!(chain, [leaf.der().clone(), middle.der().clone()]);
        assert_eq!(ordered(sent, key().der_bytes()), Err(NotOurs));
        let text = to_pem(&chain);
        assert!(text.lines().all(|line| line.len() <= LINE));
        let back: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(back, chain);
    }
}
