//! A repository, slots and a health gate that can work together. Values.

use std::path::Path;

use super::Findings;
use crate::config::{BootLoader, Config, Update, When, url::RepositoryUrl};

/// Checks `[update]`.
pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let Some(update) = &config.update else {
        return;
    };
    check_repository(update, findings);
    check_slots(update, findings);
    check_directories(config, update, findings);
    check_times(update, findings);
    check_trust(config, findings);
}

fn check_repository(update: &Update, findings: &mut Findings<'_>) {
    let Ok(url) = update.repository.parse::<RepositoryUrl>() else {
        // The form has been checked, and is told there.
        return;
    };
    if !url.tls && !url.is_loopback() {
        findings.warn(
            "update.repository",
            "it is not https: releases stay verified, but anybody on the way can read which, and hold new ones back",
            "write https://",
        );
    }
}

fn check_slots(update: &Update, findings: &mut Findings<'_>) {
    let slots = &update.slots;
    if slots.a == slots.b {
        findings.error(
            "update.slots.b",
            format!("both slots are {}", slots.a.display()),
            "a new release is written beside the one that runs: name two devices",
        );
    }
    match &slots.boot {
        BootLoader::Tryboot(place) if place.a == place.b => findings.error(
            "update.slots.boot",
            format!("both slots are started from partition {}", place.a),
            "write the number of each slot's own partition",
        ),
        BootLoader::Files(_) => findings.warn(
            "update.slots.boot",
            "no boot loader reads a directory: this is for tests and demonstrations",
            "write { uboot = \"/etc/fw_env.config\" } or { tryboot = { file = \"…\", a = 2, b = 3 } }",
        ),
        BootLoader::Uboot(_) | BootLoader::Tryboot(_) => {}
    }
}

/// The service may write what is its own, and nothing that the updater trusts.
fn check_directories(config: &Config, update: &Update, findings: &mut Findings<'_>) {
    let staging = &update.staging.directory;
    let beside_buffer = config.buffer.path.parent();
    let of_service = [Some(&*update.directory), Some(staging), beside_buffer];
    let own = &update.updater_directory;
    let is_within = |folder: &&Path| *folder != Path::new("") && own.starts_with(folder);
    if let Some(folder) = of_service.into_iter().flatten().find(is_within) {
        findings.error(
            "update.updater_directory",
            format!(
                "{} is the service's: it could change what the updater remembers in {}",
                folder.display(),
                own.display()
            ),
            "name a directory for root alone, such as /var/lib/gateway-updater",
        );
    }
    if update.directory.starts_with(staging) {
        findings.error(
            "update.directory",
            format!(
                "it is within {}, which is emptied with each release",
                staging.display()
            ),
            "name a directory beside it",
        );
    }
}

fn check_times(update: &Update, findings: &mut Findings<'_>) {
    if update.health.hold >= update.health.deadline {
        findings.error(
            "update.health.hold",
            format!(
                "hold {} does not fit into deadline {}: no release could ever stay",
                update.health.hold, update.health.deadline
            ),
            "write a longer deadline, with time for the start and for what connects slowly",
        );
    }
    let waits = |when: When| when == When::Window && update.windows.is_empty();
    for (path, when) in [
        ("update.install", update.install),
        ("update.restart", update.restart),
    ] {
        if waits(when) {
            findings.error(
                path,
                "it waits for a window, and there is none",
                "add windows = [\"01:00-05:00\"]",
            );
        }
    }
    let (day, month) = (update.budget.per_day, update.budget.per_month);
    if let (Some(day), Some(month)) = (day, month)
        && month < day
    {
        findings.warn(
            "update.budget.per_month",
            format!("{month} for a month is less than {day} for a day"),
            "the smaller one counts; write at least as much as for a day",
        );
    }
}

/// What keeps an old or foreign release away, said where it is less than it could be.
fn check_trust(config: &Config, findings: &mut Findings<'_>) {
    let (what, remedy) = match &config.tpm {
        None => (
            "there is no [tpm]: releases are verified in software alone, and whoever is root here can install an old one",
            "add [tpm] with approval_key where the board has a TPM",
        ),
        Some(tpm) if tpm.approval_key.is_none() => (
            "[tpm] has no approval_key: its trust anchors guard nothing, and whoever is root here can install an old release",
            "name the vendor's root-approval key, then run gateway tpm provision",
        ),
        Some(_) => return,
    };
    findings.warn("update", what, remedy);
}
