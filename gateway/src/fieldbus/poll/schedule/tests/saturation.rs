//! How much of a saturated line is used, in simulated time.
//!
//! The ceiling is what the line could carry at best with these requests: the characters of request
//! and answer at the line's bits per character, the 3.5 characters of silence that must follow
//! each frame (Modbus over serial line 2.5.1.1), and the time that the device takes for itself
//! beyond the silence after the request. A line that carried nothing else would be used to 100 %;
//! everything that the schedule lets lie idle or wastes on units that do not answer is missing.

use crate::fieldbus::wire::line_rate::LineRate;

use super::*;

/// What a device takes for itself.
const DEVICE: Duration = Duration::from_millis(5);
/// Units that may not answer get so much of a saturated bus at most.
const UNANSWERING: f64 = 0.1;

fn line(baud: u32) -> Bus {
    Bus { baud, ..bus() }
}

/// How long a read occupies the line at best.
fn at_best(rate: LineRate, request: &Request) -> Duration {
    let (sent, received) = request.frame_bytes();
    let after_request = rate.silence().max(DEVICE);
    rate.frame(sent) + after_request + rate.frame(received) + rate.silence()
}

/// Far more than a line carries: 20 units with points of four intervals, some read across holes.
fn units() -> Vec<config::Device> {
    let registers = |unit: u8| -> Vec<String> {
        let step = 1 + u16::from(unit % 4) * 40;
        (0..30).map(|at| format!("holding:{}", at * step)).collect()
    };
    let unit = |unit: u8| {
        let registers = registers(unit);
        let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
        let interval_ms = [50, 200, 500, 2_000][usize::from(unit % 4)];
        device(&format!("unit-{unit}"), unit, interval_ms, &registers)
    };
    (1..=20).map(unit).collect()
}

/// Share of the time spent on answered requests as fast as the line permits, over five minutes.
fn used(baud: u32, devices: &[config::Device], dead: fn(u8, Duration) -> bool) -> f64 {
    let rate = LineRate::of(&line(baud));
    let world = move |one: &Transaction, at: Duration| {
        if dead(one.unit, at) {
            return silent(one);
        }
        (at_best(rate, &one.request), healthy(one).1)
    };
    let mut sim = Sim::on(&line(baud), devices, Box::new(world));
    let (from, to) = (secs(30), secs(330));
    sim.run_until(to);
    let useful = sim
        .sent
        .iter()
        .enumerate()
        .filter(|(index, (at, _))| *at >= from && !sim.unanswered.contains(index));
    let useful: Duration = useful
        .map(|(_, (_, one))| at_best(rate, &one.request))
        .sum();
    useful.as_secs_f64() / (to - from).as_secs_f64()
}

#[test]
fn a_saturated_line_is_used_to_97_per_cent_of_its_ceiling() {
    for baud in [9_600, 19_200, 115_200] {
        let used = used(baud, &units(), |_, _| false);
        println!("{baud} baud: {:.2} % of the ceiling", used * 100.0);
        assert!((0.97..=1.001).contains(&used), "{baud} baud: {used}");
    }
}

#[test]
fn dead_units_take_no_more_than_their_share_of_a_saturated_line() {
    for baud in [9_600, 19_200, 115_200] {
        let dead = |unit: u8, at: Duration| match unit {
            3 | 7 | 12 => true,
            15 => (secs(60)..secs(200)).contains(&at),
            _ => false,
        };
        let used = used(baud, &units(), dead);
        println!(
            "{baud} baud with dead units: {:.2} % of the ceiling",
            used * 100.0
        );
        assert!(used >= 0.97 - UNANSWERING, "{baud} baud: {used}");
    }
}
