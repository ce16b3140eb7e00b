//! NMEA 0183: sentences of navigation and weather instruments into named points.
//!
//! One table says what stands where in each sentence type; the four types whose fields name each
//! other (GGA, MWV, RPM, XDR) and the date of ZDA have a function each.
//!
//! Invariant: a sentence whose checksum does not fit yields nothing, and an instrument that has
//! once sent a checksum must always send one, for a sentence that was cut short lacks it. Core.

use std::borrow::Cow;

use super::number;
use crate::reading::Value;

/// One value in a frame, under the name that the frame gives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found<'a> {
    /// The point.
    pub(crate) name: Cow<'a, str>,
    /// Its value.
    pub(crate) value: Value,
    /// Its unit, where the protocol says.
    pub(crate) unit: Option<&'static str>,
}

/// A reader of sentences.
#[derive(Debug)]
pub(crate) struct Nmea {
    wanted: Vec<String>,
    checksum_seen: bool,
}

impl Nmea {
    /// Takes the wanted sentence types, every known one if none is named; the error lists them.
    pub(crate) fn new(wanted: &[String]) -> Result<Nmea, String> {
        for kind in wanted {
            if !SENTENCES.iter().any(|sentence| sentence.kind == kind) {
                let known: Vec<_> = SENTENCES.iter().map(|sentence| sentence.kind).collect();
                return Err(format!(
                    "{kind:?} is not a known NMEA 0183 sentence type; known are {}",
                    known.join(", ")
                ));
            }
        }
        Ok(Nmea {
            wanted: wanted.to_vec(),
            checksum_seen: false,
        })
    }

    /// Decodes one line. `None`: a sentence that is well formed but not wanted or not known. The
    /// error is what was expected.
    pub(crate) fn decode<'a>(&mut self, line: &'a str) -> Result<Option<Vec<Found<'a>>>, String> {
        let fields = self.open(line)?;
        let Some(sentence) = self.wanted_sentence(&fields) else {
            return Ok(None);
        };
        match sentence.read {
            Read::Table { valid, points } => {
                if valid.is_some_and(|at| fields.at(at) != "A") {
                    return Ok(Some(Vec::new()));
                }
                fields.points(points).map(Some)
            }
            Read::Own(read) => read(&fields).map(Some),
        }
    }

    /// Finds the sentence in the line and verifies its checksum (NMEA 0183, 5.3).
    fn open<'a>(&mut self, line: &'a str) -> Result<Fields<'a>, String> {
        let start = line.rfind(['$', '!']);
        let sentence = start.and_then(|at| line.get(at + 1..));
        let sentence = sentence.ok_or("a sentence that begins with $ or !")?;
        let body = match sentence.trim_end().split_once('*') {
            Some((body, checksum)) => {
                let expected = body.bytes().fold(0, |xor, byte| xor ^ byte);
                if u8::from_str_radix(checksum, 16) != Ok(expected) {
                    return Err(format!("checksum *{expected:02X}"));
                }
                self.checksum_seen = true;
                body
            }
            None if self.checksum_seen => {
                return Err("a checksum, as this instrument's earlier sentences had".to_owned());
            }
            None => sentence.trim_end(),
        };
        let fields: Vec<_> = body.split(',').collect();
        Ok(Fields { fields })
    }

    fn wanted_sentence(&self, fields: &Fields) -> Option<&'static Sentence> {
        let kind = fields.kind()?;
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| wanted == kind) {
            return None;
        }
        SENTENCES.iter().find(|sentence| sentence.kind == kind)
    }
}

