//! What a command to a serial instrument sends, or why it is not sent. A core.
//!
//! Invariant: what is sent holds the value digit for digit, and nothing that the sender of the
//! command could have meant as another one.

use std::{sync::Arc, time::Duration, time::Instant};

use regex_lite::Regex;
use serde_json::Value as Json;

use crate::{
    config::{Access, SerialPoint, SerialSensor, TextType},
    fieldbus::{
        Command,
        decode::WriteError,
        number,
        serial::{checksum::Check, shape::Shape, template::Template},
    },
    reading::Value,
};

/// A point that commands may write.
#[derive(Debug)]
pub(crate) struct Writable {
    name: String,
    template: Template,
    confirm: Option<Regex>,
    read_back: bool,
    text: bool,
    shape: Shape,
    min: Option<f64>,
    max: Option<f64>,
}

/// A command that was accepted.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) command: Command,
    /// What is sent.
    pub(crate) bytes: Vec<u8>,
    /// What it means, in the point's unit.
    pub(crate) value: Value,
    /// The answer that confirms it; `None`: there is none to be known.
    pub(crate) confirm: Option<Regex>,
    /// The request that shows its value.
    pub(crate) read_back: Option<usize>,
}

/// Why a command is not sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The instrument is written point by point.
    #[error("a serial instrument is written point by point: command/<device>/<point>")]
    NoPoint,
    /// No such point, or one that commands may not write.
    #[error(
        "{device:?} has no point {point:?} that commands may write; `access = \"read-write\"` and `write` at a [[serial.point]] would permit it"
    )]
    Point {
        /// The instrument.
        device: String,
        /// The point.
        point: String,
    },
    /// The value does not fit the point.
    #[error(transparent)]
    Value(#[from] WriteError),
    /// Nothing would show whether it was executed.
    #[error("{0:?} has not been read yet, so that it could not be read back; try again")]
    NotReadYet(String),
    /// It does not fit what `write` says.
    #[error("{0}")]
    Unwritable(String),
    /// It waited for too long.
    #[error("expired: more than {0:?} passed before it could be sent")]
    Expired(Duration),
    /// The port is not open.
    #[error("not sent: {0}")]
    Down(String),
    /// Too many commands wait.
    #[error("{0} commands wait already")]
    QueueFull(usize),
}

/// The points that commands may write; the error is a reason for the operator.
pub(crate) fn writable(sensor: &SerialSensor) -> Result<Vec<Writable>, String> {
    let points = sensor.points.iter();
    let points = points.filter(|point| point.access == Access::ReadWrite);
    points.map(Writable::new).collect()
}

impl Writable {
    fn new(point: &SerialPoint) -> Result<Writable, String> {
        let write = point.write.as_deref();
        let write = write.ok_or_else(|| format!("point {} has no write", point.name))?;
        let confirm = point.confirm.as_deref().map(Regex::new).transpose();
        Ok(Writable {
            name: point.name.clone(),
            template: Template::parse(write)?,
            confirm: confirm.map_err(|error| error.to_string())?,
            read_back: point.read_back,
            text: point.kind == Some(TextType::String),
            shape: Shape::of(point),
            min: point.min,
            max: point.max,
        })
    }

    /// The value as the sender meant it.
    fn value(&self, given: &Json) -> Result<Value, WriteError> {
        let kind = |wanted| WriteError::Kind {
            given: given.to_string(),
            wanted,
        };
        if !self.template.takes_value() {
            let pressed = *given == Json::Bool(true);
            return pressed
                .then_some(Value::Bool(true))
                .ok_or(kind("true, the only thing that can be sent to a button"));
        }
        match given {
            Json::String(text) if self.text => Ok(Value::Text(text.clone())),
            _ if self.text => Err(kind("a text")),
            Json::Number(number) => {
                number::as_written(&number.to_string()).ok_or(kind("a number that can be sent"))
            }
            Json::Bool(bit) => Ok(Value::Bool(*bit)),
            _ => Err(kind("a number, true or false")),
        }
    }

    fn within_range(&self, value: &Value) -> Result<(), WriteError> {
        let Some(size) = value.as_f64() else {
            return Ok(());
        };
        match (self.min, self.max) {
            (Some(min), _) if size < min => Err(WriteError::BelowMin {
                value: value.to_string(),
                min,
            }),
            (_, Some(max)) if size > max => Err(WriteError::AboveMax {
                value: value.to_string(),
                max,
            }),
            _ => Ok(()),
        }
    }
}

/// Checks a command, and finds what has to be sent. `end` is what ends a frame, `shown_by` the
/// request that brings a point's value.
pub(crate) fn check(
    command: Command,
    points: &[Writable],
    check: Option<Check>,
    end: &[u8],
    shown_by: impl Fn(&str) -> Option<usize>,
) -> Result<Write, Box<(Command, Refusal)>> {
    let checked = rendered(&command, points, check, end);
    let checked = checked.and_then(|(bytes, value, point)| {
        let read_back = match point.read_back {
            false => None,
            true => {
                let request = shown_by(&point.name);
                Some(request.ok_or_else(|| Refusal::NotReadYet(point.name.clone()))?)
            }
        };
        Ok((bytes, value, point.confirm.clone(), read_back))
    });
    match checked {
        Ok((bytes, value, confirm, read_back)) => Ok(Write {
            command,
            bytes,
            value,
            confirm,
            read_back,
        }),
        Err(refusal) => Err(Box::new((command, refusal))),
    }
}

type Rendered<'a> = (Vec<u8>, Value, &'a Writable);

fn rendered<'a>(
    command: &Command,
    points: &'a [Writable],
    check: Option<Check>,
    end: &[u8],
) -> Result<Rendered<'a>, Refusal> {
    let name: &Arc<str> = command.point.as_ref().ok_or(Refusal::NoPoint)?;
    let point = points.iter().find(|point| *point.name == **name);
    let point = point.ok_or_else(|| Refusal::Point {
        device: command.device.to_string(),
        point: name.to_string(),
    })?;
    let value = point.value(&command.value)?;
    point.within_range(&value)?;
    let bytes = match &value {
        Value::Text(text) if holds(text.as_bytes(), end) => {
            let reason = "the text holds what ends a frame on this line";
            return Err(Refusal::Unwritable(reason.to_owned()));
        }
        Value::Text(_) | Value::Bool(_) => point.template.render(Some(&value), check),
        number => {
            let raw = point.shape.undo(number);
            let raw = raw.ok_or_else(|| WriteError::NotExact(number.to_string()))?;
            point.template.render(Some(&raw), check)
        }
    };
    let bytes = bytes.map_err(Refusal::Unwritable)?;
    Ok((bytes, value, point))
}

fn holds(text: &[u8], end: &[u8]) -> bool {
    !end.is_empty() && text.windows(end.len()).any(|window| window == end)
}

impl Write {
    /// Why it must not be sent any more, if so.
    pub(crate) fn expired(&self, now: Instant) -> Option<Refusal> {
        let age = now.saturating_duration_since(self.command.received.monotonic);
        let expires = self.command.expires?;
        (age > expires).then_some(Refusal::Expired(expires))
    }
}
