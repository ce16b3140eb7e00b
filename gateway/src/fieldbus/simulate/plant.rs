//! The simulated devices and lines of a whole configuration, by their names. Driver.
//!
//! Invariant: a command names what it changes, or changes nothing and says what there is.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use crate::{
    config::{Bus, Config, Framing, Parity, SerialSensor},
    fieldbus::wire::line_rate::LineRate,
};

use super::{
    Device, Line,
    command::{Deed, Target},
    faults::Fault,
    instrument::Instrument,
    memory::Span,
    talk::Talk,
    unit::Unit,
};

/// All lines with what hangs on them.
#[derive(Debug, Default)]
pub struct Plant {
    places: Vec<Place>,
    seed: u64,
}

/// One line and what hangs on it.
#[derive(Debug)]
pub struct Place {
    /// The bus, or the serial instrument.
    pub name: String,
    /// The line, to be served.
    pub line: Line,
    devices: Vec<Device>,
    talks: bool,
}

impl Plant {
    /// A plant without devices whose chances and values come from `seed`.
    pub fn new(seed: u64) -> Plant {
        Plant {
            places: Vec::new(),
            seed,
        }
    }

    /// Adds the buses and devices of a configuration; with `paced`, serial lines take their time.
    pub fn add_buses(&mut self, config: &Config, paced: bool) {
        for bus in &config.buses {
            let on_bus = config.devices.iter().filter(|one| one.bus == bus.name);
            let devices = on_bus.map(|one| {
                let seed = self.seed ^ u64::from(one.unit);
                let instrument = Instrument::with_points(&one.points, seed);
                (one.name.as_str(), one.unit, instrument)
            });
            let devices: Vec<_> = devices.collect();
            let rate = (paced && bus.port.is_some()).then(|| LineRate::of(bus));
            self.add(&bus.name, framing(bus), rate, devices);
        }
    }

    /// Adds a line with bare registers behind several unit identifiers, `unit-N` by name; at a
    /// line rate, bytes take their time.
    pub fn add_registers(
        &mut self,
        name: &str,
        framing: Framing,
        baud: Option<u32>,
        units: &[u8],
        spans: &[Registers],
    ) {
        let rate = baud.map(|baud| LineRate::new(baud, Parity::Even, None));
        let spans: Vec<Span> = spans.iter().map(|registers| registers.0).collect();
        let names: Vec<String> = units.iter().map(|unit| format!("unit-{unit}")).collect();
        let devices = units.iter().zip(&names);
        let devices = devices
            .map(|(unit, name)| (name.as_str(), *unit, Instrument::with_spans(&spans)))
            .collect();
        self.add(name, framing, rate, devices);
    }

    /// Adds an instrument that talks by itself.
    pub fn add_talker(&mut self, sensor: &SerialSensor, talk: Talk) {
        let line = Line::new(Framing::Rtu, None, Vec::new(), self.seed).talking(talk);
        self.places.push(Place {
            name: sensor.name.clone(),
            line,
            devices: Vec::new(),
            talks: true,
        });
    }

    fn add(
        &mut self,
        name: &str,
        framing: Framing,
        rate: Option<LineRate>,
        devices: Vec<(&str, u8, Instrument)>,
    ) {
        let now = Instant::now();
        let devices: Vec<Device> = devices
            .into_iter()
            .map(|(name, id, instrument)| {
                let seed = self.seed ^ u64::from(id) << 8;
                Device::of(Unit::new(name, id, instrument, seed, now))
            })
            .collect();
        self.places.push(Place {
            name: name.to_owned(),
            line: Line::new(framing, rate, devices.clone(), self.seed),
            devices,
            talks: false,
        });
    }

