//! Promise: nothing is read without end. Layer: tests.

use tuf::limits::{MAX_ROOT_BYTES, MAX_TIMESTAMP_BYTES};
use tuf::metadata::TopRole;

use crate::support::{Device, Vendor};

#[test]
fn endless_metadata_are_read_up_to_their_limit() {
    for (name, limit) in [
        ("2.root.json", MAX_ROOT_BYTES),
        ("timestamp.json", MAX_TIMESTAMP_BYTES),
    ] {
        let mut vendor = Vendor::new();
        vendor.shelf.endless.push(name.into());
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(
            refusal.contains(&format!("more than the {limit} bytes")),
            "{refusal}"
        );
        assert_eq!(vendor.shelf.bytes_read, limit + 1);
    }
}

#[test]
fn metadata_of_a_listed_length_are_read_no_further() {
    for name in ["1.snapshot.json", "1.targets.json"] {
        let mut vendor = Vendor::new();
        let read_before: usize = ["timestamp.json", "1.snapshot.json", "1.targets.json"]
            .iter()
            .take_while(|before| *before != &name)
            .map(|before| vendor.shelf.metadata[*before].len())
            .sum();
        let listed = vendor.shelf.metadata[name].len();
        vendor.shelf.endless.push(name.into());
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(
            refusal.contains(&format!("more than the {listed} bytes")),
            "{refusal}"
        );
        let read = (read_before + listed + 1) as u64;
        assert_eq!(vendor.shelf.bytes_read, read);
    }
}

#[test]
fn a_length_listed_beyond_the_limit_is_not_even_asked_for() {
    let mut vendor = Vendor::new();
    let snapshot = vendor.shelf.metadata["1.snapshot.json"].len();
    let honest = vendor.shelf.metadata["timestamp.json"].clone();
    let forged = vendor.forge(
        TopRole::Timestamp,
        &honest,
        &format!("\"length\": {snapshot}"),
        "\"length\": 1000000000",
    );
    vendor
        .shelf
        .metadata
        .insert("timestamp.json".into(), forged);
    let mut device = Device::new(&vendor.first_root());
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(
        refusal.starts_with("snapshot refused: more than"),
        "{refusal}"
    );
    assert_eq!(
        vendor.shelf.requests.last().map(String::as_str),
        Some("timestamp.json")
    );
}
