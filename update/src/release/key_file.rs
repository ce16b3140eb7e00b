//! A release's content key and recipients in a file of the vendor's, to make the same release again. Value.
//!
//! Wrapping a key for a TPM takes chance; whoever wants to build a release a second time, byte for byte, keeps this file.
//! Whoever has it can read the release.
//!
//! Invariant: what is read back is what was written.

use serde::{Deserialize, Serialize};

use super::{ContentKey, Grants, fields::Reader};

/// Bytes of such a file at most: an index' recipients in hexadecimal.
pub const KEY_FILE_MAX: u64 = 2 * 1024 * 1024;

/// A content key and for whom it is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The security epoch for which it is wrapped.
    pub epoch: u64,
    /// The key.
    pub key: ContentKey,
    /// The same, wrapped.
    pub grants: Grants,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    epoch: u64,
    key: String,
    recipients: String,
}

impl KeyFile {
    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut recipients = Vec::new();
        self.grants.write(&mut recipients);
        let words = Words {
            epoch: self.epoch,
            key: tpm::hex::encode(self.key.bytes()),
            recipients: tpm::hex::encode(&recipients),
        };
        serde_json::to_string_pretty(&words).unwrap_or_default() + "\n"
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_text(text: &str) -> Result<KeyFile, String> {
        let words: Words = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let key = tpm::hex::decode(&words.key);
        let key = key.and_then(|key| ContentKey::from_secret(&tpm::Secret::new(&key)));
        let recipients = tpm::hex::decode(&words.recipients);
        let recipients = recipients.ok_or("its recipients are not hexadecimal digits")?;
        let mut reader = Reader(&recipients);
        let grants = Grants::read(&mut reader, words.epoch).and_then(|grants| {
            reader.end()?;
            grants.check(words.epoch).map(|()| grants)
        });
        Ok(KeyFile {
            epoch: words.epoch,
            key: key.ok_or("its key is not 64 hexadecimal digits")?,
            grants: grants.map_err(|wrong| wrong.to_string())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::sample::{grants, key};

    #[test]
    fn a_content_key_and_its_recipients_survive_their_file() {
        let file = KeyFile {
            epoch: 3,
            key: key(),
            grants: grants(3),
        };
        assert_eq!(KeyFile::from_text(&file.to_text()), Ok(file.clone()));
        let shorter = file.to_text().replace("07", "");
        assert!(KeyFile::from_text(&shorter).is_err());
        assert!(!format!("{file:?}").contains("07, 07"), "{file:?}");
    }
}