/// A sentence cut at its commas; field 0 is talker and type.
struct Fields<'a> {
    fields: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// The type after a talker of two letters; proprietary sentences (`P…`) have none.
    fn kind(&self) -> Option<&'a str> {
        let address = self.at(0);
        if address.starts_with('P') || address.len() != 5 {
            return None;
        }
        address.get(2..)
    }

    /// A field, empty when the instrument left it out.
    fn at(&self, at: usize) -> &'a str {
        self.fields.get(at).copied().unwrap_or("").trim()
    }

    fn points<'b>(&self, points: &[Field]) -> Result<Vec<Found<'b>>, String> {
        let mut found = Vec::with_capacity(points.len());
        for field in points {
            let (at, name, unit) = (field.at, field.name, field.unit);
            let value = match field.form {
                Form::Number => self.number(at)?,
                Form::Signed => self.signed(at)?,
                Form::Position { degrees, limit } => self.position(at, degrees, limit)?,
            };
            found.extend(value.map(|value| Found {
                name: Cow::Borrowed(name),
                value,
                unit: (!unit.is_empty()).then_some(unit),
            }));
        }
        Ok(found)
    }

    fn number(&self, at: usize) -> Result<Option<Value>, String> {
        let text = self.at(at);
        if text.is_empty() {
            return Ok(None);
        }
        let value = number::as_written(text);
        value.map(Some).ok_or(format!("a number in field {at}"))
    }

    /// A number whose sign is a letter in the next field: west is negative.
    fn signed(&self, at: usize) -> Result<Option<Value>, String> {
        let value = self.number(at)?;
        Ok(match (value, self.at(at + 1)) {
            (Some(value), "W" | "S") => Some(negated(value)),
            (value, _) => value,
        })
    }

    /// `ddmm.mmm` and a hemisphere in the next field, as degrees with seven decimals (1 cm).
    fn position(&self, at: usize, digits: usize, limit: i128) -> Result<Option<Value>, String> {
        let (text, hemisphere) = (self.at(at), self.at(at + 1));
        if text.is_empty() {
            return Ok(None);
        }
        let expected = || format!("degrees and minutes up to {limit}° in field {at}");
        let split = text.get(..digits).zip(text.get(digits..));
        let (degrees, minutes) = split.ok_or_else(expected)?;
        let degrees: u16 = degrees.parse().map_err(|_| expected())?;
        let (minutes, scale) = match number::as_written(minutes) {
            Some(Value::Integer(minutes)) => (minutes, 1),
            Some(Value::Decimal { mantissa, decimals }) if decimals <= MAX_MINUTE_DECIMALS => {
                (mantissa, 10_i128.pow(u32::from(decimals)))
            }
            _ => return Err(expected()),
        };
        if !(0..60 * scale).contains(&minutes) {
            return Err(expected());
        }
        let total = i128::from(degrees) * 60 * scale + minutes;
        let mantissa = (total * 10_i128.pow(7) * 2 / (60 * scale) + 1) / 2;
        if mantissa > limit * 10_i128.pow(7) {
            return Err(expected());
        }
        let value = Value::Decimal {
            mantissa,
            decimals: 7,
        };
        match hemisphere {
            "N" | "E" => Ok(Some(value)),
            "S" | "W" => Ok(Some(negated(value))),
            _ => Err(format!("a hemisphere in field {}", at + 1)),
        }
    }
}

/// Most decimals of minutes that are read: 10 are a tenth of a micrometre.
const MAX_MINUTE_DECIMALS: u8 = 10;

fn negated(value: Value) -> Value {
    match value {
        Value::Integer(number) => Value::Integer(-number),
        Value::Decimal { mantissa, decimals } => Value::Decimal {
            mantissa: -mantissa,
            decimals,
        },
        Value::F64(number) => Value::F64(-number),
        other => other,
    }
}

/// How a sentence type is read.
struct Sentence {
    kind: &'static str,
    read: Read,
}

enum Read {
    /// Field by field; not at all unless the field `valid` says `A`.
    Table {
        valid: Option<usize>,
        points: &'static [Field],
    },
    Own(for<'a> fn(&Fields<'a>) -> Result<Vec<Found<'a>>, String>),
}

/// A field that is a point.
struct Field {
    at: usize,
    form: Form,
    name: &'static str,
    unit: &'static str,
}

