//! Which registers a value takes, what they say, and what has to be written for it to say
//! something else. A core.
//!
//! Invariant: a value is never split between two requests.

use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    config::{Form, Point},
    fieldbus::{
        decode::{Codec, Encoded},
        register::Register,
        transaction::{Answer, Request, Span},
    },
    reading::Value,
};

/// Most registers and bits of one request (application protocol 6).
const REGISTERS_MAX: u16 = 125;
const BITS_MAX: u16 = 2_000;

/// One value and the registers it was read from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Where it starts.
    #[serde(serialize_with = "as_text")]
    pub(crate) register: Register,
    /// Its registers, as they arrived; none of a coil or a discrete input.
    pub(crate) words: Vec<u16>,
    /// What they say, in JSON's types; absent where they say nothing.
    pub(crate) value: Option<Json>,
    /// The same as people read it, or why it is absent.
    pub(crate) text: String,
}

fn as_text<S: serde::Serializer>(register: &Register, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(register)
}

/// The requests for `count` values that stand one after the other from the point's register on.
///
/// # Errors
/// The last value would end beyond address 65535, or one alone is longer than a request.
pub(crate) fn spans(point: &Point, count: u16) -> Result<Vec<Span>, String> {
    let Register { table, address } = point.register;
    let elements = point.elements();
    let most = if table.is_bits() {
        BITS_MAX
    } else {
        REGISTERS_MAX
    };
    let per_request = most / elements.max(1);
    if per_request == 0 {
        return Err(format!(
            "a value of {elements} registers is longer than a request"
        ));
    }
    let end = u32::from(address) + u32::from(elements) * u32::from(count);
    if end > 1 << 16 {
        return Err(format!(
            "{count} values from {} on end beyond address 65535",
            point.register
        ));
    }
    let starts = (0..count).step_by(usize::from(per_request));
    let span = |first: u16| Span {
        table,
        start: address + first * elements,
        count: per_request.min(count - first) * elements,
    };
    Ok(starts.map(span).collect())
}

/// The values in what a request brought.
pub(crate) fn rows(point: &Point, span: Span, answer: &Answer) -> Vec<Row> {
    let codec = Codec::of(point);
    let elements = usize::from(codec.elements()).max(1);
    let register = |index: usize| Register {
        table: span.table,
        address: span.start + u16::try_from(index * elements).unwrap_or(0),
    };
    match answer {
        Answer::Bits(bits) => {
            let row = |(index, bit): (usize, &bool)| {
                Row::of(register(index), Vec::new(), Ok(codec.decode_bit(*bit)))
            };
            bits.iter().enumerate().map(row).collect()
        }
        Answer::Registers(words) => {
            let row = |(index, words): (usize, &[u16])| {
                let value = codec.decode(words).map_err(|bad| bad.to_string());
                Row::of(register(index), words.to_vec(), value)
            };
            words.chunks_exact(elements).enumerate().map(row).collect()
        }
        Answer::Written | Answer::Raw(_) | Answer::Broadcast => Vec::new(),
    }
}

impl Row {
    fn of(register: Register, words: Vec<u16>, value: Result<Value, String>) -> Row {
        Row {
            register,
            words,
            value: value
                .as_ref()
                .ok()
                .map(|value| crate::payload::json(Some(value))),
            text: value.map_or_else(|reason| reason, |value| value.to_string()),
        }
    }
}

/// A request that writes, and the one that reads back what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// The request.
    pub(crate) request: Request,
    /// Where it writes.
    pub(crate) span: Span,
    /// What the registers shall hold, and which of their bits count.
    expected: Expected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Coils(Vec<bool>),
    Registers(Vec<u16>),
    Bits { mask: u16, bits: u16 },
}

impl Write {
    /// The write after which `values` stand one after the other from the point's register on;
    /// `function` demands a function code.
    ///
    /// # Errors
    /// A value does not fit the point, the table cannot be written, or the function code is not one
    /// that writes this.
    pub(crate) fn new(
        point: &Point,
        values: &[Json],
        function: Option<u8>,
    ) -> Result<Write, String> {
        let Register { table, address } = point.register;
        if !table.is_writable() {
            return Err(format!(
                "{} cannot be written: only coils and holding registers can",
                point.register
            ));
        }
        let codec = Codec::of(point);
        let encoded: Result<Vec<Encoded>, String> = values
            .iter()
            .map(|value| {
                codec
                    .encode(value)
                    .map_err(|error| format!("{value}: {error}"))
            })
            .collect();
        let expected = Expected::of(encoded?)?;
        let elements = match &expected {
            Expected::Coils(coils) => coils.len(),
            Expected::Registers(words) => words.len(),
            Expected::Bits { .. } => 1,
        };
        let count = u16::try_from(elements).map_err(|_| "too many values".to_owned())?;
        let span = Span {
            table,
            start: address,
            count,
        };
        let request = expected.request(span, function)?;
        Ok(Write {
            request,
            span,
            expected,
        })
    }

