//! What storing costs the medium, and how long it will last, as status, metrics and JSON show it.
//! Values.
//!
//! Invariant: what is assumed and not known is said to be assumed.

use std::fmt::Write;

use broker_lite::observe::metrics::{Exposition, counter, gauge};
use serde::{Deserialize, Serialize};

use crate::wording::{about, counted};

const DAYS_PER_YEAR: u64 = 365;
/// Years beyond which nobody asks.
const MANY_YEARS: u64 = 100;

/// What storing costs the medium.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WearStatus {
    /// Payload bytes kept since the start.
    pub payload_bytes: u64,
    /// Bytes written to the medium for the buffer's files since the start, in whole pages.
    pub written_bytes: u64,
    /// The second by the first; absent while nothing was kept.
    pub written_per_payload_byte: Option<f64>,
    /// Payload bytes kept since the file was made.
    pub life_payload_bytes: u64,
    /// Bytes written for the buffer's files since then.
    pub life_written_bytes: u64,
    /// The device that holds them; absent where the kernel names none.
    pub device: Option<StorageStatus>,
}

/// The device that holds the buffer, and what everybody writes to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// The kernel's name.
    pub name: String,
    /// Bytes that it holds.
    pub size_bytes: u64,
    /// Bytes that all programs wrote to it while it was watched.
    pub written_bytes: u64,
    /// For how many seconds it was watched.
    pub watched_s: u64,
    /// Bytes a day, averaged over days; absent within the first hour.
    pub bytes_per_day: Option<u64>,
    /// Bytes that can be written to it.
    pub endurance_bytes: u64,
    /// Whether that is assumed from its size and not configured.
    pub endurance_assumed: bool,
    /// Days until that is used up at this pace.
    pub days_left: Option<u64>,
    /// Its own estimate; absent where it gives none.
    pub own_estimate: Option<OwnEstimateStatus>,
}

/// What an eMMC says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnEstimateStatus {
    /// At most so many percent of its life are used.
    pub used_percent: u8,
    /// What is left of its spare blocks.
    pub spare_blocks: String,
}

/// A line on the buffer's own writing and one on the device's life, where there is something to
/// say.
pub(super) fn lines(wear: &WearStatus) -> String {
    let mut text = String::new();
    if let Some(share) = wear.written_per_payload_byte {
        let _infallible = write!(
            text,
            "\n    wear: {} written for {} of payload, {share:.1} bytes per byte",
            about(wear.written_bytes),
            about(wear.payload_bytes)
        );
    }
    if let Some(device) = &wear.device {
        let _infallible = write!(text, "\n    {}: {}", device.name, life(device));
    }
    text
}

fn life(device: &StorageStatus) -> String {
    let mut text = match (device.bytes_per_day, device.days_left) {
        (None, _) => "its life is projected after an hour".to_owned(),
        (Some(bytes), None) => format!("{} a day by all programs", about(bytes)),
        (Some(bytes), Some(days)) => format!(
            "{} a day by all programs, {} left of {}",
            about(bytes),
            span(days),
            about(device.endurance_bytes)
        ),
    };
    if device.endurance_assumed && device.days_left.is_some() {
        text += " (assumed: 300 times its size; see [buffer] endurance)";
    }
    if let Some(own) = &device.own_estimate {
        let _infallible = write!(
            text,
            "; it says itself: at most {} % of its life used, spare blocks {}",
            own.used_percent, own.spare_blocks
        );
    }
    text
}

fn span(days: u64) -> String {
    match days / DAYS_PER_YEAR {
        0 => counted(days as usize, "day", "days"),
        years if years >= MANY_YEARS => format!("over {MANY_YEARS} years"),
        years => {
            let days = counted((days % DAYS_PER_YEAR) as usize, "day", "days");
            format!("{} and {days}", counted(years as usize, "year", "years"))
        }
    }
}

/// The same as OpenMetrics.
pub(super) fn expose(text: &mut Exposition, wear: &WearStatus) {
    for (name, value, help) in [
        (
            "gateway_buffer_payload_bytes",
            wear.payload_bytes,
            "Bytes of the payloads of the messages kept.",
        ),
        (
            "gateway_buffer_written_bytes",
            wear.written_bytes,
            "Bytes written to the medium for the buffer's files, in whole pages.",
        ),
        (
            "gateway_buffer_life_payload_bytes",
            wear.life_payload_bytes,
            "Bytes of the payloads of the messages kept since the file was made.",
        ),
        (
            "gateway_buffer_life_written_bytes",
            wear.life_written_bytes,
            "Bytes written to the medium for the buffer's files since the file was made.",
        ),
    ] {
        text.single(counter(name, help), value as f64);
    }
    let Some(device) = &wear.device else { return };
    let written = "Bytes that all programs wrote to the buffer's device while it was watched.";
    text.single(
        counter("gateway_storage_written_bytes", written),
        device.written_bytes as f64,
    );
    let own = device.own_estimate.as_ref();
    for (name, value, help) in [
        (
            "gateway_storage_bytes_per_day",
            device.bytes_per_day,
            "Bytes a day written to the buffer's device, averaged over days.",
        ),
        (
            "gateway_storage_endurance_bytes",
            Some(device.endurance_bytes),
            "Bytes that can be written to the buffer's device, configured or assumed.",
        ),
        (
            "gateway_storage_days_left",
            device.days_left,
            "Days until the endurance of the buffer's device is used up at this pace.",
        ),
        (
            "gateway_storage_own_used_percent",
            own.map(|own| u64::from(own.used_percent)),
            "Share of its life that the buffer's device says is used, in percent.",
        ),
    ] {
        if let Some(value) = value {
            text.single(gauge(name, help), value as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> StorageStatus {
        StorageStatus {
            name: "mmcblk0".to_owned(),
            size_bytes: 32 << 30,
            written_bytes: 10 << 30,
            watched_s: 86_400,
            bytes_per_day: Some(300 << 20),
            endurance_bytes: 9600 << 30,
            endurance_assumed: true,
            days_left: Some(365 * 89 + 5),
            own_estimate: None,
        }
    }

    #[test]
    fn the_projected_life_says_what_is_assumed() {
        let wear = WearStatus {
            payload_bytes: 100 << 10,
            written_bytes: 1200 << 10,
            written_per_payload_byte: Some(12.0),
            device: Some(card()),
            ..WearStatus::default()
        };
        assert_eq!(
            lines(&wear),
            "\n    wear: 1.2 MiB written for 100 KiB of payload, 12.0 bytes per byte\n    mmcblk0: 300.0 MiB a \
             day by all programs, 89 years and 5 days left of 9600.0 GiB (assumed: 300 times its size; \
             see [buffer] endurance)"
        );
    }

    #[test]
    fn a_configured_endurance_is_not_called_assumed_and_an_emmc_has_its_say() {
        let device = StorageStatus {
            endurance_assumed: false,
            own_estimate: Some(OwnEstimateStatus {
                used_percent: 20,
                spare_blocks: "normal".to_owned(),
            }),
            ..card()
        };
        assert_eq!(
            life(&device),
            "300.0 MiB a day by all programs, 89 years and 5 days left of 9600.0 GiB; it says itself: \
             at most 20 % of its life used, spare blocks normal"
        );
    }

    #[test]
    fn nothing_is_projected_before_enough_is_known() {
        let device = StorageStatus {
            bytes_per_day: None,
            days_left: None,
            ..card()
        };
        assert_eq!(life(&device), "its life is projected after an hour");
    }
}
