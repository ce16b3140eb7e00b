//! Promise: no version falls, none is skipped, and files of one edition stay together. Layer: tests.

use crate::delegations::delegate;
use tuf::limits::MAX_VERSION_JUMP;
use tuf::metadata::TopRole;
use tuf::repository::Signer;
use tuf::time::days_after;

use crate::support::{Device, MAXINT, Vendor, now, version_of};

#[test]
fn a_root_version_is_neither_skipped_nor_replayed() {
    for wrong in [1, 3] {
        let mut vendor = Vendor::new();
        vendor.root_version = wrong;
        let root = vendor.root(&[0, 1]);
        vendor.shelf.metadata.insert("2.root.json".into(), root);
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(
            refusal.contains(&format!("version {wrong} in the place of version 2")),
            "{refusal}"
        );
        assert_eq!(device.kept("root"), Some(vendor.first_root()));
    }
}

#[test]
fn a_rollback_of_the_timestamp_is_refused() {
    let mut vendor = Vendor::new();
    let old = vendor.shelf.metadata["timestamp.json"].clone();
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    let kept = device.kept("timestamp");
    vendor.shelf.metadata.insert("timestamp.json".into(), old);
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(
        refusal.contains("version 1 is older than version 2"),
        "{refusal}"
    );
    assert_eq!(device.kept("timestamp"), kept);
}

#[test]
fn a_rollback_of_the_snapshot_is_refused() {
    let mut vendor = Vendor::new();
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    vendor.versions.insert(TopRole::Snapshot, 1);
    vendor.raise(&[TopRole::Timestamp]);
    vendor.publish();
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(
        refusal.starts_with("snapshot refused: version 1 is older"),
        "{refusal}"
    );
}

#[test]
fn a_rollback_of_targets_is_refused() {
    let mut vendor = Vendor::new();
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    vendor.versions.insert(TopRole::Targets, 1);
    vendor.raise(&[TopRole::Snapshot, TopRole::Timestamp]);
    vendor.publish();
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(
        refusal.starts_with("targets refused: version 1 is older"),
        "{refusal}"
    );
    assert_eq!(version_of(&device, "snapshot"), 2);
}

#[test]
fn a_role_that_was_listed_does_not_vanish() {
    let mut vendor = Vendor::new();
    delegate(&mut vendor, "team", &["team/*"], false, &[]);
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    vendor.delegated.clear();
    vendor.delegations.clear();
    vendor.publish_next();
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(
        refusal.contains("no longer lists the role team"),
        "{refusal}"
    );
}

#[test]
fn files_of_different_editions_are_not_mixed() {
    // What is asked for by its version is of another edition: same version, other content, honestly signed.
    for (role, name) in [
        (TopRole::Snapshot, "2.snapshot.json"),
        (TopRole::Targets, "2.targets.json"),
    ] {
        let mut vendor = Vendor::new();
        vendor.publish_next();
        vendor.expires.insert(role, days_after(now(), 31));
        let targets = vendor.targets();
        let other = match role {
            TopRole::Snapshot => vendor.snapshot(&targets),
            _ => targets,
        };
        vendor.shelf.metadata.insert(name.into(), other);
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert_eq!(
            refusal,
            format!("{role} refused: its digest is not the one that the metadata says")
        );
    }
}

#[test]
fn a_version_at_the_end_of_the_numbers_does_not_lock_the_device_out() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    let honest = vendor.shelf.metadata["timestamp.json"].clone();
    for (found, what) in [
        (MAXINT.to_owned(), "timestamp refused"),
        ((MAX_VERSION_JUMP + 2).to_string(), "timestamp refused"),
    ] {
        // The timestamp's own version stands last in the file.
        let text = String::from_utf8(honest.clone()).unwrap();
        let at = text.rfind("\"version\": 1").unwrap();
        let (before, after) = text.split_at(at);
        let after = after.replacen("1", &found, 1);
        let forged = (before.to_owned() + &after)
            .replace(&vendor.keys[&TopRole::Timestamp].public_key().id(), "old");
        let forged = vendor.sign(TopRole::Timestamp, forged.as_bytes());
        vendor
            .shelf
            .metadata
            .insert("timestamp.json".into(), forged);
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(refusal.starts_with(what), "{refusal}");
        assert!(refusal.contains("beyond version 1"), "{refusal}");
    }
    vendor.publish_next();
    device.refresh(&mut vendor.shelf).unwrap();
}

#[test]
fn a_listed_version_at_the_end_of_the_numbers_is_refused_too() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    vendor.raise(&[TopRole::Snapshot, TopRole::Timestamp]);
    let snapshot = vendor.snapshot(&vendor.targets());
    let forged = vendor.forge(
        TopRole::Snapshot,
        &snapshot,
        "\"version\": 1",
        &format!("\"version\": {MAXINT}"),
    );
    let timestamp = vendor.timestamp(&forged);
    let metadata = &mut vendor.shelf.metadata;
    metadata.insert("2.snapshot.json".into(), forged);
    metadata.insert("timestamp.json".into(), timestamp);
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(refusal.starts_with("targets refused: version"), "{refusal}");
    assert_eq!(version_of(&device, "snapshot"), 1);
}
