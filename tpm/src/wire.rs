//! Commands and responses as bytes: the frame around parameters, and the fields within. Core.
//!
//! Invariant: nothing read from a response is used before its length was checked; a response is at most
//! `RESPONSE_MAX` bytes. The structures themselves are tpm2-protocol's; the frame is ours, because sessions encrypt and
//! authenticate its sections one by one (TPM 2.0 Part 1, 18).

use tpm2_protocol::{
    TpmField, TpmMarshal, TpmWriter,
    constant::TPM_MAX_COMMAND_SIZE,
    data::{TpmCc, TpmSt},
};

use crate::{
    code::ResponseCode,
    error::{CommandName, Error, Result},
};

/// Bytes of a response at most; what the kernel's driver hands over at once.
pub(crate) const RESPONSE_MAX: usize = TPM_MAX_COMMAND_SIZE;
/// Tag, size, code.
pub(crate) const HEADER: usize = 10;

/// Fields one after another.
pub(crate) fn marshal(cc: TpmCc, fields: &[&dyn TpmMarshal]) -> Result<Vec<u8>> {
    let mut buffer = [0; TPM_MAX_COMMAND_SIZE];
    let mut writer = TpmWriter::new(&mut buffer);
    for field in fields {
        field.marshal(&mut writer).map_err(|error| Error::Unfit {
            command: CommandName(cc),
            what: error.to_string(),
        })?;
    }
    Ok(writer.as_bytes().to_vec())
}

/// Bytes with their length before them, as a structure of type `T`.
pub(crate) fn sized<T>(cc: TpmCc, bytes: &[u8]) -> Result<T>
where
    T: for<'a> TryFrom<&'a [u8], Error = tpm2_protocol::TpmError>,
{
    T::try_from(bytes).map_err(|error| Error::Unfit {
        command: CommandName(cc),
        what: format!("{} bytes: {error}", bytes.len()),
    })
}

