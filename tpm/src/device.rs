//! One TPM: carries out commands with the protection that each asks for. Driver.
//!
//! Invariant: no answer under a session is handed on before its proof holds; what was loaded or opened for one call is
//! flushed with it, whatever comes of it. Tries and waits are bounded.

use std::{thread, time::Duration};

use ring::rand::{SecureRandom, SystemRandom};
use tpm2_protocol::{
    TpmMarshal,
    basic::TpmUint32,
    data::{Tpm2bEncryptedSecret, Tpm2bNonce, TpmAlgId, TpmCap, TpmCc, TpmRh, TpmSe, TpmSu},
};

use crate::{
    address::Address,
    code::ResponseCode,
    crypt::DIGEST,
    ecdsa::PublicKey,
    entity::Entity,
    error::{CommandName, Error, Result},
    public::{Public, aes128_cfb, expect_name, point},
    salt::share,
    secret::Secret,
    session::{Duty, Session},
    transport::{self, Transport},
    wire::{self, Fields, Response, marshal, sized},
};

/// How long a TPM may take for one command. Discrete ones need a second for what a key's creation asks of them.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where it makes a key.
const PATIENCE_FOR_KEYS: Duration = Duration::from_secs(60);
/// How often a command is sent that the TPM asks to have sent again.
const TRIES: u32 = 10;
/// The pause before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest pause between tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Handles looked at in one question.
const HANDLES_MAX: u32 = 64;
/// Ranges in which earlier users may have left things: loaded keys, open and saved sessions.
const LEFT_OVERS: [u32; 3] = [0x8000_0000, 0x0200_0000, 0x0300_0000];

/// How a command is authorised and protected.
pub(crate) enum Guard<'a> {
    /// Not at all: for what needs no authorisation and whose answer is checked otherwise.
    Bare,
    /// By the authorisation value in the clear: only while no key is known to which a session could be salted.
    Password,
    /// By our session, which proves the first handle's authorisation value.
    Authorise,
    /// The same for a command that changes this value.
    AuthoriseTo(&'a Secret),
    /// The same where the command's second handle is to be authorised too, whose authorisation value is empty.
    AuthoriseBoth,
    /// By our session, which authorises nothing but protects command and answer.
    Cover,
    /// By a session in which a policy was fulfilled; it ends with the command.
    Policy(Session),
}

/// A TPM that nobody else uses at the same time through this connection.
pub struct Tpm {
    transport: Box<dyn Transport>,
    salt: Option<Salt>,
    session: Option<Session>,
}

/// The key to which sessions are salted.
struct Salt {
    entity: Entity,
    key: PublicKey,
}

impl Tpm {
    /// Opens the TPM at `address`.
    ///
    /// # Errors
    /// It cannot be opened, or does not start.
    pub fn open(address: &Address) -> Result<Tpm> {
        Tpm::over(transport::open(address)?)
    }

    /// A TPM behind `transport`. Where no resource manager stands between, it is started, and what others left is
    /// flushed.
    ///
    /// # Errors
    /// It does not answer, or does not start.
    pub fn over(transport: Box<dyn Transport>) -> Result<Tpm> {
        let mut tpm = Tpm {
            transport,
            salt: None,
            session: None,
        };
        if tpm.transport.is_raw() {
            tpm.start_up()?;
            tpm.flush_left_overs()?;
        }
        Ok(tpm)
    }

    fn start_up(&mut self) -> Result<()> {
        let parameters = marshal(TpmCc::Startup, &[&TpmSu::Clear])?;
        match self.run(TpmCc::Startup, &[], parameters, Guard::Bare) {
            Err(error) if error.is(ResponseCode::INITIALIZE) => Ok(()),
            other => other.map(drop),
        }
    }

    fn flush_left_overs(&mut self) -> Result<()> {
        for range in LEFT_OVERS {
            for handle in self.handles(range)? {
                self.flush(handle)?;
            }
        }
        Ok(())
    }

    /// The handles in use from `first` on, within the same range.
    ///
    /// # Errors
    /// Those of the command.
    pub fn handles(&mut self, first: u32) -> Result<Vec<u32>> {
        let answer = self.capability(TpmCap::Handles, first, HANDLES_MAX)?;
        let mut fields = Fields::new(TpmCc::GetCapability, &answer);
        let count = fields.u32()?.min(HANDLES_MAX);
        (0..count).map(|_| fields.u32()).collect()
    }

    /// One of the TPM's properties (Part 2, 6.13), or nothing when it does not know it. The answer is not protected: an
    /// interposer may lie about it.
    ///
    /// # Errors
    /// Those of the command.
    pub fn property(&mut self, property: u32) -> Result<Option<u32>> {
        let answer = self.capability(TpmCap::TpmProperties, property, 1)?;
        let mut fields = Fields::new(TpmCc::GetCapability, &answer);
        if fields.u32()? == 0 || fields.u32()? != property {
            return Ok(None);
        }
        fields.u32().map(Some)
    }

