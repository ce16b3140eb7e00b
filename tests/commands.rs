//! Promise: a command is written as its device takes it, read back, told to its sender, and written down; a technician may
//! send requests of his own where that is switched on, and nowhere else.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Process, Scene, controller, promise};

/// What the device holds: a moving value that shows nothing of what is written to it, and values that keep it.
const QUANTITIES: [&str; 7] = [
    "setpoint=holding:0:H:ABCD:5:0",
    "limit=holding:1:f:CDAB:1.5:0",
    "total=holding:3:Q:ABCD:1:0",
    "mode=holding:7:H:ABCD:4660:0",
    "counter=holding:8:H:ABCD:100:1",
    "pump=coil:0:?:ABCD:0:0",
    "fan=coil:1:?:ABCD:0:0",
];

/// A device, a gateway, and a client that sends and hears.
struct Desk<'a> {
    device: Process,
    gateway: Gateway<'a>,
    panel: Client,
}

impl<'a> Desk<'a> {
    fn start(scene: &'a Scene, unknown: &[u8], of_bus: &str, of_device: &str) -> Result<Desk<'a>> {
        let (device_port, port) = (scene.free_port()?, scene.free_port()?);
        let device = controller(scene, device_port, &QUANTITIES, unknown)?;
        let config = format!(
            r##"
[gateway]
control = "{control}"
[buffer]
path = "{buffer}"
[[broker.listener]]
address = "127.0.0.1:{port}"
[[broker.access]]
publish = ["command/#", "modbus/plc/request", "modbus/nowhere/request"]
subscribe = ["result/#", "response/#", "state/#", "modbus/+/response"]
[[bus]]
name = "plc"
tcp = "127.0.0.1:{device_port}"
{of_bus}
[[device]]
name = "dev"
bus = "plc"
unit = 1
interval = "1s"
{of_device}
point = [
  {{ name = "setpoint", register = "holding:0", access = "read-write", min = 0, max = 1000 }},
  {{ name = "limit", register = "holding:1", type = "f32", order = "CDAB", access = "read-write" }},
  {{ name = "total", register = "holding:3", type = "u64", scale = 0.001, access = "read-write" }},
  {{ name = "mode", register = "holding:7", bits = "4..7", access = "read-write" }},
  {{ name = "counter", register = "holding:8", access = "read-write" }},
  {{ name = "pump", register = "coil:0", access = "read-write" }},
  {{ name = "fan", register = "coil:1", access = "read-write" }},
]
"##,
            control = scene.path("control.sock").display(),
            buffer = scene.path("buffer.db").display(),
        );
        let gateway = Gateway::start(scene, &config, port)?;
        let panel = Client::new("panel", port).start(scene)?.subscribed(&[
            "result/#",
            "response/#",
            "state/#",
            "modbus/+/response",
        ])?;
        let online = |payload: &str| payload.contains("online");
        panel.message("state/dev", online)?;
        Ok(Desk {
            device,
            gateway,
            panel,
        })
    }

    /// Sends a command and waits for its result.
    fn command(&mut self, point: &str, value: &str, id: &str) -> Result<Value> {
        let payload = format!(r#"{{"value": {value}, "id": "{id}"}}"#);
        self.ask(
            &format!("command/dev{point}"),
            &format!("result/dev{point}"),
            &payload,
            id,
        )
    }

    fn ask(&mut self, topic: &str, answer: &str, payload: &str, id: &str) -> Result<Value> {
        self.panel.publish(topic, payload)?;
        let sought = format!("\"id\":\"{id}\"");
        let payload = self
            .panel
            .message(answer, |payload| payload.contains(&sought))?;
        Ok(serde_json::from_str(&payload)?)
    }

    /// Each write that reached the device: function code, address, values.
    fn written(&self) -> Result<Vec<Value>> {
        let events = self.device.events_named("written")?.into_iter();
        Ok(events
            .map(|event| json!([event["function"], event["address"], event["values"]]))
            .collect())
    }
}

fn executed(result: &Value, value: &Value) -> Result<()> {
    ensure!(
        result["result"] == "executed" && result["value"] == *value,
        "{result}"
    );
    Ok(())
}

fn reason<'a>(result: &'a Value, outcome: &str) -> Result<&'a str> {
    ensure!(result["result"] == outcome, "{result}");
    result["reason"].as_str().context("no reason")
}

