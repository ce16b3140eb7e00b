//! A value in the words of the configuration: type, order, scale. Shell.
//!
//! Invariant: what is accepted here is accepted in a `[[device.point]]`, and means the same.

use crate::config::{self, Bus, Config, Point};

use super::{Failure, usage};

/// How registers are read as a value; as in a point of the configuration.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The value")]
pub(super) struct ValueArgs {
    /// u16, i16, u32, f32, bcd16, string, …; by default u16, or bool for bits
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) kind: Option<String>,
    /// Order of the bytes: ABCD, CDAB, BADC, DCBA, GHEFCDAB, …
    #[arg(long, value_name = "ORDER")]
    order: Option<String>,
    /// Factor applied to the raw number
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    scale: Option<f64>,
    /// Added after the factor
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    offset: Option<f64>,
    /// Registers of a string or raw value
    #[arg(long, value_name = "REGISTERS")]
    length: Option<u16>,
    /// The one bit that is the value; 0 is the least significant
    #[arg(long, value_name = "BIT")]
    bit: Option<u8>,
    /// The bits that are the value: 4..7
    #[arg(long, value_name = "LOW..HIGH")]
    bits: Option<String>,
    /// Which byte of the register an 8-bit value is: high or low
    #[arg(long, value_name = "BYTE")]
    byte: Option<String>,
}

impl ValueArgs {
    /// The point at `register`.
    pub(super) fn point(&self, register: &str) -> Result<Point, Failure> {
        let mut keys = vec![
            "name = \"value\"".to_owned(),
            format!("register = {register:?}"),
        ];
        let texts = [
            ("type", &self.kind),
            ("order", &self.order),
            ("bits", &self.bits),
            ("byte", &self.byte),
        ];
        keys.extend(texts.iter().filter_map(|(key, text)| {
            let text = text.as_ref()?;
            Some(format!("{key} = {text:?}"))
        }));
        let numbers = [("scale", self.scale), ("offset", self.offset)];
        keys.extend(
            numbers
                .iter()
                .filter_map(|(key, number)| Some(format!("{key} = {:?}", (*number)?))),
        );
        let counts = [("length", self.length), ("bit", self.bit.map(u16::from))];
        keys.extend(
            counts
                .iter()
                .filter_map(|(key, count)| Some(format!("{key} = {}", (*count)?))),
        );
        let config = read(&format!(
            "[[bus]]\nname = \"bus\"\ntcp = \"127.0.0.1:502\"\n\
             [[device]]\nname = \"unit\"\nbus = \"bus\"\nunit = 1\npoint = [{{ {} }}]\n",
            keys.join(", ")
        ))?;
        let mut points = config.devices.into_iter().flat_map(|device| device.points);
        points.next().ok_or_else(|| usage("no register is given"))
    }
}

/// A bus as the configuration would have it, of lines such as `baud = 9600`.
pub(super) fn bus(lines: &[String]) -> Result<Bus, Failure> {
    let config = read(&format!("[[bus]]\nname = \"bus\"\n{}\n", lines.join("\n")))?;
    let mut buses = config.buses.into_iter();
    buses.next().ok_or_else(|| usage("no bus is given"))
}

/// The configuration in a text made of the command line's words, or what is wrong with them.
fn read(text: &str) -> Result<Config, Failure> {
    config::parse("command line", text)
        .map(|loaded| loaded.value)
        .map_err(|problems| {
            let said: Vec<String> = problems
                .iter()
                .map(|problem| match problem.remedy.as_str() {
                    "" => problem.what.clone(),
                    remedy => format!("{}; {remedy}", problem.what),
                })
                .collect();
            usage(said.join("\n"))
        })
}
