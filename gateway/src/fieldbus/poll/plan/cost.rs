//! What a request costs on a bus, in time. A value.
//!
//! Invariant: the time is that of the wire and of the device's turnaround; nothing is free.

use std::time::Duration;

use crate::config;

use crate::fieldbus::{
    transaction::{Request, Span},
    wire::line_rate::LineRate,
};

/// Bytes that an MBAP header has beyond the unit and the CRC of a serial frame.
const MBAP_EXTRA: usize = 4;
/// How long a device thinks before it answers, until it has been measured.
const TURNAROUND: Duration = Duration::from_millis(10);
/// A round trip over a plant network with the device's own time, until it has been measured.
const ROUND_TRIP: Duration = Duration::from_millis(2);
/// How long a line is listened to after an answer that did not come, with what a USB converter adds.
const FENCE: Duration = Duration::from_millis(50);
/// One byte on a plant network of 10 Mbit/s, so that a hole is cheap but not free.
const NETWORK_BYTE: Duration = Duration::from_nanos(800);

/// What requests to one device cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    medium: Medium,
    turnaround: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    /// A serial line, or a converter that speaks RTU to one.
    Line(LineRate),
    /// Modbus TCP.
    Network,
}

impl Cost {
    /// What requests cost on a configured bus, to a device that has not been measured.
    pub(crate) fn of(bus: &config::Bus) -> Cost {
        let mbap = bus.tcp.is_some() && bus.framing != Some(config::Framing::Rtu);
        if mbap {
            Cost::network()
        } else {
            Cost::line(LineRate::of(bus))
        }
    }

    /// What requests cost on a serial line.
    pub fn line(rate: LineRate) -> Cost {
        Cost {
            medium: Medium::Line(rate),
            turnaround: TURNAROUND,
        }
    }

    /// What requests cost over a network.
    pub fn network() -> Cost {
        Cost {
            medium: Medium::Network,
            turnaround: ROUND_TRIP,
        }
    }

    /// The same for a device that takes `turnaround` between a request and its answer.
    pub fn with_turnaround(self, turnaround: Duration) -> Cost {
        Cost { turnaround, ..self }
    }

    /// The same for a device that has not been measured.
    pub(crate) fn untaught(self) -> Cost {
        match self.medium {
            Medium::Line(rate) => Cost::line(rate),
            Medium::Network => Cost::network(),
        }
    }

    /// Whether units share one line, on which nothing but their answers takes time.
    pub(crate) fn is_line(self) -> bool {
        matches!(self.medium, Medium::Line(_))
    }

    /// Time between a request and its answer: the device's own, and a network's round trip.
    pub(crate) fn turnaround(self) -> Duration {
        self.turnaround
    }

    /// How long a read keeps the bus busy: request, turnaround, answer, silence.
    pub(crate) fn read(self, span: Span) -> Duration {
        self.transfer(&Request::Read(span)) + self.turnaround + self.silence()
    }

    /// How long a request and its answer take on the wire, beside the device's own time.
    pub(crate) fn transfer(self, request: &Request) -> Duration {
        let (sent, received) = request.frame_bytes();
        match self.medium {
            Medium::Line(rate) => rate.frame(sent + received),
            Medium::Network => NETWORK_BYTE * bytes(sent + received + 2 * MBAP_EXTRA),
        }
    }

    /// Time that has to pass between an answer and the next request.
    pub(crate) fn silence(self) -> Duration {
        match self.medium {
            Medium::Line(rate) => rate.silence(),
            Medium::Network => Duration::ZERO,
        }
    }

    /// Time that passes after an answer that did not come, until the next request may be sent.
    pub(crate) fn fence(self) -> Duration {
        match self.medium {
            Medium::Line(_) => FENCE,
            Medium::Network => Duration::ZERO,
        }
    }
}

fn bytes(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
