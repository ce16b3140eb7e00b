//! Which unit to ask next at which line setting, and what was found. A core.
//!
//! Where the line setting is not known, a few usual units are asked at every setting first, the
//! usual settings first; once a unit answers, its setting is the bus', and only the other units are
//! left to ask. Bytes that cannot be read are a sign of a slow or badly set unit: it is asked again
//! with more patience, and so is the one before, whose late answer it may be.
//!
//! Invariant: each unit is asked once per setting, and at most once more with patience.

use std::{collections::VecDeque, fmt, ops::RangeInclusive, time::Duration};

use serde::Serialize;

use crate::{config::Parity, fieldbus::wire::line_rate::LineRate};

/// Units that are asked first: what devices come with from the factory.
const USUAL_UNITS: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 247];
/// Rates that are tried, the usual ones first.
pub(crate) const BAUDS: [u32; 8] = [9_600, 19_200, 115_200, 38_400, 4_800, 57_600, 2_400, 1_200];
/// Parities that are tried, the usual ones first.
pub(crate) const PARITIES: [Parity; 3] = [Parity::None, Parity::Even, Parity::Odd];
/// How long a unit may take that is asked with patience.
pub(crate) const PATIENT: Duration = Duration::from_secs(1);
/// Bytes of the request and of its answer, of silences and of what drains the line after a
/// time-out.
const FRAME_BYTES: usize = 8;
const FENCE: Duration = Duration::from_millis(30);

/// How bits stand on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Bits per second.
    pub(crate) baud: u32,
    /// Parity bit.
    pub(crate) parity: Parity,
    /// Stop bits.
    pub(crate) stop_bits: u8,
}

/// `9600 8N1`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        write!(f, "{} 8{parity}{}", self.baud, self.stop_bits)
    }
}

impl Serialize for Setting {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// All settings of these parts, those first whose parts stand first. Without stop bits those of the
/// specification: a unit that is set to one hears two as well, for a pause follows each character.
pub(crate) fn settings(bauds: &[u32], parities: &[Parity], stop_bits: &[u8]) -> Vec<Setting> {
    let mut ranked = Vec::new();
    for (rank, baud) in bauds.iter().enumerate() {
        for (odd, parity) in parities.iter().enumerate() {
            let usual = [parity.usual_stop_bits()];
            let stop_bits = match stop_bits {
                [] => &usual[..],
                given => given,
            };
            for (long, stop_bits) in stop_bits.iter().enumerate() {
                let setting = Setting {
                    baud: *baud,
                    parity: *parity,
                    stop_bits: *stop_bits,
                };
                ranked.push((rank + odd + 4 * long + 4 * odd.saturating_sub(1), setting));
            }
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, setting)| setting).collect()
}

/// One unit to be asked at one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Index of the setting.
    pub(crate) setting: usize,
    /// Unit identifier.
    pub(crate) unit: u8,
    /// Whether it is given [`PATIENT`] time.
    pub(crate) patient: bool,
}

/// What was heard of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It answered, be it with an exception.
    Answer,
    /// Something came that cannot be read.
    Noise,
    /// Nothing.
    Silence,
}

/// A scan under way.
#[derive(Debug)]
pub(crate) struct Scan {
    settings: Vec<Setting>,
    /// Goes on at other settings after a unit was found.
    thorough: bool,
    timeout: Duration,
    /// Nothing but time-outs counts over TCP.
    on_a_line: bool,
    steps: VecDeque<Step>,
    done: usize,
    last: Option<Step>,
    settled: bool,
    /// Settings at which something was heard that could not be read, with the unit asked.
    noises: Vec<(usize, u8)>,
}

impl Scan {
    /// A scan of these units; `timeout` is how long each may take.
    pub(crate) fn new(
        settings: Vec<Setting>,
        units: RangeInclusive<u8>,
        timeout: Duration,
        thorough: bool,
        on_a_line: bool,
    ) -> Scan {
        let usual: Vec<u8> = USUAL_UNITS
            .into_iter()
            .filter(|unit| units.contains(unit))
            .collect();
        let others = units.clone().filter(|unit| !USUAL_UNITS.contains(unit));
        let all: Vec<u8> = if settings.len() > 1 {
            usual.iter().copied().chain(others).collect()
        } else {
            units.collect()
        };
        let (first, rest) = all.split_at(if settings.len() > 1 { usual.len() } else { 0 });
        let step = |setting: usize, unit: u8| Step {
            setting,
            unit,
            patient: false,
        };
        let mut steps = VecDeque::new();
        for part in [first, rest] {
            for setting in 0..settings.len() {
                steps.extend(part.iter().map(|unit| step(setting, *unit)));
            }
        }
        Scan {
            settings,
            thorough,
            timeout,
            on_a_line,
            steps,
            done: 0,
            last: None,
            settled: false,
            noises: Vec::new(),
        }
    }

