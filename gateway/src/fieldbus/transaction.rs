//! One request to one unit and what can come of it. Values.
//!
//! Invariant: an [`Answer`] is as long as its request asked; whoever carries it out checks that.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::fieldbus::register::Table;

/// A request and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Unit identifier.
    pub(crate) unit: u8,
    /// What is asked.
    pub(crate) request: Request,
    /// How long the answer may take.
    pub(crate) timeout: Duration,
}

/// What is asked of a unit (Modbus application protocol, section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Function codes 1 to 4.
    Read(Span),
    /// Function code 5.
    WriteCoil { address: u16, on: bool },
    /// Function code 15.
    WriteCoils { address: u16, coils: Vec<bool> },
    /// Function code 6.
    WriteRegister { address: u16, word: u16 },
    /// Function code 16.
    WriteRegisters { address: u16, words: Vec<u16> },
    /// Function code 22.
    MaskRegister { address: u16, and: u16, or: u16 },
    /// Function code 23: writes, and reads what is there then.
    ReadWriteRegisters {
        read: Span,
        address: u16,
        words: Vec<u16>,
    },
    /// Any PDU, function code first: what commissioning asks beyond the others.
    Raw(Vec<u8>),
}

/// Most bytes of a PDU (application protocol 4.1).
pub(crate) const PDU_MAX: usize = 253;

/// Function codes of plain writes: those of single and several coils and registers, and the mask.
const WRITES: [u8; 5] = [5, 6, 15, 16, 22];

impl Request {
    /// Whether it writes and asks for no data, so that it may go to all units at once (Modbus over
    /// serial line 2.1: broadcasts are writes).
    pub(crate) fn is_plain_write(&self) -> bool {
        match self {
            Request::Read(_) | Request::ReadWriteRegisters { .. } => false,
            Request::Raw(pdu) => pdu.first().is_some_and(|code| WRITES.contains(code)),
            Request::WriteCoil { .. }
            | Request::WriteCoils { .. }
            | Request::WriteRegister { .. }
            | Request::WriteRegisters { .. }
            | Request::MaskRegister { .. } => true,
        }
    }

    /// Bytes of the request and of its answer on a serial line, CRC included (Modbus over serial
    /// line 2.5.1, application protocol 6).
    pub(crate) fn frame_bytes(&self) -> (usize, usize) {
        match self {
            Request::Read(span) => (8, 5 + span.data_bytes()),
            Request::WriteCoil { .. } => (8, 8),
            Request::WriteCoils { coils, .. } => (9 + coils.len().div_ceil(8), 8),
            Request::WriteRegister { .. } => (8, 8),
            Request::WriteRegisters { words, .. } => (9 + 2 * words.len(), 8),
            Request::MaskRegister { .. } => (10, 10),
            Request::ReadWriteRegisters { read, words, .. } => {
                (13 + 2 * words.len(), 5 + read.data_bytes())
            }
            Request::Raw(pdu) => (3 + pdu.len(), 3 + PDU_MAX),
        }
    }
}

/// As the operator reads it: `read holding registers 100-109`, `write coil 3 = on`.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = |address: &u16, words: &[u16]| Span {
            table: Table::Holding,
            start: *address,
            count: u16::try_from(words.len()).unwrap_or(u16::MAX),
        };
        let hex = |words: &[u16]| {
            let words: Vec<String> = words.iter().map(|word| format!("{word:04x}")).collect();
            words.join(" ")
        };
        match self {
            Request::Read(span) => write!(f, "read {span}"),
            Request::WriteCoil { address, on } => {
                write!(
                    f,
                    "write coil {address} = {}",
                    if *on { "on" } else { "off" }
                )
            }
            Request::WriteCoils { address, coils } => {
                let span = Span {
                    table: Table::Coil,
                    start: *address,
                    count: u16::try_from(coils.len()).unwrap_or(u16::MAX),
                };
                let bits: String = coils.iter().map(|on| if *on { '1' } else { '0' }).collect();
                write!(f, "write {span} = {bits}")
            }
            Request::WriteRegister { address, word } => {
                write!(f, "write holding register {address} = {word:04x}")
            }
            Request::WriteRegisters { address, words } => {
                write!(f, "write {} = {}", registers(address, words), hex(words))
            }
            Request::MaskRegister { address, and, or } => {
                write!(
                    f,
                    "mask holding register {address}: and {and:04x}, or {or:04x}"
                )
            }
            Request::ReadWriteRegisters {
                read,
                address,
                words,
            } => {
                let written = registers(address, words);
                write!(f, "write {written} = {}, read {read}", hex(words))
            }
            Request::Raw(pdu) => write!(f, "send function code {}", pdu.first().unwrap_or(&0)),
        }
    }
}