#[test]
fn every_kind_of_value_is_written_and_read_back() {
    promise(|scene| {
        let mut desk = Desk::start(scene, &[], "", "")?;
        executed(&desk.command("/pump", "true", "c1")?, &json!(true))?;
        executed(&desk.command("/setpoint", "742", "c2")?, &json!(742))?;
        executed(&desk.command("/limit", "231.4", "c3")?, &json!(231.4))?;
        // Sixteen digits and a fraction, which a double would round.
        let result = desk.command("/total", "9007199254740993.001", "c4")?;
        ensure!(result["result"] == "executed", "{result}");
        executed(&desk.command("/mode", "10", "c5")?, &json!(10))?;
        let structure = r#"{"setpoint": 7, "limit": 0.5}"#;
        let both = json!({"setpoint": 7, "limit": 0.5});
        executed(&desk.command("", structure, "c6")?, &both)?;
        let coils = r#"{"pump": false, "fan": true}"#;
        executed(
            &desk.command("", coils, "c7")?,
            &json!({"pump": false, "fan": true}),
        )?;
        let total = 9_007_199_254_740_993_001_u64.to_be_bytes();
        let total: Vec<u16> = total
            .chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        let wanted = [
            json!([5, 0, [1]]),
            json!([6, 0, [742]]),
            json!([16, 1, [0x6666, 0x4367]]),
            json!([16, 3, total]),
            json!([22, 7, [0x12a4]]),
            json!([16, 0, [7, 0, 0x3f00]]),
            json!([15, 0, [0, 1]]),
        ];
        let written = desk.written()?;
        ensure!(written == wanted, "{written:?}");
        Ok(())
    });
}

#[test]
fn what_must_not_be_written_is_refused_and_what_was_not_taken_has_failed() {
    promise(|scene| {
        let mut desk = Desk::start(scene, &[], "", "")?;
        let result = desk.command("/setpoint", "1001", "r1")?;
        ensure!(
            reason(&result, "refused")?.contains("greatest permitted value 1000"),
            "{result}"
        );
        let late = r#"{"value": 1, "id": "r2", "expires": "0s"}"#;
        let result = desk.ask("command/dev/setpoint", "result/dev/setpoint", late, "r2")?;
        ensure!(reason(&result, "refused")?.contains("expired"), "{result}");
        let result = desk.command("/total", "0.0005", "r3")?;
        ensure!(
            reason(&result, "refused")?.contains("write 0 or 0.001"),
            "{result}"
        );
        ensure!(desk.written()?.is_empty(), "something was written");
        let result = desk.command("/counter", "7", "f1")?;
        ensure!(
            reason(&result, "failed")?.contains("reads back"),
            "{result}"
        );
        ensure!(desk.written()?.len() == 1, "written once");
        Ok(())
    });
}

#[test]
fn a_device_is_written_by_the_function_codes_that_it_knows() {
    promise(|scene| {
        let mut desk = Desk::start(scene, &[5, 6, 22], "", "")?;
        executed(&desk.command("/setpoint", "8", "k1")?, &json!(8))?;
        executed(&desk.command("/pump", "true", "k2")?, &json!(true))?;
        executed(&desk.command("/mode", "10", "k3")?, &json!(10))?;
        let wanted = [
            json!([16, 0, [8]]),
            json!([15, 0, [1]]),
            json!([16, 7, [0x12a4]]),
        ];
        ensure!(desk.written()? == wanted, "{:?}", desk.written()?);
        Ok(())
    });
}