    /// The next unit to ask; `None` at the end.
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        let step = self.steps.pop_front()?;
        self.done += 1;
        Some(step)
    }

    /// The setting of a step.
    pub(crate) fn setting(&self, step: Step) -> Setting {
        self.settings[step.setting]
    }

    /// How long the unit of a step may take.
    pub(crate) fn timeout(&self, step: Step) -> Duration {
        if step.patient {
            self.timeout.max(PATIENT)
        } else {
            self.timeout
        }
    }

    /// Takes what came of a step.
    pub(crate) fn heard(&mut self, step: Step, heard: Heard) {
        match heard {
            Heard::Answer => self.settle(step.setting),
            Heard::Noise if step.patient => self.noises.push((step.setting, step.unit)),
            Heard::Noise => self.ask_again(step),
            Heard::Silence => {}
        }
        if !step.patient {
            self.last = (heard == Heard::Silence).then_some(step);
        }
    }

    /// Settings and units at which something was heard that could not be read.
    pub(crate) fn noises(&self) -> impl Iterator<Item = (Setting, u8)> {
        self.noises
            .iter()
            .map(|(setting, unit)| (self.settings[*setting], *unit))
    }

    /// Units asked so far, and how many there are at most.
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.done, self.done + self.steps.len())
    }

    /// How long the rest takes if nothing answers.
    pub(crate) fn remaining(&self) -> Duration {
        self.steps.iter().map(|step| self.time(*step)).sum()
    }

    fn time(&self, step: Step) -> Duration {
        let timeout = self.timeout(step);
        if !self.on_a_line {
            return timeout;
        }
        let Setting {
            baud,
            parity,
            stop_bits,
        } = self.setting(step);
        let rate = LineRate::new(baud, parity, Some(stop_bits));
        timeout + rate.frame(2 * FRAME_BYTES) + rate.silence() + FENCE
    }

    /// The bus has this setting: the other units are asked at it, and nothing else.
    fn settle(&mut self, setting: usize) {
        if self.settled || self.thorough {
            return;
        }
        self.settled = true;
        self.steps.retain(|step| step.setting == setting);
    }

    fn ask_again(&mut self, step: Step) {
        let patiently = |step: Step| Step {
            patient: true,
            ..step
        };
        self.steps.push_front(patiently(step));
        if let Some(before) = self.last.filter(|last| last.setting == step.setting) {
            self.steps.push_front(patiently(before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    /// Runs a scan of a bus with one setting; what was found, and how often was asked.
    fn run(scan: &mut Scan, bus: Setting, present: &[u8]) -> (Vec<(Setting, u8)>, usize) {
        let (mut found, mut asked) = (Vec::new(), 0);
        while let Some(step) = scan.next_step() {
            asked += 1;
            let setting = scan.setting(step);
            let heard = if setting == bus && present.contains(&step.unit) {
                found.push((setting, step.unit));
                Heard::Answer
            } else {
                Heard::Silence
            };
            scan.heard(step, heard);
        }
        (found, asked)
    }

    fn every_setting() -> Vec<Setting> {
        settings(&BAUDS, &PARITIES, &[])
    }

    #[test]
    fn usual_settings_are_tried_first() {
        let shown: Vec<String> = every_setting().iter().map(ToString::to_string).collect();
        let first = [
            "9600 8N2",
            "9600 8E1",
            "19200 8N2",
            "19200 8E1",
            "115200 8N2",
        ];
        assert_eq!(shown[..5], first);
        assert_eq!(shown.len(), 24);
    }

    #[test]
    fn a_usual_unit_settles_the_line_and_the_others_are_asked_there_alone() {
        let mut scan = Scan::new(every_setting(), 1..=247, TIMEOUT, false, true);
        let bus = every_setting()[3];
        let (found, asked) = run(&mut scan, bus, &[2, 200]);
        assert_eq!(found, [(bus, 2), (bus, 200)]);
        let quick = USUAL_UNITS.len();
        assert_eq!(
            asked,
            3 * quick + 247,
            "the settings before, then all units of this one"
        );
    }

    #[test]
    fn an_unusual_unit_is_found_at_the_price_of_all_settings() {
        let mut scan = Scan::new(every_setting(), 1..=247, TIMEOUT, false, true);
        let bus = every_setting()[1];
        let (found, asked) = run(&mut scan, bus, &[77]);
        assert_eq!(found, [(bus, 77)]);
        assert!(asked < 24 * 247, "{asked}");
    }

    #[test]
    fn a_thorough_scan_goes_on_at_every_setting() {
        let mut scan = Scan::new(every_setting(), 1..=20, TIMEOUT, true, true);
        let (_, asked) = run(&mut scan, every_setting()[0], &[1]);
        assert_eq!(asked, 24 * 20);
    }

    #[test]
    fn noise_is_asked_again_with_patience_and_so_is_the_unit_before() {
        let mut scan = Scan::new(vec![every_setting()[0]], 1..=3, TIMEOUT, false, true);
        let first = scan.next_step().unwrap();
        scan.heard(first, Heard::Silence);
        let second = scan.next_step().unwrap();
        scan.heard(second, Heard::Noise);
        let mut rest = Vec::new();
        while let Some(step) = scan.next_step() {
            rest.push((step.unit, step.patient, scan.timeout(step)));
            scan.heard(
                step,
                if step.unit == 2 {
                    Heard::Noise
                } else {
                    Heard::Silence
                },
            );
        }
        assert_eq!(
            rest,
            [(1, true, PATIENT), (2, true, PATIENT), (3, false, TIMEOUT)]
        );
        assert_eq!(scan.noises().map(|(_, unit)| unit).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_estimate_shrinks_to_nothing() {
        let mut scan = Scan::new(vec![every_setting()[0]], 1..=10, TIMEOUT, false, true);
        let before = scan.remaining();
        assert!(
            before > 10 * TIMEOUT && before < 10 * (TIMEOUT + 2 * FENCE),
            "{before:?}"
        );
        while let Some(step) = scan.next_step() {
            scan.heard(step, Heard::Silence);
        }
        assert_eq!(
            (scan.remaining(), scan.progress()),
            (Duration::ZERO, (10, 10))
        );
    }
}
