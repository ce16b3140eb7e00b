//! What stands where in each sentence type of NMEA 0183.
//!
//! A sentence whose fields stand for themselves is a row of the table. GGA, MWV, RPM, XDR and ZDA,
//! whose fields name or qualify each other, have a function each.
//!
//! Invariant: a point's name has one unit, except wind, whose sentence names it. Core.

use std::borrow::Cow;

use super::{Fields, Found};
use crate::reading::Value;

/// How a sentence type is read.
pub(super) struct Sentence {
    pub(super) kind: &'static str,
    pub(super) read: Read,
}

pub(super) enum Read {
    /// Field by field; not at all unless the field `valid` says `A`.
    Table {
        valid: Option<usize>,
        points: &'static [Field],
    },
    Own(for<'a> fn(&Fields<'a>) -> Result<Vec<Found<'a>>, String>),
}

/// A field that is a point.
pub(super) struct Field {
    pub(super) at: usize,
    pub(super) form: Form,
    pub(super) name: &'static str,
    /// Empty for a bare number.
    pub(super) unit: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Form {
    Number,
    /// The next field is a letter that gives the sign.
    Signed,
    /// `ddmm.mmm`, its whole degrees in so many digits; the next field is the hemisphere.
    Position {
        degrees: usize,
        limit: i128,
    },
}

const fn number(at: usize, name: &'static str, unit: &'static str) -> Field {
    Field {
        at,
        form: Form::Number,
        name,
        unit,
    }
}

const fn signed(at: usize, name: &'static str, unit: &'static str) -> Field {
    Field {
        at,
        form: Form::Signed,
        name,
        unit,
    }
}

const fn latitude(at: usize) -> Field {
    let form = Form::Position {
        degrees: 2,
        limit: 90,
    };
    Field {
        at,
        form,
        name: "latitude",
        unit: "°",
    }
}

const fn longitude(at: usize) -> Field {
    let form = Form::Position {
        degrees: 3,
        limit: 180,
    };
    Field {
        at,
        form,
        name: "longitude",
        unit: "°",
    }
}

const fn table(kind: &'static str, valid: Option<usize>, points: &'static [Field]) -> Sentence {
    Sentence {
        kind,
        read: Read::Table { valid, points },
    }
}

/// Every type that is known.
pub(super) const SENTENCES: &[Sentence] = &[
    table("DBT", None, &[number(3, "depth-below-transducer", "m")]),
    table(
        "DPT",
        None,
        &[
            number(1, "depth-below-transducer", "m"),
            number(2, "transducer-offset", "m"),
        ],
    ),
    Sentence {
        kind: "GGA",
        read: Read::Own(gga),
    },
    table("GLL", Some(6), &[latitude(1), longitude(3)]),
    table(
        "HDG",
        None,
        &[
            number(1, "heading-magnetic", "°"),
            signed(2, "magnetic-deviation", "°"),
            signed(4, "magnetic-variation", "°"),
        ],
    ),
    table("HDT", None, &[number(1, "heading-true", "°")]),
    table(
        "MDA",
        None,
        &[
            number(3, "pressure", "bar"),
            number(5, "air-temperature", "°C"),
            number(7, "water-temperature", "°C"),
            number(9, "humidity", "%"),
            number(11, "dew-point", "°C"),
            number(13, "wind-direction-true", "°"),
            number(15, "wind-direction-magnetic", "°"),
            number(17, "wind-speed-knots", "kn"),
            number(19, "wind-speed", "m/s"),
        ],
    ),
    table("MTW", None, &[number(1, "water-temperature", "°C")]),
    table(
        "MWD",
        None,
        &[
            number(1, "wind-direction-true", "°"),
            number(3, "wind-direction-magnetic", "°"),
            number(5, "wind-speed-knots", "kn"),
            number(7, "wind-speed", "m/s"),
        ],
    ),
    Sentence {
        kind: "MWV",
        read: Read::Own(mwv),
    },
    table(
        "RMC",
        Some(2),
        &[
            latitude(3),
            longitude(5),
            number(7, "speed-knots", "kn"),
            number(8, "course-true", "°"),
            signed(10, "magnetic-variation", "°"),
        ],
    ),
    Sentence {
        kind: "RPM",
        read: Read::Own(rpm),
    },
    table(
        "VHW",
        None,
        &[
            number(1, "heading-true", "°"),
            number(3, "heading-magnetic", "°"),
            number(5, "water-speed-knots", "kn"),
            number(7, "water-speed-kmh", "km/h"),
        ],
    ),
    table(
        "VTG",
        None,
        &[
            number(1, "course-true", "°"),
            number(3, "course-magnetic", "°"),
            number(5, "speed-knots", "kn"),
            number(7, "speed-kmh", "km/h"),
        ],
    ),
    Sentence {
        kind: "XDR",
        read: Read::Own(xdr),
    },
    Sentence {
        kind: "ZDA",
        read: Read::Own(zda),
    },
];

const GGA_QUALITY: &[Field] = &[number(6, "fix-quality", "")];

const GGA_FIX: &[Field] = &[
    latitude(2),
    longitude(4),
    number(7, "satellites", ""),
    number(8, "hdop", ""),
    number(9, "altitude", "m"),
    number(11, "geoid-separation", "m"),
];

/// A position; without a fix (quality 0) some receivers repeat their last one, which is left out.
fn gga<'a>(fields: &Fields<'a>) -> Result<Vec<Found<'a>>, String> {
    let mut found = fields.points(GGA_QUALITY)?;
    if !matches!(fields.at(6), "" | "0") {
        found.extend(fields.points(GGA_FIX)?);
    }
    Ok(found)
}

