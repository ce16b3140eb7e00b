//! The messages of a check, each with the smallest file that earns it, on types like a gateway's.

#![expect(
    dead_code,
    reason = "the types are there to be filled, few values are looked at"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Checks, Formats, Loaded, Period, Problems, Secret, Severity, Size, parse, schema};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Name of the plant.
    #[serde(default)]
    id: String,
    #[serde(default)]
    device: Vec<Device>,
    broker: Option<Broker>,
    #[serde(default)]
    limits: BTreeMap<String, Size>,
    link: Option<Link>,
    #[serde(default)]
    decode: Option<Decode>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Device {
    #[schemars(length(min = 1, max = 8))]
    name: String,
    #[schemars(range(min = 1, max = 247))]
    unit: Option<u8>,
    #[serde(default)]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    interval: Period,
    #[serde(default)]
    parity: Parity,
    #[serde(default)]
    offset: i32,
    #[serde(default)]
    deadband: f64,
    #[serde(default)]
    #[schemars(extend("deprecated" = true, "x-remedy" = "write unit"))]
    slave: Option<u8>,
    #[serde(default)]
    point: Vec<Point>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Point {
    #[schemars(regex(pattern = "^(input|holding):[0-9]+$"), example = "input:0")]
    register: String,
    #[serde(default)]
    scale: Option<f64>,
}

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Parity {
    /// With documents on its variants, which gives another schema.
    #[default]
    None,
    /// Even.
    Even,
    /// Odd.
    Odd,
    /// A word that is a number to TOML.
    #[serde(rename = "2")]
    Two,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Broker {
    #[schemars(extend("format" = "socket-address"))]
    address: Option<SocketAddr>,
    password: Option<Secret>,
    #[serde(default)]
    #[schemars(length(min = 1))]
    publish: Option<Vec<Filter>>,
    #[serde(default)]
    retain: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Filter(#[schemars(extend("format" = "topic-filter"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "framing", rename_all = "lowercase", deny_unknown_fields)]
enum Link {
    Tcp { host: String },
    Rtu { baud: u32 },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Decode {
    Name(DecodeName),
    Table(DecodeTable),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum DecodeName {
    Raw,
    Nmea,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DecodeTable {
    regex: String,
}

fn read(text: &str) -> Result<Loaded<Config>, Problems> {
    let formats = Formats::default().with("topic-filter", |text| match text.find('#') {
        Some(at) if at + 1 < text.len() => Err("# must be its last level".to_owned()),
        _ => Ok(()),
    });
    parse(
        "gateway.toml",
        text,
        &Checks {
            formats,
            ..Checks::default()
        },
    )
}

/// Every message of a file that must be refused, without the file's name.
fn refused(text: &str) -> Vec<String> {
    let problems = read(text).expect_err("this file must be refused");
    let lines = problems.to_string();
    lines
        .lines()
        .map(|line| line.replacen("gateway.toml:", "", 1))
        .collect()
}

fn check(text: &str, messages: &[&str]) {
    assert_eq!(refused(text), messages);
}

/// A device with a name and this line, which is the third.
fn device(line: &str) -> String {
    format!("[[device]]\nname = \"meter\"\n{line}\n")
}

#[test]
fn a_file_without_errors_fills_the_types() {
    let loaded = read(
        "id = \"plant-7\"\n\
         link = { framing = \"rtu\", baud = 19200 }\n\
         decode = \"nmea\"\n\
         [limits]\n\
         queue = \"16MiB\"\n\
         [broker]\n\
         address = \"127.0.0.1:1883\"\n\
         password = { credential = \"broker\" }\n\
         publish = [\"telemetry/#\"]\n\
         [[device]]\n\
         name = \"meter\"\n\
         unit = 1\n\
         interval = \"1s\"\n\
         parity = \"even\"\n\
         deadband = 1\n\
         [[device.point]]\n\
         register = \"input:0\"\n",
    )
    .expect("nothing is wrong with it");
    assert!(loaded.warnings.is_empty());
    let config = loaded.value;
    assert_eq!(config.id, "plant-7");
    assert_eq!(config.limits["queue"], Size::from_mib(16));
    assert!(matches!(config.link, Some(Link::Rtu { baud: 19200 })));
    assert!(matches!(
        config.decode,
        Some(Decode::Name(DecodeName::Nmea))
    ));
    let device = &config.device[0];
    assert_eq!(device.interval, Period::from_secs(1));
    assert_eq!(device.parity, Parity::Even);
    assert_eq!(device.point[0].register, "input:0");
    assert_eq!(loaded.document.at("device[0].point[0].register").line, 17);
}

#[test]
fn an_empty_file_takes_every_default() {
    let loaded = read("").expect("every key has a default");
    assert!(loaded.value.device.is_empty());
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    check(
        "id = 7\n[[device]]\nname = \"meter\"\nunit = 300\nparity = \"evne\"\n",
        &[
            "1:6: id is an integer, must be a string; put it in quotes",
            "4:8: unit is 300, must be between 1 and 247",
            "5:10: parity is \"evne\", must be one of \"none\", \"even\", \"odd\", \"2\"; \
             did you mean \"even\"?",
        ],
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    check(
        &device("intervall = \"1s\""),
        &["3:1: unknown key \"intervall\" in [[device]]; did you mean \"interval\"?"],
    );
    check(
        "[broker]\nxyz = 1\n",
        &["2:1: unknown key \"xyz\" in [broker]; it may have address, password, publish, retain"],
    );
    check(
        "frobnicate = 1\n",
        &["1:1: unknown key \"frobnicate\" in the file; \
           it may have broker, decode, device, id, limits, link"],
    );
}

#[test]
fn a_misspelt_required_key_is_one_problem_not_two() {
    check(
        "[[device]]\nnmae = \"meter\"\n",
        &["2:1: unknown key \"nmae\" in [[device]]; did you mean \"name\"?"],
    );
}

#[test]
fn a_key_that_nesting_has_swallowed_is_said_to_belong_above() {
    check(
        "[[device]]\nname = \"meter\"\n[[device.point]]\nregister = \"input:0\"\n\
         [[device.point]]\nregister = \"input:2\"\ninterval = \"1s\"\n",
        &[
            "7:1: unknown key \"interval\" in [[device.point]]; \"interval\" belongs to [[device]]: \
           move it above the first [[device.point]] (line 3), for TOML gives a key to the nearest \
           header above it",
        ],
    );
    check(
        "[broker]\nid = \"plant-7\"\n",
        &[
            "2:1: unknown key \"id\" in [broker]; \"id\" belongs to the top of the file: move it \
           above the first [broker] (line 1), for TOML gives a key to the nearest header above it",
        ],
    );
}

#[test]
fn a_key_is_sent_only_where_its_value_would_fit() {
    check(
        "[broker]\ndevice = \"meter\"\n",
        &["2:1: unknown key \"device\" in [broker]; \
           it may have address, password, publish, retain"],
    );
}

#[test]
fn a_long_text_is_repeated_in_part() {
    let long = "x".repeat(100_000);
    let messages = refused(&format!(
        "[[device]]\nname = \"{long}\"\nparity = \"{long}\"\n{long} = 1\n"
    ));
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message.len() < 300));
}

#[test]
fn a_missing_key_is_reported_at_the_header_of_its_table() {
    check(
        "\n[[device]]\nunit = 1\n",
        &["2:1: [[device]] lacks the key \"name\"; add name = …, a string"],
    );
    check(
        &device("[[device.point]]"),
        &["3:1: [[device.point]] lacks the key \"register\"; \
           write for example register = \"input:0\""],
    );
    check(
        "decode = { }\n",
        &["1:10: table \"decode\" lacks the key \"regex\"; add regex = …, a string"],
    );
}

#[test]
fn a_wrong_type_says_what_stands_there_and_what_must() {
    check(
        &device("unit = \"1\""),
        &["3:8: unit is a string, must be an integer; leave out the quotes: 1"],
    );
    check(
        &device("offset = 1.5"),
        &["3:10: offset is a number with a fraction, must be an integer"],
    );
    check(
        &device("name2 = 1\nparity = true"),
        &[
            "3:1: unknown key \"name2\" in [[device]]; did you mean \"name\"?",
            "4:10: parity is a boolean, must be one of \"none\", \"even\", \"odd\", \"2\"",
        ],
    );
    check(
        "[broker]\nretain = \"true\"\npublish = \"telemetry/#\"\n",
        &[
            "2:10: retain is a string, must be true or false; leave out the quotes: true",
            "3:11: publish is a string, must be an array; put it in square brackets: [ … ]",
        ],
    );
    check(
        "id = 2026-11-22\n",
        &["1:6: id is a date or time, must be a string; put it in quotes"],
    );
}

#[test]
fn a_word_that_toml_takes_for_a_number_needs_quotes() {
    check(
        &device("parity = 2"),
        &[
            "3:10: parity is an integer, must be one of \"none\", \"even\", \"odd\", \"2\"; \
           put it in quotes: \"2\"",
        ],
    );
}

#[test]
fn single_and_double_brackets_are_told_apart() {
    check(
        "[device]\nname = \"meter\"\n",
        &["1:1: device is a table, must be an array; write [[device]] in place of [device]"],
    );
    check(
        "[[broker]]\nretain = true\n",
        &["1:1: broker is an array, must be a table; write [broker], once, in place of [[broker]]"],
    );
}

#[test]
fn a_duration_without_its_unit_is_refused_with_an_example() {
    check(
        &device("interval = 30"),
        &[
            "3:12: interval is an integer, must be a duration in quotes; \
           write for example interval = \"30s\"",
        ],
    );
    check(
        &device("interval = \"30\""),
        &[
            "3:12: interval = \"30\" is not a duration: the unit is missing, one of us, ms, s, m, h, \
           d; write for example interval = \"30s\"",
        ],
    );
    check(
        "limits = { queue = \"16mib\" }\n",
        &[
            "1:20: queue = \"16mib\" is not a size: \"mib\" is not a unit, which are B, KiB, MiB, \
           GiB, TiB, kB, MB, GB, TB (write \"16MiB\"); write for example queue = \"512MiB\"",
        ],
    );
}

#[test]
fn durations_and_sizes_keep_to_their_range() {
    check(
        &device("interval = \"1ms\""),
        &["3:12: interval is \"1ms\", must be between 10ms and 1h"],
    );
}

#[test]
fn numbers_keep_to_the_range_of_their_type_and_their_own() {
    check(
        &device("unit = 0"),
        &["3:8: unit is 0, must be between 1 and 247"],
    );
    check(
        &device("offset = 3000000000"),
        &["3:10: offset is 3000000000, must be between -2147483648 and 2147483647"],
    );
    check(
        &device("deadband = nan"),
        &["3:12: deadband is NaN, must be a finite number"],
    );
    check(
        "link = { framing = \"rtu\", baud = -1 }\n",
        &["1:34: baud is -1, must be between 0 and 4294967295"],
    );
}

#[test]
fn texts_and_arrays_keep_to_their_length() {
    check(
        "[[device]]\nname = \"\"\n[[device]]\nname = \"transformer\"\n",
        &[
            "2:8: name = \"\" has 0 characters, must have at least 1 character",
            "4:8: name = \"transformer\" has 11 characters, must have at most 8 characters",
        ],
    );
    check(
        "[broker]\npublish = []\n",
        &["2:11: publish has 0 entries, must have at least 1 entry"],
    );
}

#[test]
fn a_text_must_match_its_pattern_and_its_form() {
    check(
        &device("[[device.point]]\nregister = \"40001\""),
        &[
            "4:12: register = \"40001\" does not match ^(input|holding):[0-9]+$; \
           write for example register = \"input:0\"",
        ],
    );
    check(
        "[broker]\naddress = \"127.0.0.1\"\npublish = [\"a/#\", \"a/#/b\"]\n",
        &[
            "2:11: address = \"127.0.0.1\" is not a socket address: the port is missing",
            "3:19: publish[1] = \"a/#/b\" is not a topic filter: # must be its last level",
        ],
    );
}

#[test]
fn a_tagged_table_is_judged_by_its_tag() {
    check(
        "link = { framing = \"rtv\", baud = 1 }\n",
        &["1:20: framing is \"rtv\", must be one of \"tcp\", \"rtu\""],
    );
    check(
        "link = { framing = \"tcp\", hots = \"x\" }\n",
        &["1:27: unknown key \"hots\" in table \"link\"; did you mean \"host\"?"],
    );
    check(
        "[link]\nbaud = 9600\n",
        &["1:1: [link] lacks the key \"framing\"; add framing = …, one of \"tcp\", \"rtu\""],
    );
}

#[test]
fn an_untagged_value_is_judged_by_the_shape_it_has() {
    check(
        "decode = \"nema\"\n",
        &["1:10: decode is \"nema\", must be one of \"raw\", \"nmea\"; did you mean \"nmea\"?"],
    );
    check(
        "decode = { regexp = \"x\" }\n",
        &["1:12: unknown key \"regexp\" in table \"decode\"; did you mean \"regex\"?"],
    );
    check(
        "decode = 1\n",
        &["1:10: decode is an integer, must be one of \"raw\", \"nmea\" or a table { regex = … }"],
    );
}

#[test]
fn a_secret_in_the_file_is_refused_without_being_repeated() {
    let messages = refused("[broker]\npassword = \"hunter2\"\n");
    assert_eq!(messages.len(), 1);
    assert!(messages[0].starts_with(
        "2:12: password is a string, must be a table { file = … } or a table { credential = … }; \
         a secret is never written into the configuration"
    ));
    for text in [
        "password = { value = \"hunter2\" }",
        "password = { credential = \"a b\", file = 1 }",
    ] {
        let messages = refused(&format!("[broker]\n{text}\n"));
        assert_eq!(
            messages,
            ["2:12: table \"password\" must be just one of { file = … } or { credential = … }"]
        );
    }
}

#[test]
fn a_deprecated_key_warns_and_works() {
    let loaded = read(&device("slave = 1")).expect("a warning refuses nothing");
    let warning = loaded.warnings.iter().next().expect("a warning");
    assert_eq!(warning.severity, Severity::Warning);
    assert_eq!(
        warning.to_string(),
        "gateway.toml:3:1: warning: slave is deprecated; write unit"
    );
}

#[test]
fn faults_of_syntax_come_with_the_other_problems() {
    check(
        "id = plant-7\n[[device]]\nunit = 300\nname = \"meter\n",
        &[
            "1:6: string values must be quoted, expected literal string; put the text in double quotes",
            "3:8: unit is 300, must be between 1 and 247",
            "4:14: invalid basic string, expected `\"`",
        ],
    );
}

#[test]
fn below_a_broken_header_nothing_is_guessed() {
    check(
        "[[device]\nname = \"meter\"\nretain = 1\n",
        &["1:10: unclosed array table, expected `]`; close the header with ]]"],
    );
}

#[test]
fn a_key_given_twice_is_refused() {
    check(
        "id = \"a\"\nid = \"b\"\n",
        &["2:1: duplicate key; a key stands once in its table; \
           several tables of one name are [[name]]"],
    );
}

#[test]
fn what_only_the_types_themselves_refuse_has_its_place_too() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Plain {
        address: SocketAddr,
    }
    let problems = parse::<Plain>("a.toml", "\naddress = \"here\"\n", &Checks::default())
        .expect_err("it is no address");
    assert_eq!(
        problems.to_string(),
        "a.toml:2:11: invalid socket address syntax"
    );
}

#[test]
fn the_schema_bears_its_title_and_the_documents_of_the_types() {
    let schema = schema::<Config>("gateway.toml");
    assert_eq!(schema["title"], "gateway.toml");
    assert_eq!(
        schema["properties"]["id"]["description"],
        "Name of the plant."
    );
    assert_eq!(
        schema["$defs"]["Device"]["properties"]["interval"]["format"],
        "duration"
    );
}

#[test]
fn keys_nested_without_end_are_refused_before_the_stack_is() {
    let deep = "a.".repeat(100_000);
    for text in [
        format!("{deep}a = 1\n"),
        format!("[{deep}a]\n"),
        format!("a = {{ {deep}a = 1 }}\n"),
        format!("a = {}1", "[".repeat(100_000)),
    ] {
        assert!(!refused(&text).is_empty());
    }
}

/// Pieces from which a file is put together that may go wrong anywhere.
const PIECES: &[&str] = &[
    "[[device]]",
    "[device]",
    "[[device.point]]",
    "[broker]",
    "\n",
    "\n",
    "\n",
    "name",
    "unit",
    "interval",
    "password",
    "link",
    " = ",
    " = ",
    "\"1s\"",
    "\"ä",
    "7",
    "-1.5",
    "{ ",
    " }",
    "[",
    "]",
    ", ",
    "true",
    "# ",
    "\r\n",
    "framing",
    ".",
    "\\\"\\\"\\\"",
    "2026-11-22",
];

proptest! {
    #[test]
    fn any_text_is_read_or_refused_but_never_stops_the_program(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60),
    ) {
        let text = pieces.concat();
        let lines = text.matches('\n').count() + 1;
        if let Err(problems) = read(&text) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|p| p.location.line <= lines));
        }
    }
}

#[test]
fn checks_across_keys_speak_beside_faults_of_single_keys_but_not_of_their_consequences() {
    let across = |config: &mut Config, document: &crate::Document| {
        let lonely = |(index, device): (usize, &Device)| {
            let path = format!("device[{index}]");
            (device.unit.is_none()).then(|| document.error(&path, "the device has no unit", ""))
        };
        config
            .device
            .iter()
            .enumerate()
            .filter_map(lonely)
            .collect()
    };
    let text = "[[device]]\nname = \"a\"\nunit = \"x\"\n[[device]]\nname = \"b\"\noffset = true\n\
                [[device]]\nname = \"c\"\n";
    let checks = Checks {
        across,
        ..Checks::default()
    };
    let found = parse::<Config>("gateway.toml", text, &checks)
        .expect_err("refused")
        .to_string();
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 3, "{found}");
    assert!(lines[0].starts_with("gateway.toml:3:8: unit"), "{found}");
    assert!(lines[1].starts_with("gateway.toml:6:10: offset"), "{found}");
    assert_eq!(lines[2], "gateway.toml:7:1: the device has no unit");
}

#[test]
fn strings_are_replaced_where_they_stand_and_all_else_stays() {
    let text = "id = 'old' # the plant\n[[device]]\nname = \"a\"\n[[device]]\nname = \"b\"\n";
    let loaded: Loaded<Config> = parse("test.toml", text, &Checks::default()).expect("valid");
    let values = [
        ("id", "a \"new\" one"),
        ("device[1].name", "c"),
        ("device[2].name", "d"),
    ];
    let values = values.map(|(path, value)| (path.to_owned(), value.to_owned()));
    assert_eq!(
        loaded.document.with_strings(&values),
        "id = \"a \\\"new\\\" one\" # the plant\n[[device]]\nname = \"a\"\n[[device]]\nname = \"c\"\n"
    );
}
