//! The vendor's approvals as files: made offline with one key, good for every device. Value.
//!
//! Invariant: an approval says what it is about; the signatures are over policies computed from just that, so a file whose
//! words were changed is of no use.

use serde::{Deserialize, Serialize};

use crate::{
    anchor::{
        Anchors, Layout, Subject, TrustedRoot, recovery_approved, recovery_reference, reference,
    },
    ecdsa::{PublicKey, Signature},
    error::Result,
    hex,
    index::Use,
    policy::approval_message,
};

/// The largest approval that is read; one takes about 800 bytes.
pub const FILE_MAX: u64 = 16 * 1024;

/// For which state of the index a signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Occasion {
    /// The index was never written.
    First,
    /// A lower version stands in it.
    Rise,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    layout: Layout,
    occasion: Occasion,
    signature: String,
}

/// The words of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "approves", rename_all = "lowercase", deny_unknown_fields)]
enum Words {
    Root {
        version: u64,
        sha256: String,
        signatures: Vec<Signed>,
    },
    Floor {
        version: u64,
        signatures: Vec<Signed>,
    },
}

/// A root or a floor that the vendor approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    subject: Subject,
    signatures: Vec<(Layout, Occasion, Signature)>,
}

impl Approval {
    /// Approves `subject` for every device whose vendor key is `key`; `sign` signs a message with its private part.
    ///
    /// # Errors
    /// The version would shut out all later ones; what `sign` says.
    pub fn make(
        subject: Subject,
        key: &PublicKey,
        sign: &mut dyn FnMut(&[u8]) -> Result<Signature>,
    ) -> Result<Approval> {
        subject.check()?;
        let mut signatures = Vec::new();
        for layout in [Layout::Platform, Layout::Owner] {
            let anchors = Anchors::new(*key, layout)?;
            for (occasion, used) in [
                (Occasion::First, Use::Unwritten),
                (Occasion::Rise, Use::Written),
            ] {
                let policy = subject.approved(&anchors, used)?;
                let signature = sign(&approval_message(&policy, reference(subject.anchor())))?;
                signatures.push((layout, occasion, signature));
            }
        }
        Ok(Approval {
            subject,
            signatures,
        })
    }

    /// What it is about.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The signature for an index in this layout and state.
    pub(crate) fn signature(&self, layout: Layout, used: Use) -> Option<&Signature> {
        let occasion = match used {
            Use::Unwritten => Occasion::First,
            Use::Written | Use::Locked => Occasion::Rise,
        };
        self.signatures
            .iter()
            .find(|(of_layout, of_occasion, _)| (*of_layout, *of_occasion) == (layout, occasion))
            .map(|(.., signature)| signature)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let signatures = self
            .signatures
            .iter()
            .map(|(layout, occasion, signature)| Signed {
                layout: *layout,
                occasion: *occasion,
                signature: hex::encode(&signature.fixed()),
            });
        let signatures = signatures.collect();
        let words = match self.subject {
            Subject::Root(root) => Words::Root {
                version: root.version,
                sha256: hex::encode(&root.digest),
                signatures,
            },
            Subject::Floor(version) => Words::Floor {
                version,
                signatures,
            },
        };
        serde_json::to_string_pretty(&words).unwrap_or_default() + "\n"
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(text: &str) -> std::result::Result<Approval, String> {
        let words: Words = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (subject, signatures) = match words {
            Words::Root {
                version,
                sha256,
                signatures,
            } => {
                let digest = hex::decode(&sha256).and_then(|bytes| bytes.try_into().ok());
                let digest = digest.ok_or("sha256 is not 64 hexadecimal digits")?;
                (Subject::Root(TrustedRoot { version, digest }), signatures)
            }
            Words::Floor {
                version,
                signatures,
            } => (Subject::Floor(version), signatures),
        };
        let signatures = signatures.iter().map(|signed| {
            let signature =
                hex::decode(&signed.signature).and_then(|bytes| Signature::from_fixed(&bytes));
            let signature = signature.ok_or("a signature is not 128 hexadecimal digits")?;
            Ok((signed.layout, signed.occasion, signature))
        });
        Ok(Approval {
            subject,
            signatures: signatures.collect::<std::result::Result<_, &str>>()?,
        })
    }
}

/// The message whose signature lets the device with this storage key give out its hierarchies' authorisation values.
#[must_use]
pub fn recovery_message(storage: &[u8]) -> Vec<u8> {
    approval_message(&recovery_approved(), &recovery_reference(storage))
}
