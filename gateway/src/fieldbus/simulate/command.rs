//! What a person tells the simulator while it runs, word by word. A core.
//!
//! Invariant: a line that is not understood is answered by what to write instead.

use std::{str::FromStr, time::Duration};

use settings::Period;

use super::faults::{Fault, LineFault, Misbehaviour};

/// The longest line of text that a person writes.
const LINE_MAX: usize = 1_024;

/// What can be said.
pub const HELP: &str = "\
  DEVICE, BUS or all; left out: all. N% at the end: in that share of the requests, else in each.

  DEVICE silent [N%]                      hear nothing, answer nothing
  DEVICE late TIME [N%]                   answer so much later
  DEVICE exception CODE [at TABLE:N] [N%] answer with an exception, everywhere or at one register
  DEVICE wrong-unit [N%]                  answer under the next unit identifier
  DEVICE wrong-transaction [N%]           answer with the next transaction identifier (Modbus TCP)
  DEVICE crc [N%]                         answer with a wrong checksum (RTU)
  DEVICE cut [N%]                         answer with the first half only
  DEVICE holes [N%]                       refuse registers between the points (exception 2)
  DEVICE turnaround TIME                  take so long before each answer; at first 2ms
  DEVICE set POINT VALUE                  write a point, in its unit; it stays so
  BUS noise N%                            change each byte with this probability, both ways
  BUS echo on|off                         send back what the client sends
  BUS zeros N                             send so many bytes of zero before each answer
  BUS disconnect [TIME]                   end connections and accept none; a terminal is gone
  BUS connect                             give it back
  TARGET clear                            all right again
  status, help, quit
";

/// Something that a person wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// See what can be said.
    Help,
    /// See what is simulated and what goes wrong.
    Status,
    /// End.
    Quit,
    /// Something at devices or lines.
    Do(Target, Deed),
}

/// Whom it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All that it can concern.
    All,
    /// A device, a bus or a serial instrument.
    Named(String),
}

/// What is to become of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Nothing goes wrong any more.
    Clear,
    /// Something goes wrong at a device.
    Device(Misbehaviour),
    /// A device takes so long before it answers.
    Turnaround(Duration),
    /// A point gets a value.
    Set(String, serde_json::Value),
    /// Something goes wrong on a line.
    Line(LineFault),
    /// A line is gone; comes back by itself after this long.
    Disconnect(Option<Duration>),
    /// A line is back.
    Connect,
}

impl FromStr for Command {
    type Err = String;

    /// Reads `meter-1 late 300ms 10%`, or `meter-1=late:300ms` as on the command line.
    fn from_str(text: &str) -> Result<Command, String> {
        if text.len() > LINE_MAX {
            return Err(format!("a line has at most {LINE_MAX} characters"));
        }
        let text = match text.split_once('=') {
            Some((target, rest)) => format!("{target} {}", rest.replacen(':', " ", 1)),
            None => text.to_owned(),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["help" | "?"] => return Ok(Command::Help),
            ["status"] => return Ok(Command::Status),
            ["quit" | "exit"] => return Ok(Command::Quit),
            _ => {}
        }
        let all = deed(&words).map(|deed| Command::Do(Target::All, deed));
        match (all, &words[..]) {
            // The first word is no deed, so it names somebody.
            (Err(Wrong::Unknown), [target, rest @ ..]) if !rest.is_empty() => {
                let target = match *target {
                    "all" => Target::All,
                    name => Target::Named(name.to_owned()),
                };
                deed(rest)
                    .map(|deed| Command::Do(target, deed))
                    .map_err(|wrong| wrong.told(&text))
            }
            (all, _) => all.map_err(|wrong| wrong.told(&text)),
        }
    }
}

/// Why words are no deed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wrong {
    /// The first word is none.
    Unknown,
    /// It has to be written so.
    Write(&'static str),
}

