//! The security floor: withdrawn releases are neither admitted nor opened.

use tpm::{Layout, Subject, Tpm, wrap};
use update::trust::{Trust, TrustError};

use crate::device::{Device, FIRST_FLOOR};

#[test]
fn a_release_below_the_security_floor_is_not_admitted_and_its_key_stays_closed() {
    let mut device = Device::new(Layout::Platform);
    let files = device.simulator.file("files");
    let (tpm, keys) = Tpm::open_provisioned(&device.simulator.address(), &files).unwrap();
    drop(tpm);
    let trust = device.trust();
    let open = |trust: &Trust, epoch| {
        let key = [7; 32];
        let wrapped = wrap(&keys.payload_public, &device.approver.key, epoch, &key).unwrap();
        let opened = trust.unwrap_key(&wrapped, &device.approver.approves_epoch(epoch));
        opened.map(|secret| assert_eq!(secret.bytes(), key))
    };
    trust.admit(FIRST_FLOOR).unwrap();
    open(&trust, FIRST_FLOOR).unwrap();
    assert!(matches!(
        trust.admit(FIRST_FLOOR - 1),
        Err(TrustError::Withdrawn { .. })
    ));
    assert!(open(&trust, FIRST_FLOOR - 1).is_err());
    let approval = device.approver.approves(Subject::Floor(FIRST_FLOOR + 1));
    let approval = approval.to_json();
    trust
        .raise_security_floor(FIRST_FLOOR + 1, Some(approval.as_bytes()))
        .unwrap();
    assert!(trust.admit(FIRST_FLOOR).is_err());
    let closed = open(&trust, FIRST_FLOOR).unwrap_err().to_string();
    assert!(closed.contains("its floor is above that"), "{closed}");
}

#[test]
fn the_security_floor_rises_only_under_the_vendors_approval_of_just_that_epoch() {
    let mut device = Device::new(Layout::Platform);
    let trust = device.trust();
    let approval = |epoch| {
        let approval = device.approver.approves(Subject::Floor(epoch));
        approval.to_json().into_bytes()
    };
    let theirs = crate::approver::Vendor::new().approves(Subject::Floor(5));
    let theirs = theirs.to_json().into_bytes();
    for wrong in [None, Some(approval(6)), Some(theirs), Some(vec![0xff])] {
        assert!(trust.raise_security_floor(5, wrong.as_deref()).is_err());
        assert_eq!(trust.security_floor().unwrap(), FIRST_FLOOR);
    }
    // One that stands already asks nothing of anybody.
    trust.raise_security_floor(1, None).unwrap();
    trust.raise_security_floor(5, Some(&approval(5))).unwrap();
    assert_eq!(trust.security_floor().unwrap(), 5);
}

#[test]
fn without_a_tpm_the_floor_is_a_file_that_rises_and_says_what_it_is_worth() {
    let state = tempfile::tempdir().unwrap();
    let trust = Trust::without_tpm(state.path());
    assert!(trust.in_words().contains("NO TPM"));
    assert_eq!(trust.security_floor().unwrap(), 0);
    trust.raise_security_floor(3, None).unwrap();
    trust.raise_security_floor(2, None).unwrap();
    assert_eq!(trust.security_floor().unwrap(), 3);
    assert!(trust.admit(2).is_err());
    assert!(trust.raise_security_floor(u64::MAX, None).is_err());
    std::fs::write(state.path().join("security-floor.json"), "{}").unwrap();
    assert!(trust.admit(2).is_err());
}
