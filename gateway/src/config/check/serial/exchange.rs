//! Requests and commands of serial instruments that can be sent, and what reads the answers.
//! Values.

use crate::{
    config::{Access, SerialPoint, SerialSensor},
    fieldbus::serial::template::Template,
};

use super::Findings;

/// Checks what is sent to an instrument.
pub(super) fn check(sensor: &SerialSensor, path: &str, findings: &mut Findings<'_>) {
    let init = sensor.init.iter().enumerate();
    let init = init.map(|(index, text)| (format!("{path}.init[{index}]"), text));
    let requests = sensor.requests.iter().enumerate();
    let requests = requests.map(|(index, request)| {
        let path = format!("{path}.request[{index}].send");
        (path, &request.send)
    });
    for (path, text) in init.chain(requests) {
        match Template::parse(text) {
            Err(reason) => findings.error(&path, reason, "write what is to be sent"),
            Ok(template) if template.takes_value() => findings.error(
                &path,
                "a request has no {value}",
                "that belongs into a point's write; braces to be sent are written twice",
            ),
            Ok(template) => check_checksum(&template, sensor, &path, findings),
        }
    }
    for (index, point) in sensor.points.iter().enumerate() {
        let path = format!("{path}.point[{index}]");
        check_scale(point, &path, findings);
        check_write(point, sensor, &path, findings);
    }
    if let Some(quick) = sensor.requests.iter().position(|request| {
        let timeout = request.response_timeout.unwrap_or(sensor.response_timeout);
        request.interval.as_duration() < sensor.pause.as_duration() || timeout < sensor.pause
    }) {
        findings.warn(
            &format!("{path}.request[{quick}]"),
            format!("the line pauses for {} after each answer", sensor.pause),
            "write a shorter pause, or a longer interval",
        );
    }
}

fn check_checksum(
    template: &Template,
    sensor: &SerialSensor,
    path: &str,
    findings: &mut Findings<'_>,
) {
    if template.takes_checksum() && sensor.checksum.is_none() && sensor.send_checksum.is_none() {
        findings.error(
            path,
            "{checksum} is sent, and the line has none",
            "write checksum or send_checksum above",
        );
    }
}

fn check_scale(point: &SerialPoint, path: &str, findings: &mut Findings<'_>) {
    for (key, number) in [("scale", point.scale), ("offset", point.offset)] {
        if number.is_some_and(|number| !number.is_finite()) {
            findings.error(&format!("{path}.{key}"), "no finite number", "write one");
        }
    }
    if point.scale == Some(0.0) {
        findings.error(
            &format!("{path}.scale"),
            "a scale of 0 makes every value the same",
            "write another factor, or remove scale",
        );
    }
}

fn check_write(
    point: &SerialPoint,
    sensor: &SerialSensor,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let writable = point.access == Access::ReadWrite;
    let template = point.write.as_deref().map(Template::parse);
    match template {
        None if writable => findings.error(
            &format!("{path}.access"),
            format!("point {:?} does not say what a command sends", point.name),
            "write = \"SP {value}\\r\\n\", say",
        ),
        Some(Ok(template)) if writable => {
            let path = format!("{path}.write");
            check_checksum(&template, sensor, &path, findings);
            if point.read_back {
                check_read_back(point, &template, sensor, &path, findings);
            } else if point.confirm.is_none() {
                findings.warn(
                    &path,
                    "without confirm no command is known to be executed, and all end as failed",
                    "write confirm, a pattern of the instrument's answer, or read_back = true",
                );
            }
        }
        _ => {}
    }
    let ranged = point.min.is_some() || point.max.is_some();
    let proven = point.confirm.is_some() || point.read_back;
    if !writable && (ranged || point.write.is_some() || proven) {
        findings.warn(
            path,
            format!(
                "point {:?} says what commands do, but none may write it",
                point.name
            ),
            "write access = \"read-write\", or remove write, confirm, read_back, min and max",
        );
    }
    if let (Some(min), Some(max)) = (point.min, point.max)
        && min > max
    {
        findings.error(
            &format!("{path}.min"),
            format!("min {min} is above max {max}"),
            "exchange them",
        );
    }
}

/// A value is read back where it is asked for, and there is one.
fn check_read_back(
    point: &SerialPoint,
    template: &Template,
    sensor: &SerialSensor,
    path: &str,
    findings: &mut Findings<'_>,
) {
    if point.confirm.is_some() {
        findings.error(
            path,
            "the point has both confirm and read_back",
            "keep confirm where the instrument answers commands, else read_back",
        );
    }
    if sensor.requests.is_empty() {
        findings.error(
            path,
            "read_back asks a request, and the line has none",
            "write a [[serial.request]] that brings the value, or confirm",
        );
    }
    if !template.takes_value() {
        findings.error(
            path,
            "a button has no value that could be read back",
            "write confirm instead of read_back",
        );
    }
}