    fn capability(&mut self, capability: TpmCap, first: u32, count: u32) -> Result<Vec<u8>> {
        let cc = TpmCc::GetCapability;
        let fields: [&dyn TpmMarshal; 3] =
            [&capability, &TpmUint32::new(first), &TpmUint32::new(count)];
        let response = self.run(cc, &[], marshal(cc, &fields)?, Guard::Bare)?;
        let mut fields = Fields::new(cc, &response.parameters);
        fields.bytes(1)?;
        if fields.u32()? != capability.value() {
            return Err(wire::malformed(cc, "another capability than asked for"));
        }
        Ok(fields.rest().to_vec())
    }

    /// From now on sessions are salted to the key at `handle`. With `recorded`, it must be that very key; without, the
    /// one found is taken on trust.
    ///
    /// # Errors
    /// [`Error::Exchanged`] when it is another key; nothing stands at the handle.
    pub fn salt_to(&mut self, handle: u32, recorded: Option<&[u8]>) -> Result<Public> {
        let public = self.read_public_bare(handle)?;
        if let Some(recorded) = recorded {
            expect_name("the storage key", recorded, &public.name())?;
        }
        self.end_session();
        self.salt = Some(Salt {
            entity: Entity::named(handle, public.name()),
            key: *public.key(),
        });
        Ok(public)
    }

    /// Whether sessions can be opened.
    pub(crate) fn is_salted(&self) -> bool {
        self.salt.is_some()
    }

    fn read_public_bare(&mut self, handle: u32) -> Result<Public> {
        let cc = TpmCc::ReadPublic;
        let response = self.run(cc, &[&Entity::unnamed(handle)], Vec::new(), Guard::Bare)?;
        Public::read(cc, Fields::new(cc, &response.parameters).sized()?)
    }

