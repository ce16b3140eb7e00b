//! What the points say: each value as it was published, with its own time, live or as history.

use proptest::prelude::*;
use serde_json::json;

use super::{
    super::{
        datatype::{DataType, Published},
        edge::Sent,
        metrics,
    },
    bench::{Bench, reading, stamp},
};
use crate::config::{Point, PointType};

#[test]
fn after_an_outage_births_come_first_then_the_backlog_as_history_with_its_own_times() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.now_ms = 100_000;
    bench.learn("telemetry/m/voltage", &reading(9.0, 99));
    bench.connect();
    assert_eq!(
        bench.host.live["m/voltage"],
        json!(9.0),
        "the newest value, told by the birth"
    );
    for second in 50..=99 {
        bench.row("telemetry/m/voltage", reading(second as f64, second));
    }
    bench.row("telemetry/m/voltage", reading(10.0, 101));
    let times: Vec<_> = bench.host.history["m/voltage"]
        .iter()
        .map(|(time, _)| *time)
        .collect();
    assert_eq!(
        times,
        (50..=99).map(|second| second * 1_000).collect::<Vec<u64>>()
    );
    assert_eq!(bench.host.live["m/voltage"], json!(10.0));
}

#[test]
fn what_newer_data_has_overtaken_is_history() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    for second in [30, 20, 31] {
        bench.row("telemetry/m/voltage", reading(second as f64, second));
    }
    assert_eq!(bench.host.history["m/voltage"], [(20_000, json!(20.0))]);
    assert_eq!(bench.host.live["m/voltage"], json!(31.0));
}

#[test]
fn a_message_that_would_need_one_metric_too_many_is_refused_alone() {
    let mut bench = Bench::new(None);
    bench.connect();
    let topics = (0..=metrics::MAX_METRICS).map(|number| format!("x/{number}"));
    for (number, topic) in topics.enumerate() {
        let row = bench.message(number as i64, &topic, b"1".to_vec());
        bench.edge.push(row);
    }
    let sent = bench.edge.flush(bench.now, bench.now_ms);
    let refused = sent.iter().filter(|sent| matches!(sent, Sent::Never(..)));
    // Three of the metrics are the node's own.
    assert_eq!(refused.count(), 4);
}

#[test]
fn points_have_the_type_that_their_registers_hold() {
    let of = |kind, change: fn(&mut Point)| {
        let mut point = Point::example("holding:0", Some(kind));
        change(&mut point);
        DataType::of(&point)
    };
    assert_eq!(of(PointType::U16, |_| {}), DataType::UInt16);
    assert_eq!(of(PointType::I24, |_| {}), DataType::Int32);
    assert_eq!(of(PointType::U48, |_| {}), DataType::UInt64);
    assert_eq!(of(PointType::F32, |_| {}), DataType::Float);
    assert_eq!(
        of(PointType::F32, |point| point.scale = Some(0.1)),
        DataType::Double
    );
    assert_eq!(
        of(PointType::I16, |point| point.scale = Some(0.1)),
        DataType::Double
    );
    assert_eq!(
        of(PointType::U16, |point| point.bit = Some(3)),
        DataType::Boolean
    );
    assert_eq!(of(PointType::Raw, |_| {}), DataType::String);
    let named = |point: &mut Point| {
        point.values.0.insert(0, "off".to_owned());
    };
    assert_eq!(of(PointType::U16, named), DataType::String);
}

#[test]
fn a_value_too_wide_for_its_type_is_declared_anew_and_never_cut() {
    let wide = Published::Json(json!(70_000));
    assert_eq!(DataType::UInt16.write(&wide), None);
    assert_eq!(DataType::UInt16.wider(&wide), DataType::Double);
    let double = Published::Json(json!(0.123_456_789_012));
    assert_eq!(DataType::Float.write(&double), None);
}

proptest! {
    /// Whatever a point publishes reaches the host as it was, in the type that the last birth declared.
    #[test]
    fn every_value_arrives_as_it_was_published(
        values in prop::collection::vec(any_value(), 1..12),
        point in prop::sample::select(vec!["voltage", "setpoint", "valve", "mode", "count", "new"]),
    ) {
        let mut bench = Bench::new(None);
        bench.online("m", true);
        bench.connect();
        for (second, value) in values.into_iter().enumerate() {
            let payload = json!({ "value": value, "time": stamp(20 + second as u64) });
            bench.row(&format!("telemetry/m/{point}"), payload.to_string().into_bytes());
            let arrived = &bench.host.live[&format!("m/{point}")];
            let text = match &value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let same = arrived == &value
                || arrived == &json!(text)
                || arrived == &json!(text.as_bytes())
                || arrived.as_f64().zip(value.as_f64()).is_some_and(|(a, b)| a == b);
            prop_assert!(same, "{value} arrived as {arrived}");
        }
    }
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<u64>().prop_map(|value| json!(value)),
        any::<i16>().prop_map(|value| json!(value)),
        any::<f32>()
            .prop_filter("JSON has no others", |value| value.is_finite())
            .prop_map(|value| json!(value.to_string().parse::<f64>().unwrap())),
        any::<f64>()
            .prop_filter("JSON has no others", |value| value.is_finite())
            .prop_map(|value| json!(value)),
        ".{0,12}".prop_map(|value| json!(value)),
        prop::collection::vec("[a-z]{1,5}", 0..4).prop_map(|value| json!(value)),
    ]
}
