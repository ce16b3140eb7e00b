//! `gateway buffer export`: writes what waits, or the dead letters, to standard output or a file. Shell.
//!
//! Invariant: one message is one line of JSON or one record of CSV, and the buffer's file is only read.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;
use base64ct::{Base64, Encoding};
use broker_lite::{
    packet::{MessageProperties, PayloadFormat, QoS},
    topic::{TopicFilter, TopicName},
};
use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{ConfigPath, Failure};
use crate::{
    buffer::{DeadMessage, Export, Row},
    cli::load,
    config::Priority,
    reading::ClockState,
};

/// Arguments of `buffer export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigPath,
    /// Read this file instead of the configured one, such as a copy from another machine
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write here instead of to standard output; the file must not exist
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One object a line, or one record a message
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only messages received from this moment on, as in 2026-11-22T11:35:17Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only messages received before this moment
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Only these topics, as in telemetry/press-3/#
    #[arg(long, value_name = "FILTER", value_parser = TopicFilter::parse)]
    filter: Option<TopicFilter>,
    /// The dead letters instead of what waits
    #[arg(long)]
    dead_letters: bool,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON, one object a line
    #[default]
    JsonLines,
    /// RFC 4180, with a line of names
    Csv,
}

/// One message, by the names of its fields.
type Record = Map<String, Value>;

/// Reads page by page and writes as it reads.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => load(&args.config)?.value.buffer.path,
    };
    let mut export = Export::open(&path).map_err(anyhow::Error::from)?;
    match args.export(&mut export) {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => Ok(result?),
    }
}

impl Args {
    fn export(&self, export: &mut Export) -> anyhow::Result<()> {
        let mut output = BufWriter::new(self.output()?);
        if self.format == Format::Csv {
            let names = if self.dead_letters { DEAD } else { WAITING };
            writeln!(output, "{}", names.join(",")).context(WRITE)?;
        }
        loop {
            let records = self.page(export)?;
            let Some(records) = records else { break };
            for record in records {
                let line = match self.format {
                    Format::JsonLines => Value::Object(record).to_string(),
                    Format::Csv => csv(&record),
                };
                writeln!(output, "{line}").context(WRITE)?;
            }
        }
        output.flush().context(WRITE)
    }

    fn output(&self) -> anyhow::Result<Box<dyn Write>> {
        Ok(match &self.output {
            None => Box::new(io::stdout().lock()),
            Some(path) => Box::new(
                File::create_new(path)
                    .with_context(|| format!("cannot make {}", path.display()))?,
            ),
        })
    }

    /// The next records that are wanted; `None` after the last page.
    fn page(&self, export: &mut Export) -> anyhow::Result<Option<Vec<Record>>> {
        if self.dead_letters {
            let letters = export.dead()?;
            let is_last = letters.is_empty();
            let wanted = letters
                .iter()
                .filter(|letter| self.wants(&letter.topic, letter.received));
            return Ok((!is_last).then(|| wanted.map(dead_record).collect()));
        }
        let rows = export.waiting()?;
        let is_last = rows.is_empty();
        let wanted = rows
            .iter()
            .filter(|row| self.wants(row.topic.as_str(), row.received));
        Ok((!is_last).then(|| wanted.map(record).collect()))
    }

    fn wants(&self, topic: &str, received: Timestamp) -> bool {
        let matches = |filter: &TopicFilter| {
            TopicName::parse(topic).is_ok_and(|topic| filter.matches(&topic))
        };
        self.filter.as_ref().is_none_or(matches)
            && self.since.is_none_or(|since| received >= since)
            && self.until.is_none_or(|until| received < until)
    }
}

const WRITE: &str = "cannot write what was read";
/// Columns of CSV; with JSON lines, `payload` or `payload_base64` takes the place of the last two.
const WAITING: &[&str] = &[
    "topic",
    "seq",
    "time",
    "clock",
    "priority",
    "qos",
    "retain",
    "properties",
    "encoding",
    "payload",
];
const DEAD: &[&str] = &[
    "topic",
    "seq",
    "time",
    "buried",
    "reason",
    "qos",
    "retain",
    "properties",
    "encoding",
    "payload",
];

fn record(row: &Row) -> Record {
    let clock = match row.clock {
        ClockState::Synced => "synced",
        ClockState::Unsynced => "unsynced",
    };
    let priority = match row.priority() {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    };
    let mut record = Record::new();
    record.insert("topic".to_owned(), json!(row.topic.as_str()));
    record.insert("seq".to_owned(), json!(row.seq));
    record.insert("time".to_owned(), json!(row.received.to_string()));
    record.insert("clock".to_owned(), json!(clock));
    record.insert("priority".to_owned(), json!(priority));
    enter_message(&mut record, row.qos, row.retain, row.properties.as_ref());
    enter_payload(&mut record, &row.payload);
    record
}

