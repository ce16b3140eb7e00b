//! For how long a bus can be blocked.

use crate::fieldbus::poll::{forecast::Sending, schedule::slack};

use super::*;

/// Each request of these devices takes so long on the test's line, with the turnaround assumed.
fn time(registers: u16) -> Duration {
    Cost::of(&bus()).read(Span {
        table: crate::fieldbus::register::Table::Input,
        start: 0,
        count: registers,
    })
}

/// Devices, all of whose requests are due at the first moment.
fn room(devices: &[config::Device], most: Duration, at: Duration) -> Duration {
    let now = start().monotonic;
    let device = |one| Device::new(one, Cost::of(&bus()), now);
    let devices: Vec<Device> = devices.iter().map(device).collect();
    slack::room(&devices.iter().collect::<Vec<_>>(), most, now + at)
}

fn far_apart(requests: u16, interval_ms: u64) -> config::Device {
    let registers: Vec<String> = (0..requests)
        .map(|at| format!("input:{}", at * 200))
        .collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    device("a", 1, interval_ms, &registers)
}

#[test]
fn an_idle_bus_can_be_blocked_for_as_long_as_is_asked() {
    assert_eq!(room(&[], secs(5), Duration::ZERO), secs(5));
}

#[test]
fn what_is_due_is_sent_before_its_deadline_and_after_what_has_begun() {
    let ms = Duration::from_millis;
    let ten = [far_apart(10, 1_000)];
    let left = secs(1) - time(1) * 11;
    assert_eq!(room(&ten, secs(5), Duration::ZERO), left);
    assert_eq!(
        room(&ten, ms(100), Duration::ZERO),
        ms(100),
        "no more is asked for"
    );
    assert_eq!(room(&ten, secs(5), ms(250)), left - ms(250));
    assert_eq!(
        room(&ten, secs(5), ms(1_200)),
        Duration::ZERO,
        "late already"
    );
}

#[test]
fn what_becomes_due_meanwhile_counts() {
    // At 250 ms each; the slow one leaves time to spare, the fast one is sent four times by then.
    let fast = far_apart(3, 250);
    let mut slow = far_apart(20, 1_000);
    slow.unit = 2;
    let both = room(&[fast.clone(), slow.clone()], secs(5), Duration::ZERO);
    let (alone, slow) = (
        room(&[fast], secs(5), Duration::ZERO),
        room(&[slow], secs(5), Duration::ZERO),
    );
    assert_eq!(alone, Duration::from_millis(250) - time(1) * 4);
    assert!(both < slow - time(1) * 6, "{both:?} {slow:?}");
}

#[test]
fn a_bus_that_is_booked_whole_cannot_be_blocked() {
    let booked = far_apart(60, 1_000);
    assert!(time(1) * 60 > secs(1));
    assert_eq!(room(&[booked], secs(5), Duration::ZERO), Duration::ZERO);
}

#[test]
fn a_request_is_as_long_as_the_points_that_are_due_make_it() {
    let mut two = device("a", 1, 1_000, &["input:0", "input:1"]);
    two.points[1].interval = Some(settings::Period::from_secs(3));
    let now = start().monotonic;
    let device = Device::new(&two, Cost::of(&bus()), now);
    let poll = &device.polls[0];
    let sendings: Vec<Sending> = (0..7).map(|index| device.sending(poll, index)).collect();
    let times: Vec<Duration> = sendings.iter().map(|one| one.time).collect();
    let (short, long) = (time(1), time(2));
    assert_eq!(times, [long, short, short, long, short, short, long]);
    assert_eq!(sendings[3].due, now + secs(3));
    assert_eq!(sendings[3].deadline, now + secs(4));
}
