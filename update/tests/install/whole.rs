//! From staging to a committed release.

use update::{install::source::to_fetch, journal::Content, slots::Slot};

use crate::device::{Device, Vendor, image};

#[test]
fn a_staged_release_gets_into_the_other_slot_byte_for_byte() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let mut bytes = image(&[1, 2, 3]);
    bytes.extend(vec![0; 300_000]);
    bytes.extend(b"the end");
    let index = vendor.publish("1.0", &bytes);
    device.stage_all(&mut vendor, &index);
    let progress = device.install().unwrap();
    assert_eq!(progress.done as usize, index.chunks().len());
    assert_eq!(device.slot(Slot::B), bytes);
    let release = index.release();
    assert_eq!(device.other(), Content::Written { release });
    assert_eq!(device.seen().boot.trial, None, "nobody has put it on trial");
}

#[test]
fn only_chunks_that_the_running_slot_lacks_have_to_be_staged() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let first = vendor.publish("1.0", &image(&[1, 2, 3, 4]));
    device.stage_all(&mut vendor, &first);
    device.install().unwrap();
    run_other(&mut device);
    // One chunk is new, one moved, one stands twice.
    let bytes = image(&[1, 9, 2, 4, 9]);
    let second = vendor.publish("2.0", &bytes);
    let wanted: Vec<usize> = to_fetch(&second, Some(&first)).collect();
    assert_eq!(wanted, [1]);
    device.stage(&mut vendor, &second, wanted);
    let progress = device.install().unwrap();
    assert_eq!((progress.reused, progress.kept), (3, 0));
    assert_eq!(device.slot(Slot::A), bytes);
    // The slot that is written now held release 1.0's chunks 1 and 4 in their places.
    run_other(&mut device);
    let third = vendor.publish("3.0", &image(&[1, 7, 7, 4]));
    device.stage(&mut vendor, &third, to_fetch(&third, Some(&second)));
    let progress = device.install().unwrap();
    assert_eq!((progress.reused, progress.kept), (0, 2));
}

#[test]
fn a_running_slot_that_is_not_what_is_remembered_costs_downloads_and_no_wrong_byte() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let first = vendor.publish("1.0", &image(&[1, 2, 3]));
    device.stage_all(&mut vendor, &first);
    device.install().unwrap();
    run_other(&mut device);
    let bytes = image(&[2, 1, 5]);
    let second = vendor.publish("2.0", &bytes);
    device.stage(&mut vendor, &second, to_fetch(&second, Some(&first)));
    // Its file system was mounted for writing.
    let mut changed = device.slot(Slot::B);
    changed[300_000] ^= 1;
    std::fs::write(device.kit.places.slot(Slot::B), changed).unwrap();
    let error = device.install().unwrap_err();
    assert_eq!(error.missing(), [0]);
    device.stage(&mut vendor, &second, [0]);
    device.install().unwrap();
    assert_eq!(device.slot(Slot::A), bytes);
}

/// Has the slot that was just written run and found healthy.
fn run_other(device: &mut Device) {
    let seen = device.seen();
    let plan = update::trial::activate(seen.view(), 3).unwrap();
    device.kit.machine().carry_out(plan).unwrap();
    device.restart();
    let seen = device.seen();
    let plan = update::trial::commit(seen.view()).unwrap();
    device.kit.machine().carry_out(plan).unwrap();
}
