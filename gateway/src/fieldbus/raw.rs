//! One request that a technician writes down himself, and what came of it. Values.
//!
//! Invariant: what is held is a request that the Modbus application protocol allows.

use std::time::Duration;

use crate::fieldbus::{
    register::{Register, Table},
    transaction::{Answer, PDU_MAX, Request, Span},
};

/// Most registers of a read and of a write (application protocol 6.3, 6.12).
const REGISTERS_READ: usize = 125;
const REGISTERS_WRITTEN: usize = 123;
/// Most coils of a read and of a write (application protocol 6.1, 6.11).
const BITS_READ: usize = 2_000;
const BITS_WRITTEN: usize = 1_968;
/// Function codes of requests; the others are those of exceptions (application protocol 4.1).
const FUNCTIONS: std::ops::RangeInclusive<u8> = 1..=127;

/// A request to any unit of a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawRequest {
    /// Unit identifier.
    pub(crate) unit: u8,
    /// What is asked.
    pub(crate) request: Request,
    /// How long the unit may take; `None`: as long as the bus' devices.
    pub(crate) timeout: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawOutcome {
    /// The unit did as asked.
    Answered(Answer),
    /// The unit answered by this exception code, in words beside it.
    Exception(u8, String),
    /// It was sent, and nothing that fits came back.
    Failed(String),
    /// It was not sent.
    Refused(String),
}

/// Reads `count` elements from `register` on.
pub(crate) fn read(register: Register, count: usize) -> Result<Request, String> {
    let Register { table, address } = register;
    let most = if table.is_bits() {
        BITS_READ
    } else {
        REGISTERS_READ
    };
    Ok(Request::Read(Span {
        table,
        start: address,
        count: fitting(address, count, most)?,
    }))
}

/// Writes registers from `register` on.
pub(crate) fn write_registers(register: Register, words: Vec<u16>) -> Result<Request, String> {
    if register.table != Table::Holding {
        return Err(format!("{register} takes no registers; write to holding:N"));
    }
    let address = register.address;
    fitting(address, words.len(), REGISTERS_WRITTEN)?;
    Ok(match words[..] {
        [word] => Request::WriteRegister { address, word },
        _ => Request::WriteRegisters { address, words },
    })
}

/// Writes coils from `register` on.
pub(crate) fn write_coils(register: Register, coils: Vec<bool>) -> Result<Request, String> {
    if register.table != Table::Coil {
        return Err(format!("{register} takes no coils; write to coil:N"));
    }
    let address = register.address;
    fitting(address, coils.len(), BITS_WRITTEN)?;
    Ok(match coils[..] {
        [on] => Request::WriteCoil { address, on },
        _ => Request::WriteCoils { address, coils },
    })
}

/// Sends a PDU, function code first.
pub(crate) fn pdu(bytes: Vec<u8>) -> Result<Request, String> {
    match bytes.first() {
        Some(function) if FUNCTIONS.contains(function) && bytes.len() <= PDU_MAX => {
            Ok(Request::Raw(bytes))
        }
        _ => Err(format!(
            "a PDU is 1 to {PDU_MAX} bytes and begins with a function code from 1 to 127"
        )),
    }
}

fn fitting(address: u16, count: usize, most: usize) -> Result<u16, String> {
    let room = usize::from(u16::MAX - address) + 1;
    let fits = |count: &u16| (1..=most.min(room)).contains(&usize::from(*count));
    u16::try_from(count).ok().filter(fits).ok_or_else(|| {
        format!("{count} at {address}: a request takes 1 to {most}, and addresses end at 65535")
    })
}

impl Answer {
    /// Its content under the key that names it; `None` for a write.
    pub(crate) fn as_json(&self) -> Option<(&'static str, serde_json::Value)> {
        match self {
            Answer::Bits(bits) => Some(("bits", bits.as_slice().into())),
            Answer::Registers(words) => Some(("registers", words.as_slice().into())),
            Answer::Raw(pdu) => {
                let digits: String = pdu.iter().map(|byte| format!("{byte:02x}")).collect();
                Some(("pdu", digits.into()))
            }
            Answer::Written | Answer::Broadcast => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Register {
        text.parse().expect("a register")
    }

    #[test]
    fn one_element_is_written_by_the_function_code_for_one() {
        assert_eq!(
            write_registers(at("holding:3"), vec![7]),
            Ok(Request::WriteRegister {
                address: 3,
                word: 7
            })
        );
        assert_eq!(
            write_coils(at("coil:3"), vec![true]),
            Ok(Request::WriteCoil {
                address: 3,
                on: true
            })
        );
        let many = write_registers(at("holding:3"), vec![7; 123]);
        assert!(matches!(many, Ok(Request::WriteRegisters { .. })));
    }

    #[test]
    fn what_no_request_holds_is_refused() {
        assert!(read(at("holding:0"), 125).is_ok());
        for refused in [
            read(at("holding:0"), 0),
            read(at("holding:0"), 126),
            read(at("coil:0"), 2_001),
            read(at("input:65535"), 2),
            read(at("input:0"), 65_537),
            write_registers(at("holding:0"), Vec::new()),
            write_registers(at("holding:0"), vec![0; 124]),
            write_registers(at("input:0"), vec![0]),
            write_coils(at("discrete:0"), vec![true]),
            pdu(Vec::new()),
            pdu(vec![0x83, 2]),
            pdu(vec![3; 254]),
        ] {
            assert!(refused.is_err(), "{refused:?}");
        }
    }
}