    /// Whether what was read back is what was written.
    pub(crate) fn is_confirmed_by(&self, answer: &Answer) -> bool {
        match (&self.expected, answer) {
            (Expected::Coils(coils), Answer::Bits(bits)) => coils == bits,
            (Expected::Registers(words), Answer::Registers(read)) => words == read,
            (Expected::Bits { mask, bits }, Answer::Registers(read)) => {
                read.first().is_some_and(|word| word & mask == bits & mask)
            }
            _ => false,
        }
    }
}

impl Expected {
    fn of(encoded: Vec<Encoded>) -> Result<Expected, String> {
        if let [Encoded::Mask { and, or }] = encoded.as_slice() {
            return Ok(Expected::Bits {
                mask: !and,
                bits: *or,
            });
        }
        let (mut coils, mut words) = (Vec::new(), Vec::new());
        for one in encoded {
            match one {
                Encoded::Coil(on) => coils.push(on),
                Encoded::Registers(more) => words.extend(more),
                Encoded::Mask { .. } => {
                    return Err("bits of a register are written one value at a time".to_owned());
                }
            }
        }
        match (coils.is_empty(), words.is_empty()) {
            (true, true) => Err("no value to write".to_owned()),
            (false, _) => Ok(Expected::Coils(coils)),
            (true, false) => Ok(Expected::Registers(words)),
        }
    }

    fn request(&self, span: Span, function: Option<u8>) -> Result<Request, String> {
        let address = span.start;
        let request = match (self, function) {
            (Expected::Coils(coils), None | Some(5)) if coils.len() == 1 => Request::WriteCoil {
                address,
                on: coils[0],
            },
            (Expected::Coils(coils), None | Some(15)) => Request::WriteCoils {
                address,
                coils: coils.clone(),
            },
            (Expected::Registers(words), None | Some(6)) if words.len() == 1 => {
                Request::WriteRegister {
                    address,
                    word: words[0],
                }
            }
            (Expected::Registers(words), Some(6)) => {
                let count = words.len();
                return Err(format!(
                    "function code 6 writes one register, and this is {count}"
                ));
            }
            (Expected::Registers(words), None | Some(16)) => Request::WriteRegisters {
                address,
                words: words.clone(),
            },
            (Expected::Registers(words), Some(23)) => Request::ReadWriteRegisters {
                read: span,
                address,
                words: words.clone(),
            },
            (Expected::Bits { mask, bits }, None | Some(22)) => Request::MaskRegister {
                address,
                and: !mask,
                or: *bits,
            },
            (_, Some(function)) => {
                return Err(format!("function code {function} does not write this"));
            }
        };
        Ok(request)
    }
}

/// A word of the command line as JSON of the kind that the point takes: `on`, `12.5`, `0x1F`.
pub(crate) fn given(point: &Point, text: &str) -> Json {
    let form = if point.register.table.is_bits() || point.bit.is_some() {
        Form::Bool
    } else {
        point.kind().form()
    };
    match (form, text.to_ascii_lowercase().as_str()) {
        (Form::Bool, "on" | "true" | "1") => return Json::Bool(true),
        (Form::Bool, "off" | "false" | "0") => return Json::Bool(false),
        _ => {}
    }
    if !form.is_number() {
        return Json::String(text.to_owned());
    }
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
        && let Ok(number) = u64::from_str_radix(digits, 16)
    {
        return Json::from(number);
    }
    let number = text.parse::<serde_json::Number>();
    number.map_or_else(|_| Json::String(text.to_owned()), Json::Number)
}

