//! What a technician does at a bus, beside the running service and without it: find units, read and
//! write, guess, and look at the frames with Wireshark's own decoder.

use std::{fs::File, io::Write, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Gateway, PATIENCE, Plant, Process, Scene, gateway, promise, until};

/// Ends in order, having done what was asked.
fn bus(arguments: &[&str]) -> Result<(String, String)> {
    let output = gateway::run(&[&["bus"], arguments].concat())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, notes) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{arguments:?}: {out}{notes}");
    Ok((out, notes))
}

/// Ends with this code and says why.
fn refused(code: i32, arguments: &[&str]) -> Result<String> {
    let output = gateway::run(&[&["bus"], arguments].concat())?;
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "{arguments:?}: {output:?}"
    );
    Ok(notes)
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))
}

fn configured(scene: &Scene, plant: &Plant) -> Result<String> {
    let file = scene.write("gateway.toml", &plant.config(scene))?;
    Ok(file.display().to_string())
}

#[test]
fn registers_are_read_written_and_guessed_without_the_service_and_beside_it() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let file = configured(scene, &plant)?;
        at_the_bus(&file, "opened directly", 7)?;
        let _gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        until("the service serves its bus", PATIENCE, || {
            Ok(bus(&["read", "-c", &file, "rs485-0", "-u17", "input:30"]).ok())
        })?;
        at_the_bus(&file, "through the running service", 8)
    });
}

fn at_the_bus(file: &str, way: &str, setpoint: u16) -> Result<()> {
    let meter = ["-c", file, "rs485-0", "--unit", "17"];
    let tank = ["-c", file, "hall-2"];
    let setpoint = setpoint.to_string();

    let label = ["input:30", "--type", "string", "--length", "4", "--raw"];
    let (label, notes) = bus(&[&["read"], &meter[..], &label].concat())?;
    ensure!(label == "MTR-7\n", "{label}");
    ensure!(notes.contains(way), "{notes}");

    let energy = ["input:20", "--type", "u64", "--order", "DCBA", "--json"];
    let (energy, _) = bus(&[&["read"], &meter[..], &energy].concat())?;
    let value = json(&energy)?["values"][0]["value"].as_u64();
    ensure!(value >= Some(9_007_199_254_740_993), "{energy}");

    let (written, _) = bus(&[&["write"], &meter[..], &["holding:100", &setpoint]].concat())?;
    ensure!(
        written == format!("written and read back: {setpoint}\n"),
        "{written}"
    );
    let (coil, _) = bus(&[&["write"], &tank[..], &["coil:5", "on", "--json"]].concat())?;
    ensure!(json(&coil)?["confirmed"] == true, "{coil}");

    let known = ["--value", "230.6", "--near", "input:1", "--json"];
    let (guessed, _) = bus(&[&["guess"], &meter[..], &known].concat())?;
    let best = json(&guessed)?[0]["config"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(
        best.ends_with(r#"register = "input:0", type = "f32" }"#),
        "{guessed}"
    );

    let all = [
        "-c",
        file,
        "rs485-0",
        "--unit",
        "0",
        "holding:100",
        &setpoint,
    ];
    let (all, _) = bus(&[&["write"], &all[..]].concat())?;
    ensure!(all.contains("none answers a broadcast"), "{all}");
    let all = ["-c", file, "rs485-0", "--unit", "0", "holding:100"];
    refused(2, &[&["read"], &all[..]].concat())?;

    let (forgotten, _) = bus(&["forget", "-c", file, "meter-1"])?;
    ensure!(forgotten.starts_with("meter-1: "), "{forgotten}");
    let unknown = refused(2, &["forget", "-c", file, "meter-9"])?;
    ensure!(unknown.contains("no device \"meter-9\""), "{unknown}");

    let missing = refused(1, &[&["read"], &meter[..], &["input:50"]].concat())?;
    ensure!(
        missing.contains("exception 02 illegal data address"),
        "{missing}"
    );
    let nobody = [
        "-c",
        file,
        "rs485-0",
        "--unit",
        "9",
        "input:0",
        "--timeout",
        "200ms",
    ];
    let silent = refused(4, &[&["read"], &nobody[..]].concat())?;
    ensure!(
        silent.contains("unit 9") && silent.contains("no answer"),
        "{silent}"
    );
    Ok(())
}

#[test]
fn a_wire_needs_no_configuration_and_wrong_words_are_told() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let file = configured(scene, &plant)?;
        let link = scene.path("ttyMeter").display().to_string();
        let wire = ["--port", &link, "--parity", "none", "--unit", "17"];
        let (read, _) = bus(&[
            &[
                "read", "input:2", "--type", "f32", "--order", "CDAB", "--raw",
            ],
            &wire[..],
        ]
        .concat())?;
        ensure!(
            read.trim()
                .parse::<f64>()
                .is_ok_and(|current| current >= 1.25),
            "{read}"
        );
        let which = refused(2, &["read", "-c", &file, "input:0"])?;
        ensure!(which.contains("which bus"), "{which}");
        let unknown = refused(2, &["read", "-c", &file, "rs485-7", "input:0"])?;
        ensure!(unknown.contains("rs485-0, hall-2"), "{unknown}");
        let kind = refused(
            2,
            &[&["read", "input:0", "--type", "f33"], &wire[..]].concat(),
        )?;
        ensure!(kind.contains("must be one of"), "{kind}");
        let gone = refused(4, &["read", "--tcp", "127.0.0.1:1", "coil:0"])?;
        ensure!(gone.contains("cannot connect to 127.0.0.1:1"), "{gone}");
        Ok(())
    });
}

