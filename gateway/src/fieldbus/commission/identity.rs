//! Who a unit says it is: Read device identification (function code 43 / 14) or Report server id
//! (17). A core.
//!
//! Invariant: what a unit says is shown as text and never trusted to be one.

use std::fmt;

use serde::Serialize;

/// Objects of the basic category (application protocol 6.21): vendor, product code, revision.
const VENDOR: u8 = 0;
const PRODUCT: u8 = 1;
const REVISION: u8 = 2;
/// Of the regular category: product name and model name.
const PRODUCT_NAME: u8 = 4;
const MODEL_NAME: u8 = 5;
/// Longest text kept of one object, in characters.
const TEXT_MAX: usize = 64;
/// The PDU that asks for a server id.
pub(crate) const REPORT_SERVER_ID: [u8; 1] = [17];

/// The PDU that asks for the basic objects, from `object` on.
pub(crate) fn read_identification(object: u8) -> [u8; 4] {
    [43, 14, 1, object]
}

/// What a unit says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Identity {
    /// Who made it.
    pub(crate) vendor: Option<String>,
    /// What it is.
    pub(crate) product: Option<String>,
    /// Which revision of it.
    pub(crate) revision: Option<String>,
}

impl Identity {
    /// Takes the objects of an answer; gives the object to ask for next, if more follow.
    pub(crate) fn take(&mut self, pdu: &[u8]) -> Option<u8> {
        let [43, 14, _, _, more, next, count, objects @ ..] = pdu else {
            return None;
        };
        let mut rest = objects;
        for _ in 0..*count {
            let [id, length, tail @ ..] = rest else { break };
            let Some((value, tail)) = tail.split_at_checked(usize::from(*length)) else {
                break;
            };
            self.note(*id, text(value));
            rest = tail;
        }
        (*more == 0xff).then_some(*next)
    }

    /// Takes a server id, which is in no form that the specification fixes.
    pub(crate) fn take_server_id(&mut self, pdu: &[u8]) {
        if let [17, length, id @ ..] = pdu
            && usize::from(*length) == id.len()
        {
            let readable = text(id);
            self.product = readable.or_else(|| Some(super::frame::spaced(id)));
        }
    }

    fn note(&mut self, object: u8, text: Option<String>) {
        match object {
            VENDOR => self.vendor = text,
            PRODUCT => self.product = text,
            REVISION => self.revision = text,
            PRODUCT_NAME | MODEL_NAME if self.product.is_none() => self.product = text,
            _ => {}
        }
    }
}

/// `Eastron SDM630 1.8`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.vendor, &self.product, &self.revision];
        let said: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        f.write_str(&said.join(" "))
    }
}

/// Printable text; `None` where there is none.
fn text(bytes: &[u8]) -> Option<String> {
    let printable = |c: &char| !c.is_control() && *c != char::REPLACEMENT_CHARACTER;
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .filter(printable)
        .take(TEXT_MAX)
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_and_more_are_asked_for() {
        let mut identity = Identity::default();
        let first = [
            &[43, 14, 1, 1, 0xff, 2, 2, 0, 4][..],
            b"Acme",
            &[1, 3],
            b"M-1",
        ]
        .concat();
        assert_eq!(identity.take(&first), Some(2));
        let second = [&[43, 14, 1, 1, 0, 0, 1, 2, 4][..], b"1.0\n"].concat();
        assert_eq!(identity.take(&second), None);
        assert_eq!(identity.to_string(), "Acme M-1 1.0");
    }

    #[test]
    fn a_cut_or_strange_answer_gives_what_it_has() {
        let mut identity = Identity::default();
        assert_eq!(
            identity.take(&[43, 14, 1, 1, 0, 0, 2, 0, 2, b'O', b'K', 1, 200, b'x']),
            None
        );
        assert_eq!(identity.to_string(), "OK");
        assert_eq!(identity.take(&[43]), None);
        assert_eq!(identity.take(&[3, 2, 0, 0]), None);
    }

    #[test]
    fn a_server_id_is_text_or_bytes() {
        let mut identity = Identity::default();
        identity.take_server_id(&[17, 5, b'P', b'u', b'm', b'p', 0xff]);
        assert_eq!(identity.to_string(), "Pump");
        identity.take_server_id(&[17, 2, 0x01, 0xff]);
        assert_eq!(identity.to_string(), "01 ff");
    }
}
