//! What time it is, and how far that can be believed.
//!
//! Invariant: expiry counts only by a trusted time. A lower bound blocks nothing, so that a device whose clock is wrong
//! is never locked out of the update that would repair it. A value.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::json::Malformed;
use crate::limits::{MAX_LIFETIME, MAX_TIME_JUMP};

/// The time at which an update began (5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// A time from a source that the device trusts.
    Trusted(Timestamp),
    /// It is not earlier than this.
    AtLeast(Timestamp),
}

/// Tells the time; asked once an update.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Now;
}

/// A time that was read before: the fixed update start time of a part of the update that runs elsewhere.
impl Clock for Now {
    fn now(&self) -> Now {
        *self
    }
}

impl Now {
    /// Whether metadata that expires at `expires` has done so, as far as this time can tell (5.3.10).
    pub(crate) fn is_past(self, expires: Timestamp) -> bool {
        match self {
            Self::Trusted(now) => expires <= now,
            Self::AtLeast(_) => false,
        }
    }

    /// Whether `expires` lies further ahead than any metadata should live.
    pub(crate) fn is_far_before(self, expires: Timestamp) -> bool {
        let (Self::Trusted(reference) | Self::AtLeast(reference)) = self;
        reference
            .checked_add(MAX_LIFETIME)
            .is_ok_and(|end| expires > end)
    }
}

/// The lower bound of the time for [`Now::AtLeast`]: the latest of the build, the last time that a trusted source
/// signed, and the clock chip. What lies more than [`MAX_TIME_JUMP`] after the build is not believed.
pub fn lower_bound(
    build: Timestamp,
    signed: Option<Timestamp>,
    chip: Option<Timestamp>,
) -> Timestamp {
    let end = build.checked_add(MAX_TIME_JUMP).unwrap_or(Timestamp::MAX);
    [signed, chip]
        .into_iter()
        .flatten()
        .filter(|time| *time <= end)
        .fold(build, Timestamp::max)
}

/// Reads `YYYY-MM-DDTHH:MM:SSZ`, the one form of a time in metadata (4.2). The last day of the year 9999, which this
/// machine's calendar does not reach, is the last second that it does.
///
/// # Errors
/// For any other form.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, Malformed> {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let time = text
        .strip_suffix('Z')
        .filter(|_| shape == "0000-00-00T00:00:00Z")
        .and_then(|text| text.parse::<DateTime>().ok())
        .ok_or_else(|| Malformed(format!("{text:?} is not a time like 2030-01-01T00:00:00Z")))?;
    Ok(time
        .to_zoned(TimeZone::UTC)
        .map_or(Timestamp::MAX, |time| time.timestamp()))
}

/// Writes a time as metadata has it, without fractions of a second.
pub(crate) fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time `days` after `start`, for expiries.
pub fn days_after(start: Timestamp, days: u16) -> Timestamp {
    start
        .checked_add((i64::from(days) * 24).hours())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        parse_time(text).unwrap()
    }

    #[test]
    fn a_time_has_one_form() {
        assert_eq!(
            format_time(at("2030-01-31T23:59:59Z")),
            "2030-01-31T23:59:59Z"
        );
        assert_eq!(parse_time("9999-12-31T23:59:59Z"), Ok(Timestamp::MAX));
        for text in [
            "2030-01-01T00:00:00+00:00",
            "2030-01-01 00:00:00Z",
            "2030-01-01T00:00:00.5Z",
            "2030-02-30T00:00:00Z",
            "2030-1-1T0:0:0Z",
            "",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn expiry_counts_by_a_trusted_time_alone() {
        let expires = at("2030-01-01T00:00:00Z");
        assert!(Now::Trusted(expires).is_past(expires));
        assert!(!Now::Trusted(at("2029-12-31T23:59:59Z")).is_past(expires));
        assert!(!Now::AtLeast(at("2031-01-01T00:00:00Z")).is_past(expires));
    }

    #[test]
    fn a_lower_bound_is_the_latest_time_that_can_be_believed() {
        let build = at("2026-01-01T00:00:00Z");
        let later = at("2027-01-01T00:00:00Z");
        let never = at("9999-12-31T00:00:00Z");
        assert_eq!(lower_bound(build, None, None), build);
        assert_eq!(lower_bound(build, None, Some(Timestamp::UNIX_EPOCH)), build);
        assert_eq!(lower_bound(build, Some(later), Some(build)), later);
        assert_eq!(lower_bound(build, Some(never), Some(later)), later);
    }
}
