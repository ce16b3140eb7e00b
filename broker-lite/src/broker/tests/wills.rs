//! What MQTT and we promise: wills.

use super::*;

fn observed(sim: &mut Sim) -> Client {
    let observer = sim.client(V5, "observer");
    sim.subscribe(observer, "will", at(0));
    observer
}

fn with_will(connect: Connect, delay_s: Option<u32>) -> Connect {
    Connect {
        will: Some(will("will", delay_s)),
        ..connect
    }
}

#[test]
fn a_lost_connection_publishes_the_will_and_disconnect_calls_it_off_mqtt_3_1_2_8_10() {
    let mut sim = Sim::new();
    let observer = observed(&mut sim);
    let (client, _) = sim.connect(with_will(hello(V3, "c"), None));
    sim.send(client, goodbye());
    assert_eq!(sim.payloads(observer), Vec::<String>::new());
    let (client, _) = sim.connect(with_will(hello(V3, "c"), None));
    sim.lose(client);
    assert_eq!(sim.payloads(observer), ["will=gone"]);
}

#[test]
fn a_delayed_will_is_called_off_by_coming_back_in_time_mqtt_3_1_3_9() {
    let mut sim = Sim::new();
    let observer = observed(&mut sim);
    let (client, _) = sim.connect(with_will(lasting(V5, "c"), Some(10)));
    sim.lose(client);
    sim.pass(Duration::from_secs(9));
    let (client, _) = sim.connect(with_will(lasting(V5, "c"), Some(10)));
    sim.pass(Duration::from_secs(20));
    assert_eq!(sim.payloads(observer), Vec::<String>::new());
    sim.lose(client);
    sim.pass(Duration::from_secs(11));
    assert_eq!(sim.payloads(observer), ["will=gone"]);
}

#[test]
fn the_end_of_the_session_does_not_wait_for_the_wills_delay() {
    let mut sim = Sim::new();
    let observer = observed(&mut sim);
    let (client, _) = sim.connect(with_will(hello(V5, "c"), Some(10)));
    sim.lose(client);
    assert_eq!(sim.payloads(observer), ["will=gone"]);
}

#[test]
fn a_will_that_may_not_be_published_is_refused_at_connect() {
    let access = vec![allow(None, &["other"], &["#"])];
    let mut sim = Sim::with(Limits::default(), access, None);
    let client = sim.try_connect(with_will(hello(V5, "c"), None));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
}
