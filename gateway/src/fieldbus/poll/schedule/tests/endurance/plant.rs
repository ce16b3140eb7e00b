//! The plant: ten buses with twenty devices each, and what befalls them.

use crate::fieldbus::{register::Table, wire::line_rate::LineRate};

use super::*;

/// A read beside the points, for tools.
pub(super) const SOMEWHERE: Span = Span {
    table: Table::Holding,
    start: 900,
    count: 3,
};
/// How long a line is listened to after an answer that did not come.
pub(super) const FENCE: Duration = Duration::from_millis(30);
const BUSES: usize = 10;
const DEVICES: u8 = 20;
/// Of 25 points, so many are read at the short interval.
const FAST_POINTS: usize = 5;
/// The short and the long interval of the points of a bus with time to spare, and its time-out.
const RELAXED_MS: [u64; 3] = [10_000, 30_000, TIMEOUT_MS];
/// The same of the buses that are well booked: by 60 to 80 %.
const BOOKED_MS: [[u64; 3]; 6] = [
    [1_000, 10_000, 400],
    [1_000, 10_000, 600],
    [1_000, 7_000, 800],
    [1_000, 6_000, 800],
    [1_100, 6_000, 900],
    [1_200, 5_000, 1_000],
];
/// At the end everything is well for so long: a device that has been away is asked again.
const QUIET_END: Duration = Duration::from_secs(900);

/// What a device suffers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ill {
    /// It does not answer.
    Dead,
    /// It answers after the time-out four times of ten.
    Late,
    /// It answers that it is busy.
    Busy,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Episode {
    pub(super) unit: u8,
    pub(super) ill: Ill,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl Episode {
    pub(super) fn contains(&self, at: Duration) -> bool {
        at >= self.from && at < self.until
    }
}

/// One bus and what befalls it.
pub(super) struct Plant {
    /// That of the whole plant.
    pub(super) seed: u64,
    pub(super) bus: Bus,
    pub(super) devices: Vec<config::Device>,
    pub(super) episodes: Vec<Episode>,
    ports_down: Vec<(Duration, Duration)>,
}

/// All buses; a seed gives the same ones each time.
pub(super) fn plant(seed: u64, end: Duration) -> Vec<Plant> {
    let mut chance = Chance(seed ^ 0x5eed);
    let intervals = |bus| BOOKED_MS.get(bus).copied().unwrap_or(RELAXED_MS);
    (0..BUSES)
        .map(|bus| one_bus(seed, intervals(bus), &mut chance, end))
        .collect()
}

fn one_bus(
    seed: u64,
    [fast, slow, timeout]: [u64; 3],
    chance: &mut Chance,
    end: Duration,
) -> Plant {
    let last = end - QUIET_END;
    let mut episodes = Vec::new();
    // At most three devices of a bus are ill at a time, each for itself.
    for lane in 0..3 {
        let mut at = secs(120 + chance.below(300));
        while at < last {
            let unit = 1 + lane * 6 + u8::try_from(chance.below(6)).expect("small");
            let ill = [Ill::Dead, Ill::Dead, Ill::Late, Ill::Busy][chance.below(4) as usize];
            let until = (at + secs(90 + chance.below(900))).min(last);
            episodes.push(Episode {
                unit,
                ill,
                from: at,
                until,
            });
            at = until + secs(400 + chance.below(600));
        }
    }
    // At the start everything is due at once, as after a port was plugged in.
    let mut ports_down = vec![(Duration::ZERO, Duration::ZERO)];
    let mut at = secs(1_000 + chance.below(3_000));
    while at < last {
        let until = at + secs(5 + chance.below(60));
        ports_down.push((at, until));
        at = until + secs(2_000 + chance.below(4_000));
    }
    Plant {
        seed,
        bus: Bus {
            baud: 19_200,
            response_timeout: settings::Period::from_millis(timeout),
            ..bus()
        },
        devices: (1..=DEVICES)
            .map(|unit| one_device(unit, fast, slow))
            .collect(),
        episodes,
        ports_down,
    }
}

fn one_device(unit: u8, fast: u64, slow: u64) -> config::Device {
    // Two blocks with a gap that no request crosses at this rate.
    let registers: Vec<String> = (0..25)
        .map(|at| format!("holding:{}", if at < 15 { at } else { 200 + at }))
        .collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    let mut device = device(&format!("device-{unit}"), unit, slow, &registers);
    for point in &mut device.points[..FAST_POINTS] {
        point.interval = Some(settings::Period::from_millis(fast));
    }
    device
}

/// How often a point is read.
pub(super) fn interval(device: &config::Device, point: &str) -> Duration {
    let point = device.points.iter().find(|one| one.name == point);
    let own = point.and_then(|point| point.interval);
    own.unwrap_or(device.interval).as_duration()
}

impl Plant {
    pub(super) fn name(&self, unit: u8) -> &str {
        let device = self.devices.iter().find(|device| device.unit == unit);
        &device.expect("a unit of the plant").name
    }

    pub(super) fn device(&self, name: &str) -> &config::Device {
        let device = self.devices.iter().find(|device| device.name == name);
        device.expect("a device of the plant")
    }

    /// What a unit suffers from.
    pub(super) fn ill(&self, unit: u8, at: Duration) -> Option<Ill> {
        let mut episodes = self.episodes.iter();
        let found = episodes.find(|one| one.unit == unit && one.contains(at));
        found.map(|one| one.ill)
    }

    /// Whether nothing befell a unit or its bus in this time.
    pub(super) fn was_healthy(&self, unit: u8, from: Duration, to: Duration) -> bool {
        let of_unit = self.episodes.iter().filter(|one| one.unit == unit);
        let mut of_unit = of_unit.map(|one| (one.from, one.until + BACK_WITHIN));
        let mut ports = self.ports_down.iter();
        !of_unit.any(|one| one.0 <= to && one.1 >= from)
            && !ports.any(|one| one.0 <= to && one.1 + NOTICED_WITHIN >= from)
    }

    /// Whether an episode lasts long enough to be noticed, and no other and no port comes between.
    pub(super) fn is_lone(&self, one: &Episode, back: Duration) -> bool {
        let (from, until) = (one.from, one.until + back);
        let others = self.episodes.iter().filter(|other| other.unit == one.unit);
        let overlapping = others.filter(|other| other.from <= until && other.until + back >= from);
        let mut ports = self.ports_down.iter();
        one.until - one.from > NOTICED_WITHIN + secs(60)
            && overlapping.count() == 1
            && !ports.any(|port| port.0 <= until && port.1 + NOTICED_WITHIN >= from)
    }

    pub(super) fn port_is_up(&self, at: Duration) -> bool {
        let mut down = self.ports_down.iter();
        !down.any(|one| at >= one.0 && at < one.1)
    }

    /// When the port next goes or comes.
    pub(super) fn port_changes_after(&self, at: Duration) -> Option<Duration> {
        let changes = self.ports_down.iter().flat_map(|one| [one.0, one.1]);
        changes.filter(|change| *change > at).min()
    }

    /// The answer of a device that is well and takes `own` for itself.
    pub(super) fn answer(&self, one: &Transaction, own: Duration) -> (Duration, Reply) {
        let rate = LineRate::of(&self.bus);
        let (sent, received) = one.request.frame_bytes();
        let time = rate.frame(sent + received) + 2 * rate.silence() + own;
        (time, healthy(one).1)
    }
}
