//! One session: what is sent to prove a command, and whether the proof on its answer holds. Core.
//!
//! A session is salted: its key comes from a secret encrypted to a key that only the TPM holds, so that neither a probe
//! on the bus learns it nor an interposer makes one up. Each command and each answer bears an HMAC over all that it
//! says, with nonces that roll; first parameters are encrypted (TPM 2.0 Part 1, 19 to 21).
//!
//! Invariant: an answer is handed on only when its proof holds, and is decrypted only then.

use tpm2_protocol::data::{TpmCc, TpmRh, TpmaSession};

use crate::{
    crypt::{self, DIGEST, Way},
    error::{CommandName, Error, Result},
    secret::Secret,
    wire::{self, Fields},
};

/// A password's part of a command behind its handle, when it is empty, and as long as that of the answer: no nonce,
/// attributes, no proof.
const EMPTY_ANSWER: [u8; 5] = [0; 5];

/// What a session is to do for one command.
pub(crate) struct Duty<'a> {
    pub(crate) cc: TpmCc,
    /// The names of the command's handles, in order.
    pub(crate) names: &'a [&'a [u8]],
    /// The authorisation value of the first handle, when the session authorises it by that.
    pub(crate) auth: &'a [u8],
    /// Whether the session lives on after the command.
    pub(crate) stays: bool,
    /// How many further handles are authorised by empty passwords. The proof covers their names all the same.
    pub(crate) empty_passwords: usize,
    /// Whether the command's first parameter is to be encrypted.
    pub(crate) encrypt_command: bool,
    /// Whether the answer's first parameter is to be encrypted.
    pub(crate) encrypt_response: bool,
}

/// A session that stands.
pub(crate) struct Session {
    pub(crate) handle: u32,
    key: Secret,
    nonce_tpm: Vec<u8>,
    nonce_caller: [u8; DIGEST],
}

impl Session {
    /// The session that the TPM opened with `nonce_tpm` on our `nonce_caller` and `salt`.
    pub(crate) fn new(
        handle: u32,
        salt: &Secret,
        nonce_caller: [u8; DIGEST],
        nonce_tpm: &[u8],
    ) -> Session {
        let key = crypt::kdfa::<DIGEST>(salt.bytes(), "ATH", nonce_tpm, &nonce_caller);
        Session {
            handle,
            key: Secret::new(&key),
            nonce_tpm: nonce_tpm.to_vec(),
            nonce_caller,
        }
    }

    /// Encrypts `parameters` where that is asked and returns the command's authorisation area.
    pub(crate) fn authorise(
        &mut self,
        duty: &Duty<'_>,
        parameters: &mut [u8],
        nonce: [u8; DIGEST],
    ) -> Vec<u8> {
        self.nonce_caller = nonce;
        let key = self.key_with(duty.auth);
        if duty.encrypt_command
            && let Some(first) = first_parameter(parameters)
        {
            crypt::parameter(Way::Encrypt, key.bytes(), &nonce, &self.nonce_tpm, first);
        }
        let attributes = attributes(duty);
        let cp_hash = cp_hash(duty.cc, duty.names, parameters);
        let proof = crypt::hmac(
            key.bytes(),
            &[&cp_hash, &nonce, &self.nonce_tpm, &[attributes]],
        );
        let mut area = Vec::with_capacity(4 + 2 + DIGEST + 1 + 2 + DIGEST);
        area.extend(self.handle.to_be_bytes());
        put_digest(&mut area, &nonce);
        area.push(attributes);
        put_digest(&mut area, &proof);
        for _ in 0..duty.empty_passwords {
            area.extend(TpmRh::Pw.value().to_be_bytes());
            area.extend(EMPTY_ANSWER);
        }
        area
    }

    /// Checks the proof on an answer and decrypts its first parameter. `auth` is the authorisation value as it is
    /// after the command: one that changes it answers with the new one.
    pub(crate) fn accept(
        &mut self,
        duty: &Duty<'_>,
        auth: &[u8],
        response: &mut wire::Response,
    ) -> Result<()> {
        let tampered = || Error::Tampered {
            command: CommandName(duty.cc),
        };
        let mut fields = Fields::new(duty.cc, &response.session);
        let nonce_tpm = fields.sized()?.to_vec();
        let [attributes] = fields.array()?;
        let proof = fields.sized()?;
        for _ in 0..duty.empty_passwords {
            fields.bytes(EMPTY_ANSWER.len())?;
        }
        fields.end()?;
        let key = self.key_with(auth);
        let code = 0u32.to_be_bytes();
        let rp_hash = crypt::sha256(&[&code, &duty.cc.value().to_be_bytes(), &response.parameters]);
        let parts: [&[u8]; 4] = [&rp_hash, &nonce_tpm, &self.nonce_caller, &[attributes]];
        if nonce_tpm.len() < DIGEST / 2 || !crypt::hmac_holds(key.bytes(), &parts, proof) {
            return Err(tampered());
        }
        let encrypted = attributes & TpmaSession::ENCRYPT.bits() != 0;
        if encrypted != duty.encrypt_response {
            return Err(tampered());
        }
        if encrypted {
            let first = first_parameter(&mut response.parameters).ok_or_else(tampered)?;
            crypt::parameter(
                Way::Decrypt,
                key.bytes(),
                &nonce_tpm,
                &self.nonce_caller,
                first,
            );
        }
        self.nonce_tpm = nonce_tpm;
        Ok(())
    }

