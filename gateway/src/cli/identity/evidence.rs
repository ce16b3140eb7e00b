//! `gateway identity check-evidence`: an authority's look at what a TPM says about a key whose certificate is asked for.
//! Shell.
//!
//! Invariant: no TPM and no network are touched; the attestation key is printed only when all holds.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use serde_json::json;
use tpm::{EVIDENCE_MAX, Evidence, PublicKey};
use x509_parser::{
    certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer,
};

use crate::{
    appliance::trusted,
    cli::{Exit, Failure, print},
};

/// A request takes 500 bytes.
const REQUEST_MAX: u64 = 64 * 1024;

/// Arguments of `check-evidence`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The evidence, from `gateway identity csr --attest`
    file: PathBuf,
    /// The certificate request (PKCS#10, PEM) that came with it
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// Print the attestation key and the maker's certificates as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let text = trusted::read_small(&args.file, EVIDENCE_MAX)?;
    let evidence: Evidence = serde_json::from_str(&text)
        .with_context(|| format!("{} is no evidence", args.file.display()))?;
    let pem = trusted::read_small(&args.request, REQUEST_MAX)?;
    let (request, key) = read_request(&pem)
        .with_context(|| format!("{} is no request of a P-256 key", args.request.display()))?;
    let attestation = evidence.check(&request, &key).map_err(|why| {
        let error = anyhow!("{} proves nothing: {why}", args.file.display());
        Failure::new(Exit::Refused, error)
    })?;
    let certificates = &evidence.endorsement_certificates;
    if args.json {
        let answer = json!({
            "attestation_key": attestation.pem(),
            "endorsement_certificates": certificates,
        });
        return Ok(print(&format!("{answer}\n"))?);
    }
    Ok(print(&format!(
        "the key cannot leave the TPM with this attestation key, if that is a TPM's; {} certificates of its maker are beside it\n{}",
        certificates.len(),
        attestation.pem()
    ))?)
}

/// The request's DER and the key that signed it.
fn read_request(pem: &str) -> Option<(Vec<u8>, PublicKey)> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    let key = PublicKey::from_spki(request.certification_request_info.subject_pki.raw)?;
    rest.is_empty().then_some((block.contents.clone(), key))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};

    use super::*;

    #[test]
    fn a_requests_key_and_bytes_are_read_and_what_is_none_is_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let pem = request.pem().unwrap();
        let (der, found) = read_request(&pem).unwrap();
        assert_eq!(der, request.der().as_ref());
        assert_eq!(found.sec1().as_slice(), key.der_bytes());
        for wrong in ["", "-----BEGIN X-----", &key.serialize_pem()] {
            assert!(read_request(wrong).is_none(), "{wrong}");
        }
    }
}
