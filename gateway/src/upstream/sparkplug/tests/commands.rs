//! What a host commands: writes on their local topics, and refusals in words.

use proptest::prelude::*;
use prost::Message as _;

use super::{
    super::{
        command::{self, Refused},
        edge::Heard,
        wire::{Metric, Payload, Value},
    },
    bench::{Bench, rebirth},
};

#[test]
fn commands_become_local_ones_by_name_or_alias() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    let alias = bench.host.alias("m/setpoint");
    let metric = |name: Option<&str>, alias, value| Metric {
        name: name.map(str::to_owned),
        alias,
        value,
        ..Metric::default()
    };
    let payload = Payload {
        metrics: vec![
            metric(
                Some("setpoint"),
                None,
                Some(Value::Int((-5_i32).cast_unsigned())),
            ),
            metric(None, Some(alias), Some(Value::Int(7))),
            metric(Some("valve"), None, Some(Value::Boolean(true))),
            metric(Some("voltage"), None, Some(Value::Float(0.1))),
            metric(Some("mode"), None, Some(Value::String("auto".to_owned()))),
            metric(Some("mode"), None, None),
        ],
        ..Payload::default()
    };
    let heard = bench.dcmd("m", &payload);
    let expected = [
        ("command/m/setpoint", "-5"),
        ("command/m/setpoint", "7"),
        ("command/m/valve", "true"),
        ("command/m/voltage", "0.1"),
        ("command/m/mode", "\"auto\""),
        ("command/m/mode", "null"),
    ];
    let expected = expected.map(|(topic, value)| (topic.to_owned(), value.to_owned()));
    assert_eq!(heard, Heard::Commands(expected.to_vec()));
}

#[test]
fn retained_misaddressed_and_excessive_commands_are_refused_in_words() {
    let mut bench = Bench::new(None);
    bench.connect();
    let now = bench.now;
    let mut said = |topic: &str, payload: &[u8], retained| match bench
        .edge
        .received(topic, payload, retained, now)
    {
        Heard::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(said("spBv1.0/plant/NCMD/gw", &rebirth(), true).contains("retained"));
    assert!(said("spBv1.0/plant/DCMD/other/m", &[], false).contains("nobody"));
    assert!(said("spBv1.0/plant/NCMD/gw", b"\xff", false).contains("no Sparkplug B payload"));
    let many = Payload {
        metrics: vec![Metric::default(); 65],
        ..Payload::default()
    };
    assert!(said("spBv1.0/plant/DCMD/gw/m", &many.encode_to_vec(), false).contains("65 writes"));
}

#[test]
fn a_payload_nested_without_end_is_refused() {
    // A field that the schema does not know is skipped, and a group in it is followed to its end: groups (wire types 3
    // and 4) of field 20, each in the one before, are all well-formed Protocol Buffers.
    let depth = 2_000;
    let payload = [[0xA3, 0x01].repeat(depth), [0xA4, 0x01].repeat(depth)].concat();
    let refused = command::writes(&payload, |_, _| None);
    assert!(
        matches!(refused, Err(Refused::Unreadable(_))),
        "{refused:?}"
    );
    let flat = [0xA3, 0x01, 0xA4, 0x01].repeat(depth);
    assert_eq!(command::writes(&flat, |_, _| None), Ok(Vec::new()));
}

proptest! {
    /// Nothing that comes down ends the session, and what it asks for is bounded.
    #[test]
    fn no_command_payload_ends_the_session(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        metrics in prop::collection::vec(any_metric(), 0..80),
        kind in prop::sample::select(vec!["NCMD/gw", "DCMD/gw/m", "DCMD/gw/unknown", "DCMD/gw", "XCMD/gw/m/n"]),
        cut in any::<prop::sample::Index>(),
        retained in any::<bool>(),
    ) {
        let mut bench = Bench::new(Some("scada"));
        bench.edge.connect();
        let mut encoded = Payload { metrics, ..Payload::default() }.encode_to_vec();
        let whole = encoded.clone();
        encoded.truncate(cut.index(encoded.len() + 1));
        for payload in [&payload, &encoded, &whole] {
            let topic = format!("spBv1.0/plant/{kind}");
            for topic in [topic.as_str(), "spBv1.0/STATE/scada", "spBv1.0", ""] {
                if let Heard::Commands(commands) = bench.edge.received(topic, payload, retained, bench.now) {
                    prop_assert!(commands.len() <= command::MAX_WRITES);
                    for (_, value) in commands {
                        prop_assert!(serde_json::from_str::<serde_json::Value>(&value).is_ok());
                    }
                }
            }
        }
    }
}

fn any_metric() -> impl Strategy<Value = Metric> {
    let value = prop_oneof![
        any::<u32>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::Long),
        any::<f32>().prop_map(Value::Float),
        any::<f64>().prop_map(Value::Double),
        any::<bool>().prop_map(Value::Boolean),
        ".{0,8}".prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
    ];
    let name = prop::option::of(prop_oneof![
        Just("Node Control/Rebirth".to_owned()),
        Just("setpoint".to_owned()),
        ".{0,8}"
    ]);
    let numbers = (
        prop::option::of(0_u64..10),
        prop::option::of(0_u32..40),
        prop::option::of(any::<bool>()),
    );
    (name, prop::option::of(value), numbers).prop_map(
        |(name, value, (alias, datatype, is_null))| Metric {
            name,
            value,
            alias,
            datatype,
            is_null,
            ..Metric::default()
        },
    )
}
