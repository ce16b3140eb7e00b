//! What a command means on the bus, or why it is not sent. A core.
//!
//! Invariant: a command is one request, whether it writes a point or several.

use std::{sync::Arc, time::Duration};

use serde_json::Value as Json;

use crate::reading::Value;

use crate::fieldbus::{
    Command, Outcome,
    decode::{Encoded, WriteError},
    poll::{device::Device, point::Point},
    transaction::Span,
};

use super::function::{Content, Functions};

/// Most registers of a write (application protocol 6.12).
const REGISTERS_MAX: u16 = 123;
/// Most coils of a write (application protocol 6.11).
const COILS_MAX: u16 = 1_968;

/// What a command means on the bus.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(super) span: Span,
    pub(super) reads: Span,
    pub(super) content: Content,
    pub(super) functions: Functions,
    pub(super) expected: Expected,
}

/// What is read back if the device did as asked.
#[derive(Debug)]
pub(super) enum Expected {
    /// A point.
    One([(Arc<str>, Value); 1]),
    /// The points of a structure.
    All(Vec<(Arc<str>, Value)>),
}

impl Expected {
    /// The points with their values.
    pub(super) fn values(&self) -> &[(Arc<str>, Value)] {
        match self {
            Expected::One(one) => one,
            Expected::All(all) => all,
        }
    }

    /// The outcome that says so.
    pub(super) fn executed(&self) -> Outcome {
        match self {
            Expected::One([(_, value)]) => Outcome::Executed(value.clone()),
            Expected::All(all) => Outcome::ExecutedAll(all.clone()),
        }
    }
}

/// Why a command is not sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No such device on the bus.
    #[error("no device {0:?} on this bus")]
    Device(String),
    /// No such point in the device.
    #[error("device {device:?} has no point {point:?}")]
    Point {
        /// The device.
        device: String,
        /// What it lacks.
        point: String,
    },
    /// The configuration does not allow it.
    #[error("{0} is read-only; `access = \"read-write\"` at the point would permit it")]
    ReadOnly(String),
    /// A device is written as a structure.
    #[error("a device is written as {{\"value\": {{\"<point>\": …}}}}, with at least one point")]
    NoStructure,
    /// A value of a structure does not fit its point.
    #[error("{point}: {error}")]
    Member {
        /// The point.
        point: String,
        /// What is wrong with the value.
        error: WriteError,
    },
    /// A structure goes out in one request, which writes neighbours.
    #[error("{before} and {next} are not neighbours in one table; write them one by one")]
    Apart {
        /// The point that ends first.
        before: String,
        /// The point after it.
        next: String,
    },
    /// A part of a register takes a request of its own.
    #[error("{0} is a part of a register, which is not written together with others")]
    Part(String),
    /// More than a request holds.
    #[error("{0} elements are more than one request writes ({1})")]
    TooMany(u32, u16),
    /// The device takes one register or coil at a time.
    #[error(
        "the device is written one register or coil at a time (`write_single = \"always\"`), and this takes {0}"
    )]
    OneAtATime(u16),
    /// The value does not fit the point.
    #[error(transparent)]
    Value(#[from] WriteError),
    /// It waited for too long.
    #[error("expired: more than {0:?} passed before it could be sent")]
    Expired(Duration),
    /// The wire is down.
    #[error("not sent: {0}")]
    WireDown(String),
    /// Too many commands wait.
    #[error("{0} commands wait already")]
    QueueFull(usize),
}

/// One point of a command with what is sent for it.
struct Part<'a> {
    point: &'a Point,
    encoded: Encoded,
    expected: Value,
}

/// Checks a command against its device, and finds what has to be sent.
pub(crate) fn check(command: &Command, device: &Device) -> Result<Checked, Refusal> {
    let checked = match &command.point {
        None => check_structure(&command.value, device)?,
        Some(name) => check_point(name, &command.value, device)?,
    };
    match checked.span.count {
        1 => Ok(checked),
        _ if checked.functions.writes_several() => Ok(checked),
        count => Err(Refusal::OneAtATime(count)),
    }
}

