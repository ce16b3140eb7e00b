//! Whoever holds the device cannot make it trust another vendor, or an older one.

use std::fs;
use std::io::Read;

use tpm::{Layout, Tpm, read_sealed};
use tuf::fetch::{FetchFailure, Fetcher, Place};

use crate::device::Device;
use crate::repository::Shelf;
use crate::simulator::Simulator;

/// The owner's authorisation value, as only the vendor can have it: worse than any attacker's case.
fn owner_auth(device: &mut Device) -> String {
    device.release();
    let files = device.simulator.file("files");
    let (mut tpm, keys) = Tpm::open_provisioned(&device.simulator.address(), &files).unwrap();
    let blob = read_sealed(&files.join("owner.sealed")).unwrap().unwrap();
    let approval = device.approver.approves_recovery(keys.storage.name());
    let auth = tpm.recover(&keys.storage, &blob, &device.approver.key, &approval);
    format!("hex:{}", tpm::hex::encode(auth.unwrap().bytes()))
}

#[test]
fn an_owner_authorised_redefinition_of_the_anchors_stops_every_update() {
    let mut device = Device::new(Layout::Owner);
    device.refresh().unwrap();
    let auth = owner_auth(&mut device);
    let index = "0x01804701";
    let tool = |program, arguments: &[&str]| device.simulator.tool(program, arguments).unwrap();
    tool("tpm2_nvundefine", &["-C", "o", "-P", &auth, index]);
    tool(
        "tpm2_nvdefine",
        &[
            "-C",
            "o",
            "-P",
            &auth,
            "-s",
            "40",
            "-a",
            "ownerwrite|ownerread|authread|authwrite|no_da",
            index,
        ],
    );
    fs::write(device.simulator.file("forged"), [0; 40]).unwrap();
    tool("tpm2_nvwrite", &["-C", index, "-i", "forged", index]);
    let refusal = device.refusal();
    assert!(
        refusal.contains("is not the one that was provisioned"),
        "{refusal}"
    );
}

#[test]
fn a_tpm_cleared_by_an_attacker_and_provisioned_again_with_old_approvals_is_not_believed() {
    let mut device = Device::new(Layout::Owner);
    device.publish_approved_root();
    device.refresh().unwrap();
    device.release();
    let clear = ["-c", "platform", "firmware"];
    device.simulator.tool("tpm2_clear", &clear).unwrap();
    let refusal = device.refusal();
    assert!(
        refusal.contains("is not the one that was provisioned"),
        "{refusal}"
    );
    // Root on the device has the factory's approvals, and removes what told of the clear.
    device.release();
    fs::remove_dir_all(device.simulator.file("files")).unwrap();
    device.provision();
    let refusal = device.refusal();
    assert!(
        refusal.contains("this device had pinned version 2 before"),
        "{refusal}"
    );
}

#[test]
fn the_anchors_of_the_platform_outlive_a_clear() {
    let mut device = Device::new(Layout::Platform);
    device.publish_approved_root();
    device.refresh().unwrap();
    device.release();
    device.simulator.tool("tpm2_clear", &["-c", "p"]).unwrap();
    fs::remove_dir_all(device.simulator.file("files")).unwrap();
    let keys_alone = tpm::provision::Request {
        directory: device.simulator.file("files"),
        trust: None,
    };
    let mut tpm = device.simulator.open();
    tpm::provision::provision(&mut tpm, &keys_alone, &mut |_, _| {}).unwrap();
    drop(tpm);
    assert_eq!(device.pinned_root(), 2);
}

/// A repository over a line that takes the TPM along when a certain file is asked for.
struct Fatal<'a> {
    shelf: Shelf,
    simulator: &'a mut Simulator,
    at: &'static str,
}

impl Fetcher for Fatal<'_> {
    fn open(&mut self, place: Place, name: &str) -> Result<Box<dyn Read + '_>, FetchFailure> {
        if name == self.at {
            self.simulator.power_off();
        }
        self.shelf.open(place, name)
    }
}

#[test]
fn a_tpm_lost_midway_stops_the_update_and_costs_nothing_that_was_trusted() {
    for at in ["2.root.json", "2.root.approval.json", "timestamp.json"] {
        let mut device = Device::new(Layout::Platform);
        device.refresh().unwrap();
        let verifier = device.trust().verifier();
        device.publish_approved_root();
        device.repository.publish_next();
        let mut simulator = std::mem::replace(&mut device.simulator, Simulator::new());
        let mut line = Fatal {
            shelf: std::mem::take(&mut device.repository.shelf),
            simulator: &mut simulator,
            at,
        };
        let lost = device.refresh_with(&*verifier, &mut line).unwrap_err();
        let lost = lost.to_string();
        assert!(
            lost.contains("TPM") && !lost.contains("refused"),
            "at {at}: {lost}"
        );
        drop(verifier);
        device.repository.shelf = line.shelf;
        device.simulator = simulator;
        device.restart();
        device.refresh().unwrap();
        assert_eq!((device.pinned_root(), device.kept_root()), (2, 2));
    }
}

#[test]
fn a_damaged_floor_beside_the_tpm_is_not_taken_for_none() {
    let mut device = Device::new(Layout::Platform);
    device.refresh().unwrap();
    fs::write(device.state().join("floor.json"), "{").unwrap();
    assert!(device.trust().floors().floor().is_err());
    let refusal = device.refusal();
    assert!(refusal.contains("floor.json"), "{refusal}");
}
