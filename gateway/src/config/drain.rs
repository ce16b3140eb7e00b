//! How the backlog goes up beside what is new, and what the link may cost: `[upstream.drain]` and
//! `[upstream.budget]`. Values.
//!
//! Invariant: without a word of it nothing holds the backlog back but the link.

use std::{num::NonZeroU32, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use settings::Size;

/// What a keep-alive and its answer cost, each in a TLS record and a TCP segment of its own.
pub const PING_BYTES: u64 = 2 * (2 + 22 + 52);

/// The `[upstream.drain]` table: the backlog beside what is new.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Most of `in_flight` for what has waited, percent; the rest is free for what is new.
    #[schemars(range(min = 1, max = 100))]
    pub share: u8,
    /// Most messages per second of what has waited; by default as many as the link takes.
    #[schemars(range(min = 1))]
    pub messages_per_second: Option<NonZeroU32>,
    /// Most bytes per second of what has waited, MQTT packets; by default as many as the link takes.
    #[schemars(extend("x-minimum" = "100B"))]
    pub bytes_per_second: Option<Size>,
    /// Times of the day, UTC, at which what `windows_hold` names may go up, such as
    /// `"01:00-05:00"` or, over midnight, `"22:00-04:00"`; by default at any time.
    #[schemars(length(max = 24))]
    pub windows: Vec<Window>,
    /// What waits for those times. Messages of high priority never do.
    pub windows_hold: Hold,
}

impl Default for Drain {
    fn default() -> Self {
        Drain {
            share: 90,
            messages_per_second: None,
            bytes_per_second: None,
            windows: Vec::new(),
            windows_hold: Hold::default(),
        }
    }
}

/// The `[upstream.budget]` table: bytes that the link may cost. Used up, only messages of high
/// priority go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// From midnight to midnight, UTC, both directions; by default without end.
    #[schemars(extend("x-minimum" = "10KiB"))]
    pub per_day: Option<Size>,
    /// The same from the first of the month to its last day.
    #[schemars(extend("x-minimum" = "10KiB"))]
    pub per_month: Option<Size>,
}

/// What waits for a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// What has waited already, of normal and low priority.
    #[default]
    Backlog,
    /// That, and everything of low priority.
    BacklogAndLow,
    /// Everything but what is of high priority.
    AllButHigh,
}

/// A time of the day, from one minute to before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend(
    "format" = "time-window",
    "examples" = ["01:00-05:00", "22:00-04:00"]
))]
pub struct Window {
    /// Minute of the day at which it opens.
    pub from_minute: u16,
    /// Minute of the day at which it closes; below `from_minute` on the next day.
    pub to_minute: u16,
}

impl FromStr for Window {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Window, &'static str> {
        const FORM: &str = "it is not of the form HH:MM-HH:MM";
        let (from, to) = text.split_once('-').ok_or(FORM)?;
        let (from_minute, to_minute) = (minute(from).ok_or(FORM)?, minute(to).ok_or(FORM)?);
        if from_minute == to_minute {
            return Err("it closes when it opens; for the whole day write 00:00-24:00");
        }
        Ok(Window {
            from_minute,
            to_minute,
        })
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// `HH:MM` up to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= 24 * 60).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_as_people_write_times() {
        let window = |text: &str| {
            let window: Window = text.parse()?;
            Ok::<_, &str>((window.from_minute, window.to_minute))
        };
        assert_eq!(window("01:00-05:30"), Ok((60, 330)));
        assert_eq!(window("22:00-04:00"), Ok((1320, 240)));
        assert_eq!(window("00:00-24:00"), Ok((0, 1440)));
        for wrong in [
            "",
            "1:00-5:00",
            "01:00",
            "01:60-02:00",
            "25:00-26:00",
            "+1:00-02:00",
            "24:01-24:02",
        ] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
        assert!(window("05:00-05:00").unwrap_err().contains("00:00-24:00"));
    }
}
