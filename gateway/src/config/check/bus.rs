//! Buses and devices that fit together. Values.

use std::collections::HashMap;

use crate::config::{Bus, Config, Device};

use super::{Findings, did_you_mean, exposed, point, requests, wire};

/// Units that a serial line can address (Modbus over serial line 2.2).
const SERIAL_UNITS: std::ops::RangeInclusive<u8> = 1..=247;

/// Checks `[[bus]]`, `[[device]]` and their points.
pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let named = |key: &str, index: usize| format!("{key}[{index}].name");
    findings.unique(
        "bus",
        config
            .buses
            .iter()
            .enumerate()
            .map(|(i, bus)| (named("bus", i), bus.name.as_str())),
    );
    let devices = config
        .devices
        .iter()
        .enumerate()
        .map(|(i, device)| (named("device", i), device.name.as_str()));
    let serials = config
        .serials
        .iter()
        .enumerate()
        .map(|(i, line)| (named("serial", i), line.name.as_str()));
    findings.unique("device", devices.chain(serials));
    check_ports(config, findings);
    for (index, bus) in config.buses.iter().enumerate() {
        check_bus(bus, &format!("bus[{index}]"), findings);
    }
    let mut units = HashMap::new();
    for (index, device) in config.devices.iter().enumerate() {
        let path = format!("device[{index}]");
        check_device(index, device, config, findings);
        if let Some(other) = units.insert((&device.bus, device.unit), &device.name) {
            findings.warn(
                &format!("{path}.unit"),
                format!(
                    "devices {other:?} and {:?} are the same unit {} on bus {:?}",
                    device.name, device.unit, device.bus
                ),
                "put their points into one device, so that requests are shared",
            );
        }
    }
}

fn check_ports(config: &Config, findings: &mut Findings<'_>) {
    let of_buses = config
        .buses
        .iter()
        .enumerate()
        .filter_map(|(i, bus)| Some((format!("bus[{i}].port"), bus.port.as_ref()?.to_str()?)));
    let of_lines = config
        .serials
        .iter()
        .enumerate()
        .filter_map(|(i, line)| Some((format!("serial[{i}].port"), line.port.to_str()?)));
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (path, port) in of_buses.chain(of_lines) {
        if let Some(line) = seen.get(port) {
            findings.error(
                &path,
                format!("port {port} stands twice, first in line {line}"),
                "one bus or sensor owns a port; put all its devices there",
            );
        } else {
            seen.insert(port, findings.document.at(&path).line);
        }
    }
}

fn check_bus(bus: &Bus, path: &str, findings: &mut Findings<'_>) {
    match (&bus.port, &bus.tcp) {
        (None, None) => findings.error(
            path,
            format!("bus {:?} has neither port nor tcp", bus.name),
            "write port = \"/dev/serial/by-id/…\" or tcp = \"HOST:502\"",
        ),
        (Some(_), Some(_)) => findings.error(
            &format!("{path}.tcp"),
            format!("bus {:?} has both port and tcp", bus.name),
            "write two buses",
        ),
        (Some(_), None) if bus.framing.is_some() => findings.error(
            &format!("{path}.framing"),
            "framing belongs to tcp; a serial line always carries RTU frames",
            "remove it",
        ),
        _ => {}
    }
    wire::check(bus, path, findings);
    exposed::check(bus, path, findings);
    if bus.pipeline > 1 && bus.window() == 1 {
        findings.error(
            &format!("{path}.pipeline"),
            "only Modbus TCP numbers its requests; a serial line carries one at a time",
            "remove it",
        );
    }
}

fn check_device(index: usize, device: &Device, config: &Config, findings: &mut Findings<'_>) {
    let path = format!("device[{index}]");
    match config.buses.iter().find(|bus| bus.name == device.bus) {
        None => findings.error(
            &format!("{path}.bus"),
            format!(
                "device {:?} is on bus {:?}, which is not in this file",
                device.name, device.bus
            ),
            did_you_mean(
                &device.bus,
                config.buses.iter().map(|bus| bus.name.as_str()),
            ),
        ),
        Some(bus) if bus.is_line() && !SERIAL_UNITS.contains(&device.unit) => findings.error(
            &format!("{path}.unit"),
            format!("unit {} cannot be addressed on a serial line", device.unit),
            "units are 1 to 247",
        ),
        Some(_) => {}
    }
    let places = 0..device.points.len();
    let places: Vec<String> = places
        .map(|point| config.places.point(index, point))
        .collect();
    let points = || places.iter().zip(&device.points);
    findings.unique(
        "point",
        points().map(|(path, point)| (format!("{path}.name"), point.name.as_str())),
    );
    for (path, point) in points() {
        point::check(point, device, path, findings);
    }
    requests::check(device, &path, &places, findings);
}