    /// The lines, to be served.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Does what a person wants and tells how those stand whom it concerned; needs a tokio runtime.
    ///
    /// # Errors
    /// There is nobody of that name, or it cannot be done with them.
    pub fn apply(&self, target: &Target, deed: &Deed) -> Result<String, String> {
        let mut told = String::new();
        for place in &self.places {
            let whole = place.is(target);
            if whole {
                if place.on_line(deed, target)? {
                    told += &place.line_status();
                    continue;
                }
                if place.talks && matches!(deed, Deed::Clear) {
                    told += &place.line_status();
                }
            }
            for device in &place.devices {
                let named = matches!(target, Target::Named(name) if *name == device.unit().name);
                if !(whole || named) {
                    continue;
                }
                place.on_device(device, deed)?;
                told += &device_status(device);
            }
        }
        if told.is_empty() {
            return Err(self.nobody(target));
        }
        Ok(told)
    }

    /// What there is and what goes wrong.
    pub fn status(&self) -> String {
        let mut told = String::new();
        for place in &self.places {
            told += &place.line_status();
            for device in &place.devices {
                told += &device_status(device);
            }
        }
        told
    }

    fn nobody(&self, target: &Target) -> String {
        let Target::Named(name) = target else {
            return "there is nothing here that this can be done with".to_owned();
        };
        let mut known: Vec<String> = Vec::new();
        for place in &self.places {
            known.push(place.name.clone());
            known.extend(place.devices.iter().map(|one| one.unit().name.clone()));
        }
        format!(
            "nothing here is called {name:?}; there are {}",
            known.join(", ")
        )
    }
}

impl Place {
    fn is(&self, target: &Target) -> bool {
        match target {
            Target::All => true,
            Target::Named(name) => *name == self.name,
        }
    }

