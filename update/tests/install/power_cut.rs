//! Promise: whatever the moment at which the power goes, of download, install, flip, commit or roll-back, the device starts a slot
//! that holds a whole release, not below the floor, and completes the update when power stays. On the recorded system calls of
//! a real life; see the crate `powercut`.

use std::{fs, path::Path};

use powercut::{Call, Ledger, Scene, Stage};
use update::{
    journal::Content,
    protocol::{Ask, Reply, Work},
    release::Index,
    slots::{BootState, Slot, SlotBackend, Trial, files::Files},
    updater::{Next, Updater},
};

use crate::{
    device::{Device, Vendor, image},
    updater::updater,
};

const PROGRAM: &str = "power_cut::lives_through_updates_for_the_tests_that_cut_its_power";

/// Releases that the recorded device gets; every third is rolled back.
const RELEASES: usize = 6;

/// Power cuts: each sync is met several times, with other outcomes. `CRASH_SEEDS` asks for another number.
const CUTS: u64 = 300;

/// The first writes of a new machine, at its maker's.
const MADE: &str = "made";

#[test]
fn a_power_cut_at_any_moment_leaves_a_slot_that_starts_and_an_update_that_completes() {
    let scene = Scene::new(PROGRAM);
    let calls = scene.record(RELEASES);
    let syncs = calls.iter().filter(|call| matches!(call, Call::Sync(_)));
    let syncs = syncs.count();
    assert!(syncs > 100, "only {syncs} syncs were recorded");
    let seeds = std::env::var("CRASH_SEEDS").map_or(CUTS, |text| text.parse().unwrap());
    let cuts = powercut::try_cuts(&scene, &calls, (0..seeds).collect(), verify);
    let cuts = cuts.unwrap_or_else(|why| panic!("{why}"));
    let of = |outcome| cuts.iter().filter(|cut| **cut == outcome).count();
    println!(
        "{} power cuts over {syncs} syncs: {} before the device was made, {} started slot a, {} slot b",
        cuts.len(),
        of(Outcome::Unmade),
        of(Outcome::Started(Slot::A)),
        of(Outcome::Started(Slot::B))
    );
    assert!(of(Outcome::Started(Slot::A)) > 50 && of(Outcome::Started(Slot::B)) > 50);
}

#[test]
fn the_proof_by_power_cuts_finds_a_slot_that_was_not_synced() {
    let scene = Scene::new(PROGRAM);
    let mut calls = scene.record(RELEASES);
    let is_slot = |path: &Path| path.ends_with("slot-a") || path.ends_with("slot-b");
    let made = calls
        .iter()
        .position(|call| matches!(call, Call::Told(line) if line.trim() == MADE));
    let (mut at, made) = (0, made.unwrap());
    calls.retain(|call| {
        at += 1;
        at <= made || !matches!(call, Call::Sync(path) if is_slot(path))
    });
    let found = powercut::try_cuts(&scene, &calls, (0..CUTS).collect(), verify);
    assert!(
        found.is_err(),
        "slots that were never on the medium were not noticed"
    );
}

/// The child process: one release after the other, as boot loader, gateway, updater and plant in one.
#[test]
#[ignore = "a process for the tests beside it"]
fn lives_through_updates_for_the_tests_that_cut_its_power() {
    let stage = Stage::open();
    let mut vendor = Vendor::seeded();
    let mut device = Device::at(&stage.disk, &vendor);
    fs::write(device.path("slot-a"), flashed()).unwrap();
    for name in ["slot-a", "slot-b", "root.json", "key", "."] {
        fs::File::open(device.path(name))
            .unwrap()
            .sync_all()
            .unwrap();
    }
    stage.tell(MADE);
    for number in 1..=stage.amount {
        let index = publish(&mut vendor, number);
        stage.tell(&format!("published {number}"));
        device.stage_all(&mut vendor, &index);
        bring(&mut device, number % 3 == 0);
    }
}

/// What a cut came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unmade,
    Started(Slot),
}

/// What was told before the cut.
#[derive(Debug, Clone, Default)]
struct Told {
    made: bool,
    published: usize,
}

impl Ledger for Told {
    fn enter(&mut self, line: &str) {
        match line.strip_prefix("published ") {
            Some(number) => self.published = number.parse().unwrap(),
            None => self.made = true,
        }
    }
}

/// Starts what the boot loader would, looks at it, and lives on until the newest release stays.
fn verify(folder: &Path, told: &Told) -> Result<Outcome, String> {
    if !told.made {
        return Ok(Outcome::Unmade);
    }
    Device::moved(folder);
    let slot = start(folder)?;
    let mut vendor = Vendor::seeded();
    let mut index = None;
    for number in 1..=told.published.max(1) {
        index = Some(publish(&mut vendor, number));
    }
    let index = index.ok_or("nothing was published")?;
    let mut device = Device::again(folder);
    check_running(&device, slot)?;
    complete(&mut device, &mut vendor, &index)?;
    check_running(&device, device.seen().booted)?;
    match device.slot(device.seen().booted) == release_image(told.published.max(1)) {
        true => Ok(Outcome::Started(slot)),
        false => Err("the newest release does not run at the end".to_owned()),
    }
}

