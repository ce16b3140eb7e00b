//! What the log is told of a bus, beside the events. Values.
//!
//! Invariant: each is a change; nothing here repeats while it lasts.

use std::{fmt, sync::Arc};

use crate::fieldbus::{
    poll::device::Lesson,
    transaction::{Exception, Span},
};

use super::load::Late;

/// Requests that a line about an overload names; the status has all.
const NAMED_MAX: usize = 8;

/// One line for the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// Points are read later than their intervals from now on: the bus is booked by `load`, or
    /// something else holds it up.
    Overload { load: f64, late: Vec<Late> },
    /// All intervals are kept again.
    Relieved { load: f64 },
    /// A device refused a request, and what follows.
    Exception {
        device: Arc<str>,
        unit: u8,
        span: Span,
        exception: Exception,
        lesson: Lesson,
    },
    /// A point that was asked more rarely answers again.
    Unparked { device: Arc<str>, point: Arc<str> },
}

impl Notice {
    /// Whether somebody has to act.
    pub(crate) fn is_warning(&self) -> bool {
        match self {
            Notice::Overload { .. } => true,
            Notice::Exception { lesson, .. } => *lesson != Lesson::Split,
            Notice::Relieved { .. } | Notice::Unparked { .. } => false,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Overload { load, late } => overload(f, *load, late),
            Notice::Relieved { load } => write!(
                f,
                "{:.0} % booked; every point is read at its interval again",
                load * 100.0
            ),
            Notice::Exception {
                device,
                unit,
                span,
                exception,
                lesson,
            } => {
                write!(f, "{device}, unit {unit}, {span}: {exception}; ")?;
                match lesson {
                    Lesson::Split => f.write_str("asking in smaller requests"),
                    Lesson::Parked(_, pause) => write!(f, "asking again in {pause:?}"),
                    Lesson::Passing => f.write_str("asking again at the next interval"),
                }
            }
            Notice::Unparked { device, point } => write!(f, "{device}/{point} answers again"),
        }
    }
}

fn overload(f: &mut fmt::Formatter<'_>, load: f64, late: &[Late]) -> fmt::Result {
    let give_way = late.iter().any(|one| one.stretched.is_some());
    let (what, remedy) = if give_way {
        (
            "slow points give way",
            "raise the line rate or the intervals, `gateway plan` shows the requests",
        )
    } else {
        (
            "read later than their intervals",
            "devices that answer late or not at all, or commands, take more of the bus than is planned",
        )
    };
    write!(f, "{:.0} % booked; {what}: ", load * 100.0)?;
    for (index, one) in late.iter().take(NAMED_MAX).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(f, "{comma}{one}")?;
    }
    if let Some(more @ 1..) = late.len().checked_sub(NAMED_MAX) {
        write!(f, " and {more} more")?;
    }
    write!(f, "; {remedy}")
}

/// As the operator reads it: `meter-1, input registers 0-9 every 10s instead of 5s`.
impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} every ", self.device, self.span)?;
        match self.stretched {
            Some(stretched) => write!(
                f,
                "{:.1}s instead of {:?}",
                stretched.as_secs_f64(),
                self.interval
            ),
            None => write!(f, "{:?}", self.interval),
        }
    }
}
