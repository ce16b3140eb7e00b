//! What the log is told of a bus, beside the events. Values.
//!
//! Invariant: each is a change; nothing here repeats while it lasts.

use std::{fmt, sync::Arc, time::Duration};

use crate::fieldbus::{
    poll::device::Lesson,
    transaction::{Exception, Span},
};

/// One line for the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// A request is answered later than its interval: the bus is overloaded.
    Late {
        device: Arc<str>,
        span: Span,
        interval: Duration,
    },
    /// A request that was late is in time again.
    Punctual {
        device: Arc<str>,
        span: Span,
        interval: Duration,
    },
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
            Notice::Late { .. } => true,
            Notice::Exception { lesson, .. } => *lesson != Lesson::Split,
            Notice::Punctual { .. } | Notice::Unparked { .. } => false,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Late {
                device,
                span,
                interval,
            } => write!(
                f,
                "{device}, {span}: the bus is too busy to read it every {interval:?}; `gateway plan` shows the load"
            ),
            Notice::Punctual {
                device,
                span,
                interval,
            } => write!(f, "{device}, {span}: read every {interval:?} again"),
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
