//! Points whose keys fit together. Values.
//!
//! Invariant: what passes has one meaning: each key does what it says, or is refused.

mod meaning;

use settings::Period;

use crate::config::{Access, Deadband, Device, Form, Point, PointType, Report, WordOrder};

use super::Findings;

/// A point that is looked at.
#[derive(Clone, Copy)]
struct Spot<'a> {
    point: &'a Point,
    device: &'a Device,
    kind: PointType,
    /// What its bits mean; one bit is a bool, whatever it is taken from.
    form: Form,
    path: &'a str,
}

impl Spot<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn word(&self) -> &'static str {
        self.kind.word()
    }
}

/// Checks a `[[device.point]]`.
pub(in crate::config) fn check(
    point: &Point,
    device: &Device,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let kind = point.kind();
    let spot = Spot {
        point,
        device,
        kind,
        form: if point.bit.is_some() {
            Form::Bool
        } else {
            kind.form()
        },
        path,
    };
    if point.register.table.is_bits() && kind != PointType::Bool {
        findings.error(
            &spot.at("type"),
            format!("{} is a single bit, not a {}", point.register, spot.word()),
            "write type = \"bool\", or leave it out",
        );
        return;
    }
    let Some(registers) = registers(&spot, findings) else {
        return;
    };
    check_place(&spot, registers, findings);
    check_order(&spot, registers, findings);
    check_part(&spot, findings);
    meaning::check(&spot, findings);
    check_reporting(&spot, findings);
    check_access(&spot, registers, findings);
}

/// Registers that the point takes, unless that is what is wrong.
fn registers(spot: &Spot<'_>, findings: &mut Findings<'_>) -> Option<u16> {
    match (spot.kind.registers(), spot.point.length) {
        (Some(takes), Some(length)) if length != takes => {
            findings.error(
                &spot.at("length"),
                format!(
                    "device {:?} reads {length} registers as {}, which takes {takes}",
                    spot.device.name,
                    spot.word()
                ),
                "leave length out; it follows from the type",
            );
            None
        }
        (None, None) => {
            findings.error(
                &spot.at("type"),
                format!("{} needs a length", spot.word()),
                "write length = the number of registers",
            );
            None
        }
        (takes, length) => takes.or(length),
    }
}

fn check_place(spot: &Spot<'_>, registers: u16, findings: &mut Findings<'_>) {
    let register = spot.point.register;
    if register.address.checked_add(registers - 1).is_none() {
        findings.error(
            &spot.at("register"),
            format!("{} at {register} ends beyond register 65535", spot.word()),
            "check the address; it is zero-based",
        );
    }
    if registers > spot.device.max_registers && !register.table.is_bits() {
        findings.error(
            &spot.at("register"),
            format!(
                "point {:?} takes {registers} registers, but {:?} answers at most {}",
                spot.point.name, spot.device.name, spot.device.max_registers
            ),
            "raise max_registers, if the device allows it",
        );
    }
}

fn check_order(spot: &Spot<'_>, registers: u16, findings: &mut Findings<'_>) {
    let order = spot.point.order;
    if let Some(named) = order.registers()
        && named != usize::from(registers)
    {
        findings.error(
            &spot.at("order"),
            format!(
                "{order} orders the bytes of {named} registers, but {} takes {registers}",
                spot.word()
            ),
            "write ABCD, CDAB, BADC or DCBA, which hold for every length, or one letter per byte",
        );
    }
    if registers == 1 && order == WordOrder::CDAB {
        findings.warn(
            &spot.at("order"),
            format!("{} is one register and has no word order", spot.word()),
            "remove it",
        );
    }
}

