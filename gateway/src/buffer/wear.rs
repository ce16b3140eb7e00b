//! Keeps the account of what storing costs the medium, and projects how long that can go on.
//!
//! Invariant: counters only grow, and a wrong wall clock changes nothing: time is that since boot.
//! Layer: core.

use std::time::Duration;

/// How far back the daily average looks: what was written a week ago counts a third.
const MEMORY: Duration = Duration::from_secs(7 * 86_400);
/// From less than this no average is drawn.
const MIN_OBSERVED: Duration = Duration::from_secs(3600);
const DAY_S: f64 = 86_400.0;

/// What is assumed of a medium that nothing is known of: so many times its size can be written.
/// Consumer cards survive about 1,000 erasures of each cell; a third is left when each small write
/// costs the card three times its size inside.
pub(crate) const ASSUMED_ENDURANCE: u64 = 300;

/// A block device at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Names the boot.
    pub(crate) boot: i64,
    /// Time since it.
    pub(crate) uptime: Duration,
    /// Bytes written to the device since it, by everybody.
    pub(crate) written: u64,
    /// Bytes that it holds.
    pub(crate) size: u64,
}

/// Payload that came in and bytes that were written for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Payload bytes kept.
    pub(crate) payload: u64,
    /// Bytes that went to the medium for the buffer's files.
    pub(crate) written: u64,
}

/// What the device has taken, by the account.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Taken {
    size: u64,
    written: u64,
    observed_s: f64,
    /// The same, fading with age.
    recent_bytes: f64,
    recent_s: f64,
}

/// How long the device will last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Projection {
    /// Bytes written to it since the account began.
    pub(crate) written: u64,
    /// For how long it was watched.
    pub(crate) observed: Duration,
    /// Bytes a day, lately; `None` while it was watched too short.
    pub(crate) per_day: Option<u64>,
    /// Days until the endurance is used up at that pace; `None` likewise, or when nothing is
    /// written.
    pub(crate) days_left: Option<u64>,
}

/// See the module's description.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Book {
    /// Of earlier runs.
    before: Cost,
    since_start: Cost,
    device: Taken,
    last: Option<Sample>,
    recalled: bool,
}

/// Names under which the book is kept in the file.
const MARKS: [&str; 9] = [
    "wear-payload",
    "wear-written",
    "wear-device-size",
    "wear-device-written",
    "wear-device-observed-s",
    "wear-device-recent-bytes",
    "wear-device-recent-s",
    "wear-last-boot",
    "wear-last-written",
];
const LAST_UPTIME: &str = "wear-last-uptime-s";

impl Book {
    /// Takes over what an earlier run wrote down, once.
    pub(crate) fn recall(&mut self, read: impl Fn(&str) -> Option<i64>) {
        if std::mem::replace(&mut self.recalled, true) {
            return;
        }
        let number = |name: &str| read(name).map_or(0, |value| value.max(0) as u64);
        let [
            payload,
            written,
            size,
            device,
            observed,
            bytes,
            seconds,
            boot,
            last,
        ] = MARKS.map(number);
        self.before = Cost { payload, written };
        self.device = Taken {
            size,
            written: device,
            observed_s: observed as f64,
            recent_bytes: bytes as f64,
            recent_s: seconds as f64,
        };
        self.last = read(LAST_UPTIME).map(|uptime_s| Sample {
            boot: boot as i64,
            uptime: Duration::from_secs(uptime_s.max(0) as u64),
            written: last,
            size,
        });
    }

    /// What is to be written down.
    pub(crate) fn marks(&self) -> Vec<(&'static str, i64)> {
        let life = self.life();
        let last = self.last;
        let values = [
            life.payload,
            life.written,
            self.device.size,
            self.device.written,
            self.device.observed_s as u64,
            self.device.recent_bytes as u64,
            self.device.recent_s as u64,
            last.map_or(0, |last| last.boot as u64),
            last.map_or(0, |last| last.written),
        ];
        let values = values.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
        let mut marks: Vec<_> = MARKS.into_iter().zip(values).collect();
        if let Some(last) = last {
            marks.push((LAST_UPTIME, last.uptime.as_secs() as i64));
        }
        marks
    }

