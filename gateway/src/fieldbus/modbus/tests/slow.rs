//! A unit that has become slower than a busy bus can wait.

use super::*;

#[tokio::test]
async fn a_unit_that_answers_too_late_for_a_busy_bus_is_found_by_its_late_answers() {
    let cancel = CancellationToken::new();
    let slower = simulate::Device::new(Kind::Meter, 1);
    let devices = vec![slower.clone(), simulate::Device::new(Kind::Controller, 2)];
    let port = simulate::on_serial(devices, cancel.clone()).expect("a pty");
    // What the plan books of the line leaves no time to wait for 160 ms.
    let mut busy = plc(2);
    busy.interval = settings::Period::from_millis(150);
    let mut rig = Rig::new(bus(Some(port), None), vec![meter(1), busy], cancel);
    rig.reading("voltage").await;
    slower.misbehave(Faults {
        late: Duration::from_millis(160),
        silent: false,
    });
    rig.next_time_out().await;
    let since = clock::now();
    let is_newer = |one: &Reading| {
        &*one.point == "voltage"
            && one.quality == Quality::Good
            && one.stamp.monotonic > since.monotonic
    };
    for _ in 0..3 {
        rig.wait(|event| match event {
            Event::Readings(readings) => readings.into_iter().find(is_newer),
            _ => None,
        })
        .await;
    }
    rig.stop().await;
}
