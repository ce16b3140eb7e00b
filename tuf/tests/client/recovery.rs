//! Promise: an attack that is over leaves nothing behind, and neither does a cut line. Layer: tests.

use tuf::metadata::TopRole;
use tuf::repository::Scheme;

use crate::support::{Device, Vendor, key, version_of};

#[test]
fn a_fast_forward_attack_is_recovered_from_by_new_keys() {
    recover(Vendor::new());
}

#[test]
fn a_fast_forward_attack_is_recovered_from_where_a_second_key_still_proves_the_old_files() {
    let keys = [(); 3].map(|()| key(Scheme::Ed25519));
    let root_keys = [(); 3].map(|()| key(Scheme::Ed25519)).into();
    recover(Vendor::with_keys(root_keys, keys, Some(key(Scheme::P256))));
}

#[test]
fn a_new_root_with_the_same_keys_forgets_nothing() {
    let mut vendor = Vendor::new();
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    let kept = device.kept("timestamp");
    vendor.publish_root();
    vendor.shelf.metadata.remove("timestamp.json");
    device.refresh(&mut vendor.shelf).unwrap_err();
    assert_eq!(version_of(&device, "root"), 2);
    assert_eq!(device.kept("timestamp"), kept);
}

#[test]
fn an_update_cut_at_any_request_goes_on_with_the_next() {
    let mut cuts = 0;
    for requests in 0.. {
        let mut vendor = Vendor::new();
        let mut device = Device::updated(&mut vendor);
        vendor.rotate(TopRole::Timestamp);
        vendor.publish_root();
        vendor.publish_root();
        vendor.publish_next();
        vendor.shelf.requests_left = Some(requests);
        if device.refresh(&mut vendor.shelf).is_ok() {
            break;
        }
        cuts += 1;
        vendor.shelf.requests_left = None;
        device.refresh(&mut vendor.shelf).unwrap();
        assert_eq!(version_of(&device, "root"), 3);
        assert_eq!(version_of(&device, "targets"), 2);
    }
    assert_eq!(cuts, 6, "two roots, the end of the roots, and three roles");
}

fn recover(mut vendor: Vendor) {
    for role in [TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets] {
        vendor.versions.insert(role, 1_000_000);
    }
    vendor.publish();
    let mut device = Device::updated(&mut vendor);
    for role in [TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets] {
        vendor.versions.insert(role, 2);
    }
    vendor.publish();
    assert!(device.refusal(&mut vendor.shelf).contains("older"));
    vendor.rotate(TopRole::Timestamp);
    vendor.rotate(TopRole::Snapshot);
    vendor.publish_root();
    vendor.publish();
    device.refresh(&mut vendor.shelf).unwrap();
    assert_eq!(version_of(&device, "timestamp"), 2);
    assert_eq!(version_of(&device, "targets"), 2);
    assert_eq!(device.floor.0.targets, 2);
}
