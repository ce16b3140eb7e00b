//! What is interrupted goes on, and what is not whole never starts.

use std::fs;

use update::{journal::Content, protocol::Work, slots::Slot};

use crate::device::{Device, Stop, Vendor, image};

#[test]
fn an_installation_that_was_interrupted_goes_on_where_it_was() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let bytes = image(&[1, 2, 3, 4, 5]);
    let index = vendor.publish("1.0", &bytes);
    device.stage_all(&mut vendor, &index);
    let stopped = device.install_while(|work| match work {
        Work::Writing(progress) if progress.done == 3 => Stop::Here,
        _ => Stop::No,
    });
    assert!(stopped.is_err());
    assert!(matches!(device.other(), Content::Writing { .. }));
    device.assert_never_flips();
    device.restart();
    // What is written already may be deleted from staging.
    for number in 0..3 {
        fs::remove_file(device.staged(&index, number)).unwrap();
    }
    let progress = device.install().unwrap();
    assert_eq!(progress.kept, 3);
    assert_eq!(device.slot(Slot::B), bytes);
}

#[test]
fn what_an_interruption_has_torn_is_written_again() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let bytes = image(&[1, 2, 3]);
    let index = vendor.publish("1.0", &bytes);
    device.stage_all(&mut vendor, &index);
    let stopped = device.install_while(|work| match work {
        Work::ReadingBack(_) => Stop::Here,
        _ => Stop::No,
    });
    assert!(stopped.is_err());
    let mut torn = device.slot(Slot::B);
    torn[300_000..400_000].fill(0);
    fs::write(device.kit.places.slot(Slot::B), &torn).unwrap();
    let progress = device.install().unwrap();
    assert_eq!(progress.kept, 2);
    assert_eq!(device.slot(Slot::B), bytes);
}

#[test]
fn another_release_may_take_the_place_of_one_that_was_not_finished() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let first = vendor.publish("1.0", &image(&[1, 2, 3]));
    device.stage(&mut vendor, &first, [0]);
    assert_eq!(device.install().unwrap_err().missing(), [1, 2]);
    let bytes = image(&[1, 8, 9]);
    let second = vendor.publish("2.0", &bytes);
    // The first chunk stands in the slot already.
    device.stage(&mut vendor, &second, [1, 2]);
    let progress = device.install().unwrap();
    assert_eq!(progress.kept, 1);
    assert_eq!(device.slot(Slot::B), bytes);
    let release = second.release();
    assert_eq!(device.other(), Content::Written { release });
}