fn dead_record(letter: &DeadMessage) -> Record {
    let mut record = Record::new();
    record.insert("topic".to_owned(), json!(letter.topic));
    record.insert("seq".to_owned(), json!(letter.seq));
    record.insert("time".to_owned(), json!(letter.received.to_string()));
    record.insert("buried".to_owned(), json!(letter.buried.to_string()));
    record.insert("reason".to_owned(), json!(letter.reason));
    let properties = letter.properties.as_ref();
    enter_message(&mut record, letter.qos, letter.retain, properties);
    enter_payload(&mut record, &letter.payload);
    record
}

/// How it was published; properties only where there are any.
fn enter_message(
    record: &mut Record,
    qos: QoS,
    retain: bool,
    properties: Option<&MessageProperties>,
) {
    record.insert("qos".to_owned(), json!(qos as u8));
    record.insert("retain".to_owned(), json!(retain));
    if let Some(properties) = properties {
        record.insert("properties".to_owned(), in_words(properties));
    }
}

/// By their names in MQTT 5, 2.2.2.2; user properties as pairs, for a name may stand there twice.
fn in_words(properties: &MessageProperties) -> Value {
    let mut words = Record::new();
    let mut enter = |name: &str, value: Option<Value>| {
        words.extend(value.map(|value| (name.to_owned(), value)));
    };
    let is_text = |format| json!(format == PayloadFormat::Utf8);
    enter("payload_is_text", properties.payload_format.map(is_text));
    let content_type = properties.content_type.as_ref();
    enter(
        "content_type",
        content_type.map(|text| json!(text.as_str())),
    );
    let response = properties.response_topic.as_ref();
    enter(
        "response_topic",
        response.map(|topic| json!(topic.as_str())),
    );
    let correlation = properties.correlation_data.as_ref();
    let correlation = correlation.map(|data| json!(Base64::encode_string(data)));
    enter("correlation_data_base64", correlation);
    let users: Vec<_> = properties.user_properties.iter().collect();
    enter("user_properties", (!users.is_empty()).then(|| json!(users)));
    Value::Object(words)
}

fn enter_payload(record: &mut Record, payload: &[u8]) {
    let (name, text) = match str::from_utf8(payload) {
        Ok(text) => ("payload", text.to_owned()),
        Err(_) => ("payload_base64", Base64::encode_string(payload)),
    };
    record.insert(name.to_owned(), json!(text));
}

/// A record of RFC 4180.
fn csv(record: &Record) -> String {
    let columns = if record.contains_key("buried") {
        DEAD
    } else {
        WAITING
    };
    let cells = columns.iter().map(|column| match *column {
        "encoding" if record.contains_key("payload") => "utf-8".to_owned(),
        "encoding" => "base64".to_owned(),
        "payload" => cell(
            record
                .get("payload")
                .or_else(|| record.get("payload_base64")),
        ),
        column => cell(record.get(column)),
    });
    cells.collect::<Vec<_>>().join(",")
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
        ] {
            assert_eq!(cell(Some(&json!(text))), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_written_in_base64() {
        let mut letter = DeadMessage {
            topic: "telemetry/a".to_owned(),
            seq: 7,
            received: Timestamp::UNIX_EPOCH,
            buried: Timestamp::UNIX_EPOCH,
            reason: "packet too large".to_owned(),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: None,
            payload: vec![0xff, 0x00],
        };
        let record = dead_record(&letter);
        assert_eq!(record["payload_base64"], "/wA=");
        assert!(csv(&record).ends_with(",packet too large,1,true,,base64,/wA="));
        letter.payload = b"21.5".to_vec();
        let record = dead_record(&letter);
        assert_eq!(record["payload"], "21.5");
        assert!(csv(&record).ends_with(",utf-8,21.5"));
    }

    #[test]
    fn properties_are_written_by_their_names() {
        let mut properties = MessageProperties {
            payload_format: Some(PayloadFormat::Utf8),
            correlation_data: Some(vec![0xff].into()),
            ..MessageProperties::default()
        };
        properties.user_properties.push("site", "7").unwrap();
        assert_eq!(
            in_words(&properties),
            json!({
                "payload_is_text": true,
                "correlation_data_base64": "/w==",
                "user_properties": [["site", "7"]],
            })
        );
    }
}