    /// Ends a session or unloads a key. What is gone already is no error.
    ///
    /// # Errors
    /// Those of the command.
    pub fn flush(&mut self, handle: u32) -> Result<()> {
        let cc = TpmCc::FlushContext;
        let parameters = marshal(cc, &[&TpmUint32::new(handle)])?;
        match self.run(cc, &[], parameters, Guard::Bare) {
            Err(error) if error.is(ResponseCode::HANDLE) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Does something with a loaded key, and unloads it.
    pub(crate) fn with<T>(
        &mut self,
        key: &Entity,
        act: impl FnOnce(&mut Tpm, &Entity) -> Result<T>,
    ) -> Result<T> {
        let result = act(self, key);
        let flushed = self.flush(key.handle);
        let result = result?;
        flushed.map(|()| result)
    }

    /// Opens a policy session.
    pub(crate) fn start_policy(&mut self) -> Result<Session> {
        self.start_session(TpmSe::Policy)
    }

    fn start_session(&mut self, kind: TpmSe) -> Result<Session> {
        let cc = TpmCc::StartAuthSession;
        let Some(Salt { entity, key }) = &self.salt else {
            return Err(Error::Rule(
                "no storage key is known yet to which a session could be salted; run gateway tpm provision".to_owned(),
            ));
        };
        let shared = share(key.sec1(), "SECRET")?;
        let ephemeral = PublicKey::from_sec1(&shared.ephemeral)
            .ok_or_else(|| wire::malformed(cc, "our own point"))?;
        let salt = marshal(cc, &[&point(cc, &ephemeral)?])?;
        let nonce = fresh_nonce()?;
        let parameters = marshal(
            cc,
            &[
                &sized::<Tpm2bNonce>(cc, &nonce)?,
                &sized::<Tpm2bEncryptedSecret>(cc, &salt)?,
                &kind,
                &aes128_cfb(),
                &TpmAlgId::Sha256,
            ],
        )?;
        let entities = [&entity.clone(), &Entity::unnamed(TpmRh::Null.value())];
        let response = self.run(cc, &entities, parameters, Guard::Bare)?;
        let handle = response
            .handle
            .ok_or_else(|| wire::malformed(cc, "no handle"))?;
        let nonce_tpm = Fields::new(cc, &response.parameters).sized()?;
        Ok(Session::new(handle, &shared.secret, nonce, nonce_tpm))
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            // A session that cannot be flushed is gone, or the connection is.
            let _ = self.flush(session.handle);
        }
    }

    /// Carries out one command.
    pub(crate) fn run(
        &mut self,
        cc: TpmCc,
        entities: &[&Entity],
        parameters: Vec<u8>,
        guard: Guard<'_>,
    ) -> Result<Response> {
        match guard {
            Guard::Bare => self.exchange(cc, entities, None, &parameters),
            Guard::Password => {
                let area = password(entities);
                self.exchange(cc, entities, Some(&area), &parameters)
            }
            Guard::Authorise => self.run_in_session(cc, entities, parameters, 1, None),
            Guard::AuthoriseTo(auth) => {
                self.run_in_session(cc, entities, parameters, 1, Some(auth))
            }
            Guard::AuthoriseBoth => self.run_in_session(cc, entities, parameters, 2, None),
            Guard::Cover => self.run_in_session(cc, entities, parameters, 0, None),
            Guard::Policy(session) => self.run_in_policy(cc, entities, parameters, session),
        }
    }

    /// Under our session, which is opened when there is none, or when the TPM has forgotten it. `authorised` is how many
    /// of the command's handles are to be.
    fn run_in_session(
        &mut self,
        cc: TpmCc,
        entities: &[&Entity],
        parameters: Vec<u8>,
        authorised: usize,
        auth_after: Option<&Secret>,
    ) -> Result<Response> {
        let names: Vec<&[u8]> = entities.iter().map(|entity| &entity.name[..]).collect();
        let none = Secret::default();
        let auth = match entities {
            [first, ..] if authorised > 0 => &first.auth,
            _ => &none,
        };
        let duty = Duty {
            cc,
            names: &names,
            auth: auth.bytes(),
            stays: true,
            empty_passwords: authorised.saturating_sub(1),
            encrypt_command: wire::command_can_be_encrypted(cc),
            encrypt_response: wire::response_can_be_encrypted(cc),
        };
        let auth_after = auth_after.unwrap_or(auth).bytes();
        let had_one = self.session.is_some();
        let first = self.try_in_session(&duty, entities, parameters.clone(), auth_after);
        match first {
            Err(Error::Refused { code, .. }) if had_one && code.lost_session() => {
                self.session = None;
                self.try_in_session(&duty, entities, parameters, auth_after)
            }
            other => other,
        }
    }

    fn try_in_session(
        &mut self,
        duty: &Duty<'_>,
        entities: &[&Entity],
        mut parameters: Vec<u8>,
        auth_after: &[u8],
    ) -> Result<Response> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.start_session(TpmSe::Hmac)?,
        };
        let area = session.authorise(duty, &mut parameters, fresh_nonce()?);
        let outcome = self
            .exchange(duty.cc, entities, Some(&area), &parameters)
            .and_then(|mut response| {
                session.accept(duty, auth_after, &mut response)?;
                Ok(response)
            });
        self.session = Some(session);
        if matches!(
            outcome,
            Err(Error::Tampered { .. } | Error::Malformed { .. })
        ) {
            // Its nonces no longer agree with the TPM's.
            self.end_session();
        }
        outcome
    }

    /// Under a fulfilled policy. The command is not encrypted: policies may demand its very bytes.
    fn run_in_policy(
        &mut self,
        cc: TpmCc,
        entities: &[&Entity],
        mut parameters: Vec<u8>,
        mut session: Session,
    ) -> Result<Response> {
        let names: Vec<&[u8]> = entities.iter().map(|entity| &entity.name[..]).collect();
        let duty = Duty {
            cc,
            names: &names,
            auth: &[],
            stays: false,
            empty_passwords: 0,
            encrypt_command: false,
            encrypt_response: wire::response_can_be_encrypted(cc),
        };
        let area = session.authorise(&duty, &mut parameters, fresh_nonce()?);
        let outcome = self
            .exchange(cc, entities, Some(&area), &parameters)
            .and_then(|mut response| {
                session.accept(&duty, &[], &mut response)?;
                Ok(response)
            });
        if outcome.is_err() {
            // The TPM ends it only with success.
            let _ = self.flush(session.handle);
        }
        outcome
    }

    fn exchange(
        &mut self,
        cc: TpmCc,
        entities: &[&Entity],
        area: Option<&[u8]>,
        parameters: &[u8],
    ) -> Result<Response> {
        let handles: Vec<u32> = entities.iter().map(|entity| entity.handle).collect();
        let frame = wire::command(cc, &handles, area, parameters);
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.exchange_once(cc, &frame) {
                Err(Error::Refused { code, .. }) if code.passes() => thread::sleep(pause),
                other => return other,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.exchange_once(cc, &frame)
    }

    fn exchange_once(&mut self, cc: TpmCc, frame: &[u8]) -> Result<Response> {
        let patience = match cc {
            TpmCc::CreatePrimary | TpmCc::Create => PATIENCE_FOR_KEYS,
            _ => PATIENCE,
        };
        let answer = self
            .transport
            .exchange(frame, patience)
            .map_err(|source| Error::Io {
                command: CommandName(cc),
                source,
            })?;
        wire::response(cc, &answer)
    }
}

/// A kernel device flushes on its own when it is closed; a simulator keeps what was left.
impl Drop for Tpm {
    fn drop(&mut self) {
        self.end_session();
    }
}

fn password(entities: &[&Entity]) -> Vec<u8> {
    let auth = entities
        .first()
        .map_or(&[][..], |entity| entity.auth.bytes());
    let mut area = TpmRh::Pw.value().to_be_bytes().to_vec();
    area.extend([0, 0, 0]);
    // An authorisation value is a digest at most.
    area.extend((auth.len() as u16).to_be_bytes());
    area.extend(auth);
    area
}

/// Bytes that nobody can guess.
pub(crate) fn fresh_nonce() -> Result<[u8; DIGEST]> {
    let mut nonce = [0; DIGEST];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Error::NoRandom)?;
    Ok(nonce)
}
