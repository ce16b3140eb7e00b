//! Who is there: births before all data, deaths after it, numbers that a host can follow.

use prost::Message as _;
use serde_json::json;

use super::{
    super::{
        edge::{Heard, Sent},
        wire::{Payload, Value},
    },
    bench::{Bench, reading, rebirth},
};
use crate::upstream::outbound::{Key, Outbound};

#[test]
fn a_session_begins_with_births_numbered_from_zero_and_the_wills_own_bd_seq() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    let will = Payload::decode(&*bench.edge.connect().payload).unwrap();
    assert_eq!(will.seq, None);
    assert_eq!(will.metrics[0].value, Some(Value::Long(0)));
    bench.birth();
    assert_eq!(bench.host.log, ["NBIRTH 0", "DBIRTH m 1"]);
    assert_eq!(bench.host.bd_seq, 0);
    bench.row("telemetry/m/voltage", reading(1.5, 20));
    assert_eq!(bench.host.log[2..], ["DDATA m 2"]);
    assert_eq!(bench.host.live["m/voltage"], json!(1.5));

    let will = Payload::decode(&*bench.edge.connect().payload).unwrap();
    assert_eq!(will.metrics[0].value, Some(Value::Long(1)));
    bench.birth();
    assert_eq!(bench.host.bd_seq, 1);
}

#[test]
fn bd_seq_and_seq_go_round_after_255() {
    let mut bench = Bench::new(None);
    for _ in 0..=256 {
        bench.edge.connect();
        bench.edge.connect();
        bench.edge.accepted();
    }
    bench.online("m", true);
    bench.birth();
    assert_eq!(bench.host.bd_seq, 0);
    for number in 0..600 {
        bench.row("telemetry/m/voltage", reading(f64::from(number), 20));
    }
    assert_eq!(bench.host.data, 600);
}

#[test]
fn births_wait_for_the_primary_host_and_the_session_ends_when_it_leaves() {
    let mut bench = Bench::new(Some("scada"));
    bench.edge.connect();
    bench.edge.accepted();
    assert!(!bench.edge.may_be_born());
    let mut state = |online, timestamp| {
        let payload = json!({ "online": online, "timestamp": timestamp }).to_string();
        bench
            .edge
            .received("spBv1.0/STATE/scada", payload.as_bytes(), true, bench.now);
        (bench.edge.may_be_born(), bench.edge.has_to_leave())
    };
    assert_eq!(
        state(false, 1_000),
        (false, false),
        "there is no other server to go to"
    );
    assert_eq!(state(true, 2_000), (true, false));
    bench.birth();
    let mut state = |online, timestamp| {
        let payload = json!({ "online": online, "timestamp": timestamp }).to_string();
        bench
            .edge
            .received("spBv1.0/STATE/scada", payload.as_bytes(), false, bench.now);
        bench.edge.has_to_leave()
    };
    assert!(!state(false, 1_500), "older than its birth");
    assert!(state(false, 2_000));
    bench.edge.connect();
    assert!(!bench.edge.may_be_born());
}

#[test]
fn a_device_that_goes_offline_dies_after_its_last_data_and_is_born_when_it_returns() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    bench.online("m", false);
    bench.row(
        "telemetry/m/voltage",
        br#"{"value":1.5,"time":"1970-01-01T00:00:20Z","quality":"stale"}"#.to_vec(),
    );
    assert!(bench.host.alive.contains_key("m"));
    assert_eq!(bench.host.quality["m/voltage"], 500);
    bench.now = bench.edge.poll_timeout().unwrap();
    bench.flush();
    assert_eq!(bench.host.log.last().unwrap(), "DDEATH m 3");
    assert_eq!(bench.edge.poll_timeout(), None);
    bench.online("m", true);
    bench.flush();
    assert_eq!(bench.host.log.last().unwrap(), "DBIRTH m 4");
}

#[test]
fn the_backlog_of_a_device_that_is_offline_goes_up_between_a_birth_and_a_death() {
    let mut bench = Bench::new(None);
    bench.online("m", false);
    bench.now_ms = 100_000;
    bench.connect();
    assert_eq!(bench.host.log, ["NBIRTH 0"]);
    bench.row("telemetry/m/voltage", reading(1.0, 50));
    bench.row("telemetry/m/voltage", reading(2.0, 51));
    bench.now = bench.edge.poll_timeout().unwrap();
    bench.flush();
    let expected = [
        "NBIRTH 0",
        "DBIRTH m 1",
        "DDATA m 2",
        "DDATA m 3",
        "DDEATH m 4",
    ];
    assert_eq!(bench.host.log, expected);
    assert_eq!(bench.host.history["m/voltage"].len(), 2);
}

#[test]
fn a_rebirth_is_sent_on_command_and_many_commands_get_one() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    let rebirth = rebirth();
    for _ in 0..50 {
        let heard = bench
            .edge
            .received("spBv1.0/plant/NCMD/gw", &rebirth, false, bench.now);
        assert_eq!(heard, Heard::Nothing);
    }
    bench.row("telemetry/m/voltage", reading(1.0, 20));
    assert_eq!(
        bench.host.log.len(),
        2,
        "no data before the births that were asked for"
    );
    bench.now = bench.edge.poll_timeout().unwrap();
    bench.flush();
    assert_eq!(bench.host.log[2..], ["NBIRTH 0", "DBIRTH m 1", "DDATA m 2"]);
    assert_eq!(bench.host.bd_seq, 0);
}

#[test]
fn what_no_configuration_describes_is_declared_by_a_birth_before_its_first_value() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    bench.row("telemetry/m/new", br#"{"value":"on"}"#.to_vec());
    bench.row("telemetry/press-3/count", b"7".to_vec());
    bench.row("telemetry/press-3/count", b"seven".to_vec());
    bench.row("telemetry/press-3/count", b"\xff".to_vec());
    assert_eq!(bench.host.live["m/new"], json!("on"));
    assert_eq!(bench.host.live["/telemetry/press-3/count"], json!([255]));
    let births = bench
        .host
        .log
        .iter()
        .filter(|line| line.starts_with("NBIRTH"));
    assert_eq!(
        births.count(),
        4,
        "the first, and one for each type: {:?}",
        bench.host.log
    );
}

#[test]
fn states_are_told_by_births_and_gaps_by_a_metric_of_the_node() {
    let mut bench = Bench::new(None);
    bench.connect();
    let state = bench.message(1, "state/m", br#"{"state":"online"}"#.to_vec());
    bench.edge.push(state);
    let sent = bench.edge.flush(bench.now, bench.now_ms);
    assert!(matches!(sent[..], [Sent::Said(Key::Row(1))]), "{sent:?}");
    let key = Key::Gap { id: 1, count: 3 };
    let gap = Outbound {
        key,
        packing: None,
        ..bench.message(
            2,
            "alert/gap/telemetry/m/voltage",
            b"{\"count\":3}".to_vec(),
        )
    };
    bench.edge.push(gap);
    bench.flush();
    assert_eq!(bench.host.live["/alert/gap"], json!("{\"count\":3}"));
}
