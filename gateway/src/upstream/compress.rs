//! Makes payloads smaller on their way up, and says so.
//!
//! Invariant: a payload is marked as compressed exactly when it is. Layer: core.

use broker_lite::packet::MessageProperties;
use bytes::Bytes;
use zstd::bulk::Compressor;

use super::outbound::Outbound;
use crate::config::Compression;

/// User property of a compressed message, with the HTTP content coding's name as its value (RFC 8878, 7.2).
const MARK: (&str, &str) = ("content-encoding", "zstd");
/// The library's own default: a tenth of the size for batches of readings, at some hundred megabytes a second.
const LEVEL: i32 = 3;

/// See the module's description.
#[derive(Default)]
pub(crate) struct Squeezer(Option<Compressor<'static>>);

impl Squeezer {
    /// The message with a smaller payload; as it was where memory for that is missing.
    pub(crate) fn squeeze(&mut self, mut message: Outbound, how: Option<Compression>) -> Outbound {
        if how == Some(Compression::Zstd)
            && let Some(smaller) = self.zstd(&message.payload)
        {
            message.payload = Bytes::from(smaller);
            mark(&mut message.properties);
        }
        message
    }

    /// One frame, which tells its content's size.
    fn zstd(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_none() {
            self.0 = Compressor::new(LEVEL).ok();
        }
        self.0.as_mut()?.compress(payload).ok()
    }
}

impl std::fmt::Debug for Squeezer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Squeezer")
    }
}

fn mark(properties: &mut MessageProperties) {
    // What the message's publisher called text is none now.
    properties.payload_format = None;
    properties
        .user_properties
        .push(MARK.0, MARK.1)
        .expect("two short words");
}