    /// Payloads were kept.
    pub(crate) fn kept(&mut self, bytes: u64) {
        self.since_start.payload += bytes;
    }

    /// So much has been written for the buffer since the start.
    pub(crate) fn wrote(&mut self, since_start: u64) {
        self.since_start.written = self.since_start.written.max(since_start);
    }

    /// Since the start.
    pub(crate) fn since_start(&self) -> Cost {
        self.since_start
    }

    /// Over all runs.
    pub(crate) fn life(&self) -> Cost {
        Cost {
            payload: self.before.payload + self.since_start.payload,
            written: self.before.written + self.since_start.written,
        }
    }

    /// Enters what the device says. One of another size is another device, and counts from zero.
    pub(crate) fn observe(&mut self, now: Sample) {
        if self.device.size != now.size {
            self.device = Taken {
                size: now.size,
                ..Taken::default()
            };
            self.last = None;
        }
        let (bytes, time) = match self.last.filter(|last| last.boot == now.boot) {
            Some(last) if last.written > now.written || last.uptime > now.uptime => return,
            Some(last) => (now.written - last.written, now.uptime - last.uptime),
            // Whatever was written since boot, it was to this device.
            None => (now.written, now.uptime),
        };
        let seconds = time.as_secs_f64();
        let fading = (-seconds / MEMORY.as_secs_f64()).exp();
        let device = &mut self.device;
        device.written += bytes;
        device.observed_s += seconds;
        device.recent_bytes = device.recent_bytes * fading + bytes as f64;
        device.recent_s = device.recent_s * fading + seconds;
        self.last = Some(now);
    }

    /// How long the device lasts when so many bytes can be written to it.
    pub(crate) fn project(&self, endurance: u64) -> Projection {
        let device = &self.device;
        let enough = device.recent_s >= MIN_OBSERVED.as_secs_f64();
        let per_day = enough.then(|| device.recent_bytes / device.recent_s * DAY_S);
        let left = endurance.saturating_sub(device.written) as f64;
        Projection {
            written: device.written,
            observed: Duration::from_secs_f64(device.observed_s),
            per_day: per_day.map(|bytes| bytes as u64),
            days_left: per_day
                .filter(|bytes| *bytes >= 1.0)
                .map(|bytes| (left / bytes) as u64),
        }
    }
}

/// What an eMMC says of its own wear [JESD84-B51, 7.4.83 to 7.4.85].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnEstimate {
    /// Its life is used up by at most so many percent; above 100: it is past its end.
    pub used_percent: u8,
    /// What is left of its spare blocks.
    pub spare: Spare,
}

/// What is left of an eMMC's spare blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// It does not say.
    Unknown,
    /// Enough.
    Normal,
    /// 80 % are used.
    Warning,
    /// 90 % are used.
    Urgent,
}

impl Spare {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Spare::Unknown => "unknown",
            Spare::Normal => "normal",
            Spare::Warning => "80 % used",
            Spare::Urgent => "90 % used",
        }
    }
}

