//! Provisions a TPM: keys, trust anchors, authorisation values, in an order that can be cut anywhere. Driver.
//!
//! Invariant: each step looks first whether it is done; one that was cut off is done again or found done. No step needs an
//! authorisation value that an earlier one has changed.

use std::path::{Path, PathBuf};

use tpm2_protocol::{
    TpmMarshal,
    basic::TpmUint32,
    data::{TpmCc, TpmClockAdjust, TpmRh},
};

use crate::{
    address::Address,
    anchor::{Anchor, Anchors, Layout, Record},
    approval::Approval,
    device::{Guard, Tpm, fresh_nonce},
    ecdsa::PublicKey,
    entity::{Entity, Name},
    error::{Error, Result},
    index::{Found, Use},
    notes::{Key, Notes, notes_path, write_sealed},
    public::{Template, expect_name},
    secret::Secret,
    wire::marshal,
};

/// Where our keys stand; the range is the owner's (TCG registry of reserved handles).
pub(crate) const STORAGE: u32 = 0x8100_4701;
/// The device's signing key.
pub(crate) const SIGNING: u32 = 0x8100_4702;
/// The key to which payloads are encrypted.
pub(crate) const PAYLOAD: u32 = 0x8100_4703;
/// The key that signs what the TPM says.
pub(crate) const ATTESTATION: u32 = 0x8100_4704;

/// Wrong authorisations before the TPM locks itself.
const TRIES_MAX: u32 = 32;
/// Seconds after which one of them is forgotten.
const FORGOTTEN_AFTER: u32 = 600;
/// Seconds until the lockout's own authorisation may be tried again.
const LOCKOUT_RECOVERY: u32 = 86_400;

/// `TPM_PT_PERMANENT` and the properties of the lockout (Part 2, 6.13).
pub(crate) mod property {
    pub(crate) const MANUFACTURER: u32 = 0x105;
    pub(crate) const FIRMWARE: u32 = 0x10b;
    pub(crate) const PERMANENT: u32 = 0x200;
    pub(crate) const FAILURES: u32 = 0x20e;
    pub(crate) const TRIES_MAX: u32 = 0x20f;
    pub(crate) const INTERVAL: u32 = 0x210;
    pub(crate) const OWNER_SET: u32 = 1;
    pub(crate) const ENDORSEMENT_SET: u32 = 2;
    pub(crate) const LOCKOUT_SET: u32 = 4;
    pub(crate) const LOCKED_OUT: u32 = 0x200;
}

/// What a device is provisioned with.
pub struct Request {
    /// Where the files beside the TPM are kept.
    pub directory: PathBuf,
    /// Whose approvals move the anchors, and the first ones; without, only the keys are made.
    pub trust: Option<Trust>,
}

/// The vendor's part.
pub struct Trust {
    /// The root-approval key.
    pub key: PublicKey,
    /// The first trusted root.
    pub root: Approval,
    /// The first security floor.
    pub floor: Approval,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The storage key, to which sessions are salted.
    StorageKey,
    /// The device's signing key.
    SigningKey,
    /// The key to which payloads are encrypted.
    PayloadKey,
    /// The key that signs what the TPM says, and nothing else.
    AttestationKey,
    /// The index of the trusted root.
    RootIndex,
    /// Its first value.
    Root,
    /// The index of the security floor.
    FloorIndex,
    /// Its first value.
    Floor,
    /// The index of the provisioning record.
    RecordIndex,
    /// The record itself.
    Record,
    /// When the TPM locks itself after wrong authorisations.
    LockoutParameters,
    /// The lockout's authorisation value.
    LockoutAuth,
    /// The endorsement hierarchy's.
    EndorsementAuth,
    /// The owner's; last, because nothing after it could be done.
    OwnerAuth,
}

impl Step {
    const KEYS: [Step; 4] = [
        Step::StorageKey,
        Step::SigningKey,
        Step::PayloadKey,
        Step::AttestationKey,
    ];
    const TRUST: [Step; 10] = [
        Step::RootIndex,
        Step::Root,
        Step::FloorIndex,
        Step::Floor,
        Step::RecordIndex,
        Step::Record,
        Step::LockoutParameters,
        Step::LockoutAuth,
        Step::EndorsementAuth,
        Step::OwnerAuth,
    ];

