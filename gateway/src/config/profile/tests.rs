//! What a device makes of its profile, and what is said where they do not fit.

use std::path::Path;

use super::{library, words};
use crate::config::{Config, parse};

/// A profile of three points in a directory of its own.
const METER: &str = "maker = \"Acme\"\nmodel = \"M1\"\nkind = \"energy-meter\"\ndefault = [\"voltage-*\"]\n\
    [source]\ntitle = \"t\"\nurl = \"u\"\nbasis = \"document\"\n\
    [line]\nbaud = [9600, 4800]\nparity = [\"none\"]\n\
    [device]\nmax_registers = 40\ninterval = \"5s\"\n\
    [[point]]\nname = \"voltage-l1\"\nregister = \"input:0\"\ntype = \"f32\"\nunit = \"V\"\n\
    [[point]]\nname = \"voltage-l2\"\nregister = \"input:2\"\ntype = \"f32\"\nunit = \"V\"\n\
    [[point]]\nname = \"power\"\nregister = \"input:4\"\ntype = \"f32\"\nunit = \"W\"\n\
    [[example]]\norigin = \"derived\"\nplace = \"p. 1\"\nat = \"input:0\"\nhex = \"4366 3333\"\nvalues = { voltage-l1 = \"230.2 V\" }\n";

struct Plant {
    directory: tempfile::TempDir,
}

impl Plant {
    fn new() -> Plant {
        let plant = Plant {
            directory: tempfile::tempdir().expect("a directory"),
        };
        plant.profile("acme-m1", METER);
        plant
    }

    fn profile(&self, name: &str, text: &str) {
        let path = self.directory.path().join(format!("{name}.toml"));
        std::fs::write(path, text).expect("a profile");
    }

    /// The file with a device of these further lines, the first of them in line 9.
    fn file(&self, lines: &str) -> String {
        format!(
            "[gateway]\nprofiles = {:?}\n[[bus]]\nname = \"b\"\nport = \"/dev/ttyUSB0\"\nbaud = 9600\nparity = \"none\"\n\
             [[device]]\n{lines}\n",
            self.directory.path()
        )
    }

