//! The root process: installs, tries, commits, and rolls back what nobody commits.

use std::time::Duration;

use update::{
    journal::Content,
    protocol::{Ask, Reply, Status, Work},
    slots::Slot,
    updater::{Next, Updater},
};

use crate::device::{Device, Vendor, image};

const PATIENT: Duration = Duration::from_secs(3600);

pub(crate) fn updater(device: &Device, patience: Duration) -> Updater {
    let runtime = device.path("run");
    Updater::new(device.kit.clone(), "plant-7".into(), 3, runtime, patience)
}

fn status(updater: &mut Updater) -> Status {
    match updater.answer(Ask::Status {}).0 {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// Asks for an installation and waits for what comes of it.
fn install(updater: &mut Updater) -> Work {
    assert_eq!(
        updater.answer(Ask::Install {}),
        (Reply::Done {}, Next::Stay)
    );
    finished(updater)
}

fn finished(updater: &mut Updater) -> Work {
    while updater.beats().is_some() {
        std::thread::yield_now();
    }
    status(updater).work
}

/// Installs a release and starts it on trial.
fn on_trial(vendor: &mut Vendor, patience: Duration) -> (Device, Updater) {
    let mut device = Device::new(vendor);
    let index = vendor.publish("1.0", &image(&[1, 2]));
    device.stage_all(vendor, &index);
    let mut before = updater(&device, patience);
    assert_eq!(before.start().unwrap(), Next::Stay);
    assert!(matches!(install(&mut before), Work::Installed(_)));
    assert_eq!(
        before.answer(Ask::Activate {}),
        (Reply::Done {}, Next::Restart(None))
    );
    device.restart();
    let mut after = updater(&device, patience);
    assert_eq!(after.start().unwrap(), Next::Stay);
    (device, after)
}

#[test]
fn a_release_that_is_committed_stays_and_raises_the_floor() {
    let mut vendor = Vendor::new();
    vendor.epoch = 5;
    let (mut device, mut updater) = on_trial(&mut vendor, PATIENT);
    let trying = status(&mut updater);
    assert!(trying.is_on_trial());
    assert!(trying.trial.unwrap().seconds_left.unwrap() > 3000);
    assert_eq!(trying.floor, Some(0), "the floor rises after a commit only");
    assert_eq!(updater.answer(Ask::Commit {}), (Reply::Done {}, Next::Stay));
    let committed = status(&mut updater);
    assert_eq!((committed.default, committed.trial), (Some(Slot::B), None));
    assert_eq!(committed.floor, Some(5));
    let Reply::Receipt { receipt } = updater.answer(Ask::Receipt {}).0 else {
        panic!("no receipt");
    };
    assert!(receipt.contains("plant-7"), "{receipt}");
    device.restart();
    assert_eq!(device.seen().booted, Slot::B);
}

#[test]
fn a_release_that_nobody_commits_in_time_is_rolled_back_and_says_why() {
    let mut vendor = Vendor::new();
    let (mut device, mut updater) = on_trial(&mut vendor, Duration::ZERO);
    assert_eq!(updater.tick(), Next::Restart(None));
    let Content::Bad { reason, .. } = device.seen().journal.of(Slot::B).clone() else {
        panic!("it was not found bad");
    };
    assert!(reason.contains("not found healthy within"), "{reason}");
    device.restart();
    assert_eq!(device.seen().booted, Slot::A);
}

#[test]
fn a_roll_back_keeps_its_reason_and_another_commit_is_refused() {
    let mut vendor = Vendor::new();
    let (mut device, mut updater) = on_trial(&mut vendor, PATIENT);
    let reason = "bus hall-2 stopped polling".to_owned();
    let asked = Ask::RollBack {
        reason: reason.clone(),
    };
    assert_eq!(updater.answer(asked), (Reply::Done {}, Next::Restart(None)));
    let (refused, next) = updater.answer(Ask::Commit {});
    assert!(matches!(refused, Reply::Refused { .. }), "{refused:?}");
    assert_eq!(next, Next::Stay);
    device.restart();
    let mut after = self::updater(&device, PATIENT);
    after.start().unwrap();
    let status = status(&mut after);
    assert_eq!(status.booted, Some(Slot::A));
    assert!(matches!(status.other(), Some(Content::Bad { reason: said, .. }) if *said == reason));
}

#[test]
fn an_image_that_was_not_verified_never_flips_whoever_asks() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let index = vendor.publish("1.0", &image(&[1, 2]));
    device.stage(&mut vendor, &index, [0]);
    let mut updater = updater(&device, PATIENT);
    updater.start().unwrap();
    let Work::Failed { missing, .. } = install(&mut updater) else {
        panic!("installed without its chunks");
    };
    assert_eq!(missing, [1]);
    for ask in [Ask::Activate {}, Ask::Commit {}] {
        let (reply, next) = updater.answer(ask);
        assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
        assert_eq!(next, Next::Stay);
    }
    device.assert_never_flips();
}

#[test]
fn an_interrupted_installation_goes_on_by_itself_at_the_next_start() {
    let mut vendor = Vendor::new();
    let mut device = Device::new(&vendor);
    let index = vendor.publish("1.0", &image(&[1, 2]));
    device.stage(&mut vendor, &index, [0]);
    let mut before = updater(&device, PATIENT);
    before.start().unwrap();
    install(&mut before);
    device.stage_all(&mut vendor, &index);
    device.restart();
    let mut after = updater(&device, PATIENT);
    after.start().unwrap();
    let Work::Installed(progress) = finished(&mut after) else {
        panic!("it did not go on");
    };
    assert_eq!(progress.kept, 1);
}

#[test]
fn nothing_is_installed_over_the_way_back_while_a_release_is_on_trial() {
    let mut vendor = Vendor::new();
    let (device, mut updater) = on_trial(&mut vendor, PATIENT);
    let before = device.slot(Slot::A);
    let (reply, _) = updater.answer(Ask::Install {});
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    assert_eq!(device.slot(Slot::A), before);
}

#[test]
fn a_restart_that_somebody_wants_costs_no_start() {
    let mut vendor = Vendor::new();
    let (device, mut updater) = on_trial(&mut vendor, PATIENT);
    let left = device.seen().boot.trial.unwrap().left;
    assert_eq!(
        updater.answer(Ask::BeforeRestart {}),
        (Reply::Done {}, Next::Stay)
    );
    assert_eq!(device.seen().boot.trial.unwrap().left, left + 1);
}
