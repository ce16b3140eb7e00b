//! What the TPM says about its own keys and indices, signed by its attestation key. Driver.
//!
//! That key is restricted: it signs nothing that came from outside, so that nobody on the device can have it sign what the
//! TPM did not say (TPM 2.0 Part 1, 31). The signing key is not, so what it signs proves nothing about the TPM.
//!
//! Invariant: nothing of what was said is handed out but under a signature that holds.

use tpm2_protocol::{
    TpmMarshal,
    basic::TpmUint16,
    data::{Tpm2bData, TpmCc, TpmtSigScheme},
};

use crate::{
    anchor::{Anchor, Anchors},
    crypt::sha256,
    device::{Guard, Tpm},
    ecdsa::{PublicKey, Signature},
    entity::{Entity, Name},
    error::{Error, Result},
    index::Use,
    keys::read_signature,
    provision::Keys,
    wire::{Fields, malformed, marshal, sized},
};

/// What begins all that a TPM itself signs, and nothing else (Part 2, 6.2).
const GENERATED: u32 = 0xff54_4347;
/// The structure is about an index' content (Part 2, 6.9).
const ABOUT_INDEX: u16 = 0x8014;
/// The structure is about a key.
const ABOUT_KEY: u16 = 0x8017;
/// Clock, resets, restarts, whether they are safe; the firmware's version.
const CLOCK_AND_FIRMWARE: usize = 8 + 4 + 4 + 1 + 8;

/// What the TPM said, with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The words: a TPMS_ATTEST (Part 2, 10.12.12).
    pub words: Vec<u8>,
    /// The attestation key's, over the words.
    pub signature: Signature,
}

/// What was said, once the signature was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// What the asker gave along.
    pub qualifying: Vec<u8>,
    /// What it is about.
    pub says: Says,
}

/// What a TPM can say here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// This index holds this.
    Index {
        /// The index' name.
        name: Name,
        /// All that it holds.
        content: Vec<u8>,
    },
    /// A key of this name stands in the same TPM.
    Key(Name),
}

impl Attestation {
    /// What was said, if `key` signed it.
    ///
    /// # Errors
    /// It did not, or these are no words of a TPM.
    pub fn read(&self, key: &PublicKey) -> std::result::Result<Attested, String> {
        if !key.verifies(&self.words, &self.signature) {
            return Err("the signature is not the attestation key's".to_owned());
        }
        read_words(&self.words).map_err(|error| error.to_string())
    }
}

fn read_words(words: &[u8]) -> Result<Attested> {
    let cc = TpmCc::NvCertify;
    let mut fields = Fields::new(cc, words);
    if fields.u32()? != GENERATED {
        return Err(malformed(cc, "these are not a TPM's own words"));
    }
    let kind = fields.u16()?;
    fields.sized()?;
    let qualifying = fields.sized()?.to_vec();
    fields.bytes(CLOCK_AND_FIRMWARE)?;
    let name = fields.sized()?.to_vec();
    let says = match kind {
        ABOUT_INDEX if fields.u16()? == 0 => Says::Index {
            name,
            content: fields.sized()?.to_vec(),
        },
        ABOUT_KEY => {
            fields.sized()?;
            Says::Key(name)
        }
        _ => return Err(malformed(cc, "they are about something else")),
    };
    fields.end()?;
    Ok(Attested { qualifying, says })
}

/// Reads the security floor out of what was said about its index: the index has to be the one that follows from the
/// vendor's key.
///
/// # Errors
/// It is about something else.
pub fn attested_floor(says: &Says, anchors: &Anchors) -> std::result::Result<u64, String> {
    let index = anchors.index(Anchor::Floor);
    let Says::Index { name, content } = says else {
        return Err("it is about a key".to_owned());
    };
    let is_ours = [Use::Written, Use::Locked]
        .into_iter()
        .any(|used| index.name(used).is_ok_and(|ours| ours == *name));
    match <[u8; 8]>::try_from(content.as_slice()) {
        Ok(content) if is_ours => Ok(u64::from_be_bytes(content)),
        _ => Err("it is about another index than the vendor's security floor".to_owned()),
    }
}

impl Tpm {
    /// Has the TPM say what its security floor is, with `qualifying` along.
    ///
    /// # Errors
    /// Those of the commands; there is no floor.
    pub fn attest_floor(
        &mut self,
        keys: &Keys,
        anchors: &Anchors,
        qualifying: &[u8; 32],
    ) -> Result<Attestation> {
        let cc = TpmCc::NvCertify;
        let index = anchors.index(Anchor::Floor);
        let used = self
            .anchor_use(&index)?
            .filter(|used| *used != Use::Unwritten)
            .ok_or_else(|| {
                Error::Rule("the TPM has no security floor; run gateway tpm provision".to_owned())
            })?;
        let entity = index.entity(used)?;
        let fields: [&dyn TpmMarshal; 4] = [
            &sized::<Tpm2bData>(cc, qualifying)?,
            &TpmtSigScheme::default(),
            &TpmUint16::new(index.size),
            &TpmUint16::new(0),
        ];
        // The index authorises its own reading.
        let handles = [&keys.attestation, &entity, &entity];
        self.attest(cc, &handles, marshal(cc, &fields)?)
    }

    /// Has the TPM say that `key` stands in it, with `qualifying` along.
    ///
    /// # Errors
    /// Those of the command.
    pub fn attest_key(
        &mut self,
        keys: &Keys,
        key: &Entity,
        qualifying: &[u8; 32],
    ) -> Result<Attestation> {
        let cc = TpmCc::Certify;
        let fields: [&dyn TpmMarshal; 2] = [
            &sized::<Tpm2bData>(cc, qualifying)?,
            &TpmtSigScheme::default(),
        ];
        self.attest(cc, &[key, &keys.attestation], marshal(cc, &fields)?)
    }

    fn attest(
        &mut self,
        cc: TpmCc,
        handles: &[&Entity],
        parameters: Vec<u8>,
    ) -> Result<Attestation> {
        let response = self.run(cc, handles, parameters, Guard::AuthoriseBoth)?;
        let mut fields = Fields::new(cc, &response.parameters);
        let words = fields.sized()?.to_vec();
        Ok(Attestation {
            words,
            signature: read_signature(cc, fields)?,
        })
    }
}

/// What a statement of ours is bound to the TPM's by: its digest, with the kind of statement before it.
#[must_use]
pub fn qualifying(kind: &str, statement: &[u8]) -> [u8; 32] {
    sha256(&[b"edge gateway: ", kind.as_bytes(), b"\n", statement])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_words_make_it_panic(words in proptest::collection::vec(any::<u8>(), 0..120), kind in any::<bool>()) {
            let _ = read_words(&words);
            let mut begun = GENERATED.to_be_bytes().to_vec();
            begun.extend(if kind { ABOUT_INDEX } else { ABOUT_KEY }.to_be_bytes());
            begun.extend(&words);
            let _ = read_words(&begun);
        }
    }
}
