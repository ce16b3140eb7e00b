//! Buses, devices and points that fit together. Values.

use std::collections::HashMap;

use crate::config::{Access, Bus, Config, Device, Point, PointType, WordOrder};

use super::{Findings, did_you_mean};

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
        check_device(device, config, &path, findings);
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
}

fn check_device(device: &Device, config: &Config, path: &str, findings: &mut Findings<'_>) {
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
        Some(bus) if bus.port.is_some() && !SERIAL_UNITS.contains(&device.unit) => findings.error(
            &format!("{path}.unit"),
            format!("unit {} cannot be addressed on a serial line", device.unit),
            "units are 1 to 247",
        ),
        Some(_) => {}
    }
    let names = device.points.iter().enumerate();
    findings.unique(
        "point",
        names.map(|(i, point)| (format!("{path}.point[{i}].name"), point.name.as_str())),
    );
    for (index, point) in device.points.iter().enumerate() {
        check_point(point, device, &format!("{path}.point[{index}]"), findings);
    }
}

fn check_point(point: &Point, device: &Device, path: &str, findings: &mut Findings<'_>) {
    let kind = point.kind();
    if point.register.table.is_bits() && kind != PointType::Bool {
        findings.error(
            &format!("{path}.type"),
            format!("{} is a single bit, not a {}", point.register, word(kind)),
            "write type = \"bool\", or leave it out",
        );
        return;
    }
    check_length(point, kind, device, path, findings);
    check_interpretation(point, kind, path, findings);
    check_access(point, path, findings);
}

fn check_length(
    point: &Point,
    kind: PointType,
    device: &Device,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let registers = match (kind.registers(), point.length) {
        (Some(takes), Some(length)) if length != takes => {
            return findings.error(
                &format!("{path}.length"),
                format!(
                    "device {:?} reads {length} registers as {}, which takes {takes}",
                    device.name,
                    word(kind)
                ),
                "leave length out; it follows from the type",
            );
        }
        (Some(takes), _) => takes,
        (None, Some(length)) => length,
        (None, None) => {
            return findings.error(
                &format!("{path}.type"),
                format!("{} needs a length", word(kind)),
                "write length = the number of registers",
            );
        }
    };
    if point.register.address.checked_add(registers - 1).is_none() {
        findings.error(
            &format!("{path}.register"),
            format!(
                "{} at {} ends beyond register 65535",
                word(kind),
                point.register
            ),
            "check the address; it is zero-based",
        );
    }
    if registers > device.max_registers && !point.register.table.is_bits() {
        findings.error(
            &format!("{path}.register"),
            format!(
                "point {:?} takes {registers} registers, but {:?} answers at most {}",
                point.name, device.name, device.max_registers
            ),
            "raise max_registers, if the device allows it",
        );
    }
}

fn check_interpretation(point: &Point, kind: PointType, path: &str, findings: &mut Findings<'_>) {
    let text = matches!(kind, PointType::String | PointType::Raw);
    if let Some(bit) = point.bit
        && !matches!(kind, PointType::Bool | PointType::U16)
    {
        findings.error(
            &format!("{path}.bit"),
            format!("bit {bit} of {} is not defined", word(kind)),
            "a bit is taken from one register: write type = \"bool\"",
        );
    }
    if point.order != WordOrder::Abcd
        && kind.registers() == Some(1)
        && matches!(point.order, WordOrder::Cdab)
    {
        findings.warn(
            &format!("{path}.order"),
            format!("{} is one register and has no word order", word(kind)),
            "remove it",
        );
    }
    for (key, given) in [
        ("scale", point.scale),
        ("offset", point.offset),
        ("deadband", point.deadband),
    ] {
        if given.is_some() && (text || kind == PointType::Bool) {
            findings.error(
                &format!("{path}.{key}"),
                format!("{key} needs a number, not a {}", word(kind)),
                "remove it",
            );
        }
    }
    if point.scale == Some(0.0) {
        findings.error(
            &format!("{path}.scale"),
            "scale 0 makes every value the same",
            "write the factor, such as 0.1",
        );
    }
}

fn check_access(point: &Point, path: &str, findings: &mut Findings<'_>) {
    let writable = point.access == Access::ReadWrite;
    if writable && !point.register.table.is_writable() {
        findings.error(
            &format!("{path}.access"),
            format!("{} cannot be written", point.register),
            "only coils and holding registers can; remove access",
        );
    }
    match (point.min, point.max) {
        (Some(min), Some(max)) if min > max => {
            findings.error(
                &format!("{path}.min"),
                format!("min {min} is above max {max}"),
                "exchange them",
            );
        }
        (min, max) if !writable && (min.is_some() || max.is_some()) => findings.warn(
            path,
            format!(
                "point {:?} has a range for commands, but none may write it",
                point.name
            ),
            "write access = \"read-write\", or remove min and max",
        ),
        _ => {}
    }
}

fn word(kind: PointType) -> &'static str {
    match kind {
        PointType::Bool => "bool",
        PointType::U16 => "u16",
        PointType::I16 => "i16",
        PointType::U32 => "u32",
        PointType::I32 => "i32",
        PointType::U64 => "u64",
        PointType::I64 => "i64",
        PointType::F32 => "f32",
        PointType::F64 => "f64",
        PointType::String => "string",
        PointType::Raw => "raw",
    }
}
