//! Keys in files, for devices without a TPM. Value.
//!
//! Weaker than a TPM: whoever reads the file opens every release that was made for it, withdrawn ones too, and the vendor
//! holds the same key. What may be *installed* is decided by signatures and the floor all the same.
//!
//! Invariant: the key is printed nowhere but by [`FileKey::to_text`].

use super::{
    ContentKey, Digest, Recipient,
    sealed::{OVERHEAD, Sealer},
    sha256,
};

const SALT: &[u8] = b"gateway file key 1";

/// The key of a fleet, or of one device.
#[derive(Clone, PartialEq, Eq)]
pub struct FileKey(tpm::Secret);

/// A content key, encrypted with a [`FileKey`] and bound to its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedKey([u8; SealedKey::LENGTH]);

impl SealedKey {
    /// Nonce, key and tag.
    pub const LENGTH: usize = 32 + OVERHEAD;

    pub(super) fn new(bytes: [u8; SealedKey::LENGTH]) -> SealedKey {
        SealedKey(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FileKey {
    /// From its 32 bytes.
    #[must_use]
    pub fn new(bytes: &Digest) -> FileKey {
        FileKey(tpm::Secret::new(bytes))
    }

    /// From a file's text: 64 hexadecimal digits and an end of line.
    #[must_use]
    pub fn from_text(text: &str) -> Option<FileKey> {
        let bytes = tpm::hex::decode(text.trim_end())?;
        Some(FileKey::new(bytes.as_slice().try_into().ok()?))
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        tpm::hex::encode(self.0.bytes()) + "\n"
    }

    /// How an index names it.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient::File(sha256(&[SALT, self.0.bytes()]))
    }

    /// Encrypts a release's content key; the same key and epoch make the same bytes.
    #[must_use]
    pub fn wrap(&self, epoch: u64, key: &ContentKey) -> SealedKey {
        let sealed = self.sealer().seal(&epoch.to_be_bytes(), key.bytes());
        SealedKey(sealed.try_into().expect("a content key has 32 bytes"))
    }

    /// The content key, or nothing when it was wrapped with another key, for another epoch, or altered.
    #[must_use]
    pub fn open(&self, epoch: u64, sealed: &SealedKey) -> Option<ContentKey> {
        let plain = self.sealer().open(&epoch.to_be_bytes(), &sealed.0)?;
        ContentKey::from_secret(&tpm::Secret::new(&plain))
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(self.0.bytes(), SALT)
    }
}

impl std::fmt::Debug for FileKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FileKey(<redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_key_opens_for_its_own_file_key_and_epoch_alone() {
        let (ours, theirs) = (FileKey::new(&[1; 32]), FileKey::new(&[2; 32]));
        let key = ContentKey::new(&[7; 32]);
        let sealed = ours.wrap(3, &key);
        assert_eq!(ours.open(3, &sealed), Some(key.clone()));
        assert_eq!(ours.open(4, &sealed), None);
        assert_eq!(theirs.open(3, &sealed), None);
        let mut altered = sealed;
        altered.0[20] ^= 1;
        assert_eq!(ours.open(3, &altered), None);
        assert_eq!(ours.wrap(3, &key), sealed);
    }

    #[test]
    fn a_file_key_survives_its_text_and_is_not_printed() {
        let key = FileKey::new(&[0xab; 32]);
        assert_eq!(FileKey::from_text(&key.to_text()), Some(key.clone()));
        assert_eq!(FileKey::from_text("abab"), None);
        assert!(!format!("{key:?} {:?}", ContentKey::new(&[0xab; 32])).contains("ab"));
    }
}