impl Wrong {
    fn told(self, text: &str) -> String {
        match self {
            Wrong::Unknown => format!("{text:?} is not understood; help lists what is"),
            Wrong::Write(form) => format!("{text:?} is not understood; write: {form}"),
        }
    }
}

fn deed(words: &[&str]) -> Result<Deed, Wrong> {
    let [word, rest @ ..] = words else {
        return Err(Wrong::Unknown);
    };
    let plain = |fault, form| misbehaviour(fault, rest, form);
    match *word {
        "clear" => alone(rest, Deed::Clear, "clear"),
        "connect" => alone(rest, Deed::Connect, "connect"),
        "silent" => plain(Fault::Silent, "silent [N%]"),
        "wrong-unit" => plain(Fault::WrongUnit, "wrong-unit [N%]"),
        "wrong-transaction" => plain(Fault::WrongTransaction, "wrong-transaction [N%]"),
        "crc" => plain(Fault::WrongCrc, "crc [N%]"),
        "cut" => plain(Fault::Cut, "cut [N%]"),
        "holes" => plain(Fault::Holes, "holes [N%]"),
        "late" => late(rest),
        "exception" => exception(rest),
        "turnaround" => match rest {
            [time] => duration(time).map(Deed::Turnaround),
            _ => None,
        }
        .ok_or(Wrong::Write("turnaround TIME, such as turnaround 20ms")),
        "set" => match rest {
            [point, value @ ..] if !value.is_empty() => {
                Ok(Deed::Set((*point).to_owned(), json(&value.join(" "))))
            }
            _ => Err(Wrong::Write("DEVICE set POINT VALUE")),
        },
        "noise" => match rest {
            [noise] => share(noise).map(|share| Deed::Line(LineFault::Noise(share))),
            _ => None,
        }
        .ok_or(Wrong::Write("noise N%, such as noise 0.5%")),
        "echo" => match rest {
            ["on"] => Ok(Deed::Line(LineFault::Echo(true))),
            ["off"] => Ok(Deed::Line(LineFault::Echo(false))),
            _ => Err(Wrong::Write("echo on or echo off")),
        },
        "zeros" => match rest {
            [count] => count.parse().ok(),
            _ => None,
        }
        .map(|count| Deed::Line(LineFault::Zeros(count)))
        .ok_or(Wrong::Write("zeros N, 0 to 255")),
        "disconnect" => match rest {
            [] => Some(Deed::Disconnect(None)),
            [time] => duration(time).map(|time| Deed::Disconnect(Some(time))),
            _ => None,
        }
        .ok_or(Wrong::Write("disconnect or disconnect TIME")),
        _ => Err(Wrong::Unknown),
    }
}

fn alone(rest: &[&str], deed: Deed, form: &'static str) -> Result<Deed, Wrong> {
    if rest.is_empty() {
        Ok(deed)
    } else {
        Err(Wrong::Write(form))
    }
}

fn late(rest: &[&str]) -> Result<Deed, Wrong> {
    const FORM: &str = "late TIME [N%], such as late 300ms 10%";
    let [time, rest @ ..] = rest else {
        return Err(Wrong::Write(FORM));
    };
    let time = duration(time).ok_or(Wrong::Write(FORM))?;
    misbehaviour(Fault::Late(time), rest, FORM)
}

fn exception(rest: &[&str]) -> Result<Deed, Wrong> {
    const FORM: &str = "exception CODE [at TABLE:N] [N%], such as exception 2 at input:10";
    let [code, rest @ ..] = rest else {
        return Err(Wrong::Write(FORM));
    };
    let code = code.parse().map_err(|_| Wrong::Write(FORM))?;
    let (at, rest) = match rest {
        ["at", register, rest @ ..] => {
            let register = register.parse().map_err(|_| Wrong::Write(FORM))?;
            (Some(register), rest)
        }
        _ => (None, rest),
    };
    misbehaviour(Fault::Exception(code, at), rest, FORM)
}

