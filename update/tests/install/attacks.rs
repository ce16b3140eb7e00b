//! Who owns staging, the gateway or whoever has taken it over, gets nothing into a slot.

use std::{collections::BTreeMap, fs, path::PathBuf};

use update::{
    install::InstallError, journal::Content, protocol::Work, release::CHUNK, slots::Slot,
};

use crate::device::{Device, Stop, Vendor, image};

fn staged(bytes: &[u8]) -> (Vendor, Device, update::release::Index) {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let index = vendor.publish("1.0", bytes);
    device.stage_all(&mut vendor, &index);
    (vendor, device, index)
}

fn replace_all(files: &BTreeMap<PathBuf, Vec<u8>>, bytes: &[u8]) {
    for path in files.keys() {
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn bytes_swapped_between_verification_and_write_are_never_written() {
    let bytes = image(&[1, 2, 3, 4]);
    let (_, device, index) = staged(&bytes);
    let good = device.staging();
    // Another chunk of the right length where each belongs, while the second is at work.
    let outcome = device.install_while(|work| {
        if let Work::Writing(progress) = work
            && progress.done == 2
        {
            let other = good[&device.staged(&index, 0)].clone();
            replace_all(&good, &other);
        }
        Stop::No
    });
    assert_eq!(outcome.unwrap_err().missing(), [2, 3]);
    assert_eq!(device.slot(Slot::B), bytes[..2 * CHUNK]);
    device.assert_never_flips();
    // With the right ones in place again, it goes on.
    for (path, bytes) in &good {
        fs::write(path, bytes).unwrap();
    }
    device.install().unwrap();
    assert_eq!(device.slot(Slot::B), bytes);
}

#[test]
fn an_index_swapped_after_its_verification_changes_nothing() {
    let bytes = image(&[1, 2, 3]);
    let (mut vendor, device, _) = staged(&bytes);
    let forged = vendor.publish("6.6", &image(&[6, 6])).to_bytes();
    let swapped = device.install_while(|_| {
        fs::write(device.path("staging/index"), &forged).unwrap();
        Stop::No
    });
    swapped.unwrap();
    assert_eq!(device.slot(Slot::B), bytes);
    // Looked at again, it is not the one that was signed.
    let error = device.refusal_of_begun();
    assert!(error.is_security(), "{error}");
}

#[test]
fn a_slot_that_reads_back_other_than_it_was_written_is_not_used() {
    let (_, device, _) = staged(&image(&[1, 2, 3]));
    let path = device.kit.places.slot(Slot::B).clone();
    let outcome = device.install_while(|work| {
        if matches!(work, Work::Writing(progress) if progress.done == progress.chunks) {
            let mut worn = fs::read(&path).unwrap();
            worn[2 * CHUNK + 5] ^= 0x10;
            fs::write(&path, worn).unwrap();
        }
        Stop::No
    });
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, InstallError::ReadBack { chunk: 2, .. }),
        "{error}"
    );
    assert!(matches!(device.other(), Content::Writing { .. }));
    device.assert_never_flips();
}

#[test]
fn a_release_for_wrong_hardware_is_refused() {
    let mut vendor = Vendor::new();
    vendor.hardware = "another-board";
    let mut device = Device::new(&vendor);
    let index = vendor.publish("1.0", &image(&[1]));
    device.stage_all(&mut vendor, &index);
    let error = device.refusal();
    assert!(error.is_security());
    assert_eq!(
        error.to_string(),
        "release 1.0 is for another-board, and this is board"
    );
    assert_eq!(device.other(), Content::Empty);
}

#[test]
fn a_downgrade_below_the_floor_is_refused_however_well_it_is_signed() {
    let mut vendor = Vendor::new();
    vendor.epoch = 3;
    let mut device = Device::new(&vendor);
    device.kit.trust.raise_security_floor(4, None).unwrap();
    let index = vendor.publish("1.0", &image(&[1]));
    device.stage_all(&mut vendor, &index);
    let error = device.refusal();
    assert!(error.is_security(), "{error}");
    assert!(error.to_string().contains("nothing below 4"), "{error}");
    assert_eq!(device.other(), Content::Empty);
}

#[test]
fn a_file_that_is_present_but_absent_from_the_metadata_is_not_installed() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let index = vendor.publish("1.0", &image(&[1]));
    vendor.repository.files = vec![("other/release.index".into(), b"other".to_vec())];
    vendor.repository.publish_next();
    device.stage_all(&mut vendor, &index);
    let error = device.refusal();
    assert!(error.is_security(), "{error}");
    assert!(error.to_string().contains("no trusted metadata"), "{error}");
}

#[test]
fn oversized_metadata_and_files_without_end_are_read_no_further_than_allowed() {
    let (_, device, index) = staged(&image(&[1, 2]));
    let good = device.staging();
    let long = vec![b' '; 5 << 20];
    for name in ["staging/metadata/timestamp.json", "staging/index"] {
        let path = device.path(name);
        fs::write(&path, &long).unwrap();
        let error = device.refusal();
        assert!(error.is_security(), "{error}");
        fs::write(&path, &good[&path]).unwrap();
    }
    let chunk = device.staged(&index, 1);
    fs::write(&chunk, &long).unwrap();
    assert_eq!(device.refusal().missing(), [1]);
    fs::remove_file(&chunk).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &chunk).unwrap();
    assert_eq!(device.refusal().missing(), [1]);
    fs::remove_file(&chunk).unwrap();
    fs::write(&chunk, &good[&chunk]).unwrap();
    device.install().unwrap();
}

#[test]
fn metadata_that_were_rolled_back_or_signed_by_nobody_install_nothing() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let old = vendor.publish("1.0", &image(&[1]));
    device.stage_all(&mut vendor, &old);
    let earlier = device.staging();
    let new = vendor.publish("2.0", &image(&[2]));
    device.stage_all(&mut vendor, &new);
    device.install().unwrap();
    for (path, bytes) in &earlier {
        fs::write(path, bytes).unwrap();
    }
    let error = device.refusal_of_begun();
    assert!(error.to_string().contains("older than version"), "{error}");
    let path = device.path("staging/metadata/timestamp.json");
    fs::write(&path, br#"{"signatures":[],"signed":{}}"#).unwrap();
    let error = device.refusal_of_begun();
    assert!(error.is_security(), "{error}");
    // What was installed before is still whole.
    assert_eq!(
        device.other(),
        Content::Written {
            release: new.release()
        }
    );
}

impl Device {
    /// A refusal while a whole release waits in the other slot, which stays there.
    fn refusal_of_begun(&self) -> InstallError {
        let before = (self.slot(Slot::B), self.other());
        let error = self.install().unwrap_err();
        assert_eq!((self.slot(Slot::B), self.other()), before);
        error
    }
}