    /// What the step does, as a sentence without its end.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Step::StorageKey => {
                "make the storage key at 0x81004701, to which every session is salted from then on"
            }
            Step::SigningKey => {
                "make the device's signing key (P-256, never leaves the TPM) at 0x81004702"
            }
            Step::PayloadKey => {
                "make the key to which payloads are encrypted (P-256, never leaves the TPM) at 0x81004703"
            }
            Step::AttestationKey => {
                "make the attestation key (P-256, signs only what the TPM itself says) at 0x81004704"
            }
            Step::RootIndex => {
                "define the trusted root's index, writable only under the vendor's approval and upwards"
            }
            Step::Root => "write the first trusted root that the vendor approved",
            Step::FloorIndex => {
                "define the security floor's index, writable only under the vendor's approval and upwards"
            }
            Step::Floor => "write the first security floor that the vendor approved",
            Step::RecordIndex => "define the provisioning record's index, writable once",
            Step::Record => "write the provisioning record: the names of all keys and indices",
            Step::LockoutParameters => {
                "lock after 32 wrong authorisations, forget one every 10 minutes"
            }
            Step::LockoutAuth => {
                "give the lockout a random authorisation value, sealed for recovery by the vendor"
            }
            Step::EndorsementAuth => {
                "give the endorsement hierarchy a random authorisation value, sealed for recovery by the vendor"
            }
            Step::OwnerAuth => {
                "give the owner a random authorisation value, sealed for recovery by the vendor"
            }
        }
    }

    fn key(self) -> Option<(Key, u32, Template)> {
        Some(match self {
            Step::StorageKey => (Key::Storage, STORAGE, Template::storage()),
            Step::SigningKey => (Key::Signing, SIGNING, Template::signing()),
            Step::PayloadKey => (Key::Payload, PAYLOAD, Template::storage()),
            Step::AttestationKey => (Key::Attestation, ATTESTATION, Template::attestation()),
            _ => return None,
        })
    }

    fn index(self) -> Option<Anchor> {
        match self {
            Step::RootIndex | Step::Root => Some(Anchor::Root),
            Step::FloorIndex | Step::Floor => Some(Anchor::Floor),
            Step::RecordIndex | Step::Record => Some(Anchor::Record),
            _ => None,
        }
    }

    /// The hierarchy whose authorisation value the step sets: which, its flag, its file.
    fn hierarchy(self) -> Option<(TpmRh, u32, &'static str)> {
        match self {
            Step::LockoutAuth => Some((TpmRh::Lockout, property::LOCKOUT_SET, "lockout.sealed")),
            Step::EndorsementAuth => Some((
                TpmRh::Endorsement,
                property::ENDORSEMENT_SET,
                "endorsement.sealed",
            )),
            Step::OwnerAuth => Some((TpmRh::Owner, property::OWNER_SET, "owner.sealed")),
            _ => None,
        }
    }
}

/// How a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is done.
    Done,
    /// It is to be done.
    ToDo,
    /// It cannot be done, and why.
    Refused(String),
}

/// Provisions one TPM.
pub struct Provisioner<'a> {
    tpm: &'a mut Tpm,
    request: &'a Request,
    anchors: Option<Anchors>,
}

