//! Promise: what is not signed by enough of the right keys is not trusted. Layer: tests.

use std::fs;

use tuf::metadata::TopRole;
use tuf::repository::Scheme;

use crate::support::{Device, ROLES, Shelf, Vendor, key, signed};

#[test]
fn a_signature_that_covers_only_part_of_the_data_proves_nothing() {
    for (role, name) in ROLES {
        let mut vendor = Vendor::new();
        let text = String::from_utf8(vendor.shelf.metadata[name].clone()).unwrap();
        // As long as before, so that the length that is listed does not give it away.
        let changed = text.replace(
            "\"spec_version\": \"1.0.34\"",
            "\"spec_version\": \"1.0.33\"",
        );
        assert_ne!(text, changed);
        vendor
            .shelf
            .metadata
            .insert(name.into(), changed.into_bytes());
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        let expected = match role {
            TopRole::Timestamp => "0 of the 1 signatures",
            _ => "its digest is not the one",
        };
        assert!(refusal.contains(expected), "{refusal}");
        assert_eq!(device.kept(role.name()), None);
    }
}

#[test]
fn zero_signatures_are_refused() {
    for (role, _) in ROLES {
        let mut vendor = Vendor::new();
        vendor.forgetful = Some(role);
        vendor.publish();
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(
            refusal.starts_with(&format!("{role} refused: 0 of the 1 signatures")),
            "{refusal}"
        );
        assert_eq!(device.kept(role.name()), None);
    }
}

#[test]
fn a_strangers_signature_counts_for_nothing() {
    for (role, _) in ROLES {
        let mut vendor = Vendor::new();
        vendor.keys.insert(role, key(Scheme::Ed25519));
        vendor.publish();
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(
            refusal.starts_with(&format!("{role} refused: 0 of the 1 signatures")),
            "{refusal}"
        );
    }
}

#[test]
fn empty_files_and_empty_lists_of_signatures_are_refused() {
    let unsigned = Vendor::new().root_draft().to_file().unwrap();
    for bytes in [
        Vec::new(),
        b"{}".to_vec(),
        b"null".to_vec(),
        br#"{"signatures":[],"signed":{}}"#.to_vec(),
        unsigned,
    ] {
        for name in ["2.root.json", "timestamp.json"] {
            let mut vendor = Vendor::new();
            vendor.shelf.metadata.insert(name.into(), bytes.clone());
            let mut device = Device::new(&vendor.first_root());
            let refusal = device.refusal(&mut vendor.shelf);
            assert!(refusal.contains("refused"), "{refusal}");
            assert_eq!(device.kept("root"), Some(vendor.first_root()));
            assert_eq!(device.kept("timestamp"), None);
        }
    }
}

#[test]
fn duplicate_key_ids_do_not_reach_a_threshold() {
    let mut vendor = Vendor::new();
    vendor.root_version = 2;
    let once = String::from_utf8(vendor.root(&[0])).unwrap();
    let start = once.find('{').unwrap();
    let signature_start = start + once[start + 1..].find('{').unwrap() + 1;
    let signature_end = signature_start + once[signature_start..].find('}').unwrap() + 1;
    let signature = &once[signature_start..signature_end];
    let twice = once.replacen(signature, &format!("{signature}, {signature}"), 1);
    for (root, expected) in [
        (once.clone(), "1 of the 2 signatures"),
        (twice, "signs twice"),
    ] {
        vendor
            .shelf
            .metadata
            .insert("2.root.json".into(), root.into_bytes());
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(refusal.contains(expected), "{refusal}");
        assert_eq!(device.kept("root"), Some(vendor.first_root()));
    }
}

#[test]
fn an_unverified_root_is_not_persisted() {
    let mut vendor = Vendor::new();
    let old_keys: Vec<_> = std::mem::take(&mut vendor.root_keys);
    vendor.root_keys = (0..3).map(|_| key(Scheme::Ed25519)).collect();
    vendor.root_version = 2;
    let draft = vendor.root_draft().to_file().unwrap();
    let (old, new) = (&old_keys, &vendor.root_keys);
    for signers in [
        // Its own keys alone; the old ones alone; one too few of either.
        vec![&new[0], &new[1]],
        vec![&old[0], &old[1]],
        vec![&new[0], &new[1], &old[0]],
        vec![&new[0], &old[0], &old[1]],
    ] {
        let root = signed(&draft, &signers);
        let mut shelf = Shelf::default();
        shelf.metadata.insert("2.root.json".into(), root);
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut shelf);
        assert!(refusal.contains("of the 2 signatures"), "{refusal}");
        assert_eq!(device.kept("root"), Some(vendor.first_root()));
    }
    let both = signed(&draft, &[&new[0], &new[1], &old[0], &old[1]]);
    vendor
        .shelf
        .metadata
        .insert("2.root.json".into(), both.clone());
    let mut device = Device::new(&vendor.first_root());
    device.refresh(&mut vendor.shelf).unwrap();
    assert_eq!(device.kept("root"), Some(both));
}

#[test]
fn one_roles_file_does_not_pass_as_anothers() {
    let mut vendor = Vendor::new();
    vendor.keys.insert(TopRole::Timestamp, key(Scheme::P256));
    let snapshot = vendor.shelf.metadata["1.snapshot.json"].clone();
    let as_timestamp = vendor.sign(TopRole::Timestamp, &snapshot);
    vendor.publish_root();
    vendor
        .shelf
        .metadata
        .insert("timestamp.json".into(), as_timestamp);
    let mut device = Device::new(&vendor.first_root());
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(
        refusal.contains("the type is \"snapshot\" instead of \"timestamp\""),
        "{refusal}"
    );
}

#[test]
fn metadata_changed_on_disk_are_not_trusted() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut vendor = Vendor::new();
        let mut device = Device::updated(&mut vendor);
        let honest = device.kept(role);
        let path = device.path().join(format!("{role}.json"));
        fs::write(&path, br#"{"signatures":[],"signed":{}}"#).unwrap();
        device.refresh(&mut vendor.shelf).unwrap();
        assert_eq!(device.kept(role), honest);
    }
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    let text = String::from_utf8(vendor.first_root()).unwrap();
    let changed = text.replace("\"threshold\": 2", "\"threshold\": 1");
    fs::write(device.path().join("root.json"), changed).unwrap();
    vendor.shelf.requests.clear();
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(refusal.starts_with("root refused: 0 of the 1"), "{refusal}");
    assert_eq!(vendor.shelf.requests.len(), 0);
}
