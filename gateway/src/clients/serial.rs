//! Serial numbers of certificates. Value.
//!
//! Invariant: a number is positive, and every one is of the same length (RFC 5280, 4.1.2.2).

use serde::{Deserialize, Serialize};

/// Bytes of a serial number.
const SERIAL_BYTES: usize = 16;

/// A certificate's number, drawn by chance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Serial([u8; SERIAL_BYTES]);

impl Serial {
    /// From random bytes: positive, and always of the same length.
    pub(crate) fn new(mut drawn: [u8; SERIAL_BYTES]) -> Serial {
        drawn[0] = drawn[0] & 0x3f | 0x40;
        Serial(drawn)
    }

    /// As it stands in the certificate.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        tpm::hex::encode(&serial.0)
    }
}

impl TryFrom<String> for Serial {
    type Error = String;

    fn try_from(text: String) -> Result<Serial, String> {
        let bytes = tpm::hex::decode(&text).and_then(|bytes| bytes.try_into().ok());
        let wrong = || format!("{text:?} is no serial number of {SERIAL_BYTES} bytes");
        bytes.map(Serial).ok_or_else(wrong)
    }
}