#[derive(Clone, Copy)]
enum Form {
    Number,
    Signed,
    Position { degrees: usize, limit: i128 },
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

const SENTENCES: &[Sentence] = &[
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(line: &str) -> Vec<String> {
        let mut nmea = Nmea::new(&[]).unwrap();
        let found = nmea.decode(line).unwrap().unwrap();
        let print = |point: &Found| {
            let printed = format!(
                "{}={} {}",
                point.name,
                point.value,
                point.unit.unwrap_or("")
            );
            printed.trim_end().to_owned()
        };
        found.iter().map(print).collect()
    }

    fn error(line: &str) -> String {
        Nmea::new(&[]).unwrap().decode(line).unwrap_err()
    }

    /// A sentence with its right checksum.
    fn sealed(body: &str) -> String {
        let checksum = body.bytes().fold(0, |xor, byte| xor ^ byte);
        format!("${body}*{checksum:02X}")
    }

    #[test]
    fn published_examples_decode_to_their_values() {
        let vectors: &[(&str, &[&str])] = &[
            (
                "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47",
                &[
                    "fix-quality=1",
                    "latitude=48.1173 °",
                    "longitude=11.5166667 °",
                    "satellites=8",
                    "hdop=0.9",
                    "altitude=545.4 m",
                    "geoid-separation=46.9 m",
                ],
            ),
            (
                "$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A",
                &[
                    "latitude=48.1173 °",
                    "longitude=11.5166667 °",
                    "speed-knots=22.4 kn",
                    "course-true=84.4 °",
                    "magnetic-variation=-3.1 °",
                ],
            ),
            (
                "$GPGLL,4916.45,N,12311.12,W,225444,A*31",
                &["latitude=49.2741667 °", "longitude=-123.1853333 °"],
            ),
            (
                "$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K*48",
                &[
                    "course-true=54.7 °",
                    "course-magnetic=34.4 °",
                    "speed-knots=5.5 kn",
                    "speed-kmh=10.2 km/h",
                ],
            ),
            ("$GPHDT,274.07,T*03", &["heading-true=274.07 °"]),
            (
                "$HCHDG,101.1,,,7.1,W*3C",
                &["heading-magnetic=101.1 °", "magnetic-variation=-7.1 °"],
            ),
            (
                "$WIMWV,214.8,R,0.1,K,A*28",
                &[
                    "wind-angle-relative=214.8 °",
                    "wind-speed-relative=0.1 km/h",
                ],
            ),
            (
                "$SDDBT,7.8,f,2.4,M,1.3,F*0D",
                &["depth-below-transducer=2.4 m"],
            ),
            (
                "$INDPT,2.3,0.0*46",
                &["depth-below-transducer=2.3 m", "transducer-offset=0 m"],
            ),
            ("$INMTW,17.9,C*1B", &["water-temperature=17.9 °C"]),
            (
                "$GPZDA,160012.71,11,03,2004,-1,00*7D",
                &["utc=2004-03-11T16:00:12Z"],
            ),
        ];
        for (line, expected) in vectors {
            assert_eq!(decode(line), *expected, "{line}");
        }
    }

    #[test]
    fn weather_sentences_decode_field_by_field() {
        let mda = "WIMDA,29.92,I,1.0132,B,21.5,C,,,54.2,,11.9,C,190.0,T,187.1,M,4.2,N,2.2,M";
        assert_eq!(
            decode(&sealed(mda)),
            [
                "pressure=1.0132 bar",
                "air-temperature=21.5 °C",
                "humidity=54.2 %",
                "dew-point=11.9 °C",
                "wind-direction-true=190 °",
                "wind-direction-magnetic=187.1 °",
                "wind-speed-knots=4.2 kn",
                "wind-speed=2.2 m/s",
            ]
        );
        assert_eq!(
            decode(&sealed("WIMWD,190.0,T,187.1,M,4.2,N,2.2,M")),
            [
                "wind-direction-true=190 °",
                "wind-direction-magnetic=187.1 °",
                "wind-speed-knots=4.2 kn",
                "wind-speed=2.2 m/s",
            ]
        );
    }

    #[test]
    fn each_transducer_is_a_point_under_its_own_name() {
        assert_eq!(
            decode(&sealed(
                "WIXDR,C,-2.50,C,ENV_OUT,P,1.01325,B,,H,54.2,P,,U,,V,BATT"
            )),
            [
                "ENV_OUT=-2.5 °C",
                "pressure-2=1.01325 bar",
                "humidity-3=54.2 %"
            ]
        );
    }

    #[test]
    fn shafts_and_engines_are_told_apart() {
        assert_eq!(
            decode(&sealed("IIRPM,E,1,2418.2,10.5,A")),
            ["engine-1-speed=2418.2 rpm", "engine-1-pitch=10.5 %"]
        );
    }

    #[test]
    fn southern_and_western_positions_are_negative_to_seven_decimals() {
        assert_eq!(
            decode(&sealed("GPGLL,3351.65012,S,07040.99999,W,1,A")),
            ["latitude=-33.8608353 °", "longitude=-70.6833332 °"]
        );
    }

    #[test]
    fn a_receiver_without_a_fix_gives_no_position() {
        assert_eq!(
            decode(&sealed("GPGGA,123519,4807.038,N,01131.000,E,0,00,,,M,,M,,")),
            ["fix-quality=0"]
        );
        assert!(decode(&sealed("GPRMC,123519,V,4807.038,N,01131.000,E,,,230394,,")).is_empty());
        assert!(decode(&sealed("WIMWV,214.8,R,0.1,K,V")).is_empty());
    }

    #[test]
    fn unknown_proprietary_and_unwanted_sentences_are_ignored() {
        let mut nmea = Nmea::new(&["MTW".to_owned()]).unwrap();
        for body in [
            "PGRME,15.0,M,45.0,M,25.0,M",
            "GPGSV,1,1,0",
            "GPHDT,274.07,T",
            "X",
        ] {
            assert_eq!(nmea.decode(&sealed(body)), Ok(None), "{body}");
        }
        assert_eq!(
            nmea.decode(&sealed("INMTW,17.9,C")).unwrap().unwrap().len(),
            1
        );
    }

    #[test]
    fn a_wrong_checksum_is_refused_with_the_right_one() {
        assert_eq!(error("$GPHDT,274.17,T*03"), "checksum *02");
        assert_eq!(error("$GPHDT,274.07,T*"), "checksum *03");
    }

    #[test]
    fn a_checksum_may_lack_until_the_instrument_has_sent_one() {
        let mut nmea = Nmea::new(&[]).unwrap();
        assert!(nmea.decode("$GPHDT,274.07,T").unwrap().is_some());
        assert!(nmea.decode("$GPHDT,274.07,T*03").unwrap().is_some());
        assert!(nmea.decode("$GPHDT,27").is_err(), "cut short");
    }

    #[test]
    fn noise_before_a_sentence_does_not_hurt_it() {
        assert_eq!(
            decode("$GPHDT,2\u{fffd}7$GPHDT,274.07,T*03\r"),
            ["heading-true=274.07 °"]
        );
    }

    #[test]
    fn a_field_that_is_not_what_it_should_be_is_named() {
        assert_eq!(error(&sealed("GPHDT,north,T")), "a number in field 1");
        assert_eq!(
            error(&sealed("GPGLL,9107.0,N,01131.0,E,1,A")),
            "degrees and minutes up to 90° in field 1"
        );
        assert_eq!(
            error(&sealed("GPGLL,4860.0,N,01131.0,E,1,A")),
            "degrees and minutes up to 90° in field 1"
        );
        assert_eq!(
            error(&sealed("GPGLL,4807.0,,01131.0,E,1,A")),
            "a hemisphere in field 2"
        );
        assert_eq!(error("hello"), "a sentence that begins with $ or !");
    }

    #[test]
    fn an_unknown_type_in_the_configuration_is_refused_with_the_known_ones() {
        let error = Nmea::new(&["GGB".to_owned()]).unwrap_err();
        assert!(
            error.starts_with("\"GGB\" is not a known NMEA 0183 sentence type; known are DBT,")
        );
    }
}
