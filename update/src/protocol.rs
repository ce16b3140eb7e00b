//! What the gateway and the updater say to each other, as bytes. A core; [`socket`] carries it.
//!
//! ```text
//!  gateway (unprivileged, network) ── Request ──▶ updater (root, no network)
//!                                  ◀── Answer ───
//! ```
//!
//! One request and one answer to a connection, each a length in four bytes, most significant first, and so many
//! bytes of JSON. A long work is begun by one request and watched by others: [`Ask::Status`] says how far it is.
//!
//! Invariant: no request names a file, a slot or a release. What is staged is looked at where the updater's own
//! configuration says, and counts for nothing until the updater has verified it.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    journal::{Content, Journal, Release},
    slots::Slot,
};

pub mod socket;

/// The form of requests and answers. Both ends come from one release; during a trial they still do.
pub const VERSION: u32 = 1;
/// Longest request: a reason.
pub const REQUEST_MAX: usize = 4 * 1024;
/// Longest answer: two releases with reasons, numbers of missing chunks, a receipt.
pub const ANSWER_MAX: usize = 256 * 1024;
/// Longest reason for a roll-back, in bytes.
pub const REASON_MAX: usize = 1024;
/// Chunks that one answer names as missing; the next try names the next.
pub const MISSING_MAX: usize = 16 * 1024;

/// A message to the updater.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is wanted.
    pub ask: Ask,
}

/// What the gateway may want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// How things stand. Changes nothing.
    Status {},
    /// Verify what is staged and write it to the slot that does not run. Answered when it is begun.
    Install {},
    /// Put the installed release on trial and restart into it.
    Activate {},
    /// The running release on trial is healthy: it stays.
    Commit {},
    /// The running release on trial is not: back to the one before, with a restart.
    RollBack {
        /// Why, for whoever asks; at most [`REASON_MAX`] bytes.
        reason: String,
    },
    /// A restart is about to happen because somebody wants it: it costs the release on trial none of its starts.
    BeforeRestart {},
    /// The TPM's signed word for what was committed.
    Receipt {},
}

/// A message from the updater.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// What came of the request.
    pub reply: Reply,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// How things stand.
    Status(Box<Status>),
    /// It is done, or begun.
    Done {},
    /// It is not, and nothing has changed.
    Refused {
        /// Why, and what helps.
        why: String,
        /// Refused because something is not to be trusted, rather than because it failed.
        security: bool,
    },
    /// See [`Ask::Receipt`].
    Receipt {
        /// A JSON document.
        receipt: String,
    },
}

/// How things stand, as the updater sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The slot that runs; `None` when there is no evidence.
    pub booted: Option<Slot>,
    /// The slot that starts when nothing is on trial.
    pub default: Option<Slot>,
    /// The slot on trial.
    pub trial: Option<TrialStatus>,
    /// What is in the slots.
    pub slots: Journal,
    /// The security epoch below which nothing is installed; `None` when it cannot be read.
    pub floor: Option<u64>,
    /// What is being done, or came of the last work.
    pub work: Work,
    /// What only a person can resolve.
    pub trouble: Option<String>,
}

impl Status {
    /// The release that runs, as far as is known.
    pub fn running(&self) -> Option<&Release> {
        self.slots.of(self.booted?).release()
    }

    /// What is in the slot that does not run.
    pub fn other(&self) -> Option<&Content> {
        Some(self.slots.of(self.booted?.other()))
    }

    /// Whether the running release has still to prove its health.
    pub fn is_on_trial(&self) -> bool {
        self.trial
            .as_ref()
            .is_some_and(|trial| Some(trial.slot) == self.booted)
    }
}

/// A release that has still to prove its health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialStatus {
    /// Where it is.
    pub slot: Slot,
    /// Starts that are left to it.
    pub left: u8,
    /// Seconds until the updater rolls it back by itself; `None` while it does not run.
    pub seconds_left: Option<u64>,
}

/// What the updater is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    /// Nothing, since it started.
    Idle {},
    /// Checking metadata, index and keys of what is staged.
    Verifying {},
    /// Writing a release.
    Writing(Progress),
    /// Reading it back past the page cache.
    ReadingBack(Progress),
    /// A release was installed; it is on trial once somebody activates it.
    Installed(Progress),
    /// It came to nothing; the slot that runs is as it was.
    Failed {
        /// What was to be installed, where it came that far.
        release: Option<Release>,
        /// Why.
        why: String,
        /// Refused because something is not to be trusted, rather than because it failed.
        security: bool,
        /// The chunks that are neither staged nor in a slot, in rising order; at most [`MISSING_MAX`].
        missing: Vec<u32>,
    },
}

impl Work {
    /// Whether something is under way.
    pub fn is_under_way(&self) -> bool {
        matches!(
            self,
            Work::Verifying {} | Work::Writing(_) | Work::ReadingBack(_)
        )
    }
}

/// How far an installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// What is installed.
    pub release: Release,
    /// Chunks of it.
    pub chunks: u32,
    /// Chunks that this step is done with.
    pub done: u32,
    /// Chunks that stood in their place already and were not written again.
    pub kept: u32,
    /// Chunks that were taken from the slot that runs.
    pub reused: u32,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than any message.
    #[error("a message of {length} bytes, where {max} are allowed")]
    TooLong {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// From another release's program.
    #[error(
        "version {0} of the messages instead of {VERSION}: the two programs are of different releases"
    )]
    Version(u32),
    /// Not one of the messages.
    #[error("not a message: {0}")]
    Content(String),
}