/// Wind, relative to the vessel or true, in the unit that the sentence names.
fn mwv<'a>(fields: &Fields<'a>) -> Result<Vec<Found<'a>>, String> {
    if fields.at(5) != "A" {
        return Ok(Vec::new());
    }
    let (angle, speed) = match fields.at(2) {
        "R" => ("wind-angle-relative", "wind-speed-relative"),
        "T" => ("wind-angle-true", "wind-speed-true"),
        _ => return Err("reference R or T in field 2".to_owned()),
    };
    let unit = match fields.at(4) {
        "K" => "km/h",
        "M" => "m/s",
        "N" => "kn",
        "S" => "mph",
        _ => return Err("speed unit K, M, N or S in field 4".to_owned()),
    };
    fields.points(&[number(1, angle, "°"), number(3, speed, unit)])
}

/// Revolutions and pitch of a numbered shaft or engine.
fn rpm<'a>(fields: &Fields<'a>) -> Result<Vec<Found<'a>>, String> {
    if fields.at(5) != "A" {
        return Ok(Vec::new());
    }
    let source = match fields.at(1) {
        "S" => "shaft",
        "E" => "engine",
        _ => return Err("source S or E in field 1".to_owned()),
    };
    let which = fields.at(2);
    let mut found = fields.points(&[number(3, "speed", "rpm"), number(4, "pitch", "%")])?;
    for point in &mut found {
        point.name = Cow::Owned(format!("{source}-{which}-{}", point.name));
    }
    Ok(found)
}

/// Transducers: type, value, unit and name, each a point under its own name.
fn xdr<'a>(fields: &Fields<'a>) -> Result<Vec<Found<'a>>, String> {
    let mut found = Vec::new();
    for at in (1..fields.fields.len()).step_by(4) {
        let Some(value) = fields.number(at + 1)? else {
            continue;
        };
        let (quantity, unit) = transducer(fields.at(at), fields.at(at + 2));
        let name = match fields.at(at + 3) {
            "" => Cow::Owned(format!("{quantity}-{}", at / 4 + 1)),
            name => Cow::Borrowed(name),
        };
        found.push(Found { name, value, unit });
    }
    Ok(found)
}

/// What a transducer type measures, and the unit behind its letter.
fn transducer(kind: &str, unit: &str) -> (&'static str, Option<&'static str>) {
    match (kind, unit) {
        ("A", "D") => ("angle", Some("°")),
        ("C", "C") => ("temperature", Some("°C")),
        ("C", "F") => ("temperature", Some("°F")),
        ("C", "K") => ("temperature", Some("K")),
        ("D", "M") => ("displacement", Some("m")),
        ("F", "H") => ("frequency", Some("Hz")),
        ("H", "P") => ("humidity", Some("%")),
        ("I", "A") => ("current", Some("A")),
        ("L", "S") => ("salinity", Some("ppt")),
        ("N", "N") => ("force", Some("N")),
        ("P", "B") => ("pressure", Some("bar")),
        ("P", "P") => ("pressure", Some("Pa")),
        ("R", "L") => ("flow", Some("l/s")),
        ("T", "R") => ("speed", Some("rpm")),
        ("U", "V") => ("voltage", Some("V")),
        ("V", "M") => ("volume", Some("m³")),
        ("S", _) => ("switch", None),
        _ => ("transducer", None),
    }
}

/// Date and time in UTC, as one text.
fn zda<'a>(fields: &Fields<'a>) -> Result<Vec<Found<'a>>, String> {
    let [time, day, month, year] = [1, 2, 3, 4].map(|at| fields.at(at));
    if [time, day, month, year]
        .iter()
        .any(|field| field.is_empty())
    {
        return Ok(Vec::new());
    }
    let clock = [0, 2, 4].map(|at| two_digits(time.get(at..at + 2)));
    let date = [two_digits(Some(day)), two_digits(Some(month))];
    let ([Some(hour), Some(minute), Some(second)], [Some(day), Some(month)], Ok(year)) =
        (clock, date, year.parse::<u16>())
    else {
        return Err("time, day, month and year in fields 1 to 4".to_owned());
    };
    let utc = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    Ok(vec![Found {
        name: Cow::Borrowed("utc"),
        value: Value::Text(utc),
        unit: None,
    }])
}

fn two_digits(text: Option<&str>) -> Option<u8> {
    let text = text?;
    let digits = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}