/// Keys that take a part of the registers.
fn check_part(spot: &Spot<'_>, findings: &mut Findings<'_>) {
    let (point, width) = (spot.point, spot.kind.bits());
    if point.bit.is_some() && point.bits.is_some() {
        findings.error(
            &spot.at("bits"),
            "the point has both bit and bits",
            "keep bit for true or false, bits for a number",
        );
    }
    let parts = [
        ("bit", point.bit.map(|bit| (bit.to_string(), bit))),
        ("bits", point.bits.map(|bits| (bits.to_string(), bits.high))),
    ];
    for (key, written, highest) in parts
        .into_iter()
        .filter_map(|(key, given)| given.map(|(written, highest)| (key, written, highest)))
    {
        let divisible =
            spot.kind.form().is_integer() || (key == "bit" && spot.kind == PointType::Bool);
        if point.register.table.is_bits() || !divisible {
            findings.error(
                &spot.at(key),
                format!("{key} {written} of {} is not defined", spot.word()),
                "bits are taken from registers that are an integer, such as type = \"u16\"",
            );
        } else if width.is_some_and(|width| u16::from(highest) >= width) {
            findings.error(
                &spot.at(key),
                format!("{} has no bit {highest}", spot.word()),
                "bits are counted from 0, the least significant",
            );
        }
    }
    if point.byte.is_some() && width != Some(8) {
        findings.error(
            &spot.at("byte"),
            format!("{} is not one byte of a register", spot.word()),
            "write type = \"u8\", \"i8\" or \"bcd8\", or remove byte",
        );
    }
    if point.byte.is_some() && (point.bit.is_some() || point.bits.is_some()) {
        findings.error(
            &spot.at("byte"),
            "the point has both byte and bits",
            "count the bits in the whole register: write type = \"u16\"",
        );
    }
}

fn check_reporting(spot: &Spot<'_>, findings: &mut Findings<'_>) {
    let point = spot.point;
    reporting(
        spot.path,
        point.report,
        point.deadband,
        point.heartbeat,
        findings,
    );
    let interval = point.interval.unwrap_or(spot.device.interval);
    if let Some(heartbeat) = point.heartbeat
        && point.publishes_on().is_some()
        && heartbeat < interval
    {
        findings.warn(
            &spot.at("heartbeat"),
            format!("a heartbeat of {heartbeat} is beaten only every {interval}, when it is read"),
            "read it more often, or write a longer heartbeat",
        );
    }
}

/// Keys that say when a value is published, of Modbus devices and of serial instruments.
pub(super) fn reporting(
    path: &str,
    report: Option<Report>,
    deadband: Option<Deadband>,
    heartbeat: Option<Period>,
    findings: &mut Findings<'_>,
) {
    if report == Some(Report::Poll) && deadband.is_some() {
        findings.error(
            &format!("{path}.report"),
            "the point is to be published at every poll, and has a deadband",
            "keep one of them",
        );
    }
    if heartbeat.is_some() && report != Some(Report::Change) && deadband.is_none() {
        findings.warn(
            &format!("{path}.heartbeat"),
            "the point is published at every poll anyway",
            "write report = \"change\" or a deadband, or remove heartbeat",
        );
    }
}

fn check_access(spot: &Spot<'_>, registers: u16, findings: &mut Findings<'_>) {
    let point = spot.point;
    let writable = point.access == Access::ReadWrite;
    if writable && !point.register.table.is_writable() {
        findings.error(
            &spot.at("access"),
            format!("{} cannot be written", point.register),
            "only coils and holding registers can; remove access",
        );
    }
    let part = point.bit.is_some() || point.bits.is_some() || !point.flags.is_empty();
    if writable && part && registers > 1 {
        findings.error(
            &spot.at("access"),
            format!("bits of {} cannot be written alone", spot.word()),
            "take them from the one register that they stand in",
        );
    }
    match (point.min, point.max) {
        (Some(min), Some(max)) if min > max => {
            findings.error(
                &spot.at("min"),
                format!("min {min} is above max {max}"),
                "exchange them",
            );
        }
        (min, max) if !writable && (min.is_some() || max.is_some()) => findings.warn(
            spot.path,
            format!(
                "point {:?} has a range for commands, but none may write it",
                point.name
            ),
            "write access = \"read-write\", or remove min and max",
        ),
        _ => {}
    }
}
