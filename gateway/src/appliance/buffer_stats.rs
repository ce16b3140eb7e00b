//! What waits in the buffer, by priority, and what the upstream will never take, as `gateway buffer
//! stats` and its JSON show it. Shell.
//!
//! Invariant: taking them never holds up a reading, a message or a command.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::{
    status::{self, BufferStatus, second},
    status_text::buffer_lines,
};
use crate::{
    buffer::{Buffer, DeadLetter, DeadLetters},
    upstream,
    wording::about,
};

/// Dead letters shown in full; the rest is counted.
const LETTERS_SHOWN: usize = 20;

/// The buffer at one moment, closer than in the status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BufferStats {
    /// The same as in the status.
    pub buffer: BufferStatus,
    /// Messages that wait, by the priority of their forward rule.
    pub waiting: Waiting,
    /// Dead letters kept, of this start and earlier ones.
    pub dead_letters: DeadLetterStats,
}

/// Messages that wait, by priority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Sent first.
    pub high: u64,
    /// The default.
    pub normal: u64,
    /// Sent last.
    pub low: u64,
}

/// The dead letters that are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterStats {
    /// How many.
    pub kept: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The newest, newest first.
    pub newest: Vec<DeadLetterLine>,
    /// Why they cannot be read; absent: they can.
    pub fault: Option<String>,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterLine {
    /// What `gateway buffer dead resend` and `drop` call it.
    pub id: i64,
    /// The local topic.
    pub topic: String,
    /// Its number within the topic.
    pub seq: u64,
    /// When the broker took it, RFC 3339.
    pub received: String,
    /// When it was given up, RFC 3339.
    pub buried: String,
    /// Why.
    pub reason: String,
    /// Bytes of its payload.
    pub bytes: u64,
    /// Whether the payload is kept, so that it can be sent again.
    pub whole: bool,
}

/// Takes the stats of a buffer. Blocks on the disk for a moment.
pub(super) fn of(buffer: &Buffer, max_bytes: u64, link: Option<&upstream::Status>) -> BufferStats {
    let status = buffer.status();
    let [high, normal, low] = status.waiting;
    BufferStats {
        buffer: status::buffer(status, max_bytes, link),
        waiting: Waiting { high, normal, low },
        dead_letters: letters(buffer, LETTERS_SHOWN),
    }
}

/// The dead letters, the newest of them in full. Blocks on the disk for a moment.
pub(super) fn letters(buffer: &Buffer, at_most: usize) -> DeadLetterStats {
    match buffer.dead_letters(at_most) {
        Ok(letters) => letter_stats(letters),
        Err(error) => DeadLetterStats {
            fault: Some(error.to_string()),
            ..DeadLetterStats::default()
        },
    }
}

/// The stats as a person reads them.
pub fn render(stats: &BufferStats) -> String {
    let mut text = buffer_lines(&stats.buffer);
    let Waiting { high, normal, low } = stats.waiting;
    let _infallible = writeln!(text, "    waiting: {high} high, {normal} normal, {low} low");
    if let Some(oldest) = &stats.buffer.oldest {
        let _infallible = writeln!(text, "    oldest: {oldest}");
    }
    let letters = &stats.dead_letters;
    let _infallible = writeln!(
        text,
        "    dead letters: {} kept, {}",
        letters.kept,
        about(letters.bytes)
    );
    for letter in &letters.newest {
        let _infallible = writeln!(
            text,
            "      {} {} #{} of {}, {}: {}",
            letter.buried,
            letter.topic,
            letter.seq,
            letter.received,
            about(letter.bytes),
            letter.reason
        );
    }
    if let Some(fault) = &letters.fault {
        let _infallible = writeln!(text, "      {fault}");
    }
    text
}

fn letter_stats(letters: DeadLetters) -> DeadLetterStats {
    DeadLetterStats {
        kept: letters.kept,
        bytes: letters.bytes,
        newest: letters.newest.into_iter().map(line).collect(),
        fault: None,
    }
}

fn line(letter: DeadLetter) -> DeadLetterLine {
    DeadLetterLine {
        topic: letter.topic,
        seq: letter.seq,
        received: second(letter.received),
        buried: second(letter.buried),
        reason: letter.reason,
        bytes: letter.bytes,
        id: letter.id,
        whole: letter.whole,
    }
}