/// Reads the kernel's `life_time` (`0x01 0x02`, in tenths, for both kinds of memory) and
/// `pre_eol_info` (`0x01`); the worse kind counts.
pub(crate) fn own_estimate(life_time: &str, pre_eol_info: &str) -> Option<OwnEstimate> {
    let hex = |word: &str| u8::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok();
    let tenths = life_time.split_whitespace().filter_map(hex).max();
    // Zero says that it is not told, above 11 is reserved.
    let tenths = tenths.filter(|tenths| (1..=11).contains(tenths))?;
    Some(OwnEstimate {
        used_percent: tenths * 10,
        spare: match hex(pre_eol_info) {
            Some(1) => Spare::Normal,
            Some(2) => Spare::Warning,
            Some(3) => Spare::Urgent,
            _ => Spare::Unknown,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 32 << 30;
    const HOUR: u64 = 3600;

    fn at(boot: i64, hours: u64, written: u64) -> Sample {
        Sample {
            boot,
            uptime: Duration::from_secs(hours * HOUR),
            written,
            size: SIZE,
        }
    }

    #[test]
    fn the_life_left_is_what_the_endurance_leaves_at_the_pace_of_late() {
        let mut book = Book::default();
        book.observe(at(1, 24, 10 << 30));
        let projection = book.project(100 << 30);
        assert_eq!(projection.per_day, Some(10 << 30));
        assert_eq!(projection.days_left, Some(9), "of 100 GiB ten are used");
        assert_eq!(projection.observed, Duration::from_secs(24 * HOUR));
    }

    #[test]
    fn nothing_is_projected_from_minutes() {
        let mut book = Book::default();
        let mut sample = at(1, 0, 1 << 30);
        sample.uptime = Duration::from_secs(600);
        book.observe(sample);
        let projection = book.project(100 << 30);
        assert_eq!((projection.per_day, projection.days_left), (None, None));
        assert_eq!(projection.written, 1 << 30);
    }

    #[test]
    fn the_pace_of_late_counts_more_than_that_of_long_ago() {
        let mut book = Book::default();
        book.observe(at(1, 24, 10 << 30));
        let mut written = 10 << 30;
        for day in 2..=30 {
            written += 1 << 30;
            book.observe(at(1, 24 * day, written));
        }
        let per_day = book.project(u64::MAX).per_day.expect("long enough") as f64;
        assert!(per_day < 1.1 * (1 << 30) as f64, "{per_day}");
    }

    #[test]
    fn the_account_goes_on_over_restarts_and_boots_and_begins_anew_on_another_card() {
        let mut book = Book::default();
        book.recall(|_| None);
        book.kept(100);
        book.wrote(4096);
        book.observe(at(7, 10, 1000));
        let marks = book.marks();
        let read = |name: &str| {
            let found = marks.iter().find(|(mark, _)| *mark == name);
            found.map(|(_, value)| *value)
        };

        let mut again = Book::default();
        again.recall(read);
        again.kept(50);
        assert_eq!(again.since_start().payload, 50);
        let life = again.life();
        assert_eq!((life.payload, life.written), (150, 4096));
        again.observe(at(7, 11, 1500));
        assert_eq!(again.project(0).written, 1500, "in the same boot");
        again.observe(at(8, 2, 200));
        assert_eq!(again.project(0).written, 1700, "since the next boot");
        again.observe(at(8, 1, 100));
        assert_eq!(again.project(0).written, 1700, "a counter never falls");
        again.observe(Sample {
            size: 2 * SIZE,
            ..at(8, 3, 300)
        });
        assert_eq!(again.project(0).written, 300);
    }

    #[test]
    fn a_file_that_is_opened_again_while_in_use_is_not_counted_twice() {
        let mut book = Book::default();
        book.recall(|_| Some(5));
        book.recall(|_| Some(9));
        assert_eq!(book.life().payload, 5);
    }

    #[test]
    fn an_emmc_tells_the_worse_of_its_two_memories() {
        let read = |life, spare| own_estimate(life, spare);
        let told = read("0x01 0x03\n", "0x01\n").expect("it is told");
        assert_eq!((told.used_percent, told.spare), (30, Spare::Normal));
        let old = read("0x0b 0x01", "0x03").expect("it is told");
        assert_eq!((old.used_percent, old.spare), (110, Spare::Urgent));
        assert_eq!(read("0x00 0x00", "0x00"), None);
        assert_eq!(read("", ""), None);
    }
}
