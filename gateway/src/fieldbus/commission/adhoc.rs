//! A single request of a technician, as it travels to the running service. A value with its check.
//!
//! Invariant: what passes [`Ask::check`] is a request that the Modbus application protocol allows.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::fieldbus::transaction::{PDU_MAX, Reply, Request};

/// Most registers and bits of one request, read and written (application protocol 6).
const READ_REGISTERS_MAX: u16 = 125;
const READ_BITS_MAX: u16 = 2_000;
const WRITE_REGISTERS_MAX: usize = 123;
const READ_WRITE_REGISTERS_MAX: usize = 121;
const WRITE_COILS_MAX: usize = 1_968;
/// Addresses of one table.
const ADDRESSES: usize = 65_536;
/// Longest time that a unit may be given to answer.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long a request waits for a bus that is busy with its polls.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// The bus, by its name in the configuration.
    pub(crate) bus: String,
    /// Unit identifier.
    pub(crate) unit: u8,
    /// The request.
    pub(crate) request: Request,
    /// How long the unit may take, in milliseconds.
    pub(crate) timeout_ms: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Told {
    /// It was sent, and this came of it.
    Reply(Reply),
    /// It was not sent, or nothing is known of it: why.
    Error(String),
}

/// In a few words, for the log.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Reply(Reply::Answer(_)) => f.write_str("done"),
            Told::Reply(Reply::Exception(exception)) => write!(f, "{exception}"),
            Told::Reply(Reply::TimedOut) => f.write_str("no answer"),
            Told::Reply(Reply::Garbled(what)) | Told::Error(what) => f.write_str(what),
        }
    }
}

impl Ask {
    /// How long the unit may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms).min(TIMEOUT_MAX)
    }

    /// Why it must not be sent, if it must not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (what, start, count, most) = match &self.request {
            Request::Read(span) => {
                let bits = span.table.is_bits();
                let most = if bits {
                    READ_BITS_MAX
                } else {
                    READ_REGISTERS_MAX
                };
                (
                    "read",
                    usize::from(span.start),
                    usize::from(span.count),
                    usize::from(most),
                )
            }
            Request::WriteCoils { address, coils } => {
                ("write", usize::from(*address), coils.len(), WRITE_COILS_MAX)
            }
            Request::WriteRegisters { address, words } => (
                "write",
                usize::from(*address),
                words.len(),
                WRITE_REGISTERS_MAX,
            ),
            Request::ReadWriteRegisters { address, words, .. } => (
                "write",
                usize::from(*address),
                words.len(),
                READ_WRITE_REGISTERS_MAX,
            ),
            Request::Raw(pdu) => ("send", 0, pdu.len(), PDU_MAX),
            Request::WriteCoil { .. }
            | Request::WriteRegister { .. }
            | Request::MaskRegister { .. } => return Ok(()),
        };
        if count == 0 || count > most {
            return Err(format!(
                "one request can {what} 1 to {most} at once, not {count}"
            ));
        }
        if start + count > ADDRESSES {
            return Err("the addresses end at 65535".to_owned());
        }
        Ok(())
    }
}

/// Whether a request may change something in a unit.
pub(crate) fn writes(request: &Request) -> bool {
    match request {
        Request::Read(_) => false,
        Request::Raw(pdu) => !matches!(pdu.first(), Some(1..=4 | 7 | 11 | 12 | 17 | 20 | 24 | 43)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fieldbus::{register::Table, transaction::Span};

    use super::*;

    fn ask(request: Request) -> Ask {
        Ask {
            bus: "rs485-0".to_owned(),
            unit: 1,
            request,
            timeout_ms: 1_000,
        }
    }

    fn read(start: u16, count: u16) -> Request {
        Request::Read(Span {
            table: Table::Holding,
            start,
            count,
        })
    }

    #[test]
    fn a_question_reads_as_it_is_documented() {
        let asked = ask(read(0, 4));
        let json = json!({
            "bus": "rs485-0",
            "unit": 1,
            "request": { "read": { "table": "holding", "start": 0, "count": 4 } },
            "timeout_ms": 1000,
        });
        assert_eq!(serde_json::to_value(&asked).unwrap(), json);
        assert_eq!(serde_json::from_value::<Ask>(json).unwrap(), asked);
        let told = Told::Reply(Reply::Exception(crate::fieldbus::transaction::Exception(2)));
        assert_eq!(
            serde_json::to_value(&told).unwrap(),
            json!({ "reply": { "exception": 2 } })
        );
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_not_sent() {
        let words = |count| Request::WriteRegisters {
            address: 65_500,
            words: vec![0; count],
        };
        for (request, allowed) in [
            (read(0, 125), true),
            (read(0, 126), false),
            (read(0, 0), false),
            (read(65_535, 1), true),
            (read(65_535, 2), false),
            (words(36), true),
            (words(37), false),
            (words(124), false),
            (Request::Raw(vec![17]), true),
            (Request::Raw(vec![]), false),
            (Request::Raw(vec![17; 254]), false),
        ] {
            assert_eq!(ask(request.clone()).check().is_ok(), allowed, "{request:?}");
        }
    }

    #[test]
    fn only_functions_that_are_known_to_read_are_no_writes() {
        assert!(!writes(&read(0, 1)));
        assert!(!writes(&Request::Raw(vec![43, 14, 1, 0])));
        for function in [5, 6, 8, 15, 16, 21, 22, 23, 0x41] {
            assert!(writes(&Request::Raw(vec![function])), "{function}");
        }
        assert!(writes(&Request::WriteCoil {
            address: 0,
            on: true
        }));
    }
}
