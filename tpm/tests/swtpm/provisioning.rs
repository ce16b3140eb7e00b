//! Promise: provisioning can be cut anywhere and done again, and what becomes of the TPM afterwards shows.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use tpm::{
    DeviceKey, Error, Report, Tpm,
    provision::{Provisioner, Request, Standing, provision},
    sha256,
    transport::{self, Transport},
};

use crate::{simulator::Simulator, vendor::Vendor};

/// A connection whose power is cut after so many commands: the last is carried out, its answer is lost.
struct Cut {
    inner: Box<dyn Transport>,
    left: usize,
}

impl Transport for Cut {
    fn exchange(&mut self, command: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        if self.left == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let answer = self.inner.exchange(command, patience)?;
        self.left -= 1;
        match self.left {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(answer),
        }
    }

    fn is_raw(&self) -> bool {
        true
    }
}

fn report(simulator: &Simulator, vendor: &Vendor) -> Report {
    simulator
        .open()
        .report(&simulator.file("files"), Some(&vendor.key))
        .unwrap()
}

/// Provisions a fresh TPM whose power is cut after `commands`, and again without a cut. Whether the cut came in time.
fn cut_after(commands: usize, vendor: &Vendor, request: &dyn Fn(&Path) -> Request) -> bool {
    let mut simulator = Simulator::new();
    let files = simulator.file("files");
    let inner = transport::open(&simulator.address()).unwrap();
    let first = Tpm::over(Box::new(Cut {
        inner,
        left: commands,
    }))
    .and_then(|mut tpm| provision(&mut tpm, &request(&files), &mut |_, _| {}));
    simulator.power_cycle();
    provision(&mut simulator.open(), &request(&files), &mut |_, _| {}).unwrap();
    let report = report(&simulator, vendor);
    assert!(
        report.problems.is_empty(),
        "cut after {commands} commands: {:#?}",
        report.problems
    );
    let anchors = report.anchors.unwrap();
    assert_eq!(
        (anchors.root_version, anchors.security_floor),
        (Some(3), Some(2))
    );
    assert!(
        report.hierarchies.owner_set
            && report.hierarchies.endorsement_set
            && report.hierarchies.lockout_set
    );
    first.is_err()
}

#[test]
fn a_power_cut_after_any_command_of_provisioning_leads_to_the_same_end() {
    let vendor = Vendor::new();
    let request = |files: &Path| vendor.request(files);
    let cuts = (1..)
        .take_while(|commands| cut_after(*commands, &vendor, &request))
        .count();
    println!("cut at {cuts} commands");
    assert!(cuts > 50, "only {cuts} commands");
}

#[test]
fn provisioning_again_does_nothing_and_looking_changes_nothing() {
    let simulator = Simulator::new();
    let vendor = Vendor::new();
    let request = vendor.request(&simulator.file("files"));
    let mut tpm = simulator.open();
    let mut provisioner = Provisioner::new(&mut tpm, &request).unwrap();
    for step in provisioner.steps() {
        assert_eq!(
            provisioner.standing(step).unwrap(),
            Standing::ToDo,
            "{step:?}"
        );
    }
    assert!(!simulator.file("files").exists());
    let mut done = 0;
    for todo in [14, 0] {
        let mut count = 0;
        provision(&mut tpm, &request, &mut |_, standing| {
            count += usize::from(*standing == Standing::ToDo)
        })
        .unwrap();
        assert_eq!(count, todo);
        done += count;
    }
    assert_eq!(done, 14);
    drop(tpm);
    let report = report(&simulator, &vendor);
    assert!(report.to_string().ends_with("all is well\n"), "{report}");
}

#[test]
fn without_a_vendors_key_only_keys_are_made_and_hierarchies_stay_as_they_are() {
    let simulator = Simulator::new();
    let request = Request {
        directory: simulator.file("files"),
        trust: None,
    };
    let mut tpm = simulator.open();
    provision(&mut tpm, &request, &mut |_, _| {}).unwrap();
    let report = tpm.report(&request.directory, None).unwrap();
    assert!(report.keys.iter().all(|key| key.as_recorded));
    assert!(!report.hierarchies.owner_set);
}