    /// Does what concerns the line; false where it concerns the devices on it.
    fn on_line(&self, deed: &Deed, target: &Target) -> Result<bool, String> {
        match *deed {
            Deed::Line(fault) => self.line.set(fault),
            Deed::Connect => self.line.connect(true),
            Deed::Disconnect(back) => {
                self.line.connect(false);
                if let Some(after) = back {
                    self.connect_in(after);
                }
            }
            Deed::Clear => {
                self.line.clear();
                return Ok(false);
            }
            Deed::Device(wrong) if self.talks && wrong.fault == Fault::Silent => {
                self.line.talk(false);
            }
            Deed::Device(_) | Deed::Turnaround(_) | Deed::Set(..) => {
                if self.talks && *target != Target::All {
                    return Err(format!(
                        "{} talks by itself: it knows silent, noise, disconnect, connect, clear",
                        self.name
                    ));
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn connect_in(&self, after: Duration) {
        let line = self.line.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            line.connect(true);
        });
    }

    fn on_device(&self, device: &Device, deed: &Deed) -> Result<(), String> {
        let mut unit = device.unit();
        match deed {
            Deed::Clear => unit.behave(),
            Deed::Turnaround(time) => unit.turnaround = *time,
            Deed::Set(point, value) => unit.set(point, value)?,
            Deed::Device(wrong) => {
                self.line.can_do(wrong.fault)?;
                unit.misbehave(*wrong);
            }
            Deed::Line(_) | Deed::Connect | Deed::Disconnect(_) => {
                return Err(format!(
                    "that concerns a whole line: write {} instead of {}",
                    self.name, unit.name
                ));
            }
        }
        Ok(())
    }

    fn line_status(&self) -> String {
        let mut told = format!("{}: ", self.name);
        told += if self.line.is_connected() {
            "connected"
        } else {
            "disconnected"
        };
        if self.talks && !self.line.talks() {
            told += ", silent";
        }
        let faults = self.line.faults().to_string();
        if !faults.is_empty() {
            let _infallible = write!(told, ", {faults}");
        }
        told + "\n"
    }
}

fn device_status(device: &Device) -> String {
    let unit = device.unit();
    let tally = unit.tally;
    let mut told = format!(
        "{}: unit {}, {} requests, {} answers, {} exceptions, {} spoilt",
        unit.name, unit.id, tally.requests, tally.answers, tally.exceptions, tally.spoilt
    );
    for wrong in unit.faults() {
        let _infallible = write!(told, "; {wrong}");
    }
    told + "\n"
}

fn framing(bus: &Bus) -> Framing {
    match bus.port {
        Some(_) => Framing::Rtu,
        None => bus.framing.unwrap_or(Framing::Tcp),
    }
}

/// Neighbouring elements of one table, as a person writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers(Span);

impl std::str::FromStr for Registers {
    type Err = String;

    /// Reads `input:0-99` or `coil:7`.
    fn from_str(text: &str) -> Result<Registers, String> {
        let form = || format!("{text:?} names no registers; write input:0-99 or holding:40");
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (first, Some(last)),
            None => (text, None),
        };
        let first: crate::fieldbus::register::Register = first.parse().map_err(|_| form())?;
        let last = match last {
            Some(last) => last.parse().map_err(|_| form())?,
            None => first.address,
        };
        let count = last
            .checked_sub(first.address)
            .and_then(|more: u16| more.checked_add(1))
            .ok_or_else(form)?;
        Ok(Registers(Span {
            table: first.table,
            start: first.address,
            count,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::command::Command, *};

    const CONFIG: &str = r#"
        [[bus]]
        name = "line"
        port = "/dev/ttyS7"
        [[bus]]
        name = "net"
        tcp = "192.0.2.1:502"
        [[device]]
        name = "meter"
        bus = "line"
        unit = 7
        point = [{ name = "voltage", register = "input:0", type = "f32" }]
        [[device]]
        name = "plc"
        bus = "net"
        unit = 1
        point = [{ name = "level", register = "holding:3" }]
    "#;

    fn plant() -> Plant {
        let config = crate::config::parse("test.toml", CONFIG).expect("a configuration");
        let mut plant = Plant::new(1);
        plant.add_buses(&config.value, true);
        plant
    }

    fn tell(plant: &Plant, text: &str) -> Result<String, String> {
        match text.parse()? {
            Command::Do(target, deed) => plant.apply(&target, &deed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_concerns_those_whom_it_names_and_tells_how_they_stand() {
        let plant = plant();
        let told = tell(&plant, "meter late 300ms").expect("done");
        assert!(told.starts_with("meter: unit 7"), "{told}");
        assert!(told.ends_with("; late 300ms\n"), "{told}");
        assert_eq!(
            tell(&plant, "line noise 1%").as_deref(),
            Ok("line: connected, noise 1%\n")
        );
        assert_eq!(tell(&plant, "all silent").expect("done").lines().count(), 2);
        assert_eq!(
            tell(&plant, "disconnect").as_deref(),
            Ok("line: disconnected, noise 1%\nnet: disconnected\n")
        );
        let cleared = tell(&plant, "clear").expect("done");
        assert!(!cleared.contains("silent") && !cleared.contains("noise"));
        assert!(plant.status().contains("net: connected\nplc: unit 1"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_what_can() {
        let plant = plant();
        for (text, told) in [
            ("mter silent", "there are line, meter, net, plc"),
            ("meter noise 1%", "write line instead of meter"),
            ("plc crc", "has no checksum"),
            ("meter wrong-transaction", "has no transaction identifier"),
            ("meter set current 3", "there are voltage"),
        ] {
            let refused = tell(&plant, text).expect_err(text);
            assert!(refused.contains(told), "{text}: {refused}");
        }
    }

    #[test]
    fn registers_are_written_as_a_range() {
        let span = |text: &str| text.parse::<Registers>().map(|range| range.0);
        let hundred = span("input:0-99").expect("a range");
        assert_eq!((hundred.start, hundred.count), (0, 100));
        assert_eq!(span("coil:7").map(|span| span.count), Ok(1));
        for text in ["input:9-3", "40001", "input:0-99999", "holding:0-65535"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