#[test]
fn a_scan_finds_the_unit_and_says_who_it_is_and_what_to_configure() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let link = scene.path("ttyMeter").display().to_string();
        let line = ["--port", &link, "--units", "15-19", "--timeout", "100ms"];
        let (found, progress) =
            bus(&[&["scan", "--baud", "19200", "--parity", "none"], &line[..]].concat())?;
        ensure!(
            found.contains("unit 17 at 19200 8N2: Stand-in MTR-7 1.2"),
            "{found}"
        );
        ensure!(
            progress.contains("100 %") && progress.contains("left"),
            "{progress}"
        );
        let config = scene.write(
            "scanned.toml",
            &found[found.find("[[bus]]").context("no block")?..],
        )?;
        let output = gateway::run(&[
            "check",
            "--file-only",
            "--config",
            &config.display().to_string(),
        ])?;
        ensure!(output.status.code() == Some(0), "{output:?}");

        let _gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        let file = scene.path("gateway.toml").display().to_string();
        let through = [
            "scan",
            "-c",
            &file,
            "rs485-0",
            "--units",
            "16-18",
            "--timeout",
            "100ms",
            "--json",
        ];
        let found = until("the service serves its bus", PATIENCE, || {
            Ok(bus(&through).ok())
        })?;
        let units = json(&found.0)?["found"].clone();
        ensure!(
            units.as_array().map(Vec::len) == Some(1) && units[0]["unit"] == 17,
            "{units}"
        );
        Ok(())
    });
}

/// What Wireshark says of the packets: unit, function code and exception code.
fn tshark(capture: &Path) -> Result<Vec<String>> {
    let fields = [
        "mbrtu.unit_id",
        "mbtcp.unit_id",
        "modbus.func_code",
        "modbus.exception_code",
    ];
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(capture)
        .args(["-T", "fields", "-E", "separator=,"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().context("cannot start tshark")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect())
}

#[test]
fn wireshark_decodes_what_a_trace_keeps() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let _gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        let file = scene.path("gateway.toml").display().to_string();
        for (name, unit, read, exception) in [
            ("rs485-0", "17", "input:50", "17,,4,2"),
            ("hall-2", "1", "holding:7", ",1,3,2"),
        ] {
            let capture = scene.path(&format!("{name}.pcapng"));
            let mut command = Command::new(gateway::binary()?);
            command
                .args(["bus", "trace", "-c", &file, name, "--pcapng"])
                .arg(&capture);
            let _trace = Process::start("trace", &scene.log_path(name), command)?;
            let packets = until("the exception is in the capture", PATIENCE, || {
                let _excepted =
                    gateway::run(&["bus", "read", "-c", &file, name, "-u", unit, read])?;
                // A capture that is being written may end within a packet.
                let packets = tshark(&capture).unwrap_or_default();
                let decoded = packets.iter().any(|packet| packet == exception);
                Ok(decoded.then_some(packets))
            })?;
            let asked = exception.trim_end_matches(|c: char| c != ',');
            ensure!(
                packets.iter().any(|packet| packet == asked),
                "no request: {packets:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_trace_listens_to_a_line_on_which_others_talk() {
    promise(|scene| {
        let (ours, theirs) = (scene.path("ttyOurs"), scene.path("ttyTheirs"));
        let mut socat = Command::new("socat");
        for end in [&ours, &theirs] {
            socat.arg(format!("pty,raw,echo=0,link={}", end.display()));
        }
        let _line = Process::start("socat", &scene.log_path("socat"), socat)?;
        until("the line is there", PATIENCE, || {
            Ok((ours.exists() && theirs.exists()).then_some(()))
        })?;
        let mut command = Command::new(gateway::binary()?);
        let port = ours.display().to_string();
        command.args([
            "bus", "trace", "--listen", "--json", "-n", "3", "--port", &port,
        ]);
        let mut trace = Process::start("trace", &scene.log_path("trace"), command)?;
        until("it listens", PATIENCE, || {
            Ok(trace.log()?.contains("listening").then_some(()))
        })?;
        // Read holding registers 0-1 of unit 1, its answer, and a request with a wrong CRC.
        let mut others = File::options().write(true).open(&theirs)?;
        others
            .write_all(b"\x01\x03\x00\x00\x00\x02\xc4\x0b\x01\x03\x04\x43\x67\x66\x66\xf5\xe2")?;
        others.write_all(b"\x01\x03\x00\x00\x00\x02\xc4\x0c")?;
        trace.ended(PATIENCE)?;
        let frames = trace.events()?;
        let said: Vec<&str> = frames
            .iter()
            .filter_map(|frame| frame["says"].as_str())
            .collect();
        let expected = [
            "unit 1 read holding registers 0-1",
            "unit 1 2 registers: 4367 6666",
            "not a frame",
        ];
        ensure!(said == expected, "{frames:?}");
        Ok(())
    });
}
