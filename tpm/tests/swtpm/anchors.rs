//! Promise: the trusted root and the security floor move only as the vendor approved, and only upwards, whoever holds the
//! device.

use tpm::{Anchors, Layout, Subject, Tpm, read_sealed};

use crate::{
    simulator::Simulator,
    vendor::{Vendor, root},
};

/// A provisioned device, its TPM open and salted.
fn device(layout: Layout) -> (Simulator, Vendor, Anchors, Tpm) {
    let simulator = Simulator::new();
    if layout == Layout::Owner {
        // Starts it.
        drop(simulator.open());
        simulator
            .tool("tpm2_changeauth", &["-c", "platform", "firmware"])
            .unwrap();
    }
    let vendor = Vendor::new();
    let mut tpm = simulator.open();
    vendor.provisions(&mut tpm, &simulator.file("files"));
    let anchors = Anchors::new(vendor.key, layout).unwrap();
    (simulator, vendor, anchors, tpm)
}

/// After a power cycle, opened as the service does.
fn restarted(simulator: &mut Simulator, tpm: Tpm) -> Tpm {
    drop(tpm);
    simulator.power_cycle();
    Tpm::open_provisioned(&simulator.address(), &simulator.file("files"))
        .unwrap()
        .0
}

#[test]
fn an_approved_root_replaces_a_lower_one() {
    for layout in [Layout::Platform, Layout::Owner] {
        let (_simulator, vendor, anchors, mut tpm) = device(layout);
        assert_eq!(
            tpm.trusted_root(&anchors).unwrap().map(Subject::Root),
            Some(root(3))
        );
        tpm.apply(&anchors, &vendor.approves(root(5))).unwrap();
        assert_eq!(
            tpm.trusted_root(&anchors).unwrap().map(Subject::Root),
            Some(root(5))
        );
        assert_eq!(tpm.security_floor(&anchors).unwrap(), Some(2));
    }
}

#[test]
fn a_replayed_root_approval_is_refused_by_the_tpm() {
    let (mut simulator, vendor, anchors, mut tpm) = device(Layout::Platform);
    let old = vendor.approves(root(4));
    tpm.apply(&anchors, &old).unwrap();
    let mut tpm = restarted(&mut simulator, tpm);
    let error = tpm.apply(&anchors, &old).unwrap_err().to_string();
    assert_eq!(
        error,
        "the TPM refuses root version 4: it holds 4, and lets it only rise"
    );
    tpm.apply(&anchors, &vendor.approves(root(6))).unwrap();
    let mut tpm = restarted(&mut simulator, tpm);
    assert!(tpm.apply(&anchors, &old).is_err());
    assert_eq!(
        tpm.trusted_root(&anchors).unwrap().map(Subject::Root),
        Some(root(6))
    );
}

#[test]
fn a_rollback_of_the_root_or_the_floor_is_refused_by_the_tpm() {
    let (_simulator, vendor, anchors, mut tpm) = device(Layout::Platform);
    assert!(tpm.apply(&anchors, &vendor.approves(root(2))).is_err());
    let error = tpm
        .apply(&anchors, &vendor.approves(Subject::Floor(1)))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the TPM refuses security floor 1: it holds 2, and lets it only rise"
    );
    assert_eq!(tpm.security_floor(&anchors).unwrap(), Some(2));
}

#[test]
fn nobody_elses_approval_and_no_altered_one_moves_an_anchor() {
    let (_simulator, vendor, anchors, mut tpm) = device(Layout::Platform);
    let theirs = Vendor::new().approves(root(7));
    let error = tpm.apply(&anchors, &theirs).unwrap_err().to_string();
    assert!(error.contains("the signature does not verify"), "{error}");
    let honest = vendor.approves(root(7)).to_json();
    let version = honest.replace("\"version\": 7", "\"version\": 8");
    let at = honest.find("\"sha256\": \"").unwrap() + "\"sha256\": \"".len();
    let mut digest = honest.clone();
    let digit = if honest[at..].starts_with('0') {
        "1"
    } else {
        "0"
    };
    digest.replace_range(at..=at, digit);
    for altered in [version, digest] {
        assert_ne!(altered, honest);
        let altered = tpm::Approval::from_json(&altered).unwrap();
        assert!(tpm.apply(&anchors, &altered).is_err(), "{altered:?}");
    }
    assert_eq!(
        tpm.trusted_root(&anchors).unwrap().map(Subject::Root),
        Some(root(3))
    );
}