#[test]
fn a_tpm_cleared_by_an_attacker_is_noticed_and_its_anchors_outlive_it() {
    let simulator = Simulator::new();
    let vendor = Vendor::new();
    vendor.provisions(&mut simulator.open(), &simulator.file("files"));
    simulator.tool("tpm2_clear", &["-c", "p"]).unwrap();
    let opened = Tpm::open_provisioned(&simulator.address(), &simulator.file("files"));
    assert!(matches!(opened, Err(Error::Exchanged { .. })));
    let problems = report(&simulator, &vendor).problems.join("\n");
    assert!(problems.contains("cleared or exchanged"), "{problems}");
    let mut tpm = simulator.open();
    let again = provision(
        &mut tpm,
        &vendor.request(&simulator.file("files")),
        &mut |_, _| {},
    );
    assert!(
        again
            .unwrap_err()
            .to_string()
            .contains("To provision it anew, remove that file")
    );
    drop(tpm);
    // With the file gone the keys are new, and the record tells.
    std::fs::remove_file(simulator.file("files").join("provisioned.json")).unwrap();
    let again = provision(
        &mut simulator.open(),
        &vendor.request(&simulator.file("files")),
        &mut |_, _| {},
    );
    assert!(
        again
            .unwrap_err()
            .to_string()
            .contains("the provisioning record names other keys")
    );
    let anchors = report(&simulator, &vendor).anchors.unwrap();
    assert_eq!((anchors.root_version, anchors.recorded), (Some(3), false));
}

#[test]
fn a_lost_tpm_costs_an_error_and_is_found_again() {
    let mut simulator = Simulator::new();
    let directory = simulator.file("files");
    let request = Request {
        directory: directory.clone(),
        trust: None,
    };
    provision(&mut simulator.open(), &request, &mut |_, _| {}).unwrap();
    let key = DeviceKey::start(simulator.address(), directory).unwrap();
    let digest = sha256(&[b"hello"]);
    let signature = key.sign_p256_sha256(digest).unwrap();
    assert!(key.public_key().unwrap().verifies(b"hello", &signature));
    simulator.power_off();
    assert!(key.sign_p256_sha256(digest).is_err());
    let lost = key.sign_p256_sha256(digest).unwrap_err();
    assert!(matches!(lost, Error::Away { .. }), "{lost}");
    assert!(matches!(key.state(), tpm::State::Away { .. }));
    simulator.power_on();
    let end = Instant::now() + Duration::from_secs(60);
    while key.sign_p256_sha256(digest).is_err() {
        assert!(Instant::now() < end, "the TPM is not found again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_lockout_leaves_our_keys_at_work_and_shows() {
    let simulator = Simulator::new();
    let request = Request {
        directory: simulator.file("files"),
        trust: None,
    };
    provision(&mut simulator.open(), &request, &mut |_, _| {}).unwrap();
    let setup = [
        "--setup-parameters",
        "--max-tries=1",
        "--recovery-time=1000",
        "--lockout-recovery-time=1000",
    ];
    simulator.tool("tpm2_dictionarylockout", &setup).unwrap();
    let define = [
        "-C",
        "o",
        "-s",
        "8",
        "-a",
        "authread|authwrite",
        "-p",
        "right",
        "0x01900000",
    ];
    simulator.tool("tpm2_nvdefine", &define).unwrap();
    std::fs::write(simulator.file("guess"), [0; 8]).unwrap();
    let guess = [
        "-C",
        "0x01900000",
        "-P",
        "wrong",
        "-i",
        "guess",
        "0x01900000",
    ];
    for _ in 0..2 {
        assert!(simulator.tool("tpm2_nvwrite", &guess).is_err());
    }
    let (mut tpm, keys) = Tpm::open_provisioned(&simulator.address(), &request.directory).unwrap();
    let report = tpm.report(&request.directory, None).unwrap();
    assert!(report.lockout.locked, "{report}");
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.contains("our keys work on"))
    );
    let signature = tpm.sign(&keys.signing, &sha256(&[b"hello"])).unwrap();
    assert!(keys.public.verifies(b"hello", &signature));
}