fn check_point(name: &str, value: &Json, device: &Device) -> Result<Checked, Refusal> {
    let part = part(writable(name, device)?, value)?;
    Ok(Checked {
        span: part.point.span,
        reads: device.least_read(part.point.span),
        content: match part.encoded {
            Encoded::Coil(on) => Content::Coils(vec![on]),
            Encoded::Registers(words) => Content::Registers(words),
            Encoded::Mask { and, or } => Content::Mask { and, or },
        },
        functions: device.functions,
        expected: Expected::One([(Arc::clone(&part.point.name), part.expected)]),
    })
}

fn writable<'a>(name: &str, device: &'a Device) -> Result<&'a Point, Refusal> {
    let found = device.points.iter().find(|point| &*point.name == name);
    let point = found.ok_or_else(|| Refusal::Point {
        device: device.name.to_string(),
        point: name.to_owned(),
    })?;
    if !point.writable {
        return Err(Refusal::ReadOnly(format!("{}/{name}", device.name)));
    }
    Ok(point)
}

fn part<'a>(point: &'a Point, value: &Json) -> Result<Part<'a>, WriteError> {
    let encoded = point.codec.encode(value)?;
    let expected = match &encoded {
        Encoded::Coil(on) => Ok(point.codec.decode_bit(*on)),
        Encoded::Mask { or, .. } => point.codec.read_back(&[*or]),
        Encoded::Registers(words) => point.codec.read_back(words),
    };
    Ok(Part {
        point,
        encoded,
        expected: expected.map_err(|_absent| WriteError::NoValue(value.to_string()))?,
    })
}

/// Several points in one request, so that the device sees all of them or none.
fn check_structure(value: &Json, device: &Device) -> Result<Checked, Refusal> {
    let members = value.as_object().filter(|members| !members.is_empty());
    let mut parts = Vec::new();
    for (name, value) in members.ok_or(Refusal::NoStructure)? {
        let point = writable(name, device)?;
        let part = part(point, value).map_err(|error| Refusal::Member {
            point: name.clone(),
            error,
        })?;
        parts.push(part);
    }
    parts.sort_by_key(|part| (part.point.span.table, part.point.span.start));
    let span = whole(&parts)?;
    let content = content(span, &parts)?;
    let expected = |part: Part<'_>| (Arc::clone(&part.point.name), part.expected);
    Ok(Checked {
        span,
        reads: device.least_read(span),
        content,
        functions: device.functions,
        expected: Expected::All(parts.into_iter().map(expected).collect()),
    })
}

/// The elements of neighbours in one table, in the order of their addresses.
fn whole(parts: &[Part<'_>]) -> Result<Span, Refusal> {
    for pair in parts.windows(2) {
        let (before, next) = (pair[0].point, pair[1].point);
        let neighbours =
            before.span.table == next.span.table && before.span.end() == u32::from(next.span.start);
        if !neighbours {
            return Err(Refusal::Apart {
                before: before.name.to_string(),
                next: next.name.to_string(),
            });
        }
    }
    let first = parts.first().ok_or(Refusal::NoStructure)?.point.span;
    let count = parts
        .iter()
        .map(|part| u32::from(part.point.span.count))
        .sum();
    let most = if first.table.is_bits() {
        COILS_MAX
    } else {
        REGISTERS_MAX
    };
    let fitting = u16::try_from(count).ok().filter(|count| *count <= most);
    let count = fitting.ok_or(Refusal::TooMany(count, most))?;
    Ok(Span { count, ..first })
}

fn content(span: Span, parts: &[Part<'_>]) -> Result<Content, Refusal> {
    let (mut coils, mut words) = (Vec::new(), Vec::new());
    for part in parts {
        match &part.encoded {
            Encoded::Coil(on) => coils.push(*on),
            Encoded::Registers(registers) => words.extend(registers),
            Encoded::Mask { .. } => return Err(Refusal::Part(part.point.name.to_string())),
        }
    }
    Ok(if span.table.is_bits() {
        Content::Coils(coils)
    } else {
        Content::Registers(words)
    })
}
