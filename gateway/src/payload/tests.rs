//! What is published and understood, byte for byte.

use std::time::Instant;

use super::*;

#[expect(clippy::disallowed_methods, reason = "tests: any moment will do")]
fn stamp() -> Stamp {
    Stamp {
        wall: "2026-11-22T11:35:17.1239Z".parse().unwrap(),
        monotonic: Instant::now(),
        clock: ClockState::Synced,
    }
}

fn reading(point: &str, value: Value) -> Reading {
    Reading {
        device: "meter-1".into(),
        point: point.into(),
        value: Some(value),
        unit: None,
        stamp: stamp(),
        quality: Quality::Good,
        reason: None,
    }
}

fn published(event: &Event, publish: Publish) -> Vec<Message> {
    messages(event, |_| publish, &mut Sequences::default())
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

fn payload_of(value: Value) -> String {
    let event = Event::Readings(vec![reading("p", value)]);
    text(&published(&event, Publish::Point)[0]).to_owned()
}

fn command_message(topic: &str, payload: &str) -> Message {
    Message::new(TopicName::parse(topic).unwrap(), payload.to_owned())
}

fn parsed(payload: &str) -> Result<Command, String> {
    let message = command_message("command/meter-1/limit", payload);
    command(&message, stamp()).map_err(|error| error.reason)
}

#[test]
fn a_reading_is_published_as_the_contract_shows() {
    let topic = TopicName::parse("telemetry/meter-1/voltage").unwrap();
    let mut sequences = Sequences::new(HashMap::from([(topic.clone(), 1041)]));
    let voltage = Reading {
        unit: Some("V".into()),
        ..reading("voltage", Value::F32(231.4))
    };
    let event = Event::Readings(vec![voltage]);
    let messages = messages(&event, |_| Publish::Point, &mut sequences);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].topic, topic);
    assert_eq!(
        text(&messages[0]),
        r#"{"value":231.4,"unit":"V","time":"2026-11-22T11:35:17.123Z","clock":"synced","quality":"good","seq":1042}"#
    );
    assert_eq!(messages[0].sequence, Some(1042));
    assert!(!messages[0].retain);
}