    fn key_with(&self, auth: &[u8]) -> Secret {
        Secret::new(&[self.key.bytes(), auth].concat())
    }
}

/// What a command's proof covers (Part 1, 16.7); a policy can demand it too.
pub(crate) fn cp_hash(cc: TpmCc, names: &[&[u8]], parameters: &[u8]) -> [u8; DIGEST] {
    let code = cc.value().to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![&code];
    parts.extend(names);
    parts.push(parameters);
    crypt::sha256(&parts)
}

fn attributes(duty: &Duty<'_>) -> u8 {
    [
        (duty.stays, TpmaSession::CONTINUE_SESSION),
        (duty.encrypt_command, TpmaSession::DECRYPT),
        (duty.encrypt_response, TpmaSession::ENCRYPT),
    ]
    .iter()
    .filter(|(set, _)| *set)
    .fold(0, |bits, (_, attribute)| bits | attribute.bits())
}

/// The bytes of the first parameter behind its length.
fn first_parameter(parameters: &mut [u8]) -> Option<&mut [u8]> {
    let (length, rest) = parameters.split_first_chunk_mut::<2>()?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*length)))
}

fn put_digest(area: &mut Vec<u8>, digest: &[u8; DIGEST]) {
    area.extend([0, DIGEST as u8]);
    area.extend(digest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUTY: Duty<'static> = Duty {
        cc: TpmCc::NvRead,
        names: &[b"index", b"index"],
        auth: b"",
        stays: true,
        empty_passwords: 0,
        encrypt_command: false,
        encrypt_response: true,
    };

    /// What an honest TPM that holds the same key answers.
    fn answer(session: &Session, plain: &[u8], nonce_tpm: [u8; DIGEST]) -> wire::Response {
        let mut parameters = (plain.len() as u16).to_be_bytes().to_vec();
        parameters.extend(plain);
        let first = first_parameter(&mut parameters).unwrap();
        crypt::parameter(
            Way::Encrypt,
            session.key.bytes(),
            &nonce_tpm,
            &session.nonce_caller,
            first,
        );
        let rp_hash = crypt::sha256(&[&[0; 4], &TpmCc::NvRead.value().to_be_bytes(), &parameters]);
        let attributes = attributes(&DUTY);
        let parts: [&[u8]; 4] = [&rp_hash, &nonce_tpm, &session.nonce_caller, &[attributes]];
        let proof = crypt::hmac(session.key.bytes(), &parts);
        let mut area = Vec::new();
        put_digest(&mut area, &nonce_tpm);
        area.push(attributes);
        put_digest(&mut area, &proof);
        wire::Response {
            handle: None,
            parameters,
            session: area,
        }
    }

    fn session() -> Session {
        let mut session = Session::new(
            0x0200_0000,
            &Secret::new(&[7; 32]),
            [1; DIGEST],
            &[2; DIGEST],
        );
        session.authorise(&DUTY, &mut [0, 8, 0, 0], [3; DIGEST]);
        session
    }

    #[test]
    fn an_honest_answer_is_decrypted() {
        let mut session = session();
        let mut response = answer(&session, b"readings", [4; DIGEST]);
        assert_ne!(&response.parameters[2..], b"readings");
        session.accept(&DUTY, b"", &mut response).unwrap();
        assert_eq!(&response.parameters[2..], b"readings");
    }

    #[test]
    fn any_flipped_bit_of_an_answer_is_noticed() {
        let honest = answer(&session(), b"readings", [4; DIGEST]);
        let length = honest.parameters.len() + honest.session.len();
        for bit in 0..length * 8 {
            let mut response = answer(&session(), b"readings", [4; DIGEST]);
            let (part, at) = match bit / 8 < response.parameters.len() {
                true => (&mut response.parameters, bit / 8),
                false => (&mut response.session, bit / 8 - honest.parameters.len()),
            };
            part[at] ^= 1 << (bit % 8);
            assert!(
                session().accept(&DUTY, b"", &mut response).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn an_answer_of_before_does_not_pass_again() {
        let mut session = session();
        let mut first = answer(&session, b"readings", [4; DIGEST]);
        let mut replay = answer(&session, b"readings", [4; DIGEST]);
        session.accept(&DUTY, b"", &mut first).unwrap();
        session.authorise(&DUTY, &mut [0, 8, 0, 0], [5; DIGEST]);
        assert!(matches!(
            session.accept(&DUTY, b"", &mut replay),
            Err(Error::Tampered { .. })
        ));
    }
}