#[test]
fn a_root_that_rose_takes_no_other_until_the_device_restarts() {
    let (mut simulator, vendor, anchors, mut tpm) = device(Layout::Platform);
    tpm.apply(&anchors, &vendor.approves(root(5))).unwrap();
    let error = tpm
        .apply(&anchors, &vendor.approves(root(6)))
        .unwrap_err()
        .to_string();
    assert!(error.contains("restart it, then apply this"), "{error}");
    let mut tpm = restarted(&mut simulator, tpm);
    tpm.apply(&anchors, &vendor.approves(root(6))).unwrap();
    assert_eq!(
        tpm.trusted_root(&anchors).unwrap().map(Subject::Root),
        Some(root(6))
    );
}

/// With the platform open, as on swtpm, and with it closed, where the owner's authorisation is the only way.
#[test]
fn an_owner_authorised_redefinition_of_an_index_is_impossible() {
    for (layout, indices) in [
        (Layout::Platform, ["0x01504701", "0x01504702", "0x01504703"]),
        (Layout::Owner, ["0x01804701", "0x01804702", "0x01804703"]),
    ] {
        let (simulator, _, anchors, mut tpm) = device(layout);
        drop(tpm);
        for index in indices {
            for hierarchy in ["o", "p"] {
                let undefined = simulator.tool("tpm2_nvundefine", &["-C", hierarchy, index]);
                assert!(undefined.is_err(), "{index} was removed with {hierarchy}");
            }
            std::fs::write(simulator.file("forged"), [0xff; 8]).unwrap();
            let written = simulator.tool("tpm2_nvwrite", &["-C", index, "-i", "forged", index]);
            assert!(written.is_err(), "{index} was written");
        }
        tpm = Tpm::open_provisioned(&simulator.address(), &simulator.file("files"))
            .unwrap()
            .0;
        assert_eq!(
            tpm.trusted_root(&anchors).unwrap().map(Subject::Root),
            Some(root(3))
        );
    }
}

#[test]
fn indices_are_named_as_others_compute_their_names() {
    let (simulator, vendor, anchors, mut tpm) = device(Layout::Platform);
    let record = tpm.provisioning_record(&anchors).unwrap().unwrap();
    drop(tpm);
    for (index, name) in [("0x01504701", &record.root), ("0x01504702", &record.floor)] {
        let told = simulator.tool("tpm2_nvreadpublic", &[index]).unwrap();
        assert!(
            told.to_lowercase().contains(&tpm::hex::encode(name)),
            "{told}"
        );
    }
    assert_eq!(
        record.approval_key,
        tpm::external_name(&vendor.key).unwrap()
    );
}

#[test]
fn hierarchies_open_only_with_the_vendors_approval_for_this_very_device() {
    let (simulator, vendor, _, tpm) = device(Layout::Platform);
    drop(tpm);
    assert!(
        simulator
            .tool("tpm2_changeauth", &["-c", "owner", "mine"])
            .is_err()
    );
    let (mut tpm, keys) =
        Tpm::open_provisioned(&simulator.address(), &simulator.file("files")).unwrap();
    let blob = read_sealed(&simulator.file("files").join("owner.sealed"))
        .unwrap()
        .unwrap();
    let mut other = keys.storage.name().to_vec();
    other[9] ^= 1;
    for wrong in [
        vendor.approves_recovery(&other),
        Vendor::new().approves_recovery(keys.storage.name()),
    ] {
        assert!(
            tpm.recover(&keys.storage, &blob, &vendor.key, &wrong)
                .is_err()
        );
    }
    let approval = vendor.approves_recovery(keys.storage.name());
    let auth = tpm
        .recover(&keys.storage, &blob, &vendor.key, &approval)
        .unwrap();
    drop(tpm);
    let auth = format!("hex:{}", tpm::hex::encode(auth.bytes()));
    simulator
        .tool("tpm2_changeauth", &["-c", "owner", "-p", &auth, "mine"])
        .unwrap();
}
