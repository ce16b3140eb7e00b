//! The receipt of an installation: which release a device committed, and which security floor its TPM held then. Value.
//!
//! ```json
//! { "statement": "{\"gateway\":\"plant-7\",…}", "floor": { "words": "ff544347…", "signature": "3045…" },
//!   "attestation_key": "-----BEGIN PUBLIC KEY-----…" }
//! ```
//!
//! `words` is what TPM2_NV_Certify says of the floor's index, with the statement's digest as qualifying data, and
//! `signature` the attestation key's over it. `docs/tpm.md` tells how to check one without this program.
//!
//! Invariant: nothing is read out of a receipt but what the TPM's signature covers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tpm::{Anchors, Attestation, Layout, PublicKey, Signature, attested_floor, hex};

/// Which statement it is, in what the TPM signs.
const KIND: &str = "install receipt";

/// Bytes of a receipt that are read; one takes about 1,200.
pub const RECEIPT_MAX: u64 = 16 * 1024;

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// The gateway's name.
    pub gateway: String,
    /// The release's version.
    pub release: String,
    /// Its security epoch.
    pub security_epoch: u64,
    /// The Merkle root of its image, in hexadecimal digits.
    pub merkle_root: String,
    /// When it was committed, by the device's clock.
    pub committed: Timestamp,
}

/// A receipt as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`Installed`] as JSON, to the byte.
    pub statement: String,
    /// The TPM's word; none from a device without TPM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Word>,
    /// The key that signed it, in PEM. Who checks a receipt knows it from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation_key: Option<String>,
}

/// What the TPM said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// A TPMS_ATTEST (TPM 2.0 Part 2, 10.12.12) in hexadecimal digits.
    pub words: String,
    /// ECDSA with SHA-256 in DER, in hexadecimal digits.
    pub signature: String,
}

/// A receipt that was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// What was installed.
    pub installed: Installed,
    /// The security floor that the TPM held.
    pub floor: u64,
}

impl Installed {
    /// The bytes that the TPM's signature covers.
    pub(super) fn statement(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What binds the TPM's word to a statement.
pub(super) fn qualifying(statement: &str) -> [u8; 32] {
    tpm::qualifying(KIND, statement.as_bytes())
}

impl Receipt {
    pub(super) fn unsigned(statement: String) -> Receipt {
        Receipt {
            statement,
            floor: None,
            attestation_key: None,
        }
    }

    pub(super) fn signed(statement: String, floor: &Attestation, key: &PublicKey) -> Receipt {
        Receipt {
            statement,
            floor: Some(Word {
                words: hex::encode(&floor.words),
                signature: hex::encode(&floor.signature.der()),
            }),
            attestation_key: Some(key.pem()),
        }
    }

    /// What it proves, by the device's `attestation` key and the vendor's root-`approval` key, both known from elsewhere.
    ///
    /// # Errors
    /// No TPM signed it, or another one; it is about another statement or another index.
    pub fn prove(&self, attestation: &PublicKey, approval: &PublicKey) -> Result<Proven, String> {
        let word = self.floor.as_ref().ok_or("no TPM has signed it")?;
        let bytes = |text: &str| hex::decode(text).ok_or("it holds other than hexadecimal digits");
        let signature = Signature::from_der(&bytes(&word.signature)?).ok_or("no signature")?;
        let words = bytes(&word.words)?;
        let said = Attestation { words, signature }.read(attestation)?;
        if said.qualifying != qualifying(&self.statement) {
            return Err("the TPM's word is about another statement".to_owned());
        }
        let floor = [Layout::Platform, Layout::Owner].map(|layout| {
            let anchors = Anchors::new(*approval, layout).map_err(|error| error.to_string())?;
            attested_floor(&said.says, &anchors)
        });
        let [one, other] = floor;
        let installed = serde_json::from_str(&self.statement).map_err(|error| error.to_string())?;
        Ok(Proven {
            installed,
            floor: one.or(other)?,
        })
    }
}