#[test]
fn a_write_and_its_reading_back_are_one_transaction_on_wish() {
    promise(|scene| {
        let mut desk = Desk::start(scene, &[], "", "read_write = true")?;
        executed(&desk.command("/setpoint", "8", "w1")?, &json!(8))?;
        executed(&desk.command("/limit", "2.25", "w2")?, &json!(2.25))?;
        let wanted = [json!([23, 0, [8]]), json!([23, 1, [0, 0x4010]])];
        ensure!(desk.written()? == wanted, "{:?}", desk.written()?);
        Ok(())
    });
}

#[test]
fn each_command_is_written_down_with_its_sender_and_its_end() {
    promise(|scene| {
        let mut desk = Desk::start(scene, &[], "", "")?;
        desk.command("/setpoint", "9", "a1")?;
        desk.command("/setpoint", "1001", "a2")?;
        desk.command("/counter", "7", "a3")?;
        for (kind, id, value) in [
            ("command-executed", "a1", "9"),
            ("command-refused", "a2", "1001"),
            ("command-failed", "a3", "7"),
        ] {
            let (id, value) = (format!("id=\"{id}\""), format!("value=\"{value}\""));
            let line = desk.gateway.says(&[kind, &id, &value, "device=\"dev\""])?;
            ensure!(line.contains("client=\"panel\""), "{line}");
            ensure!(line.contains("address=\"127.0.0.1\""), "{line}");
        }
        Ok(())
    });
}

#[test]
fn requests_of_ones_own_reach_a_bus_only_where_they_are_switched_on() {
    promise(|scene| {
        let (topic, answer) = ("modbus/plc/request", "modbus/plc/response");
        let read = |id: &str| {
            format!(r#"{{"unit": 1, "register": "holding:0", "count": 2, "id": "{id}"}}"#)
        };
        let mut shut = Desk::start(scene, &[], "", "")?;
        let result = shut.ask(topic, answer, &read("s1"), "s1")?;
        ensure!(
            reason(&result, "refused")?.contains("raw_requests"),
            "{result}"
        );
        shut.gateway.stop()?;
        Ok(())
    });
    promise(|scene| {
        let (topic, answer) = ("modbus/plc/request", "modbus/plc/response");
        let mut open = Desk::start(scene, &[], "raw_requests = true", "")?;
        let mut ask = |rest: &str, id: &str| {
            let payload = format!(r#"{{"unit": 1, "id": "{id}", {rest}}}"#);
            open.ask(topic, answer, &payload, id)
        };
        let read = ask(r#""register": "holding:7""#, "o1")?;
        ensure!(
            read["result"] == "answered" && read["registers"] == json!([0x1234]),
            "{read}"
        );
        let write = ask(r#""register": "holding:0", "values": [77]"#, "o2")?;
        ensure!(write["result"] == "answered", "{write}");
        let pdu = ask(r#""pdu": "0300000001""#, "o3")?;
        ensure!(pdu["pdu"] == "0302004d", "{pdu}");
        let beyond = ask(r#""register": "holding:4000""#, "o4")?;
        ensure!(
            beyond["result"] == "exception" && beyond["exception"] == 2,
            "{beyond}"
        );
        let many = ask(r#""register": "holding:0", "count": 126"#, "o5")?;
        ensure!(reason(&many, "refused")?.contains("1 to 125"), "{many}");
        ensure!(
            open.written()? == [json!([6, 0, [77]])],
            "{:?}",
            open.written()?
        );
        open.panel.tell(&json!({"do": "publish", "topic": topic, "payload": r#"{"unit": 1, "register": "coil:0"}"#,
            "correlation": "c-9", "response_topic": "response/panel"}))?;
        let told = open
            .panel
            .event("message", |event| event["topic"] == "response/panel")?;
        ensure!(told["properties"]["CorrelationData"] == "632d39", "{told}");
        ensure!(
            told["payload"]
                .as_str()
                .is_some_and(|text| text.contains("\"bits\":[false]")),
            "{told}"
        );
        open.gateway
            .says(&["raw-request", "outcome=\"answered\"", "client=\"panel\""])?;
        Ok(())
    });
}