#[test]
fn values_are_exact_and_texts_escaped() {
    let starts = |value, expected: &str| {
        let payload = payload_of(value);
        assert!(payload.starts_with(expected), "{payload}");
        serde_json::from_str::<serde_json::Value>(&payload).unwrap();
    };
    starts(
        Value::Integer(u64::MAX.into()),
        r#"{"value":18446744073709551615,"#,
    );
    starts(Value::Bool(true), r#"{"value":true,"#);
    starts(Value::F64(1e21), r#"{"value":1000000000000000000000,"#);
    starts(
        Value::Text("a\"b\\\n\u{1}".to_owned()),
        r#"{"value":"a\"b\\\n\u0001","#,
    );
    starts(Value::Raw(vec![0x0a, 0xff]), r#"{"value":"0aff","#);
    let flags = Value::Flags(vec!["run".to_owned(), "a\"b".to_owned()]);
    starts(flags, r#"{"value":["run","a\"b"],"#);
    starts(Value::Flags(Vec::new()), r#"{"value":[],"#);
}

#[test]
fn a_value_stands_in_lists_as_it_is_published() {
    let tenths = Value::Decimal {
        mantissa: 2314,
        decimals: 1,
    };
    for (value, text) in [
        (Value::F32(231.4), "231.4"),
        (tenths, "231.4"),
        (Value::Integer(u64::MAX.into()), "18446744073709551615"),
        (Value::Text("on".to_owned()), "\"on\""),
        (Value::F64(f64::NAN), "null"),
    ] {
        assert_eq!(json(Some(&value)).to_string(), text);
    }
    assert_eq!(json(None), serde_json::Value::Null);
}

#[test]
fn what_has_no_value_is_null_and_bad() {
    for value in [Value::F64(f64::NAN), Value::F32(f32::INFINITY)] {
        let payload = payload_of(value);
        assert!(payload.contains(r#""value":null"#) && payload.contains(r#""quality":"bad""#));
    }
    let missing = Reading {
        value: None,
        quality: Quality::Bad,
        ..reading("p", Value::Bool(true))
    };
    let message = &published(&Event::Readings(vec![missing]), Publish::Point)[0];
    assert!(text(message).contains(r#""value":null"#));
}

#[test]
fn a_value_that_is_not_good_says_why() {
    let stale = Reading {
        quality: Quality::Stale,
        reason: Some("no answer in 1s".into()),
        ..reading("p", Value::Integer(7))
    };
    let event = Event::Readings(vec![stale]);
    assert_eq!(
        text(&published(&event, Publish::Point)[0]),
        concat!(
            r#"{"value":7,"time":"2026-11-22T11:35:17.123Z","clock":"synced","#,
            r#""quality":"stale","reason":"no answer in 1s","seq":1}"#
        )
    );
    let together = &published(&event, Publish::Device)[0];
    let expected = r#"{"values":{"p":{"value":7,"quality":"stale","reason":"no answer in 1s"}},"#;
    assert!(text(together).starts_with(expected));
}

#[test]
fn a_device_may_be_published_as_one_message() {
    let mut late = reading("b", Value::Integer(2));
    late.stamp.wall += Duration::from_secs(1);
    let event = Event::Readings(vec![reading("a", Value::Integer(1)), late]);
    let messages = published(&event, Publish::Device);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].topic.as_ref(), "telemetry/meter-1");
    assert_eq!(
        text(&messages[0]),
        concat!(
            r#"{"values":{"a":{"value":1,"quality":"good"},"#,
            r#""b":{"value":2,"quality":"good","time":"2026-11-22T11:35:18.123Z"}},"#,
            r#""time":"2026-11-22T11:35:17.123Z","clock":"synced","seq":1}"#
        )
    );
}

#[test]
fn every_topic_counts_for_itself() {
    let event = Event::Readings(vec![
        reading("a", Value::Integer(1)),
        reading("b", Value::Integer(2)),
        reading("a", Value::Integer(3)),
    ]);
    let messages = published(&event, Publish::Point);
    let numbers: Vec<_> = messages.iter().map(|message| message.sequence).collect();
    assert_eq!(numbers, [Some(1), Some(1), Some(2)]);
}

#[test]
fn the_state_of_a_device_is_retained_with_its_cause() {
    let state = |state| Event::Device {
        device: "meter-1".into(),
        state,
        stamp: stamp(),
    };
    let online = &published(&state(DeviceState::Online), Publish::Point)[0];
    assert_eq!(
        text(online),
        r#"{"state":"online","time":"2026-11-22T11:35:17.123Z"}"#
    );
    assert!(online.retain);
    assert_eq!(online.topic.as_ref(), "state/meter-1");
    let offline = DeviceState::Offline {
        reason: "no answer in 1s".to_owned(),
    };
    assert_eq!(
        text(&published(&state(offline), Publish::Point)[0]),
        r#"{"state":"offline","reason":"no answer in 1s","time":"2026-11-22T11:35:17.123Z"}"#
    );
}

#[test]
fn the_state_of_a_removed_device_is_cleared() {
    let device = "meter-1".into();
    let cleared = &published(&Event::Removed { device }, Publish::Point)[0];
    assert_eq!(cleared.topic.as_ref(), "state/meter-1");
    assert!(cleared.retain && cleared.payload.is_empty());
    assert_eq!(device_of_state(&cleared.topic), Some("meter-1"));
}

#[test]
fn a_result_goes_to_its_topic_and_to_where_the_sender_asked() {
    let mut message = command_message("command/meter-1/limit", "12.5");
    message.properties = Some(Arc::new(MessageProperties {
        response_topic: Some(TopicName::parse("response/7").unwrap()),
        correlation_data: Some(Bytes::from_static(b"\xff\x01")),
        ..MessageProperties::default()
    }));
    let result = Event::Result(CommandResult {
        command: command(&message, stamp()).unwrap(),
        outcome: Outcome::Executed(Value::F32(12.5)),
        stamp: stamp(),
    });
    let messages = published(&result, Publish::Point);
    let topics: Vec<&str> = messages
        .iter()
        .map(|message| message.topic.as_ref())
        .collect();
    assert_eq!(topics, ["result/meter-1/limit", "response/7"]);
    assert_eq!(
        text(&messages[1]),
        r#"{"result":"executed","value":12.5,"id":"ff01","time":"2026-11-22T11:35:17.123Z"}"#
    );
    let properties = messages[1].properties.as_deref().unwrap();
    assert_eq!(
        properties.correlation_data.as_deref(),
        Some(&b"\xff\x01"[..])
    );
}

#[test]
fn a_structure_goes_to_its_device_and_its_result_names_every_point() {
    let message = command_message("command/meter-1", r#"{"value":{"a":1,"b":2.5},"id":"7"}"#);
    let command = command(&message, stamp()).unwrap();
    assert_eq!((&*command.device, command.point.clone()), ("meter-1", None));
    assert_eq!(command.value, serde_json::json!({ "a": 1, "b": 2.5 }));
    let values = vec![
        ("a".into(), Value::Integer(1)),
        ("b".into(), Value::F32(2.5)),
    ];
    let result = Event::Result(CommandResult {
        command,
        outcome: Outcome::ExecutedAll(values),
        stamp: stamp(),
    });
    let message = &published(&result, Publish::Point)[0];
    assert_eq!(message.topic.as_ref(), "result/meter-1");
    assert_eq!(
        text(message),
        concat!(
            r#"{"result":"executed","value":{"a":1,"b":2.5},"id":"7","#,
            r#""time":"2026-11-22T11:35:17.123Z"}"#
        )
    );
}

#[test]
fn a_sender_cannot_have_the_gateway_publish_anywhere() {
    let mut message = command_message("command/meter-1/limit", "12.5");
    message.properties = Some(Arc::new(MessageProperties {
        response_topic: Some(TopicName::parse("command/other/limit").unwrap()),
        ..MessageProperties::default()
    }));
    let refused = command(&message, stamp()).unwrap_err();
    assert_eq!(
        refused.reason,
        "response topic command/other/limit is not below response/"
    );
    assert_eq!(refused.command.response_topic, None);
}

#[test]
fn a_refusal_says_why_and_bears_the_id() {
    let message = command_message("command/meter-1/limit", r#"{"id":"job-4","valu":1}"#);
    let unreadable = command(&message, stamp()).unwrap_err();
    let result = Event::Result(CommandResult {
        command: unreadable.command,
        outcome: Outcome::Refused(unreadable.reason),
        stamp: stamp(),
    });
    assert_eq!(
        text(&published(&result, Publish::Point)[0]),
        concat!(
            r#"{"result":"refused","reason":"the payload has no \"value\"","#,
            r#""id":"job-4","time":"2026-11-22T11:35:17.123Z"}"#
        )
    );
}

#[test]
fn a_command_is_a_bare_value_or_an_object() {
    let bare = parsed("12.5").unwrap();
    assert_eq!(&*bare.device, "meter-1");
    assert_eq!(bare.point.as_deref(), Some("limit"));
    assert_eq!(bare.value, serde_json::json!(12.5));
    assert_eq!((bare.expires, bare.correlation), (None, None));
    let full = parsed(r#"{"value":true,"id":7,"expires":"30s"}"#).unwrap();
    assert_eq!(full.value, serde_json::json!(true));
    assert_eq!(full.expires, Some(Duration::from_secs(30)));
    assert_eq!(full.correlation.as_deref(), Some(&b"7"[..]));
}

#[test]
fn a_command_that_cannot_be_read_says_what_to_write() {
    let reason = |payload| parsed(payload).unwrap_err();
    assert!(reason("12,5").contains("write a bare value such as 12.5"));
    assert_eq!(reason(r#"{"id":"1"}"#), "the payload has no \"value\"");
    assert_eq!(
        reason(r#"{"value":1,"expire":"1s"}"#),
        "unknown member \"expire\"; a command has value, id and expires"
    );
    assert_eq!(
        reason(r#"{"value":1,"expires":30}"#),
        "\"expires\" is 30; write a time such as \"30s\""
    );
    assert_eq!(
        reason(r#"{"value":1,"id":[]}"#),
        "\"id\" is []; write a text or a number"
    );
    for topic in ["command/meter-1/", "command/meter-1/a/b", "command"] {
        let error = command(&command_message(topic, "1"), stamp()).unwrap_err();
        assert_eq!(
            error.reason,
            "a command goes to command/<device>/<point> or command/<device>"
        );
    }
}

#[test]
fn a_command_dies_with_its_message() {
    let mut message = command_message("command/meter-1/limit", "1");
    message.expiry_s = Some(5);
    let command = command(&message, stamp()).unwrap();
    assert_eq!(command.expires, Some(Duration::from_secs(5)));
}