/// The bytes of a message, its length before it.
///
/// # Errors
/// It is longer than `max`.
pub fn encode<M: Serialize>(message: &M, max: usize) -> Result<Vec<u8>, Malformed> {
    let body =
        serde_json::to_vec(message).map_err(|error| Malformed::Content(error.to_string()))?;
    let length = check_length(body.len(), max)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    Ok(frame)
}

/// The length that stands before a message.
///
/// # Errors
/// It is more than `max`.
pub fn decode_length(prefix: [u8; 4], max: usize) -> Result<usize, Malformed> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    check_length(length, max)?;
    Ok(length)
}

/// A request, from the bytes behind its length.
///
/// # Errors
/// They are no request, of another version, or hold more than they may.
pub fn decode_request(body: &[u8]) -> Result<Ask, Malformed> {
    let Request { version, ask } = decode(body, REQUEST_MAX)?;
    check_version(version)?;
    let bounded = match &ask {
        Ask::RollBack { reason } => reason.len() <= REASON_MAX,
        _ => true,
    };
    match bounded {
        true => Ok(ask),
        false => Err(Malformed::Content("its value is out of bounds".to_owned())),
    }
}

/// An answer, from the bytes behind its length.
///
/// # Errors
/// They are no answer, or of another version.
pub fn decode_answer(body: &[u8]) -> Result<Reply, Malformed> {
    let Answer { version, reply } = decode(body, ANSWER_MAX)?;
    check_version(version)?;
    Ok(reply)
}

fn decode<M: DeserializeOwned>(body: &[u8], max: usize) -> Result<M, Malformed> {
    check_length(body.len(), max)?;
    serde_json::from_slice(body).map_err(|error| Malformed::Content(error.to_string()))
}

fn check_length(length: usize, max: usize) -> Result<u32, Malformed> {
    u32::try_from(length)
        .ok()
        .filter(|_| length <= max)
        .ok_or(Malformed::TooLong { length, max })
}

fn check_version(version: u32) -> Result<(), Malformed> {
    match version {
        VERSION => Ok(()),
        other => Err(Malformed::Version(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(ask: Ask) -> Vec<u8> {
        let version = VERSION;
        encode(&Request { version, ask }, REQUEST_MAX).unwrap()
    }

    fn refuses(body: &str) {
        assert!(decode_request(body.as_bytes()).is_err(), "{body}");
    }

    #[test]
    fn requests_look_as_documented_and_come_back() {
        let reason = "bus hall-2 stopped polling".to_owned();
        for (ask, body) in [
            (Ask::Status {}, r#"{"version":1,"ask":{"status":{}}}"#),
            (Ask::Install {}, r#"{"version":1,"ask":{"install":{}}}"#),
            (
                Ask::RollBack { reason },
                r#"{"version":1,"ask":{"roll-back":{"reason":"bus hall-2 stopped polling"}}}"#,
            ),
        ] {
            let frame = request(ask.clone());
            assert_eq!(&frame[4..], body.as_bytes());
            let prefix = frame[..4].try_into().unwrap();
            assert_eq!(decode_length(prefix, REQUEST_MAX), Ok(body.len()));
            assert_eq!(decode_request(&frame[4..]), Ok(ask));
        }
    }

    #[test]
    fn a_request_can_name_no_path_and_hold_nothing_beside_what_it_is() {
        refuses(r#"{"version":1,"ask":{"install":{"path":"/etc/passwd"}}}"#);
        refuses(r#"{"version":1,"ask":{"install":{}},"staging":"/tmp"}"#);
        refuses(r#"{"version":1,"ask":{"status":{},"install":{}}}"#);
        refuses(r#"{"version":1,"version":1,"ask":{"status":{}}}"#);
        refuses(r#"{"version":1,"ask":{"status":{}}} "#.trim_end().repeat(2).as_str());
        refuses(r#"{"version":1,"ask":{"flash":{}}}"#);
        refuses(r#"{"ask":{"status":{}}}"#);
        refuses("");
    }

    #[test]
    fn another_version_is_told_by_its_number() {
        let body = br#"{"version":2,"ask":{"status":{}}}"#;
        assert_eq!(decode_request(body), Err(Malformed::Version(2)));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        let max = REQUEST_MAX;
        let length = max + 1;
        let prefix = u32::try_from(length).unwrap().to_be_bytes();
        assert_eq!(
            decode_length(prefix, max),
            Err(Malformed::TooLong { length, max })
        );
        assert!(decode_length([0xff; 4], max).is_err());
        let reason = "x".repeat(REASON_MAX + 1);
        assert!(decode_request(&request(Ask::RollBack { reason })[4..]).is_err());
    }

    /// Words of messages, in any order and number: they come further than random bytes do.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"version\"",
            "1",
            "\"ask\"",
            "\"status\"",
            "\"install\"",
            "\"roll-back\"",
            "\"reason\"",
            "\"../..\"",
            "\"receipt\"",
            "\"00\"",
            "null",
            "\"reply\"",
            "\"refused\"",
            "\"why\"",
            "\"work\"",
            "1e999",
            "\\u0000",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(body in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode_request(&body);
            let _ = decode_answer(&body);
        }

        #[test]
        fn whatever_is_understood_says_the_same_when_it_is_sent_on(body in pieces()) {
            if let Ok(ask) = decode_request(body.as_bytes()) {
                prop_assert_eq!(decode_request(&request(ask.clone())[4..]), Ok(ask));
            }
            let _ = decode_answer(body.as_bytes());
        }

        #[test]
        fn no_length_leads_to_more_memory_than_allowed(prefix in any::<[u8; 4]>()) {
            if let Ok(length) = decode_length(prefix, ANSWER_MAX) {
                prop_assert!(length <= ANSWER_MAX);
            }
        }
    }
}
