//! A signed file: what is signed, and the count of those who signed it (4.2).
//!
//! Invariant: nothing of a file is handed out but what a threshold of different keys signed. What counts is the key, not
//! its id: one under two ids, or signing twice, counts once. A core.

use std::collections::{BTreeMap, BTreeSet};

use crate::hex;
use crate::json::{Json, Malformed};
use crate::limits::MAX_SIGNATURES;
use crate::metadata::{Authority, Metadata};
use crate::verify::{Verdict, Verifier, VerifierFailure};

/// A file that was read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) signed: Json,
    /// By key id. What is not hexadecimal is no signature, and empty.
    pub(crate) signatures: BTreeMap<String, Vec<u8>>,
}

/// Why a file is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unproven {
    Malformed(Malformed),
    TooFew {
        genuine: usize,
        threshold: usize,
        unjudged: usize,
    },
    NoVerdict(VerifierFailure),
}

impl Envelope {
    /// Reads a file. Other members beside `signed` and `signatures` are ignored: nobody signed them.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let file = Json::parse(bytes)?;
        let listed = file.member("signatures")?.array("`signatures`")?;
        if listed.len() > MAX_SIGNATURES {
            return Err(Malformed(format!("more than {MAX_SIGNATURES} signatures")));
        }
        let mut signatures = BTreeMap::new();
        for signature in listed {
            let key_id = signature.member("keyid")?.text("`keyid`")?.to_owned();
            let bytes = hex::decode(signature.member("sig")?.text("`sig`")?).unwrap_or_default();
            if signatures.contains_key(&key_id) {
                return Err(Malformed(format!("the key {key_id} signs twice")));
            }
            signatures.insert(key_id, bytes);
        }
        Ok(Self {
            signed: file.member("signed")?.clone(),
            signatures,
        })
    }

    /// Hands out the metadata if a threshold of `authority`'s keys signed the whole of it.
    pub(crate) fn open<Role: Metadata>(
        &self,
        authority: Authority<'_>,
        verifier: &dyn Verifier,
    ) -> Result<Role, Unproven> {
        self.prove(authority, verifier)?;
        Role::parse(&self.signed).map_err(Unproven::Malformed)
    }

    /// Counts keys until the threshold is reached: each signature costs a verification, perhaps in a slow device.
    pub(crate) fn prove(
        &self,
        authority: Authority<'_>,
        verifier: &dyn Verifier,
    ) -> Result<(), Unproven> {
        let message = self.signed.canonical();
        let mut genuine = BTreeSet::new();
        let mut unjudged = 0;
        for (key_id, signature) in &self.signatures {
            if genuine.len() >= authority.role.threshold {
                break;
            }
            let Some(key) = authority.keys.get(key_id) else {
                continue;
            };
            if signature.is_empty() || !authority.role.key_ids.contains(key_id) {
                continue;
            }
            match verifier.verify(key, &message, signature) {
                Ok(Verdict::Genuine) => drop(genuine.insert(key)),
                Ok(Verdict::Forged) => {}
                Ok(Verdict::Unjudged) => unjudged += 1,
                Err(failure) => return Err(Unproven::NoVerdict(failure)),
            }
        }
        if genuine.len() >= authority.role.threshold {
            return Ok(());
        }
        Err(Unproven::TooFew {
            genuine: genuine.len(),
            threshold: authority.role.threshold,
            unjudged,
        })
    }

    /// The file's bytes, signatures in order of their key ids.
    pub(crate) fn to_file(&self) -> Vec<u8> {
        let signatures = self.signatures.iter().map(|(key_id, bytes)| {
            Json::from([
                ("keyid", Json::String(key_id.clone())),
                ("sig", Json::String(hex::encode(bytes))),
            ])
        });
        Json::from([
            ("signatures", Json::Array(signatures.collect())),
            ("signed", self.signed.clone()),
        ])
        .to_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{PublicKey, key_id};
    use crate::metadata::RoleKeys;
    use crate::repository::{FileKey, Signer};
    use crate::verify::Software;
    use proptest::prelude::*;

    const SIGNED: &str = r#"{"a":[1,2],"unknown":"field"}"#;

    struct Scene {
        keys: BTreeMap<String, PublicKey>,
        role: RoleKeys,
        owners: Vec<FileKey>,
    }

    impl Scene {
        /// Two of three, of both schemes.
        fn new() -> Self {
            let owners = [FileKey::ed25519(), FileKey::p256(), FileKey::p256()];
            let owners: Vec<FileKey> = owners.into_iter().map(Result::unwrap).collect();
            let keys: BTreeMap<_, _> = owners
                .iter()
                .map(|owner| (owner.public_key().id(), owner.public_key().clone()))
                .collect();
            let role = RoleKeys {
                key_ids: keys.keys().cloned().collect(),
                threshold: 2,
            };
            Self { keys, role, owners }
        }

        fn signature(&self, owner: usize) -> (String, String) {
            let message = Json::parse(SIGNED.as_bytes()).unwrap().canonical();
            let signature = self.owners[owner].sign(&message).unwrap();
            (
                self.owners[owner].public_key().id(),
                hex::encode(&signature),
            )
        }

        fn check(&self, signed: &str, signatures: &[(String, String)]) -> Result<(), Unproven> {
            let signatures: Vec<_> = signatures
                .iter()
                .map(|(id, sig)| format!(r#"{{"keyid":"{id}","sig":"{sig}"}}"#))
                .collect();
            let file = format!(
                r#"{{"signatures":[{}],"signed":{signed}}}"#,
                signatures.join(",")
            );
            Envelope::parse(file.as_bytes())
                .map_err(Unproven::Malformed)?
                .prove(
                    Authority {
                        keys: &self.keys,
                        role: &self.role,
                    },
                    &Software,
                )
        }
    }

    fn too_few(genuine: usize) -> Result<(), Unproven> {
        Err(Unproven::TooFew {
            genuine,
            threshold: 2,
            unjudged: 0,
        })
    }

    #[test]
    fn a_threshold_of_keys_proves_a_file() {
        let scene = Scene::new();
        let signatures = [scene.signature(0), scene.signature(2)];
        assert_eq!(scene.check(SIGNED, &signatures), Ok(()));
    }

    #[test]
    fn a_signature_covers_the_whole_of_what_is_signed() {
        let scene = Scene::new();
        let signatures = [scene.signature(0), scene.signature(1)];
        for changed in [
            r#"{"a":[1,2]}"#,
            r#"{"a":[1,2],"unknown":"field","more":0}"#,
            r#"{"a":[2,1],"unknown":"field"}"#,
        ] {
            assert_eq!(scene.check(changed, &signatures), too_few(0), "{changed}");
        }
        let reordered = r#"{ "unknown":"field", "a":[1, 2] }"#;
        assert_eq!(scene.check(reordered, &signatures), Ok(()));
    }

    #[test]
    fn a_file_with_a_second_signed_part_is_refused() {
        let scene = Scene::new();
        let (id, sig) = scene.signature(0);
        let file = format!(
            r#"{{"signed":{{}},"signatures":[{{"keyid":"{id}","sig":"{sig}"}}],"signed":{SIGNED}}}"#
        );
        assert!(Envelope::parse(file.as_bytes()).is_err());
    }

    #[test]
    fn zero_signatures_prove_nothing() {
        assert_eq!(Scene::new().check(SIGNED, &[]), too_few(0));
    }

    #[test]
    fn empty_and_unreadable_signatures_count_for_nothing() {
        let scene = Scene::new();
        for sig in ["", "zz", "0"] {
            let signatures = [scene.signature(0), (scene.signature(1).0, sig.to_owned())];
            assert_eq!(scene.check(SIGNED, &signatures), too_few(1), "{sig:?}");
        }
    }

    #[test]
    fn an_unreadable_signature_does_no_harm_beside_enough_good_ones() {
        let scene = Scene::new();
        let signatures = [
            scene.signature(0),
            (scene.signature(1).0, String::new()),
            scene.signature(2),
        ];
        assert_eq!(scene.check(SIGNED, &signatures), Ok(()));
    }

    #[test]
    fn a_key_that_signs_twice_is_refused() {
        let scene = Scene::new();
        let signatures = [scene.signature(1), scene.signature(1)];
        assert!(matches!(
            scene.check(SIGNED, &signatures),
            Err(Unproven::Malformed(_))
        ));
    }

    #[test]
    fn one_key_under_two_ids_counts_once() {
        let mut scene = Scene::new();
        let Json::Object(mut members) = scene.owners[0].public_key().to_json() else {
            panic!("a key is an object")
        };
        members.insert("x".into(), Json::Null);
        let second_id = key_id(&Json::Object(members));
        scene
            .keys
            .insert(second_id.clone(), scene.owners[0].public_key().clone());
        scene.role.key_ids.insert(second_id.clone());
        let first = scene.signature(0);
        let second = (second_id, first.1.clone());
        assert_eq!(scene.check(SIGNED, &[first, second]), too_few(1));
    }

    #[test]
    fn a_key_of_another_role_counts_for_nothing() {
        let mut scene = Scene::new();
        let (stranger, signature) = scene.signature(2);
        scene.role.key_ids.remove(&stranger);
        let signatures = [scene.signature(0), (stranger, signature)];
        assert_eq!(scene.check(SIGNED, &signatures), too_few(1));
    }

    #[test]
    fn a_signature_under_another_keys_id_counts_for_nothing() {
        let scene = Scene::new();
        let swapped = (scene.signature(1).0, scene.signature(2).1);
        let signatures = [scene.signature(0), swapped];
        assert_eq!(scene.check(SIGNED, &signatures), too_few(1));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Envelope::parse(&bytes);
        }

        #[test]
        fn a_file_with_one_byte_changed_is_refused_or_says_the_same(at in 0_usize..400, to in any::<u8>()) {
            let scene = Scene::new();
            let mut signatures = BTreeMap::new();
            for owner in 0..2 {
                let (id, sig) = scene.signature(owner);
                signatures.insert(id, hex::decode(&sig).unwrap());
            }
            let whole = Envelope { signed: Json::parse(SIGNED.as_bytes()).unwrap(), signatures };
            let mut bytes = whole.to_file();
            let at = at % bytes.len();
            bytes[at] = to;
            let authority = Authority { keys: &scene.keys, role: &scene.role };
            if let Ok(changed) = Envelope::parse(&bytes) && changed.prove(authority, &Software).is_ok() {
                prop_assert_eq!(changed.signed, whole.signed);
            }
        }
    }
}
