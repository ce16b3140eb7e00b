//! Public keys as metadata names them: which there are, and that each bears the id it should.
//!
//! Invariant: a key is known by its point alone. So the same key under two ids is one key, and one whose id is not the
//! digest of its description is none. A value.

use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use ring::digest::{SHA256, digest};

use crate::hex;
use crate::json::{Json, Malformed};

/// The DER before the 65 bytes of an uncompressed P-256 point in a SubjectPublicKeyInfo (RFC 5480, 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The same before the 32 bytes of an Ed25519 key (RFC 8410, 4).
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// A public key of a scheme that this client knows (4.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PublicKey {
    /// `ed25519`: 32 bytes (RFC 8032).
    Ed25519([u8; 32]),
    /// `ecdsa-sha2-nistp256`: an uncompressed point, `04`, x, y.
    P256([u8; 65]),
}

impl PublicKey {
    /// Reads a key's description; `None` for schemes that this client does not know: no signature by such a key counts.
    pub fn from_json(key: &Json) -> Option<Self> {
        let text = |name| key.optional(name)?.text(name).ok();
        let public = key.optional("keyval")?.optional("public")?;
        let public = public.text("public").ok()?;
        match (text("keytype")?, text("scheme")?) {
            ("ed25519", "ed25519") => Some(Self::Ed25519(hex::decode(public)?.try_into().ok()?)),
            ("ecdsa", "ecdsa-sha2-nistp256") => point(public).map(Self::P256),
            _ => None,
        }
    }

    /// The key's description, as it stands in metadata (4.2).
    pub fn to_json(&self) -> Json {
        let (keytype, scheme, public) = match self {
            Self::Ed25519(bytes) => ("ed25519", "ed25519", hex::encode(bytes)),
            Self::P256(point) => ("ecdsa", "ecdsa-sha2-nistp256", pem(point)),
        };
        Json::from([
            ("keytype", keytype.into()),
            ("scheme", scheme.into()),
            ("keyval", [("public", Json::String(public))].into()),
        ])
    }

    /// From the PEM form that `openssl pkey -pubout` writes; `None` for anything but P-256 and Ed25519.
    pub fn from_pem(text: &str) -> Option<Self> {
        let der = pem_body(text)?;
        match der.strip_prefix(&ED25519_PREFIX) {
            Some(bytes) => Some(Self::Ed25519(bytes.try_into().ok()?)),
            None => point(text).map(Self::P256),
        }
    }

    /// The PEM form that OpenSSL reads.
    pub fn to_pem(&self) -> String {
        match self {
            Self::Ed25519(bytes) => in_pem(&[ED25519_PREFIX.as_slice(), bytes].concat()),
            Self::P256(point) => pem(point),
        }
    }

    /// The key's id in the metadata that we write.
    pub fn id(&self) -> String {
        key_id(&self.to_json())
    }
}

/// The id that a description must bear: SHA-256 of its canonical form, fields that we do not know included (4.2).
pub(crate) fn key_id(description: &Json) -> String {
    hex::encode(digest(&SHA256, &description.canonical()).as_ref())
}

/// The keys of a `keys` object by id, without those of unknown schemes and those whose id is wrong.
///
/// # Errors
/// When it is no object of objects.
pub(crate) fn usable_keys(keys: &Json) -> Result<BTreeMap<String, PublicKey>, Malformed> {
    let mut usable = BTreeMap::new();
    for (id, description) in keys.object("`keys`")? {
        description.object("a key")?;
        if key_id(description) == *id
            && let Some(key) = PublicKey::from_json(description)
        {
            usable.insert(id.clone(), key);
        }
    }
    Ok(usable)
}

fn pem(point: &[u8; 65]) -> String {
    in_pem(&[P256_PREFIX.as_slice(), point].concat())
}

fn in_pem(der: &[u8]) -> String {
    let encoded = Base64::encode_string(der);
    let (first, second) = encoded.split_at(encoded.len().min(64));
    let second = match second {
        "" => String::new(),
        rest => format!("{rest}\n"),
    };
    format!("{PEM_BEGIN}\n{first}\n{second}{PEM_END}\n")
}

fn pem_body(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let body: String = body.split_ascii_whitespace().collect();
    Base64::decode_vec(&body).ok()
}

fn point(pem: &str) -> Option<[u8; 65]> {
    let der = pem_body(pem)?;
    let point: [u8; 65] = der.strip_prefix(&P256_PREFIX)?.try_into().ok()?;
    (point[0] == 4).then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a root that python-tuf wrote.
    const PYTHON: &str = r#"{"keytype":"ecdsa","keyval":{"public":"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWRiGr5+j+3J5SsH+Ztr5nE2H2wO7\nBV+nO3s93gLca18qTOzHY1oWyAGDykMSsGTUBSt9D+An0KfKsD2mfSM42Q==\n-----END PUBLIC KEY-----\n"},"scheme":"ecdsa-sha2-nistp256"}"#;

    fn parse(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        let description = parse(PYTHON);
        let key = PublicKey::from_json(&description).unwrap();
        assert_eq!(key.to_json(), description);
        let other = PublicKey::Ed25519([7; 32]);
        assert_eq!(PublicKey::from_json(&other.to_json()), Some(other));
    }

    #[test]
    fn a_key_under_a_wrong_id_is_none() {
        let key = PublicKey::Ed25519([7; 32]);
        let keys = |id: &str| Json::Object([(id.to_owned(), key.to_json())].into());
        assert_eq!(usable_keys(&keys(&key.id())).unwrap().len(), 1);
        assert_eq!(usable_keys(&keys(&"0".repeat(64))).unwrap().len(), 0);
        assert_eq!(
            usable_keys(&keys(&key.id().to_uppercase())).unwrap().len(),
            0
        );
    }

    #[test]
    fn unknown_fields_of_a_key_belong_to_its_id() {
        let Json::Object(mut members) = PublicKey::Ed25519([7; 32]).to_json() else {
            panic!("a key is an object")
        };
        let plain = key_id(&Json::Object(members.clone()));
        members.insert("x-owner".into(), "@her".into());
        let extended = Json::Object(members);
        assert_ne!(key_id(&extended), plain);
        let keys = Json::Object([(key_id(&extended), extended)].into());
        assert_eq!(usable_keys(&keys).unwrap().len(), 1);
    }

    #[test]
    fn unknown_schemes_and_misshapen_keys_are_no_keys() {
        for text in [
            r#"{"keytype":"rsa","scheme":"rsassa-pss-sha256","keyval":{"public":"x"}}"#,
            r#"{"keytype":"ecdsa","scheme":"ed25519","keyval":{"public":"00"}}"#,
            r#"{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"00"}}"#,
            r#"{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":7}}"#,
            r#"{"keytype":"ecdsa","scheme":"ecdsa-sha2-nistp256","keyval":{"public":"-----BEGIN PUBLIC KEY-----"}}"#,
            r#"{"keytype":"ed25519"}"#,
        ] {
            assert_eq!(PublicKey::from_json(&parse(text)), None, "{text}");
        }
    }

    #[test]
    fn a_key_survives_the_form_of_openssl() {
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        let key = PublicKey::from_pem(ed25519).unwrap();
        assert!(matches!(key, PublicKey::Ed25519([0xd7, 0x5a, ..])));
        assert_eq!(key.to_pem(), ed25519);
        let mut point = [7; 65];
        point[0] = 4;
        let key = PublicKey::P256(point);
        assert_eq!(PublicKey::from_pem(&key.to_pem()), Some(key));
        assert_eq!(
            PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----"),
            None
        );
    }
}