/// What U-Boot does.
fn start(folder: &Path) -> Result<Slot, String> {
    let mut boot = Files::open(&folder.join("boot")).map_err(|error| error.to_string())?;
    let state = boot.load().map_err(|error| error.to_string())?;
    let slot = match state.trial {
        Some(Trial { left, refunds }) if left > 0 => {
            let left = left - 1;
            let trial = Some(Trial { left, refunds });
            let counted = BootState { trial, ..state };
            boot.store(counted).map_err(|error| error.to_string())?;
            state.default.other()
        }
        _ => state.default,
    };
    fs::write(folder.join("boot/started"), slot.to_string()).map_err(|error| error.to_string())?;
    Ok(slot)
}

/// What runs is a whole image, and not below the floor.
fn check_running(device: &Device, slot: Slot) -> Result<(), String> {
    let runs = device.slot(slot);
    let epoch = (0..=RELEASES).find(|number| release_image(*number) == runs);
    let epoch = epoch.ok_or(format!("slot {slot} runs, and holds no whole image"))? as u64;
    let floor = device
        .kit
        .trust
        .security_floor()
        .map_err(|error| error.to_string())?;
    match epoch >= floor {
        true => Ok(()),
        false => Err(format!("release {epoch} runs below the floor of {floor}")),
    }
}

fn complete(device: &mut Device, vendor: &mut Vendor, index: &Index) -> Result<(), String> {
    for _ in 0..8 {
        let mut updater = updater(device, std::time::Duration::from_secs(3600));
        let next = updater.start().map_err(|error| error.to_string())?;
        finish(&mut updater);
        if let Next::Restart(_) = next {
            device.start_again()?;
            continue;
        }
        let seen = device.seen();
        if seen.boot.on_trial() == Some(seen.booted) {
            done(updater.answer(Ask::Commit {}))?;
        }
        if device.seen().running() == &index.release() {
            return Ok(());
        }
        device.stage_all(vendor, index);
        let written =
            matches!(device.other(), Content::Written { release } if release == index.release());
        if !written {
            done(updater.answer(Ask::Install {}))?;
            finish(&mut updater);
            if let (Reply::Status(status), _) = updater.answer(Ask::Status {})
                && let Work::Failed { why, .. } = status.work
            {
                return Err(why);
            }
        }
        done(updater.answer(Ask::Activate {}))?;
        device.start_again()?;
    }
    Err("the update does not complete".to_owned())
}

fn done((reply, next): (Reply, Next)) -> Result<Next, String> {
    match reply {
        Reply::Done {} => Ok(next),
        other => Err(format!("{other:?}")),
    }
}

fn finish(updater: &mut Updater) {
    while updater.beats().is_some() {
        std::thread::yield_now();
    }
}

/// Installs, tries, and commits or rolls back what is staged.
fn bring(device: &mut Device, rolled_back: bool) {
    let patience = std::time::Duration::from_secs(3600);
    let mut before = updater(device, patience);
    before.start().unwrap();
    finish(&mut before);
    done(before.answer(Ask::Install {})).unwrap();
    finish(&mut before);
    done(before.answer(Ask::Activate {})).unwrap();
    device.start_again().unwrap();
    let mut after = updater(device, patience);
    assert_eq!(after.start().unwrap(), Next::Stay);
    let reason = "the buses poll no longer".to_owned();
    let ask = match rolled_back {
        true => Ask::RollBack { reason },
        false => Ask::Commit {},
    };
    if let Next::Restart(_) = done(after.answer(ask)).unwrap() {
        device.start_again().unwrap();
        updater(device, patience).start().unwrap();
    }
}

impl Device {
    fn start_again(&mut self) -> Result<(), String> {
        start(&self.root())?;
        self.reopen();
        Ok(())
    }
}

fn publish(vendor: &mut Vendor, number: usize) -> Index {
    vendor.epoch = number as u64;
    vendor.publish(&format!("{number}.0"), &release_image(number))
}

/// Most of it differs from release to release; 0 is what the maker flashed.
fn release_image(number: usize) -> Vec<u8> {
    match number {
        0 => flashed(),
        _ => {
            let mut bytes = image(&[100]);
            bytes.extend(&image(&[u8::try_from(number).unwrap_or(u8::MAX)])[..40_000]);
            bytes
        }
    }
}

fn flashed() -> Vec<u8> {
    b"flashed ".repeat(1000)
}
