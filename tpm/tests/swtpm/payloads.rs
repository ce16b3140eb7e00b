//! Promise: the content key of a withdrawn release does not come out of the TPM, whoever holds the device.

use tpm::{Anchors, EpochApproval, Keys, Layout, Subject, Tpm, Wrapped, wrap};

use crate::{simulator::Simulator, vendor::Vendor};

const CONTENT_KEY: [u8; 32] = [0x5a; 32];

struct Device {
    simulator: Simulator,
    vendor: Vendor,
    anchors: Anchors,
    tpm: Tpm,
    keys: Keys,
}

/// With a security floor of 2.
fn device() -> Device {
    let simulator = Simulator::new();
    let vendor = Vendor::new();
    vendor.provisions(&mut simulator.open(), &simulator.file("files"));
    let (tpm, keys) =
        Tpm::open_provisioned(&simulator.address(), &simulator.file("files")).unwrap();
    let anchors = Anchors::new(vendor.key, Layout::Platform).unwrap();
    Device {
        simulator,
        vendor,
        anchors,
        tpm,
        keys,
    }
}

impl Device {
    fn wrapped(&self, epoch: u64) -> Wrapped {
        wrap(
            &self.keys.payload_public,
            &self.vendor.key,
            epoch,
            &CONTENT_KEY,
        )
        .unwrap()
    }

    fn opens(&mut self, wrapped: &Wrapped, approval: &EpochApproval) -> Result<(), String> {
        let opened = self
            .tpm
            .unwrap_key(&self.anchors, &self.keys.payload, wrapped, approval);
        opened
            .map(|key| assert_eq!(key.bytes(), CONTENT_KEY))
            .map_err(|error| error.to_string())
    }
}

#[test]
fn a_content_key_opens_until_the_floor_rises_above_its_epoch() {
    let mut device = device();
    let (wrapped, approval) = (device.wrapped(3), device.vendor.approves_epoch(3));
    device.opens(&wrapped, &approval).unwrap();
    device
        .tpm
        .apply(&device.anchors, &device.vendor.approves(Subject::Floor(3)))
        .unwrap();
    device.opens(&wrapped, &approval).unwrap();
    let files = device.simulator.file("files");
    let address = device.simulator.address();
    let restarted = |device: &mut Device| {
        device.simulator.power_cycle();
        device.tpm = Tpm::open_provisioned(&address, &files).unwrap().0;
    };
    restarted(&mut device);
    device
        .tpm
        .apply(&device.anchors, &device.vendor.approves(Subject::Floor(4)))
        .unwrap();
    let withdrawn = "the TPM does not open a release of security epoch 3: its floor is above that";
    assert_eq!(device.opens(&wrapped, &approval).unwrap_err(), withdrawn);
    restarted(&mut device);
    assert_eq!(device.opens(&wrapped, &approval).unwrap_err(), withdrawn);
}

#[test]
fn the_approval_of_a_newer_release_does_not_open_an_older_one() {
    let mut device = device();
    let (old, newer) = (device.wrapped(1), device.vendor.approves_epoch(5));
    assert!(device.opens(&old, &newer).is_err());
    let disguised = Wrapped { epoch: 5, ..old };
    assert!(device.opens(&disguised, &newer).is_err());
}

#[test]
fn a_content_key_opens_on_its_own_device_unaltered_and_for_its_own_vendor_alone() {
    let mut device = device();
    let approval = device.vendor.approves_epoch(3);
    let honest = device.wrapped(3);
    for part in 0..3 {
        let mut altered = honest.clone();
        let bytes = [
            &mut altered.public,
            &mut altered.duplicate,
            &mut altered.seed,
        ];
        let bytes = bytes.into_iter().nth(part).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(device.opens(&altered, &approval).is_err(), "part {part}");
    }
    let theirs = Vendor::new().approves_epoch(3);
    assert!(device.opens(&honest, &theirs).is_err());
    let elsewhere = self::device();
    assert!(device.opens(&elsewhere.wrapped(3), &approval).is_err());
    device.opens(&honest, &approval).unwrap();
}