/// Registers that are read to look at: no more than one request brings.
pub(crate) fn window(register: Register, before: u16, count: u16) -> Span {
    let start = register.address.saturating_sub(before);
    let most = if register.table.is_bits() {
        BITS_MAX
    } else {
        REGISTERS_MAX
    };
    let room = u32::from(u16::MAX) - u32::from(start) + 1;
    let count = count
        .saturating_add(register.address - start)
        .clamp(1, most);
    Span {
        table: register.table,
        start,
        count: u16::try_from(room).map_or(count, |room| count.min(room)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::PointType;

    use super::*;

    fn point(register: &str, kind: Option<PointType>) -> Point {
        Point::example(register, kind)
    }

    #[test]
    fn many_values_are_split_between_requests_but_no_value_is() {
        let spans = spans(&point("input:10", Some(PointType::U48)), 50).unwrap();
        let shown: Vec<String> = spans.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["input registers 10-132", "input registers 133-159"]);
        assert!(super::spans(&point("input:65535", Some(PointType::F32)), 1).is_err());
        assert!(super::spans(&point("input:65535", None), 1).is_ok());
    }

    #[test]
    fn rows_tell_register_words_and_value() {
        let point = point("input:4", Some(PointType::F32));
        let span = spans(&point, 2).unwrap()[0];
        let answer = Answer::Registers(vec![0x4367, 0x6666, 0x7fc0, 0]);
        let rows = rows(&point, span, &answer);
        assert_eq!(rows[0].text, "231.4");
        assert_eq!(rows[1].register.to_string(), "input:6");
        assert_eq!(rows[1].value, None);
        assert!(rows[1].text.contains("no number"), "{}", rows[1].text);
    }

    #[test]
    fn a_write_takes_the_function_code_that_fits_or_is_demanded() {
        let setpoint = point("holding:100", None);
        let written =
            |function| Write::new(&setpoint, &[json!(7)], function).map(|write| write.request);
        let six = Request::WriteRegister {
            address: 100,
            word: 7,
        };
        assert_eq!(written(None), Ok(six.clone()));
        assert_eq!(written(Some(6)), Ok(six));
        let sixteen = Request::WriteRegisters {
            address: 100,
            words: vec![7],
        };
        assert_eq!(written(Some(16)), Ok(sixteen));
        assert!(written(Some(5)).is_err());
        let float = point("holding:0", Some(PointType::F32));
        assert!(Write::new(&float, &[json!(1.5)], Some(6)).is_err());
        let coil = Write::new(&point("coil:3", None), &[json!(true)], Some(15)).unwrap();
        let fifteen = Request::WriteCoils {
            address: 3,
            coils: vec![true],
        };
        assert_eq!(coil.request, fifteen);
        assert!(Write::new(&point("input:0", None), &[json!(1)], None).is_err());
        assert!(Write::new(&setpoint, &[json!(70_000)], None).is_err());
    }

    #[test]
    fn a_bit_is_written_by_mask_and_confirmed_by_its_bit_alone() {
        let mut bit = point("holding:1", Some(PointType::U16));
        bit.bit = Some(3);
        let write = Write::new(&bit, &[json!(true)], None).unwrap();
        let mask = Request::MaskRegister {
            address: 1,
            and: !8,
            or: 8,
        };
        assert_eq!(write.request, mask);
        assert!(write.is_confirmed_by(&Answer::Registers(vec![0xff])));
        assert!(!write.is_confirmed_by(&Answer::Registers(vec![0xf7])));
    }

    #[test]
    fn words_of_the_command_line_are_of_the_points_kind() {
        let number = point("holding:0", None);
        assert_eq!(given(&number, "12"), json!(12));
        assert_eq!(given(&number, "0xFF"), json!(255));
        assert_eq!(given(&number, "-1.5"), json!(-1.5));
        assert_eq!(given(&number, "auto"), json!("auto"));
        assert_eq!(given(&point("coil:0", None), "ON"), json!(true));
        let text = point("holding:0", Some(PointType::String));
        assert_eq!(given(&text, "12"), json!("12"));
    }

    #[test]
    fn a_window_stays_within_the_table_and_a_request() {
        let at = |text: &str| text.parse().unwrap();
        let shown = |span: Span| (span.start, span.count);
        assert_eq!(shown(window(at("input:0"), 1, 10)), (0, 10));
        assert_eq!(shown(window(at("input:5"), 1, 10)), (4, 11));
        assert_eq!(shown(window(at("input:65535"), 1, 10)), (65_534, 2));
        assert_eq!(shown(window(at("input:9"), 0, 900)), (9, 125));
    }
}