/// A whole command.
pub(crate) fn command(
    cc: TpmCc,
    handles: &[u32],
    session: Option<&[u8]>,
    parameters: &[u8],
) -> Vec<u8> {
    let tag = match session {
        Some(_) => TpmSt::Sessions,
        None => TpmSt::NoSessions,
    };
    let mut frame = Vec::with_capacity(HEADER + 4 * handles.len() + parameters.len() + 128);
    frame.extend(tag.value().to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(cc.value().to_be_bytes());
    for handle in handles {
        frame.extend(handle.to_be_bytes());
    }
    if let Some(session) = session {
        frame.extend(length(session).to_be_bytes());
        frame.extend(session);
    }
    frame.extend(parameters);
    let size = length(&frame).to_be_bytes();
    frame[2..6].copy_from_slice(&size);
    frame
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// The sections of a response that says success.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) handle: Option<u32>,
    pub(crate) parameters: Vec<u8>,
    /// What proves the parameters, when the command bore a session.
    pub(crate) session: Vec<u8>,
}

/// Takes a response apart, or says the code with which the TPM refused.
pub(crate) fn response(cc: TpmCc, bytes: &[u8]) -> Result<Response> {
    let mut fields = Fields::new(cc, bytes);
    let tag = fields.u16()?;
    let size = fields.u32()?;
    let code = fields.u32()?;
    if size as usize != bytes.len() || bytes.len() > RESPONSE_MAX {
        return Err(malformed(
            cc,
            &format!("{} bytes where it says {size}", bytes.len()),
        ));
    }
    if code != 0 {
        return Err(Error::Refused {
            command: CommandName(cc),
            code: ResponseCode(code),
        });
    }
    let handle = if returns_handle(cc) {
        Some(fields.u32()?)
    } else {
        None
    };
    if tag == TpmSt::NoSessions.value() {
        return Ok(Response {
            handle,
            parameters: fields.rest().to_vec(),
            session: Vec::new(),
        });
    }
    if tag != TpmSt::Sessions.value() {
        return Err(malformed(cc, &format!("tag {tag:#06x}")));
    }
    let size = fields.u32()? as usize;
    let parameters = fields.bytes(size)?.to_vec();
    Ok(Response {
        handle,
        parameters,
        session: fields.rest().to_vec(),
    })
}

fn returns_handle(cc: TpmCc) -> bool {
    matches!(
        cc,
        TpmCc::CreatePrimary | TpmCc::Load | TpmCc::LoadExternal | TpmCc::StartAuthSession
    )
}

/// Whether the first parameter of the command has a length before it, so that a session can encrypt it.
pub(crate) fn command_can_be_encrypted(cc: TpmCc) -> bool {
    matches!(
        cc,
        TpmCc::CreatePrimary
            | TpmCc::Create
            | TpmCc::Load
            | TpmCc::LoadExternal
            | TpmCc::Import
            | TpmCc::Sign
            | TpmCc::VerifySignature
            | TpmCc::Certify
            | TpmCc::NvCertify
            | TpmCc::NvWrite
            | TpmCc::NvDefineSpace
            | TpmCc::HierarchyChangeAuth
            | TpmCc::PolicyNv
            | TpmCc::PolicySecret
    )
}

/// The same of the response.
pub(crate) fn response_can_be_encrypted(cc: TpmCc) -> bool {
    matches!(
        cc,
        TpmCc::CreatePrimary
            | TpmCc::Create
            | TpmCc::Load
            | TpmCc::LoadExternal
            | TpmCc::Import
            | TpmCc::ReadPublic
            | TpmCc::NvReadPublic
            | TpmCc::Certify
            | TpmCc::NvCertify
            | TpmCc::NvRead
            | TpmCc::Unseal
            | TpmCc::GetRandom
            | TpmCc::PolicySecret
    )
}

/// Reads fields in turn.
pub(crate) struct Fields<'a> {
    cc: TpmCc,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(cc: TpmCc, bytes: &'a [u8]) -> Fields<'a> {
        Fields { cc, rest: bytes }
    }

    /// The next field.
    pub(crate) fn take<T: TpmField<'a>>(&mut self) -> Result<T::View> {
        let (view, rest) = T::cast_prefix_field(self.rest)
            .map_err(|error| malformed(self.cc, &error.to_string()))?;
        self.rest = rest;
        Ok(view)
    }

    /// The next field's own bytes, checked to be one.
    pub(crate) fn raw<T: TpmField<'a>>(&mut self) -> Result<&'a [u8]> {
        let before = self.rest;
        self.take::<T>()?;
        Ok(&before[..before.len() - self.rest.len()])
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| malformed(self.cc, "it ends too early"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next bytes with their length before them.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8]> {
        let count = self.u16()?;
        self.bytes(usize::from(count))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N)?;
        bytes
            .try_into()
            .map_err(|_| malformed(self.cc, "it ends too early"))
    }

    /// What is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn end(&self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(malformed(self.cc, &format!("{count} bytes too many"))),
        }
    }
}

pub(crate) fn malformed(cc: TpmCc, what: &str) -> Error {
    Error::Malformed {
        command: CommandName(cc),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_bears_its_own_length() {
        let frame = command(TpmCc::GetRandom, &[], None, &[0, 8]);
        assert_eq!(frame, [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8]);
    }

    #[test]
    fn a_refusal_is_told_with_command_and_reason() {
        let error = response(TpmCc::NvRead, &[0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x4a]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "NV_Read: the TPM refuses: the index was never written [0x14a]"
        );
    }

    #[test]
    fn a_response_whose_length_lies_is_refused() {
        for bytes in [
            &[0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0][..],
            &[0x80, 1, 0, 0, 0, 10, 0, 0, 0],
            &[],
        ] {
            assert!(matches!(
                response(TpmCc::Clear, bytes),
                Err(Error::Malformed { .. })
            ));
        }
    }

    #[test]
    fn parameters_longer_than_the_response_are_refused() {
        let bytes = [0x80, 2, 0, 0, 0, 14, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(
            response(TpmCc::Clear, &bytes),
            Err(Error::Malformed { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_response_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), honest in any::<bool>(), with_handle in any::<bool>()) {
            if honest && bytes.len() >= HEADER {
                let size = u32::try_from(bytes.len()).unwrap().to_be_bytes();
                bytes[2..6].copy_from_slice(&size);
                bytes[6..10].fill(0);
                bytes[0] = 0x80;
                bytes[1] = 2;
            }
            let cc = if with_handle { TpmCc::Load } else { TpmCc::Sign };
            let _ = response(cc, &bytes);
        }
    }
}