impl<'a> Provisioner<'a> {
    /// Looks at how far the TPM is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn new(tpm: &'a mut Tpm, request: &'a Request) -> Result<Provisioner<'a>> {
        let anchors = match &request.trust {
            Some(trust) => Some(choose_layout(tpm, &trust.key)?),
            None => None,
        };
        Ok(Provisioner {
            tpm,
            request,
            anchors,
        })
    }

    /// Who creates the indices, when there are to be any.
    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        self.anchors.as_ref().map(|anchors| anchors.layout)
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let trust = self.anchors.iter().flat_map(|_| Step::TRUST);
        Step::KEYS.into_iter().chain(trust).collect()
    }

    /// How a step stands. Nothing is changed.
    ///
    /// # Errors
    /// Those of the commands.
    pub fn standing(&mut self, step: Step) -> Result<Standing> {
        if let Some((key, handle, template)) = step.key() {
            return self.standing_of_key(key, handle, &template);
        }
        if let Some(anchor) = step.index() {
            return self.standing_of_anchor(step, anchor);
        }
        if let Some((_, flag, file)) = step.hierarchy() {
            let set = self.permanent()? & flag != 0;
            let ours = self.request.directory.join(file).exists();
            return Ok(match (set, ours) {
                (true, true) => Standing::Done,
                (true, false) => Standing::Refused(
                    "it was set by someone else, and its value is not known here".to_owned(),
                ),
                (false, _) => Standing::ToDo,
            });
        }
        self.standing_of_lockout()
    }

    fn standing_of_lockout(&mut self) -> Result<Standing> {
        let tries = self.tpm.property(property::TRIES_MAX)?;
        let interval = self.tpm.property(property::INTERVAL)?;
        // Once its authorisation value is set, what stands is what was meant.
        let set = self.permanent()? & property::LOCKOUT_SET != 0;
        Ok(
            match set || (tries, interval) == (Some(TRIES_MAX), Some(FORGOTTEN_AFTER)) {
                true => Standing::Done,
                false => Standing::ToDo,
            },
        )
    }

    fn standing_of_key(&mut self, key: Key, handle: u32, template: &Template) -> Result<Standing> {
        let recorded = Notes::read(&self.request.directory)?.name(key);
        let found = self.tpm.read_public(handle)?;
        let notes = notes_path(&self.request.directory);
        Ok(match (recorded, found) {
            (_, Some(found)) if !template.fits(&found)? => {
                Standing::Refused(format!("another key than ours stands at {handle:#x}"))
            }
            (Some(recorded), Some(found)) if recorded == found.name() => {
                if key == Key::Storage && !self.tpm.is_salted() {
                    self.tpm.salt_to(handle, Some(&recorded))?;
                }
                Standing::Done
            }
            (Some(_), found) => Standing::Refused(format!(
                "the key at {handle:#x} is {} that {} records: the TPM was cleared or exchanged. To provision it anew, \
                 remove that file",
                if found.is_some() {
                    "not the one"
                } else {
                    "gone"
                },
                notes.display()
            )),
            (None, _) => self.owner_open(Standing::ToDo)?,
        })
    }

    /// Refuses where the owner's authorisation is needed and not known.
    fn owner_open(&mut self, otherwise: Standing) -> Result<Standing> {
        Ok(match self.permanent()? & property::OWNER_SET {
            0 => otherwise,
            _ => Standing::Refused(
                "the owner's authorisation was set already, and its value is not known here"
                    .to_owned(),
            ),
        })
    }

    fn standing_of_anchor(&mut self, step: Step, anchor: Anchor) -> Result<Standing> {
        let Some(anchors) = self.anchors.clone() else {
            return Ok(Standing::Done);
        };
        let index = anchors.index(anchor);
        let defines = matches!(step, Step::RootIndex | Step::FloorIndex | Step::RecordIndex);
        match self.tpm.find_index(&index)? {
            Found::Another => Ok(Standing::Refused(format!(
                "NV index {:#x} is taken by something else, or was made for another vendor's key",
                index.handle
            ))),
            Found::Nothing if defines && anchors.layout == Layout::Owner => {
                self.owner_open(Standing::ToDo)
            }
            Found::Nothing | Found::This(Use::Unwritten) if !defines => Ok(Standing::ToDo),
            Found::Nothing => Ok(Standing::ToDo),
            Found::This(_) if step == Step::Record => self.standing_of_record(&anchors),
            Found::This(_) => Ok(Standing::Done),
        }
    }

    fn standing_of_record(&mut self, anchors: &Anchors) -> Result<Standing> {
        let expected = self.record(anchors)?;
        Ok(match self.tpm.provisioning_record(anchors)? {
            Some(found) if found == expected => Standing::Done,
            _ => Standing::Refused(
                "the provisioning record names other keys than stand in the TPM; it was cleared after it was provisioned"
                    .to_owned(),
            ),
        })
    }

    /// Does a step that is to be done.
    ///
    /// # Errors
    /// Those of the commands and files; the step is refused.
    pub fn carry_out(&mut self, step: Step) -> Result<()> {
        if let Some((key, handle, template)) = step.key() {
            return self.make_key(key, handle, &template);
        }
        if let Some((hierarchy, _, file)) = step.hierarchy() {
            return self.set_auth(hierarchy, file);
        }
        let (Some(anchors), Some(trust)) = (self.anchors.clone(), &self.request.trust) else {
            return Ok(());
        };
        match step {
            Step::Root => self.tpm.apply(&anchors, &trust.root),
            Step::Floor => self.tpm.apply(&anchors, &trust.floor),
            Step::Record => {
                let record = self.record(&anchors)?;
                self.tpm.write_record(&anchors, &record)
            }
            Step::LockoutParameters => self.set_lockout(),
            step => match step.index() {
                Some(anchor) => self
                    .tpm
                    .define(&creator(anchors.layout), &anchors.index(anchor)),
                None => Ok(()),
            },
        }
    }

    fn make_key(&mut self, key: Key, handle: u32, template: &Template) -> Result<()> {
        let name = match key {
            Key::Storage => self
                .tpm
                .storage_key(&open(TpmRh::Owner), handle)?
                .name()
                .to_vec(),
            Key::Signing | Key::Payload | Key::Attestation => {
                let storage = self.storage()?;
                self.tpm
                    .persistent_key(&open(TpmRh::Owner), &storage, template, handle)?
                    .name()
            }
        };
        let mut notes = Notes::read(&self.request.directory)?;
        notes.set(key, &name);
        notes.write(&self.request.directory)
    }

    fn storage(&mut self) -> Result<Entity> {
        Ok(Entity::named(STORAGE, self.noted(Key::Storage)?))
    }

    fn noted(&self, key: Key) -> Result<Name> {
        Notes::read(&self.request.directory)?
            .name(key)
            .ok_or_else(|| Error::Rule("a key is missing that an earlier step makes".to_owned()))
    }

    fn record(&mut self, anchors: &Anchors) -> Result<Record> {
        Ok(Record {
            layout: anchors.layout,
            approval_key: anchors.key_name().to_vec(),
            storage: self.noted(Key::Storage)?,
            signing: self.noted(Key::Signing)?,
            payload: self.noted(Key::Payload)?,
            attestation: self.noted(Key::Attestation)?,
            root: anchors.index(Anchor::Root).name(Use::Written)?,
            floor: anchors.index(Anchor::Floor).name(Use::Written)?,
        })
    }

    fn set_lockout(&mut self) -> Result<()> {
        let cc = TpmCc::DictionaryAttackParameters;
        let values = [TRIES_MAX, FORGOTTEN_AFTER, LOCKOUT_RECOVERY].map(TpmUint32::new);
        let fields: [&dyn TpmMarshal; 3] = [&values[0], &values[1], &values[2]];
        self.tpm
            .run(
                cc,
                &[&open(TpmRh::Lockout)],
                marshal(cc, &fields)?,
                Guard::Authorise,
            )
            .map(drop)
    }

    /// First the sealed value is on disk, then the hierarchy gets it: a cut in between leaves a file that is replaced.
    fn set_auth(&mut self, hierarchy: TpmRh, file: &str) -> Result<()> {
        let Some(trust) = &self.request.trust else {
            return Ok(());
        };
        let mut value = fresh_nonce()?;
        // The TPM drops zeros at the end.
        value[31] |= 1;
        let auth = Secret::new(&value);
        let storage = self.storage()?;
        let blob = self.tpm.seal_for_recovery(&storage, &trust.key, &auth)?;
        write_sealed(&self.request.directory.join(file), &blob)?;
        self.tpm.change_auth(&open(hierarchy), &auth)
    }

    fn permanent(&mut self) -> Result<u32> {
        Ok(self.tpm.property(property::PERMANENT)?.unwrap_or(0))
    }
}

