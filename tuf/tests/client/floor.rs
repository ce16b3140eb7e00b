//! Promise: what is remembered outside the directory cannot be undone inside it. Layer: tests.

use std::fs;

use tuf::floor::{Floor, RootPin};
use tuf::metadata::TopRole;

use crate::support::{Device, Vendor, version_of};

#[test]
fn a_directory_put_back_to_an_old_state_is_noticed_by_the_floor() {
    let mut vendor = Vendor::new();
    let old = vendor.shelf.metadata["timestamp.json"].clone();
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    for role in ["timestamp", "snapshot", "targets"] {
        fs::remove_file(device.path().join(format!("{role}.json"))).unwrap();
    }
    vendor.shelf.metadata.insert("timestamp.json".into(), old);
    let refusal = device.refusal(&mut vendor.shelf);
    assert_eq!(
        refusal,
        "timestamp refused: version 1 is below the floor of 2"
    );
}

#[test]
fn with_a_pinned_root_no_other_is_trusted() {
    let mut vendor = Vendor::new();
    vendor.publish_root();
    let mut device = Device::updated(&mut vendor);
    let pinned = device.floor.0.root.unwrap();
    assert_eq!(
        pinned,
        RootPin::of(2, &vendor.shelf.metadata["2.root.json"])
    );
    // A root from the attacker's own repository, of the pinned version and of a later one.
    let mut attacker = Vendor::new();
    attacker.publish_root();
    attacker.publish_root();
    for name in ["2.root.json", "3.root.json"] {
        let planted = &attacker.shelf.metadata[name];
        fs::write(device.path().join("root.json"), planted).unwrap();
        let refusal = device.refusal(&mut attacker.shelf);
        assert!(
            refusal.contains("not proven by the pinned root, version 2"),
            "{refusal}"
        );
    }
    // An earlier one, from which the attacker's chain would have to lead through the pinned one.
    fs::write(device.path().join("root.json"), attacker.first_root()).unwrap();
    let refusal = device.refusal(&mut attacker.shelf);
    assert!(
        refusal.contains("not proven by the pinned root"),
        "{refusal}"
    );
    // The honest first one still leads to it.
    fs::write(device.path().join("root.json"), vendor.first_root()).unwrap();
    device.refresh(&mut vendor.shelf).unwrap();
    assert_eq!(version_of(&device, "root"), 2);
}

#[test]
fn a_chain_that_ends_before_the_pinned_root_is_refused() {
    let mut vendor = Vendor::new();
    vendor.publish_root();
    let mut device = Device::updated(&mut vendor);
    fs::write(device.path().join("root.json"), vendor.first_root()).unwrap();
    vendor.shelf.metadata.remove("2.root.json");
    assert_eq!(
        device.refusal(&mut vendor.shelf),
        "root refused: version 1 is below the floor of 2"
    );
}

#[test]
fn roots_before_the_pinned_one_do_not_lower_the_floor() {
    let mut vendor = Vendor::new();
    vendor.rotate(TopRole::Timestamp);
    vendor.publish_root();
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    assert_eq!(device.floor.0.timestamp, 2);
    fs::write(device.path().join("root.json"), vendor.first_root()).unwrap();
    vendor.versions.insert(TopRole::Timestamp, 1);
    vendor.publish();
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(refusal.contains("below the floor of 2"), "{refusal}");
}

#[test]
fn a_floor_that_refuses_a_root_keeps_it_from_the_disk() {
    use tuf::floor::{FloorFailure, FloorStore};
    struct Unapproved;
    impl FloorStore for Unapproved {
        fn floor(&mut self) -> Result<Floor, FloorFailure> {
            Ok(Floor::default())
        }
        fn keep(&mut self, _: &Floor) -> Result<(), FloorFailure> {
            Err(FloorFailure {
                action: "kept",
                reason: "no approval of root version 2".into(),
            })
        }
    }
    let mut vendor = Vendor::new();
    vendor.publish_root();
    let device = Device::new(&vendor.first_root());
    let clock = device.now;
    let judges = tuf::Judges {
        verifier: &tuf::verify::Software,
        clock: &clock,
    };
    let directory = device.directory();
    let refused = tuf::refresh(&directory, &mut vendor.shelf, judges, &mut Unapproved);
    let refusal = refused.err().unwrap().to_string();
    assert!(refusal.contains("no approval"), "{refusal}");
    assert_eq!(device.kept("root"), Some(vendor.first_root()));
}
