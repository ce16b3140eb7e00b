//! Serial lines whose framing and decoder fit. Values.

use regex_lite::Regex;

use crate::{
    config::{Checksum, ChecksumPlace, Config, Decode, Frame, SerialSensor},
    fieldbus::serial::nmea::Nmea,
};

use super::{Findings, point, wire};

mod exchange;

/// Checks `[[serial]]`.
pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    for (index, sensor) in config.serials.iter().enumerate() {
        check_sensor(sensor, &format!("serial[{index}]"), findings);
    }
}

fn check_sensor(sensor: &SerialSensor, path: &str, findings: &mut Findings<'_>) {
    if let Some(rs485) = &sensor.rs485 {
        wire::check_rs485(rs485, true, &format!("{path}.rs485"), findings);
    }
    check_frame(sensor, path, findings);
    check_decoders(sensor, path, findings);
    exchange::check(sensor, path, findings);
    let points = sensor.points.iter().enumerate();
    findings.unique(
        "point",
        points.map(|(i, point)| (format!("{path}.point[{i}].name"), point.name.as_str())),
    );
    for (index, point) in sensor.points.iter().enumerate() {
        point::reporting(
            &format!("{path}.point[{index}]"),
            point.report,
            point.deadband,
            point.heartbeat,
            findings,
        );
    }
}

/// The line's own decoder is needed where something is read that no request says how to read.
fn check_decoders(sensor: &SerialSensor, path: &str, findings: &mut Findings<'_>) {
    let requests = &sensor.requests;
    let own = !requests.is_empty() && requests.iter().all(|request| request.decode.is_some());
    let spared = own && !sensor.unasked;
    if sensor.unasked && requests.is_empty() {
        findings.warn(
            &format!("{path}.unasked"),
            "an instrument without requests speaks unasked anyway",
            "remove unasked",
        );
    }
    if !spared || decoders(&sensor.decode) > 0 {
        check_decode(&sensor.decode, &format!("{path}.decode"), findings);
    }
    for (index, request) in requests.iter().enumerate() {
        if let Some(decode) = &request.decode {
            let path = format!("{path}.request[{index}].decode");
            check_decode(decode, &path, findings);
        }
    }
}

fn check_decode(decode: &Decode, path: &str, findings: &mut Findings<'_>) {
    match decoders(decode) {
        0 => findings.error(
            path,
            "decode names no decoder",
            "write one of nmea, regex, csv, json, raw",
        ),
        1 => check_decoder(decode, path, findings),
        several => findings.error(
            path,
            format!("decode names {several} decoders"),
            "keep one of them",
        ),
    }
}

fn check_frame(sensor: &SerialSensor, path: &str, findings: &mut Findings<'_>) {
    let frame = &sensor.frame;
    let framings = framings(frame);
    if framings > 1 {
        findings.error(
            &format!("{path}.frame"),
            format!("frame names {framings} framings"),
            "keep one of delimiter, length, prefix, silence",
        );
    }
    let start = frame.start.as_ref().map_or(0, |start| start.0.len());
    if let Some(length) = frame.length
        && usize::from(length) <= start
    {
        findings.error(
            &format!("{path}.frame.length"),
            format!("a frame of {length} bytes is no longer than its start"),
            "count the whole frame, its start among it",
        );
    }
    if let Some(prefix) = frame.prefix
        && usize::from(prefix.at) < start
    {
        findings.error(
            &format!("{path}.frame.prefix"),
            format!(
                "the count at byte {} stands within the start of {start} bytes",
                prefix.at
            ),
            "count from the first byte of the start",
        );
    }
    let delimited = framings == 0 || frame.delimiter.is_some();
    let after = |checksum: Checksum| checksum.rule().place == ChecksumPlace::AfterDelimiter;
    if sensor.checksum.is_some_and(after) && !delimited {
        findings.error(
            &format!("{path}.checksum.place"),
            "the frame has no delimiter that the checksum could follow",
            "remove place: it stands at the end of the frame",
        );
    }
}

fn framings(frame: &Frame) -> usize {
    [
        frame.delimiter.is_some(),
        frame.length.is_some(),
        frame.prefix.is_some(),
        frame.silence.is_some(),
    ]
    .into_iter()
    .filter(|given| *given)
    .count()
}

fn decoders(decode: &Decode) -> usize {
    [
        decode.nmea.is_some(),
        decode.regex.is_some(),
        decode.csv.is_some(),
        decode.json.is_some(),
        decode.raw.is_some(),
    ]
    .into_iter()
    .filter(|given| *given)
    .count()
}

fn check_decoder(decode: &Decode, path: &str, findings: &mut Findings<'_>) {
    if let Some(pattern) = &decode.regex
        && let Ok(regex) = Regex::new(pattern)
        && regex.capture_names().flatten().next().is_none()
    {
        findings.error(
            &format!("{path}.regex"),
            format!("{pattern:?} names no value"),
            "name a group: (?P<weight>[-0-9.]+)",
        );
    }
    if let Some(wanted) = &decode.nmea
        && let Err(reason) = Nmea::new(wanted)
    {
        findings.error(
            &format!("{path}.nmea"),
            reason,
            "name known ones, or none to take all",
        );
    }
    if let Some(csv) = &decode.csv
        && csv.columns.iter().all(String::is_empty)
    {
        findings.error(
            &format!("{path}.csv.columns"),
            "no column has a name",
            "name at least one",
        );
    }
}
