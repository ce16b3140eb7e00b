//! Promise: expiry ends a freeze, and never an update. Layer: tests.

use tuf::time::{Now, days_after};

use crate::support::{Device, ROLES, Vendor, now, version_of};

#[test]
fn a_frozen_repository_is_noticed_when_its_timestamp_expires() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    device.now = Now::Trusted(days_after(now(), 29));
    device.refresh(&mut vendor.shelf).unwrap();
    device.now = Now::Trusted(days_after(now(), 30));
    vendor.root_expires = days_after(now(), 90);
    vendor.publish_root();
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(refusal.starts_with("timestamp has expired"), "{refusal}");
}

#[test]
fn expired_metadata_is_refused_by_a_trusted_clock_alone() {
    for (role, _) in ROLES {
        let mut vendor = Vendor::new();
        vendor.expires.insert(role, now());
        vendor.publish();
        let mut device = Device::new(&vendor.first_root());
        let refusal = device.refusal(&mut vendor.shelf);
        assert!(
            refusal.starts_with(&format!("{role} has expired")),
            "{refusal}"
        );
        assert_eq!(device.kept(role.name()), None);
        device.now = Now::AtLeast(days_after(now(), 365));
        device.refresh(&mut vendor.shelf).unwrap();
    }
}

#[test]
fn an_expired_root_leads_on_to_its_successor() {
    let mut vendor = Vendor::new();
    let mut device = Device::updated(&mut vendor);
    device.now = Now::Trusted(days_after(now(), 1000));
    // Version 2 has expired as well, and is followed all the same.
    vendor.publish_root();
    let refusal = device.refusal(&mut vendor.shelf);
    assert!(refusal.starts_with("root has expired"), "{refusal}");
    assert_eq!(version_of(&device, "root"), 2);
    let later = days_after(now(), 1100);
    vendor.root_expires = later;
    vendor.publish_root();
    vendor
        .expires
        .values_mut()
        .for_each(|expires| *expires = later);
    vendor.publish_next();
    device.refresh(&mut vendor.shelf).unwrap();
    assert_eq!(version_of(&device, "root"), 3);
}

#[test]
fn metadata_that_would_never_expire_are_refused() {
    for (role, _) in ROLES {
        for clock in [Now::Trusted(now()), Now::AtLeast(now())] {
            let mut vendor = Vendor::new();
            vendor.expires.insert(role, jiff::Timestamp::MAX);
            vendor.publish();
            let mut device = Device::new(&vendor.first_root());
            device.now = clock;
            let refusal = device.refusal(&mut vendor.shelf);
            assert!(refusal.contains("days ahead"), "{refusal}");
        }
    }
}
