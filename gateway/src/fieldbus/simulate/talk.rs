//! What an instrument says that talks by itself. A core.
//!
//! Invariant: there is always a next thing to say.

use std::{f64::consts::TAU, time::Duration};

/// Between two rounds of a weather station.
const ROUND: Duration = Duration::from_secs(1);

/// Something to say, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talk {
    /// Between two of them.
    pub(super) every: Duration,
    words: Words,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Words {
    Weather,
    /// At least one, each with its own end.
    Lines(Vec<Vec<u8>>),
}

impl Talk {
    /// A weather station: NMEA 0183, a round of sentences a second.
    pub fn weather() -> Talk {
        Talk {
            every: ROUND,
            words: Words::Weather,
        }
    }

    /// The lines of a recording, one after the other, with their ends; `None` if there are none.
    pub fn replay(recording: &[u8], every: Duration) -> Option<Talk> {
        let lines: Vec<Vec<u8>> = recording
            .split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        (!lines.is_empty()).then_some(Talk {
            every,
            words: Words::Lines(lines),
        })
    }

    /// What it says in its turn, counted from zero.
    pub(super) fn words(&self, turn: u32) -> Vec<u8> {
        match &self.words {
            Words::Weather => weather(f64::from(turn)).concat().into_bytes(),
            Words::Lines(lines) => lines[turn as usize % lines.len()].clone(),
        }
    }
}

/// The sentences of one round: wind that turns and gusts, air and water that warm slowly.
pub(crate) fn weather(seconds: f64) -> [String; 3] {
    let wave = |period_s: f64| (seconds * TAU / period_s).sin();
    let direction = (225.0 + 25.0 * wave(60.0) + 5.0 * wave(7.0)).rem_euclid(360.0);
    let wind = 6.5 + 2.0 * wave(23.0) + 0.8 * wave(5.0);
    let air = 14.2 + 1.5 * wave(180.0);
    let pressure = 1.0132 + 0.0020 * wave(300.0);
    let humidity = 62.0 - 6.0 * wave(180.0);
    let water = 11.8 + 0.4 * wave(240.0);
    [
        format!("WIMWV,{direction:.1},T,{wind:.1},M,A"),
        format!(
            "WIXDR,C,{air:.1},C,air-temperature,P,{pressure:.4},B,pressure,H,{humidity:.1},P,humidity"
        ),
        format!("YXMTW,{water:.1},C"),
    ]
    .map(|body| sealed(&body))
}

/// A sentence with its start, checksum and end.
fn sealed(body: &str) -> String {
    let checksum = body.bytes().fold(0, |xor, byte| xor ^ byte);
    format!("${body}*{checksum:02X}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_said_line_by_line_and_from_the_start_again() {
        let talk = Talk::replay(b"12.5 kg\r\n12.7 kg\r\n13", Duration::from_secs(1));
        let talk = talk.expect("lines");
        let said: Vec<_> = (0..4).map(|turn| talk.words(turn)).collect();
        let all: [&[u8]; 4] = [b"12.5 kg\r\n", b"12.7 kg\r\n", b"13", b"12.5 kg\r\n"];
        assert_eq!(said, all);
        assert_eq!(Talk::replay(b"", Duration::from_secs(1)), None);
    }

    #[test]
    fn a_sentence_carries_the_checksum_of_nmea_0183() {
        // The exclusive or of all between $ and *.
        assert_eq!(sealed("YXMTW,11.8,C"), "$YXMTW,11.8,C*1A\r\n");
    }
}
