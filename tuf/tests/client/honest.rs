//! Promise: an honest repository is followed at the least cost, and its targets arrive as they are. Layer: tests.

use std::fs;

use crate::support::{Device, ROLES, Shelf, Vendor, hex, sha256};

#[test]
fn an_honest_repository_is_followed_and_its_bytes_are_kept() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    for (role, name) in ROLES {
        assert_eq!(
            device.kept(role.name()).as_ref(),
            Some(&vendor.shelf.metadata[name])
        );
    }
    assert_eq!(
        device.download(&mut vendor.shelf, "app/image.idx").unwrap(),
        b"chunks"
    );
}

#[test]
fn an_unchanged_repository_costs_two_requests() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    vendor.shelf.requests.clear();
    device.refresh(&mut vendor.shelf).unwrap();
    assert_eq!(vendor.shelf.requests, ["2.root.json", "timestamp.json"]);
}

#[test]
fn a_file_that_is_present_but_absent_from_the_metadata_is_not_found() {
    let mut vendor = Vendor::new();
    vendor
        .shelf
        .targets
        .insert("extra".into(), b"evil".to_vec());
    let name = format!("{}.extra", hex(&sha256(b"evil")));
    vendor.shelf.targets.insert(name, b"evil".to_vec());
    let mut device = Device::updated(&mut vendor);
    let refusal = device.download(&mut vendor.shelf, "extra").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "no trusted metadata describes a target extra"
    );
}

#[test]
fn a_target_is_what_the_metadata_says_or_nothing() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    let name = format!("app/{}.image.idx", hex(&sha256(b"chunks")));
    let folder = tempfile::tempdir().unwrap();
    for (bytes, expected) in [
        (b"chunkS".to_vec(), "its digest is not the one"),
        (b"chunk".to_vec(), "5 bytes instead of 6"),
        (b"chunks!".to_vec(), "more than the 6 bytes"),
    ] {
        vendor.shelf.targets.insert(name.clone(), bytes);
        let refused = device.update(&mut vendor.shelf, |update| {
            let target = update.find("app/image.idx")?;
            update.download(&target, folder.path())
        });
        let refusal = refused.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    vendor.shelf.endless.push(name);
    vendor.shelf.bytes_read = 0;
    let refusal = device.download(&mut vendor.shelf, "app/image.idx");
    assert!(refusal.unwrap_err().to_string().contains("more than the 6"));
    assert!(vendor.shelf.bytes_read < 256 * 1024);
}

#[test]
fn a_target_that_is_there_is_not_fetched_again() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    let folder = tempfile::tempdir().unwrap();
    let mut download = |shelf: &mut Shelf| {
        shelf.requests.clear();
        let file = device.update(shelf, |update| {
            let target = update.find("app/image.idx")?;
            update.download(&target, folder.path())
        });
        (file.unwrap(), shelf.requests.len())
    };
    let (file, requests) = download(&mut vendor.shelf);
    assert_eq!(file.file_name().unwrap(), "app%2Fimage.idx");
    assert_eq!(requests, 3);
    assert_eq!(download(&mut vendor.shelf).1, 2);
    fs::write(&file, b"chunkS").unwrap();
    assert_eq!(download(&mut vendor.shelf).1, 3);
    assert_eq!(fs::read(&file).unwrap(), b"chunks");
}