/// Does every step that is to be done, telling each as it is looked at.
///
/// # Errors
/// Those of the steps; the first that is refused ends it.
pub fn provision(
    tpm: &mut Tpm,
    request: &Request,
    told: &mut dyn FnMut(Step, &Standing),
) -> Result<()> {
    let mut provisioner = Provisioner::new(tpm, request)?;
    for step in provisioner.steps() {
        let standing = provisioner.standing(step)?;
        told(step, &standing);
        match standing {
            Standing::Done => {}
            Standing::ToDo => provisioner.carry_out(step)?,
            Standing::Refused(why) => {
                return Err(Error::Rule(format!("cannot {}: {why}", step.what())));
            }
        }
    }
    Ok(())
}

/// A hierarchy whose authorisation value is still empty.
fn open(hierarchy: TpmRh) -> Entity {
    Entity::hierarchy(hierarchy, Secret::default())
}

fn creator(layout: Layout) -> Entity {
    open(match layout {
        Layout::Platform => TpmRh::Platform,
        Layout::Owner => TpmRh::Owner,
    })
}

/// The layout in which indices exist already, else the platform's where it is open.
pub(crate) fn choose_layout(tpm: &mut Tpm, key: &PublicKey) -> Result<Anchors> {
    if let Some(anchors) = existing_layout(tpm, key)? {
        return Ok(anchors);
    }
    let layout = match platform_is_open(tpm)? {
        true => Layout::Platform,
        false => Layout::Owner,
    };
    Anchors::new(*key, layout)
}

