//! Timestamp and snapshot metadata, which describe other files: version, length and hashes (4.4, 4.6).
//!
//! Invariant: hashes that are listed are checked; a list of which none is known is refused. A value.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256, SHA512};

use super::{Common, Metadata, parse_version};
use crate::hex;
use crate::json::{Json, Malformed};

/// The digests of a file. Algorithms that this client does not know are ignored beside ones that it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

impl Hashes {
    pub(crate) fn parse(hashes: &Json) -> Result<Self, Malformed> {
        let listed = hashes.object("`hashes`")?;
        let one = |name: &str, length: usize| {
            let Some(value) = listed.get(name) else {
                return Ok(None);
            };
            let digest = hex::decode(value.text("a hash")?).filter(|digest| digest.len() == length);
            digest.map(Some).ok_or_else(|| {
                Malformed(format!(
                    "a {name} hash is not {length} bytes in hexadecimal"
                ))
            })
        };
        let hashes = Self {
            sha256: one("sha256", 32)?,
            sha512: one("sha512", 64)?,
        };
        if hashes.sha256.is_none() && hashes.sha512.is_none() {
            return Err(Malformed(
                "a file has no hash by SHA-256 or SHA-512, which this client knows".into(),
            ));
        }
        Ok(hashes)
    }

    /// The digest that stands in the file's name where snapshots are consistent (6.2).
    pub fn in_name(&self) -> String {
        let known = self.sha256.as_deref().or(self.sha512.as_deref());
        hex::encode(known.unwrap_or_default())
    }

    /// Starts to check a file that comes in pieces.
    pub(crate) fn check(&self) -> HashCheck<'_> {
        HashCheck {
            expected: self,
            sha256: Context::new(&SHA256),
            sha512: Context::new(&SHA512),
        }
    }

    pub(crate) fn match_bytes(&self, bytes: &[u8]) -> bool {
        let mut check = self.check();
        check.update(bytes);
        check.matches()
    }
}

/// Digests under way.
pub(crate) struct HashCheck<'a> {
    expected: &'a Hashes,
    sha256: Context,
    sha512: Context,
}

impl HashCheck<'_> {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if self.expected.sha256.is_some() {
            self.sha256.update(bytes);
        }
        if self.expected.sha512.is_some() {
            self.sha512.update(bytes);
        }
    }

    /// Whether every digest that is listed and known is that of the bytes.
    pub(crate) fn matches(self) -> bool {
        let same = |expected: &Option<Vec<u8>>, found: Context| {
            expected
                .as_deref()
                .is_none_or(|expected| expected == found.finish().as_ref())
        };
        same(&self.expected.sha256, self.sha256) && same(&self.expected.sha512, self.sha512)
    }
}

/// What one metadata file says of another (METAFILES in 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileMeta {
    pub(crate) version: u64,
    pub(crate) length: Option<u64>,
    pub(crate) hashes: Option<Hashes>,
}

impl FileMeta {
    fn parse(meta: &Json) -> Result<Self, Malformed> {
        Ok(Self {
            version: parse_version(meta.member("version")?)?,
            length: meta
                .optional("length")
                .map(|length| length.number("`length`"))
                .transpose()?,
            hashes: meta.optional("hashes").map(Hashes::parse).transpose()?,
        })
    }
}

/// Timestamp metadata: the newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// Version and expiry.
    pub common: Common,
    pub(crate) snapshot: FileMeta,
}

impl Metadata for Timestamp {
    fn parse(signed: &Json) -> Result<Self, Malformed> {
        let common = Common::parse(signed, "timestamp")?;
        let meta = signed.member("meta")?.object("`meta`")?;
        match meta.get("snapshot.json") {
            Some(snapshot) if meta.len() == 1 => Ok(Self {
                common,
                snapshot: FileMeta::parse(snapshot)?,
            }),
            _ => Err(Malformed(
                "the timestamp does not describe snapshot.json alone".into(),
            )),
        }
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

/// Snapshot metadata: the targets metadata that belong together, by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Version and expiry.
    pub common: Common,
    pub(crate) roles: BTreeMap<String, FileMeta>,
}

impl Metadata for Snapshot {
    fn parse(signed: &Json) -> Result<Self, Malformed> {
        let common = Common::parse(signed, "snapshot")?;
        let mut roles = BTreeMap::new();
        for (name, meta) in signed.member("meta")?.object("`meta`")? {
            let role = name
                .strip_suffix(".json")
                .ok_or_else(|| Malformed(format!("{name:?} does not end in .json")))?;
            roles.insert(role.to_owned(), FileMeta::parse(meta)?);
        }
        Ok(Self { common, roles })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(text: &str) -> Result<Hashes, Malformed> {
        Hashes::parse(&Json::parse(text.as_bytes()).unwrap())
    }

    /// SHA-256 of no bytes.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_known_hash_has_to_match() {
        let one = hashes(&format!(r#"{{"sha256":"{EMPTY}"}}"#)).unwrap();
        assert!(one.match_bytes(b""));
        assert!(!one.match_bytes(b"x"));
        let wrong = "0".repeat(128);
        let two = hashes(&format!(r#"{{"sha256":"{EMPTY}","sha512":"{wrong}"}}"#)).unwrap();
        assert!(!two.match_bytes(b""));
    }

    #[test]
    fn hashes_of_which_none_is_known_are_refused() {
        assert!(hashes("{}").is_err());
        assert!(hashes(r#"{"md5":"00"}"#).is_err());
        assert!(hashes(r#"{"sha256":""}"#).is_err());
        assert!(hashes(&format!(r#"{{"sha256":"{EMPTY}","md5":"00"}}"#)).is_ok());
    }
}
