//! What a TPM says about a key whose certificate is asked for, and how an authority checks it. Driver.
//!
//! It says: the key of these public bytes stands in the same TPM as the attestation key, never leaves it, and was named for
//! this very request. The maker's certificates of the endorsement key lie beside it. That attestation key and endorsement key
//! stand in one TPM, an authority learns from a dialogue alone (TPM2_MakeCredential), or from having been there at the
//! factory.
//!
//! Invariant: evidence holds for one request and one key, and only for keys that cannot leave the TPM.

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use tpm2_protocol::data::TpmCc;

use crate::{
    attest::{Attestation, Says, qualifying},
    device::Tpm,
    ecdsa::{PublicKey, Signature},
    entity::Entity,
    error::{Error, Result},
    hex,
    provision::Keys,
    public::{Public, Template},
};

/// Where makers put the certificates of endorsement keys: RSA 2048 and P-256 (TCG EK Credential Profile 2.5, 2.2.1.4).
const ENDORSEMENT: [u32; 2] = [0x01c0_0002, 0x01c0_000a];
/// Bytes of such a certificate at most.
const CERTIFICATE_MAX: u16 = 8 * 1024;
/// Which statement it is, in what the TPM signs.
const KIND: &str = "certificate request";

/// Bytes of evidence that are read; it takes about 5,000.
pub const EVIDENCE_MAX: u64 = 64 * 1024;

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The key's public area (TPMT_PUBLIC), in hexadecimal digits as all of these.
    pub key: String,
    /// The attestation key's.
    pub attestation_key: String,
    /// TPMS_ATTEST of TPM2_Certify.
    pub words: String,
    /// The attestation key's over the words: ECDSA with SHA-256, DER.
    pub signature: String,
    /// The maker's certificates of endorsement keys, PEM.
    pub endorsement_certificates: Vec<String>,
}

impl Evidence {
    /// As a file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Checks it for a request in DER that `key` signed; hands out the attestation key, whose belonging to the TPM of the
    /// endorsement certificates is for the caller to know.
    ///
    /// # Errors
    /// In words, what does not hold.
    pub fn check(&self, request: &[u8], key: &PublicKey) -> std::result::Result<PublicKey, String> {
        let public = area(&self.key, &Template::signing(), "key")?;
        let attestation = area(
            &self.attestation_key,
            &Template::attestation(),
            "attestation key",
        )?;
        if public.key() != key {
            return Err("it is about another key than the request's".to_owned());
        }
        let bytes = |text: &str| hex::decode(text).ok_or("it holds other than hexadecimal digits");
        let signature = Signature::from_der(&bytes(&self.signature)?).ok_or("no signature")?;
        let words = bytes(&self.words)?;
        let said = Attestation { words, signature }.read(attestation.key())?;
        if said.says != Says::Key(public.name()) {
            return Err("the TPM speaks about another key".to_owned());
        }
        match said.qualifying == qualifying(KIND, request) {
            true => Ok(*attestation.key()),
            false => Err("the TPM speaks about another request".to_owned()),
        }
    }
}

/// A public area of a key that cannot leave its TPM.
fn area(text: &str, template: &Template, what: &str) -> std::result::Result<Public, String> {
    let bytes =
        hex::decode(text).ok_or_else(|| format!("the {what} is not in hexadecimal digits"))?;
    let public = Public::read(TpmCc::ReadPublic, &bytes).map_err(|error| error.to_string())?;
    match template.fits(&public) {
        Ok(true) => Ok(public),
        _ => Err(format!(
            "the {what} is not of a kind that never leaves the TPM"
        )),
    }
}

impl Tpm {
    /// What it says about a signing key for a certificate request in DER.
    ///
    /// # Errors
    /// Those of the commands.
    pub fn evidence(&mut self, keys: &Keys, key: &Entity, request: &[u8]) -> Result<Evidence> {
        let said = self.attest_key(keys, key, &qualifying(KIND, request))?;
        Ok(Evidence {
            key: self.public_area(key)?,
            attestation_key: self.public_area(&keys.attestation)?,
            words: hex::encode(&said.words),
            signature: hex::encode(&said.signature.der()),
            endorsement_certificates: self.endorsement_certificates()?,
        })
    }

    fn public_area(&mut self, key: &Entity) -> Result<String> {
        let public = self.read_public(key.handle())?;
        let public = public.filter(|public| public.name() == key.name());
        let public = public.ok_or_else(|| Error::Rule("the key went away meanwhile".to_owned()))?;
        Ok(hex::encode(public.bytes()))
    }

    /// The maker's certificates of endorsement keys, as far as there are any.
    ///
    /// # Errors
    /// Those of the commands.
    pub fn endorsement_certificates(&mut self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for handle in ENDORSEMENT {
            let content = self.read_foreign(handle, CERTIFICATE_MAX)?;
            found.extend(content.as_deref().and_then(certificate).map(pem));
        }
        Ok(found)
    }
}

/// The certificate at the beginning of an index, which may be longer.
fn certificate(content: &[u8]) -> Option<&[u8]> {
    let [0x30, 0x82, high, low, ..] = content else {
        return None;
    };
    content.get(..4 + usize::from(u16::from_be_bytes([*high, *low])))
}

fn pem(der: &[u8]) -> String {
    let encoded = Base64::encode_string(der);
    let lines: Vec<_> = encoded
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_cut_out_of_its_index_and_nothing_else_is_one() {
        let mut content = vec![0x30, 0x82, 0, 3, 1, 2, 3];
        let whole = content.clone();
        content.extend([0xff; 20]);
        assert_eq!(certificate(&content), Some(&whole[..]));
        assert_eq!(certificate(&whole[..6]), None);
        assert_eq!(certificate(&[0xff; 40]), None);
        assert_eq!(certificate(b""), None);
    }
}
