//! What stands in a TPM, for people and machines. Driver.
//!
//! Invariant: nothing is changed; what does not fit is a problem with a sentence of its own.

use std::path::Path;

use serde::Serialize;

use crate::{
    anchor::{Anchor, Anchors, Layout, Record},
    device::Tpm,
    ecdsa::PublicKey,
    error::Result,
    hex,
    index::{Found, Use},
    notes::{Key, Notes},
    provision::{ATTESTATION, PAYLOAD, SIGNING, STORAGE, existing_layout, property},
    public::Public,
};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Four letters of the TPM's maker.
    pub manufacturer: String,
    /// Its firmware's version, the first half.
    pub firmware: String,
    /// Whether the keys that were provisioned are there.
    pub keys: Vec<KeyReport>,
    /// The trust anchors, when the vendor's key is known and there are any.
    pub anchors: Option<AnchorReport>,
    /// Whether owner, endorsement hierarchy and lockout have authorisation values.
    pub hierarchies: Hierarchies,
    /// Wrong authorisations.
    pub lockout: Lockout,
    /// What is not as it should be.
    pub problems: Vec<String>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    /// What it is for.
    pub role: &'static str,
    /// Where it stands.
    pub handle: u32,
    /// Its name in hexadecimal digits, when it is there.
    pub name: Option<String>,
    /// Its public key in PEM, when it is there.
    pub public_key: Option<String>,
    /// Whether it is the recorded one.
    pub as_recorded: bool,
}

/// The trust anchors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnchorReport {
    /// Who created them.
    pub layout: Layout,
    /// The trusted root's version.
    pub root_version: Option<u64>,
    /// Its SHA-256 in hexadecimal digits.
    pub root_sha256: Option<String>,
    /// The security epoch below which nothing is installed.
    pub security_floor: Option<u64>,
    /// Whether the root took a value since the device started and takes no other until it restarts.
    pub root_locked: bool,
    /// The same of the floor.
    pub floor_locked: bool,
    /// Whether the provisioning record is written and names what stands there.
    pub recorded: bool,
}

/// Which authorisation values are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Hierarchies {
    pub owner_set: bool,
    pub endorsement_set: bool,
    pub lockout_set: bool,
}

/// Wrong authorisations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lockout {
    /// Whether the TPM refuses authorisations that count. Our keys are not among them.
    pub locked: bool,
    /// How many count now.
    pub failures: u32,
    /// At how many it locks.
    pub limit: u32,
}

impl Tpm {
    /// Looks at everything that was provisioned. `key` is the vendor's.
    ///
    /// # Errors
    /// The TPM does not answer; an index cannot be read.
    pub fn report(&mut self, directory: &Path, key: Option<&PublicKey>) -> Result<Report> {
        let notes = Notes::read(directory)?;
        let mut problems = Vec::new();
        match notes.name(Key::Storage) {
            None => {
                problems.push("the TPM is not provisioned; run gateway tpm provision".to_owned())
            }
            Some(storage) => {
                if let Err(error) = self.salt_to_recorded(&storage) {
                    problems.push(error.to_string());
                }
            }
        }
        let keys = self.key_reports(&notes, &mut problems)?;
        let anchors = match key {
            Some(key) if self.is_salted() => self.anchor_report(&notes, key, &mut problems)?,
            _ => None,
        };
        let permanent = self.property(property::PERMANENT)?.unwrap_or(0);
        let lockout = self.lockout(permanent)?;
        if lockout.locked {
            problems.push("the TPM is locked after too many wrong authorisations; our keys work on, and it passes".to_owned());
        }
        Ok(Report {
            manufacturer: letters(self.property(property::MANUFACTURER)?.unwrap_or(0)),
            firmware: version(self.property(property::FIRMWARE)?.unwrap_or(0)),
            keys,
            anchors,
            hierarchies: Hierarchies {
                owner_set: permanent & property::OWNER_SET != 0,
                endorsement_set: permanent & property::ENDORSEMENT_SET != 0,
                lockout_set: permanent & property::LOCKOUT_SET != 0,
            },
            lockout,
            problems,
        })
    }

    fn lockout(&mut self, permanent: u32) -> Result<Lockout> {
        Ok(Lockout {
            locked: permanent & property::LOCKED_OUT != 0,
            failures: self.property(property::FAILURES)?.unwrap_or(0),
            limit: self.property(property::TRIES_MAX)?.unwrap_or(0),
        })
    }

    fn key_reports(&mut self, notes: &Notes, problems: &mut Vec<String>) -> Result<Vec<KeyReport>> {
        let roles = [
            ("storage", Key::Storage, STORAGE),
            ("signing", Key::Signing, SIGNING),
            ("payload", Key::Payload, PAYLOAD),
            ("attestation", Key::Attestation, ATTESTATION),
        ];
        let mut reports = Vec::new();
        for (role, key, handle) in roles {
            let public = self.read_public(handle)?;
            let found = public.as_ref().map(Public::name);
            let recorded = notes.name(key);
            let as_recorded = found.is_some() && found == recorded;
            if recorded.is_some() && !as_recorded {
                problems.push(format!(
                    "the {role} key at {handle:#x} is not the recorded one: the TPM was cleared or exchanged"
                ));
            }
            reports.push(KeyReport {
                role,
                handle,
                name: found.as_deref().map(hex::encode),
                public_key: public.map(|public| public.key().pem()),
                as_recorded,
            });
        }
        Ok(reports)
    }