/// The layout in which any of our indices stands.
pub(crate) fn existing_layout(tpm: &mut Tpm, key: &PublicKey) -> Result<Option<Anchors>> {
    for layout in [Layout::Platform, Layout::Owner] {
        let anchors = Anchors::new(*key, layout)?;
        for anchor in [Anchor::Root, Anchor::Floor, Anchor::Record] {
            if tpm.find_index(&anchors.index(anchor))? != Found::Nothing {
                return Ok(Some(anchors));
            }
        }
    }
    Ok(None)
}

/// Asks the platform hierarchy for a change of nothing, which it grants only while its authorisation value is empty.
fn platform_is_open(tpm: &mut Tpm) -> Result<bool> {
    let cc = TpmCc::ClockRateAdjust;
    let parameters = marshal(cc, &[&TpmClockAdjust::NoChange])?;
    match tpm.run(cc, &[&open(TpmRh::Platform)], parameters, Guard::Password) {
        Ok(_) => Ok(true),
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The keys of a provisioned TPM, proven to be the recorded ones.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The parent of keys that the device makes later.
    pub storage: Entity,
    /// The device's signing key.
    pub signing: Entity,
    /// Its public part.
    pub public: PublicKey,
    /// The key to which payloads are encrypted.
    pub payload: Entity,
    /// Its public part.
    pub payload_public: PublicKey,
    /// The key that signs what the TPM says.
    pub attestation: Entity,
    /// Its public part.
    pub attestation_public: PublicKey,
}

impl Tpm {
    /// Opens a provisioned TPM: sessions are salted to the recorded storage key, and the other keys are the recorded
    /// ones.
    ///
    /// # Errors
    /// It cannot be opened; it is not provisioned; [`Error::Exchanged`].
    pub fn open_provisioned(address: &Address, directory: &Path) -> Result<(Tpm, Keys)> {
        let notes = Notes::read(directory)?;
        let recorded = |key| {
            notes.name(key).ok_or_else(|| {
                Error::Rule(format!(
                    "the TPM is not provisioned: {} does not name its keys; run gateway tpm provision",
                    notes_path(directory).display()
                ))
            })
        };
        let storage = recorded(Key::Storage)?;
        let (signing, payload) = (recorded(Key::Signing)?, recorded(Key::Payload)?);
        let attestation = recorded(Key::Attestation)?;
        let mut tpm = Tpm::open(address)?;
        tpm.salt_to_recorded(&storage)?;
        let keys = Keys {
            public: tpm.recorded_key("the signing key", SIGNING, &signing)?,
            payload_public: tpm.recorded_key("the payload key", PAYLOAD, &payload)?,
            storage: Entity::named(STORAGE, storage),
            signing: Entity::named(SIGNING, signing),
            payload: Entity::named(PAYLOAD, payload),
            attestation_public: tpm.recorded_key(
                "the attestation key",
                ATTESTATION,
                &attestation,
            )?,
            attestation: Entity::named(ATTESTATION, attestation),
        };
        Ok((tpm, keys))
    }

    fn recorded_key(&mut self, what: &str, handle: u32, recorded: &[u8]) -> Result<PublicKey> {
        let public = self
            .read_public(handle)?
            .ok_or_else(|| cleared(what, recorded))?;
        expect_name(what, recorded, &public.name())?;
        Ok(*public.key())
    }

    pub(crate) fn salt_to_recorded(&mut self, storage: &[u8]) -> Result<()> {
        match self.handles(STORAGE)?.contains(&STORAGE) {
            true => self.salt_to(STORAGE, Some(storage)).map(drop),
            false => Err(cleared("the storage key", storage)),
        }
    }
}

fn cleared(what: &str, recorded: &[u8]) -> Error {
    Error::Exchanged {
        what: what.to_owned(),
        recorded: crate::public::short(recorded),
        found: "nothing".to_owned(),
    }
}
