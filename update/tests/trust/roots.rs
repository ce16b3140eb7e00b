//! The trusted root moves as the vendor approved, for exactly those bytes.

use std::fs;

use tpm::Layout;
use tuf::metadata::TopRole;

use crate::device::Device;

#[test]
fn roots_are_followed_however_many_and_the_last_is_pinned_under_its_approval_alone() {
    for layout in [Layout::Platform, Layout::Owner] {
        let mut device = Device::new(layout);
        device.refresh().unwrap();
        assert_eq!(device.pinned_root(), 1);
        for _ in 0..3 {
            device.repository.publish_root();
        }
        let approval = device.approval_of(4);
        device.shelve_approval(4, approval);
        device.refresh().unwrap();
        assert_eq!((device.pinned_root(), device.kept_root()), (4, 4));
        device.restart();
        device.refresh().unwrap();
    }
}

#[test]
fn a_root_without_the_vendors_approval_is_neither_pinned_nor_kept() {
    let mut device = Device::new(Layout::Platform);
    device.repository.publish_root();
    let refusal = device.refusal();
    assert!(
        refusal.contains("root version 2 needs the vendor's approval"),
        "{refusal}"
    );
    assert_eq!((device.pinned_root(), device.kept_root()), (1, 1));
    // An approval that comes later is taken.
    let approval = device.approval_of(2);
    device.shelve_approval(2, approval);
    device.refresh().unwrap();
    assert_eq!((device.pinned_root(), device.kept_root()), (2, 2));
}

#[test]
fn a_replayed_root_approval_moves_nothing() {
    let mut device = Device::new(Layout::Platform);
    device.publish_approved_root();
    device.refresh().unwrap();
    device.restart();
    device.repository.publish_root();
    let old = device.approval_of(2);
    device.shelve_approval(3, old.clone());
    let refusal = device.refusal();
    assert!(
        refusal.contains("of other bytes or another version"),
        "{refusal}"
    );
    // Nor when its words are made to fit: the signatures are not.
    let text = String::from_utf8(old).unwrap();
    let third = String::from_utf8(device.approval_of(3)).unwrap();
    let signatures = &text[text.find("\"signatures\"").unwrap()..];
    let forged = third[..third.find("\"signatures\"").unwrap()].to_owned() + signatures;
    device.shelve_approval(3, forged.into_bytes());
    let refusal = device.refusal();
    assert!(refusal.contains("signature does not verify"), "{refusal}");
    assert_eq!((device.pinned_root(), device.kept_root()), (2, 2));
}

#[test]
fn an_approval_by_another_than_the_vendor_moves_nothing() {
    let mut device = Device::new(Layout::Platform);
    device.repository.publish_root();
    let vendor = std::mem::replace(&mut device.approver, crate::approver::Vendor::new());
    let theirs = device.approval_of(2);
    device.approver = vendor;
    device.shelve_approval(2, theirs);
    let refusal = device.refusal();
    assert!(refusal.contains("signature does not verify"), "{refusal}");
    for nonsense in [vec![0xff; 200], vec![b' '; 20_000], Vec::new()] {
        device.shelve_approval(2, nonsense);
        let refusal = device.refusal();
        assert!(refusal.contains("approval"), "{refusal}");
    }
    assert_eq!((device.pinned_root(), device.kept_root()), (1, 1));
}

#[test]
fn a_root_version_that_is_skipped_or_replayed_is_refused() {
    let mut device = Device::new(Layout::Platform);
    device.publish_approved_root();
    device.publish_approved_root();
    let shelf = device.repository.shelf.metadata.clone();
    for planted in ["1.root.json", "3.root.json"] {
        let bytes = shelf[planted].clone();
        let files = &mut device.repository.shelf.metadata;
        files.insert("2.root.json".into(), bytes);
        let refusal = device.refusal();
        assert!(refusal.contains("root refused"), "{refusal}");
        assert_eq!((device.pinned_root(), device.kept_root()), (1, 1));
    }
}

#[test]
fn an_unverified_root_is_never_pinned_nor_kept_and_those_before_it_are() {
    let mut device = Device::new(Layout::Platform);
    device.publish_approved_root();
    device.repository.root_version = 3;
    let unsigned = device.repository.root(&[0]);
    let files = &mut device.repository.shelf.metadata;
    files.insert("3.root.json".into(), unsigned);
    let approval = device.approval_of(3);
    device.shelve_approval(3, approval);
    let refusal = device.refusal();
    assert!(refusal.contains("1 of the 2 signatures"), "{refusal}");
    assert_eq!((device.pinned_root(), device.kept_root()), (2, 2));
}

#[test]
fn a_power_cut_between_the_tpm_and_the_disk_forgets_no_recovery() {
    let mut device = Device::new(Layout::Platform);
    device.refresh().unwrap();
    let floor = device.state().join("floor.json");
    let before = fs::read(&floor).unwrap();
    device.publish_after_losing(TopRole::Timestamp);
    device.refresh().unwrap();
    // As the disk was when the TPM had moved already, the directory's part included.
    fs::write(&floor, before).unwrap();
    let found = device.trust().floors().floor().unwrap();
    assert_eq!(found.root.unwrap().version, 2);
    assert_eq!((found.timestamp, found.snapshot), (0, 0));
    device.refresh().unwrap();
    assert_eq!(device.trust().floors().floor().unwrap().timestamp, 2);
}

#[test]
fn a_second_rise_of_the_root_waits_for_the_next_restart_and_says_so() {
    let mut device = Device::new(Layout::Platform);
    device.publish_approved_root();
    device.refresh().unwrap();
    device.publish_approved_root();
    let refusal = device.refusal();
    assert!(refusal.contains("restart it, then apply this"), "{refusal}");
    assert_eq!((device.pinned_root(), device.kept_root()), (2, 2));
    device.restart();
    device.refresh().unwrap();
    assert_eq!((device.pinned_root(), device.kept_root()), (3, 3));
}