    fn anchor_report(
        &mut self,
        notes: &Notes,
        key: &PublicKey,
        problems: &mut Vec<String>,
    ) -> Result<Option<AnchorReport>> {
        let Some(anchors) = existing_layout(self, key)? else {
            problems.push(
                "there are no trust anchors for this vendor's key; run gateway tpm provision"
                    .to_owned(),
            );
            return Ok(None);
        };
        let root = self.trusted_root(&anchors)?;
        let recorded = self.is_recorded(notes, &anchors)?;
        if !recorded {
            problems.push(
                "the provisioning record is missing or names other keys than stand in the TPM"
                    .to_owned(),
            );
        }
        Ok(Some(AnchorReport {
            layout: anchors.layout,
            root_version: root.map(|root| root.version),
            root_sha256: root.map(|root| hex::encode(&root.digest)),
            security_floor: self.security_floor(&anchors)?,
            root_locked: self.is_locked(&anchors, Anchor::Root)?,
            floor_locked: self.is_locked(&anchors, Anchor::Floor)?,
            recorded,
        }))
    }

    fn is_locked(&mut self, anchors: &Anchors, anchor: Anchor) -> Result<bool> {
        Ok(self.find_index(&anchors.index(anchor))? == Found::This(Use::Locked))
    }

    fn is_recorded(&mut self, notes: &Notes, anchors: &Anchors) -> Result<bool> {
        let Some(Record {
            storage,
            signing,
            payload,
            attestation,
            approval_key,
            ..
        }) = self.provisioning_record(anchors)?
        else {
            return Ok(false);
        };
        Ok(approval_key == anchors.key_name()
            && Some(storage) == notes.name(Key::Storage)
            && Some(signing) == notes.name(Key::Signing)
            && Some(payload) == notes.name(Key::Payload)
            && Some(attestation) == notes.name(Key::Attestation))
    }
}

/// In words, a line each.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "TPM by {}, firmware {}",
            self.manufacturer, self.firmware
        )?;
        for key in &self.keys {
            let state = match (&key.name, key.as_recorded) {
                (None, _) => "not there",
                (Some(_), true) => "there, and the one that was provisioned",
                (Some(_), false) => "there, but not recorded as ours",
            };
            writeln!(f, "{} key ({:#x}): {state}", key.role, key.handle)?;
        }
        match &self.anchors {
            Some(anchors) => write!(f, "{anchors}")?,
            None => writeln!(
                f,
                "trust anchors: none, or the vendor's key is not configured ([tpm] approval_key)"
            )?,
        }
        let set = |set| {
            if set {
                "set"
            } else {
                "empty: whoever reaches the TPM may use it"
            }
        };
        writeln!(
            f,
            "owner's authorisation: {}",
            set(self.hierarchies.owner_set)
        )?;
        writeln!(
            f,
            "endorsement's authorisation: {}",
            set(self.hierarchies.endorsement_set)
        )?;
        writeln!(
            f,
            "lockout's authorisation: {}",
            set(self.hierarchies.lockout_set)
        )?;
        let Lockout {
            failures, limit, ..
        } = self.lockout;
        writeln!(f, "wrong authorisations: {failures}, locks at {limit}")?;
        match self.problems.is_empty() {
            true => writeln!(f, "all is well"),
            false => self
                .problems
                .iter()
                .try_for_each(|problem| writeln!(f, "problem: {problem}")),
        }
    }
}

impl std::fmt::Display for AnchorReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let guard = match self.layout {
            Layout::Platform => {
                "created by the platform: they outlive a clear, and only the vendor's approval removes them"
            }
            Layout::Owner => {
                "created by the owner, because the platform is closed: only the owner's sealed authorisation or a \
                 clear removes them"
            }
        };
        writeln!(f, "trust anchors: {guard}")?;
        let closed = |locked| {
            if locked {
                ", closed until the device restarts"
            } else {
                ""
            }
        };
        match (self.root_version, &self.root_sha256) {
            (Some(version), Some(sha256)) => {
                writeln!(
                    f,
                    "trusted root: version {version}, SHA-256 {sha256}{}",
                    closed(self.root_locked)
                )?;
            }
            _ => writeln!(f, "trusted root: never written")?,
        }
        match self.security_floor {
            Some(floor) => writeln!(
                f,
                "security floor: epoch {floor}{}",
                closed(self.floor_locked)
            )?,
            None => writeln!(f, "security floor: never written")?,
        }
        let recorded = if self.recorded {
            "written, and names what stands there"
        } else {
            "missing or not fitting"
        };
        writeln!(f, "provisioning record: {recorded}")
    }
}

fn letters(word: u32) -> String {
    word.to_be_bytes()
        .iter()
        .filter(|byte| byte.is_ascii_graphic())
        .map(|byte| char::from(*byte))
        .collect()
}

fn version(word: u32) -> String {
    format!("{}.{}", word >> 16, word & 0xffff)
}
