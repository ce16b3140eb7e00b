//! What can be made to go wrong at a simulated device and on its line. Values.
//!
//! Invariant: a fault of one kind stands once; setting it again replaces it.

use std::{fmt, time::Duration};

use settings::Period;

use crate::fieldbus::register::Register;

/// Something that a device does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It hears nothing and answers nothing.
    Silent,
    /// It answers so much later than usual.
    Late(Duration),
    /// It answers with an exception of this code; with a register, only where that is concerned.
    Exception(u8, Option<Register>),
    /// It answers under another unit identifier.
    WrongUnit,
    /// It answers with another transaction identifier (Modbus TCP).
    WrongTransaction,
    /// Its checksum is wrong (RTU).
    WrongCrc,
    /// Its answer ends in the middle.
    Cut,
    /// Registers between those that mean something answer with exception 2.
    Holes,
}

/// A fault and how often it strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Misbehaviour {
    /// What goes wrong.
    pub fault: Fault,
    /// In which share of the requests, 0 to 1.
    pub share: f64,
}

/// Something that is wrong with a whole line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LineFault {
    /// Each byte is another one with this probability, 0 to 1, in both directions.
    Noise(f64),
    /// What the client sends comes back first, as with a two-wire adapter that hears itself.
    Echo(bool),
    /// So many bytes of zero come before each answer, as drivers that switch on late make them.
    Zeros(u8),
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct LineFaults {
    pub(super) noise: f64,
    pub(super) echo: bool,
    pub(super) zeros: u8,
}

impl LineFaults {
    /// Puts one in the place of the last of its kind.
    pub(super) fn set(&mut self, fault: LineFault) {
        match fault {
            LineFault::Noise(share) => self.noise = share,
            LineFault::Echo(on) => self.echo = on,
            LineFault::Zeros(count) => self.zeros = count,
        }
    }
}

impl From<Fault> for Misbehaviour {
    /// At every request.
    fn from(fault: Fault) -> Misbehaviour {
        Misbehaviour { fault, share: 1.0 }
    }
}

/// As it is written in a command.
impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::Silent => write!(f, "silent")?,
            Fault::Late(late) => write!(f, "late {}", period(late))?,
            Fault::Exception(code, None) => write!(f, "exception {code}")?,
            Fault::Exception(code, Some(at)) => write!(f, "exception {code} at {at}")?,
            Fault::WrongUnit => write!(f, "wrong-unit")?,
            Fault::WrongTransaction => write!(f, "wrong-transaction")?,
            Fault::WrongCrc => write!(f, "crc")?,
            Fault::Cut => write!(f, "cut")?,
            Fault::Holes => write!(f, "holes")?,
        }
        if self.share < 1.0 {
            write!(f, " {}", percent(self.share))?;
        }
        Ok(())
    }
}

/// As it is written in commands; empty where all is well.
impl fmt::Display for LineFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.noise > 0.0 {
            words.push(format!("noise {}", percent(self.noise)));
        }
        if self.echo {
            words.push("echo on".to_owned());
        }
        if self.zeros > 0 {
            words.push(format!("zeros {}", self.zeros));
        }
        f.write_str(&words.join(", "))
    }
}

/// A time as people write it.
pub(super) fn period(time: Duration) -> Period {
    Period::from_micros(u64::try_from(time.as_micros()).unwrap_or(0))
}

fn percent(share: f64) -> String {
    // A share comes from a percentage: ten digits bring it back as it was written.
    let percentage = (share * 100.0 * 1e10).round() / 1e10;
    format!("{percentage}%")
}
