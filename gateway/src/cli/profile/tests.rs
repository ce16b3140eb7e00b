//! Promises of the profiles that the program brings along.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::{
    config::{Bus, profile::library::Library},
    fieldbus::{
        poll::{device, plan::Cost},
        register::Table,
    },
};

/// Fewest devices, and makers of them, that the program is to know.
const DEVICES_MIN: usize = 25;

fn shipped() -> Vec<(String, Loaded<Profile>)> {
    let library = Library::new(Path::new("/nonexistent"));
    let read = |name: String| match library.read(&name) {
        Ok(Some(loaded)) => (name, loaded),
        Ok(None) => panic!("{name} is listed and not there"),
        Err(error) => panic!("{error}"),
    };
    library.names().into_keys().map(read).collect()
}

#[test]
fn every_shipped_profile_passes_its_check_without_a_warning() {
    for (name, loaded) in shipped() {
        assert!(loaded.warnings.is_empty(), "{name}: {}", loaded.warnings);
    }
}

#[test]
fn every_example_of_every_shipped_profile_decodes_to_what_it_says() {
    for (_, loaded) in shipped() {
        let found: Vec<String> = contradicted(&loaded)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn a_contradicted_example_is_found() {
    let (_, loaded) = shipped().swap_remove(0);
    let mut wrong = loaded.clone();
    for text in wrong.value.examples[0].values.values_mut() {
        text.push('!');
    }
    assert!(!contradicted(&wrong).is_empty());
}

#[test]
fn every_shipped_profile_is_planned_within_its_devices_limits() {
    let bus: Bus =
        serde_json::from_value(json!({ "name": "b", "port": "/dev/ttyUSB0" })).expect("a bus");
    for (name, loaded) in shipped() {
        let device = loaded.value.as_device(&name).expect("a device");
        let requests = device::requests(&device, Cost::of(&bus), None);
        let mut read: Vec<usize> = requests
            .iter()
            .flat_map(|one| one.widest().points.clone())
            .collect();
        read.sort_unstable();
        assert_eq!(read, (0..device.points.len()).collect::<Vec<_>>(), "{name}");
        for request in &requests {
            let limit = if request.widest().span.table.is_bits() {
                device.max_bits
            } else {
                device.max_registers
            };
            assert!(
                request.widest().span.count <= limit,
                "{name}: {}",
                request.widest().span
            );
        }
    }
}

/// Two points share registers only as parts of them.
#[test]
fn no_two_numbers_of_a_shipped_profile_overlap() {
    for (name, loaded) in shipped() {
        let device = loaded.value.as_device(&name).expect("a device");
        let mut taken: BTreeMap<(Table, u32), &str> = BTreeMap::new();
        let whole = |point: &&crate::config::Point| {
            point.bit.is_none()
                && point.bits.is_none()
                && point.byte.is_none()
                && point.flags.is_empty()
        };
        for point in device.points.iter().filter(whole) {
            let first = u32::from(point.register.address);
            for address in first..first + u32::from(point.elements()) {
                let other = taken.insert((point.register.table, address), &point.name);
                assert!(
                    other.is_none(),
                    "{name}: {} and {other:?} overlap",
                    point.name
                );
            }
        }
    }
}

#[test]
fn shipped_profiles_are_named_by_maker_and_model() {
    for (name, loaded) in shipped() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(name.chars().all(plain) && name.contains('-'), "{name}");
        let maker: String = loaded.value.maker.to_lowercase();
        let maker = maker.split([' ', '-']).next().unwrap_or_default();
        assert!(name.starts_with(maker), "{name} is by {maker}");
        for point in loaded.value.names() {
            assert!(point.chars().all(plain), "{name}: {point}");
        }
    }
}

#[test]
fn the_documentation_lists_the_shipped_profiles() {
    let library = Library::new(Path::new("/nonexistent"));
    let listed = listed(&library).expect("profiles");
    let table = as_markdown(&listed);
    let document = include_str!("../../../../docs/profiles.md");
    assert!(
        document.contains(&table),
        "put the output of `gateway profile list --markdown` into docs/profiles.md:\n{table}"
    );
}

#[test]
fn many_devices_of_many_makers_are_known() {
    let shipped = shipped();
    let mut makers: Vec<&str> = shipped
        .iter()
        .map(|(_, loaded)| loaded.value.maker.as_str())
        .collect();
    makers.sort_unstable();
    makers.dedup();
    assert!(shipped.len() >= DEVICES_MIN, "{} devices", shipped.len());
    assert!(
        makers.len() >= DEVICES_MIN,
        "{} makers: {makers:?}",
        makers.len()
    );
}

#[test]
fn a_file_that_contradicts_itself_is_told_where() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("acme-x.toml");
    let text = "maker = \"Acme\"\nmodel = \"X\"\nkind = \"sensor\"\n[source]\ntitle = \"t\"\nurl = \"u\"\nbasis = \"document\"\n\
                [[point]]\nname = \"t\"\nregister = \"input:3\"\nscale = 0.1\nunit = \"°C\"\n\
                [[example]]\norigin = \"derived\"\nplace = \"p. 1\"\nat = \"input:3\"\nhex = \"00EB\"\nvalues = { t = \"2.35 °C\" }\n";
    std::fs::write(&file, text).expect("a file");
    let (_, found) = findings(&file).expect("a profile");
    assert_eq!(found.len(), 1);
    let line = found[0].to_string();
    assert!(
        line.contains(":18:") && line.contains("\"t\" decodes to \"23.5 °C\", not to \"2.35 °C\""),
        "{line}"
    );
}