/// A fault with the share that may stand behind it.
fn misbehaviour(fault: Fault, rest: &[&str], form: &'static str) -> Result<Deed, Wrong> {
    match rest {
        [] => Ok(Deed::Device(fault.into())),
        [written] => {
            let share = share(written).ok_or(Wrong::Write(form))?;
            Ok(Deed::Device(Misbehaviour { fault, share }))
        }
        _ => Err(Wrong::Write(form)),
    }
}

fn share(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

fn duration(text: &str) -> Option<Duration> {
    text.parse().ok().map(Period::as_duration)
}

/// A number, a truth, a list, or else a text.
fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Command {
        text.parse().expect(text)
    }

    fn of(name: &str, deed: Deed) -> Command {
        Command::Do(Target::Named(name.to_owned()), deed)
    }

    #[test]
    fn a_fault_is_read_with_its_device_its_argument_and_its_share() {
        let late = Fault::Late(Duration::from_millis(300));
        let at = "input:10".parse().ok();
        for (text, fault, share) in [
            ("m late 300ms", late, 1.0),
            ("m=late:300ms", late, 1.0),
            ("m late 300ms 10%", late, 0.1),
            ("m exception 2 at input:10", Fault::Exception(2, at), 1.0),
            (
                "m=exception:2 at input:10 50%",
                Fault::Exception(2, at),
                0.5,
            ),
            ("m exception 6", Fault::Exception(6, None), 1.0),
            ("m crc 0.5%", Fault::WrongCrc, 0.005),
            ("m silent", Fault::Silent, 1.0),
        ] {
            let wrong = Misbehaviour { fault, share };
            assert_eq!(read(text), of("m", Deed::Device(wrong)), "{text}");
        }
    }

    #[test]
    fn what_names_nobody_concerns_all() {
        let noise = Deed::Line(LineFault::Noise(0.01));
        assert_eq!(read("noise 1%"), Command::Do(Target::All, noise.clone()));
        assert_eq!(read("all noise 1%"), Command::Do(Target::All, noise));
        assert_eq!(read("clear"), Command::Do(Target::All, Deed::Clear));
        assert_eq!(read("rs485-0 clear"), of("rs485-0", Deed::Clear));
        let gone = Deed::Disconnect(Some(Duration::from_secs(5)));
        assert_eq!(read("plc disconnect 5s"), of("plc", gone));
        assert_eq!(read("status"), Command::Status);
    }

    #[test]
    fn a_point_is_set_to_a_number_a_truth_or_a_text() {
        let set = |value| of("m", Deed::Set("mode".to_owned(), value));
        assert_eq!(read("m set mode 12.5"), set(json!(12.5)));
        assert_eq!(read("m set mode true"), set(json!(true)));
        assert_eq!(read("m set mode heat up"), set(json!("heat up")));
    }

    #[test]
    fn what_is_not_understood_is_told_how_to_write() {
        for (text, told) in [
            ("m late", "late TIME"),
            ("m late soon", "late TIME"),
            ("m crc 101%", "crc [N%]"),
            ("m crc 10", "crc [N%]"),
            ("m exception 300", "exception CODE"),
            ("echo", "echo on"),
            ("m dance", "help lists"),
            ("dance", "help lists"),
            ("", "help lists"),
            ("m set mode", "set POINT VALUE"),
            ("clear m", "clear"),
        ] {
            let refused = text.parse::<Command>().expect_err(text);
            assert!(refused.contains(told), "{text}: {refused}");
        }
    }

    #[test]
    fn a_fault_prints_as_it_is_written() {
        for text in [
            "late 300ms 10%",
            "exception 2 at input:10",
            "crc 0.5%",
            "cut",
        ] {
            let Command::Do(_, Deed::Device(wrong)) = read(text) else {
                panic!("{text} is no fault");
            };
            assert_eq!(wrong.to_string(), text);
        }
    }
}
