//! What was installed is told so that others can check it, and nobody on the device can make it up.

use tpm::{Layout, PublicKey, hex};
use update::trust::Trust;
use update::trust::receipt::{Installed, Receipt};

use crate::approver::Vendor;
use crate::device::{Device, FIRST_FLOOR};

fn installed(release: &str) -> Installed {
    Installed {
        gateway: "plant-7".into(),
        release: release.into(),
        security_epoch: FIRST_FLOOR,
        merkle_root: "5a".repeat(32),
        committed: "2026-06-01T12:00:00Z".parse().unwrap(),
    }
}

#[test]
fn a_receipt_proves_release_and_floor_and_nothing_of_it_can_be_changed() {
    for layout in [Layout::Platform, Layout::Owner] {
        let mut device = Device::new(layout);
        let trust = device.trust();
        let receipt = trust.receipt(&installed("1.4.2")).unwrap();
        let key = PublicKey::from_pem(receipt.attestation_key.as_ref().unwrap()).unwrap();
        let vendor = &device.approver.key;
        // As it travels.
        let text = serde_json::to_string(&receipt).unwrap();
        let receipt: Receipt = serde_json::from_str(&text).unwrap();
        let proven = receipt.prove(&key, vendor).unwrap();
        assert_eq!(proven.installed, installed("1.4.2"));
        assert_eq!(proven.floor, FIRST_FLOOR);
        let newer = trust.receipt(&installed("1.5.0")).unwrap();
        let replayed = Receipt {
            statement: newer.statement.clone(),
            ..receipt.clone()
        };
        let why = replayed.prove(&key, vendor).unwrap_err();
        assert!(why.contains("another statement"), "{why}");
        let others = Vendor::new().key;
        assert!(receipt.prove(&others, vendor).is_err());
        assert!(receipt.prove(&key, &others).is_err());
    }
}

#[test]
fn openssl_alone_checks_a_receipt() {
    let mut device = Device::new(Layout::Platform);
    let receipt = device.trust().receipt(&installed("1.4.2")).unwrap();
    let word = receipt.floor.unwrap();
    let file = |name: &str| device.simulator.file(name);
    std::fs::write(file("words"), hex::decode(&word.words).unwrap()).unwrap();
    std::fs::write(file("signature"), hex::decode(&word.signature).unwrap()).unwrap();
    std::fs::write(file("key.pem"), receipt.attestation_key.unwrap()).unwrap();
    let statement = format!("edge gateway: install receipt\n{}", receipt.statement);
    std::fs::write(file("statement"), statement).unwrap();
    let openssl = |arguments: &[&str]| device.simulator.tool("openssl", arguments).unwrap();
    openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        "key.pem",
        "-signature",
        "signature",
        "words",
    ]);
    let digest = openssl(&["dgst", "-sha256", "-r", "statement"]);
    let digest = digest.split_whitespace().next().unwrap();
    assert_eq!(word.words[88..152], *digest);
}

#[test]
fn a_receipt_without_a_tpm_proves_nothing_and_says_so() {
    let state = tempfile::tempdir().unwrap();
    let receipt = Trust::without_tpm(state.path());
    let receipt = receipt.receipt(&installed("1.4.2")).unwrap();
    let key = Vendor::new().key;
    let why = receipt.prove(&key, &key).unwrap_err();
    assert_eq!(why, "no TPM has signed it");
}