/// Neighbouring elements of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Span {
    /// Which table.
    pub(crate) table: Table,
    /// The first address.
    pub(crate) start: u16,
    /// How many; at least one.
    pub(crate) count: u16,
}

impl Span {
    /// The address after the last; up to 65,536.
    pub(crate) fn end(self) -> u32 {
        u32::from(self.start) + u32::from(self.count)
    }

    /// Whether every element of `other` is one of these.
    pub(crate) fn contains(self, other: Span) -> bool {
        self.table == other.table && self.start <= other.start && other.end() <= self.end()
    }

    /// The elements from the first to the last of both, which are of one table.
    pub(crate) fn joined(self, other: Span) -> Span {
        let start = self.start.min(other.start);
        let end = self.end().max(other.end());
        Span {
            start,
            count: u16::try_from(end - u32::from(start)).unwrap_or(u16::MAX),
            ..self
        }
    }

    /// Bytes of data in the answer.
    pub(crate) fn data_bytes(self) -> usize {
        if self.table.is_bits() {
            usize::from(self.count).div_ceil(8)
        } else {
            2 * usize::from(self.count)
        }
    }
}

/// As the operator reads it: `holding registers 100-109`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many) = match self.table {
            Table::Coil => ("coil", "coils"),
            Table::Discrete => ("discrete input", "discrete inputs"),
            Table::Input => ("input register", "input registers"),
            Table::Holding => ("holding register", "holding registers"),
        };
        if self.count == 1 {
            write!(f, "{one} {}", self.start)
        } else {
            write!(f, "{many} {}-{}", self.start, self.end() - 1)
        }
    }
}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// The unit did as asked.
    Answer(Answer),
    /// The unit answered that it cannot.
    Exception(Exception),
    /// Nothing came in time.
    TimedOut,
    /// What came is no answer to the request: noise, another unit, another length.
    Garbled(String),
}

/// What a unit gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// Coils or discrete inputs, exactly as many as asked.
    Bits(Vec<bool>),
    /// Registers, exactly as many as asked.
    Registers(Vec<u16>),
    /// A write, confirmed by its echo.
    Written,
    /// The PDU that answers a raw one, function code first.
    Raw(Vec<u8>),
    /// Nothing: a write went to all units of a line, and none of them answers.
    Broadcast,
}

/// An exception code (application protocol, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exception(pub(crate) u8);

impl Exception {
    /// The table of functions, addresses or values is smaller than asked: other requests of the
    /// unit are well. Simple devices say 4 where 2 is meant.
    pub(crate) fn concerns_addresses(self) -> bool {
        matches!(self.0, 2..=4)
    }

    /// The unit does not know the function.
    pub(crate) fn concerns_function(self) -> bool {
        self.0 == 1
    }

    /// A gateway speaks for a unit that it does not reach: as good as silence.
    pub(crate) fn means_silence(self) -> bool {
        matches!(self.0, 0x0a | 0x0b)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "server device failure",
            5 => "acknowledge",
            6 => "server device busy",
            8 => "memory parity error",
            0x0a => "gateway path unavailable",
            0x0b => "gateway target device failed to respond",
            _ => "not in the specification",
        };
        write!(f, "exception {:02} {name}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_exceptions_read_as_in_a_manual() {
        let span = Span {
            table: Table::Holding,
            start: 100,
            count: 10,
        };
        assert_eq!(span.to_string(), "holding registers 100-109");
        assert_eq!(
            Span { count: 1, ..span }.to_string(),
            "holding register 100"
        );
        assert_eq!(
            Exception(2).to_string(),
            "exception 02 illegal data address"
        );
    }
}