    fn device(&self, lines: &str) -> Config {
        let text = self.file(&format!("name = \"d\"\nbus = \"b\"\nunit = 1\n{lines}"));
        let loaded = parse("gateway.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        loaded.value
    }

    /// Asserts that a device of these further lines, from line 12 on, has exactly these problems.
    fn refused(&self, lines: &str, expected: &[&str]) {
        let text = self.file(&format!("name = \"d\"\nbus = \"b\"\nunit = 1\n{lines}"));
        let found = match parse("gateway.toml", &text) {
            Ok(loaded) => loaded.warnings.to_string(),
            Err(problems) => problems.to_string(),
        };
        let found = found.replace(&self.path(), "/p");
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{found}");
        for (line, part) in lines.iter().zip(expected) {
            assert!(line.contains(part), "{line:?} does not say {part:?}");
        }
    }

    fn path(&self) -> String {
        self.directory.path().display().to_string()
    }
}

fn names(config: &Config) -> Vec<&str> {
    let points = &config.devices[0].points;
    points.iter().map(|point| point.name.as_str()).collect()
}

#[test]
fn a_device_is_what_its_profile_says() {
    let config = Plant::new().device("profile = \"acme-m1\"");
    assert_eq!(names(&config), ["voltage-l1", "voltage-l2"]);
    let device = &config.devices[0];
    assert_eq!(
        (device.max_registers, device.interval.to_string()),
        (40, "5s".to_owned())
    );
    assert_eq!(device.points[1].unit.as_deref(), Some("V"));
}

#[test]
fn what_is_written_goes_before_the_profile_key_by_key() {
    let plant = Plant::new();
    let config = plant.device(
        "profile = \"acme-m1\"\nmax_registers = 8\n[[device.point]]\nname = \"voltage-l2\"\ndeadband = 0.5\nunit = \"volt\"\n\
         [[device.point]]\nname = \"extra\"\nregister = \"holding:9\"",
    );
    assert_eq!(names(&config), ["voltage-l1", "voltage-l2", "extra"]);
    let device = &config.devices[0];
    assert_eq!(device.max_registers, 8);
    let changed = &device.points[1];
    assert_eq!(changed.register.to_string(), "input:2");
    assert_eq!(changed.unit.as_deref(), Some("volt"));
    assert!(changed.deadband.is_some());
    assert_eq!(config.places.point(0, 0), "device[0].profile");
    assert_eq!(config.places.point(0, 1), "device[0].point[0]");
    assert_eq!(config.places.point(0, 2), "device[0].point[1]");
}

#[test]
fn points_are_chosen_by_name_beginning_or_mention() {
    let plant = Plant::new();
    let chosen = |lines: &str| {
        let config = plant.device(&format!("profile = \"acme-m1\"\n{lines}"));
        names(&config).join(" ")
    };
    assert_eq!(chosen("points = [\"*\"]"), "voltage-l1 voltage-l2 power");
    assert_eq!(chosen("points = [\"power\"]"), "power");
    assert_eq!(chosen("except = [\"voltage-l2\"]"), "voltage-l1");
    assert_eq!(
        chosen("points = [\"*\"]\nexcept = [\"voltage-*\"]"),
        "power"
    );
    assert_eq!(
        chosen("[[device.point]]\nname = \"power\"\nround = 0"),
        "voltage-l1 voltage-l2 power"
    );
}

#[test]
fn an_unknown_profile_is_told_where_it_was_looked_for_and_the_nearest_name() {
    let plant = Plant::new();
    plant.refused(
        "profile = \"acme-m2\"",
        &["gateway.toml:12:11: there is no profile \"acme-m2\" in /p nor among the "],
    );
    plant.refused("profile = \"acme-m2\"", &["did you mean \"acme-m1\"?"]);
    plant.refused("profile = \"zzzzzzzzzzzzzz\"", &["gateway profile list"]);
    plant.refused(
        "profile = \"../acme-m1\"",
        &["gateway.toml:12:11: profile = \"../acme-m1\" is not a name"],
    );
}

#[test]
fn a_profile_that_cannot_be_read_is_not_passed_over_for_a_built_in_one() {
    let plant = Plant::new();
    std::fs::create_dir(plant.directory.path().join("eastron-sdm630.toml")).expect("a directory");
    plant.refused(
        "profile = \"eastron-sdm630\"",
        &["gateway.toml:12:11: cannot read configuration /p/eastron-sdm630.toml: Is a directory"],
    );
}

#[test]
fn what_is_wrong_is_said_in_the_file_that_is_wrong() {
    let plant = Plant::new();
    plant.profile("acme-bad", &METER.replace("\"f32\"", "\"f33\""));
    let lines = "profile = \"acme-bad\"\n[[device]]\nname = \"e\"\nbus = \"b\"\nunit = 2\nprofile = \"acme-bad\"";
    plant.refused(
        lines,
        &[
            "/p/acme-bad.toml:18:8: type is \"f33\"",
            "/p/acme-bad.toml:23:8:",
            "/p/acme-bad.toml:28:8:",
        ],
    );
    plant.refused(
        "profile = \"acme-m1\"\nmax_registers = 1",
        &[
            "gateway.toml:12:11: point \"voltage-l1\" takes 2 registers, but \"d\" answers at most 1",
            "gateway.toml:12:11: point \"voltage-l2\"",
        ],
    );
    plant.refused(
        "profile = \"acme-m1\"\n[[device.point]]\nname = \"voltage-l1\"\nlength = 4",
        &["gateway.toml:15:10: device \"d\" reads 4 registers as f32, which takes 2"],
    );
    plant.refused(
        "profile = \"acme-m1\"\n[[device.point]]\nname = \"voltage-l1\"\nvalues = { 16 = \"a\", 0x10 = \"b\" }",
        &["gateway.toml:15:10: 16 has two names"],
    );
}

#[test]
fn names_that_choose_nothing_are_refused() {
    let plant = Plant::new();
    plant.refused(
        "profile = \"acme-m1\"\npoints = [\"voltage-l1\", \"powr\"]\nexcept = [\"current-*\"]",
        &[
            "gateway.toml:13:25: the profile has no point \"powr\"; did you mean \"power\"?",
            "gateway.toml:14:11: the profile has no point \"current-*\"",
        ],
    );
    plant.refused(
        "profile = \"acme-m1\"\n[[device.point]]\nname = \"pwer\"",
        &["gateway.toml:13:1: point \"pwer\" has no register, and profile \"acme-m1\" no such point; did you mean \"power\"?"],
    );
    plant.refused(
        "points = [\"a\"]\n[[device.point]]\nname = \"p\"\nregister = \"input:0\"",
        &["gateway.toml:12:10: points chooses among a profile's points, but the device has no profile"],
    );
}

#[test]
fn a_device_without_a_profile_is_still_what_is_written() {
    let plant = Plant::new();
    plant.refused(
        "",
        &["gateway.toml:8:1: device \"d\" has no points; write profile"],
    );
    plant.refused(
        "[[device.point]]\nname = \"p\"",
        &["gateway.toml:12:1: [[device.point]] lacks the key \"register\""],
    );
}

#[test]
fn a_line_that_the_device_cannot_be_set_to_is_warned_of() {
    let plant = Plant::new();
    let file = plant.file("name = \"d\"\nbus = \"b\"\nunit = 1\nprofile = \"acme-m1\"");
    let text = file
        .replace("baud = 9600", "baud = 19200")
        .replace("\"none\"", "\"even\"");
    let loaded = parse("gateway.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    let warnings = loaded.warnings.to_string();
    assert!(
        warnings.contains("bus \"b\" runs at 19200 baud, which the Acme M1 cannot be set to; \"d\" can take 9600, 4800")
            && warnings.contains("bus \"b\" has parity \"even\""),
        "{warnings}"
    );
    let network = text.replace("port = \"/dev/ttyUSB0\"", "tcp = \"192.0.2.1:502\"");
    let loaded = parse("gateway.toml", &network).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

#[test]
fn a_file_of_the_directory_goes_before_a_built_in_profile() {
    let plant = Plant::new();
    plant.profile("eastron-sdm630", METER);
    let config = plant.device("profile = \"eastron-sdm630\"");
    assert_eq!(names(&config), ["voltage-l1", "voltage-l2"]);
    let nowhere = library::Library::new(Path::new("/nonexistent"));
    let built_in = nowhere.read("eastron-sdm630").expect("a good profile");
    assert_eq!(
        built_in.map(|loaded| loaded.value.maker).as_deref(),
        Some("Eastron")
    );
}

#[test]
fn a_profile_is_checked_as_a_whole() {
    let refused = |from: &str, to: &str, part: &str| {
        let problems = library::parse("acme.toml", &METER.replacen(from, to, 1))
            .expect_err("a wrong profile")
            .to_string();
        assert!(problems.contains(part), "{problems}");
    };
    refused(
        "voltage-*",
        "volts",
        "acme.toml:4:12: no point is called \"volts\"",
    );
    refused(
        "voltage-l2",
        "voltage-l1",
        "point \"voltage-l1\" stands twice",
    );
    refused("4366 3333", "4366 333", "write four hexadecimal digits");
    refused(
        "4366 3333",
        "4366",
        "point \"voltage-l1\" at input:0 is not among these registers",
    );
    refused(
        "{ voltage-l1",
        "{ voltage-l9",
        "no point is called \"voltage-l9\"; did you mean",
    );
    refused(
        "max_registers = 40",
        "max_registers = 1",
        "takes 2 registers",
    );
    refused("max_registers = 40", "unit = 7", "unknown key \"unit\"");
    refused("register = \"input:0\"\n", "", "lacks the key \"register\"");
}

#[test]
fn what_a_profile_says_of_requests_is_checked_with_it_and_not_with_the_points_chosen() {
    let together = "max_registers = 40\nread_together = [\"input:2..5\"]";
    let text = METER.replacen("max_registers = 40", together, 1);
    let plant = Plant::new();
    plant.profile("acme-m3", &text);
    let config = plant.device("profile = \"acme-m3\"\npoints = [\"voltage-l1\"]");
    assert_eq!(config.devices[0].read_together.len(), 1);
    let cut = text.replacen("2..5", "3..5", 1);
    let problems = library::parse("acme.toml", &cut).expect_err("a wrong profile");
    let expected =
        "point \"voltage-l2\" stands at input registers 2-3, which is only partly in input:3..5";
    assert!(problems.to_string().contains(expected), "{problems}");
}

#[test]
fn a_device_of_a_shipped_profile_is_the_same_as_one_written_out() {
    let plant = Plant::new();
    let library = library::Library::new(plant.directory.path());
    for name in library.names().into_keys() {
        let profile = library.read(&name).expect("a good profile");
        let profile = profile.expect("it is listed").value;
        let text = plant.file(&format!(
            "name = \"d\"\nbus = \"b\"\nunit = 1\nprofile = {name:?}\npoints = [\"*\"]"
        ));
        let loaded = parse("gateway.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        let mut written_out = profile.as_device("d").expect("a device");
        written_out.bus = "b".to_owned();
        assert_eq!(loaded.value.devices, [written_out], "{name}");
    }
}

#[test]
fn registers_of_an_example_are_hexadecimal() {
    assert_eq!(words("4366 3334", false), Some(vec![0x4366, 0x3334]));
    assert_eq!(words("43663334", false), Some(vec![0x4366, 0x3334]));
    assert_eq!(words("0 1 1", true), Some(vec![0, 1, 1]));
    for (text, bits) in [("", false), ("436", false), ("4g66", false), ("2", true)] {
        assert_eq!(words(text, bits), None, "{text:?}");
    }
}
