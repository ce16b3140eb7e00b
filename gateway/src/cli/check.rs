//! `gateway check`: the configuration, and what it needs of this machine. Shell.
//!
//! Invariant: it changes nothing; what it cannot look at it says.

mod clients;
mod tpm;
mod update;

use std::{fmt::Write, fs, io, path::Path, time::Duration};

use anyhow::anyhow;
use broker_lite::preflight;
use nix::sys::statvfs::statvfs;
use settings::{Document, Problem, Secret, Severity, Size};

use crate::{
    appliance::trusted,
    clock,
    config::{Config, Renew},
    fieldbus::{self, lessons, poll::memory::Memories},
    identity::IdentityError,
    reading::ClockState,
    wording::{counted, plain},
};

use super::{ConfigPath, Exit, Failure, load, plan, print};

/// The shortest time for which a USB converter holds back what it has received.
const LATENCY_LEAST: Duration = Duration::from_millis(1);

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigPath,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Look at the file only, not at this machine
    #[arg(long)]
    file_only: bool,
}

/// Reports everything found; fails when anything keeps the gateway from doing what is written.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let loaded = match crate::config::load(&args.config.path) {
        Ok(loaded) => loaded,
        Err(settings::LoadError::Problems(problems)) if args.json => {
            print(&format!("{:#}\n", problems.to_json()))?;
            return Err(Failure::new(
                Exit::Usage,
                anyhow!(counted(problems.len(), "problem", "problems")),
            ));
        }
        Err(_) => return load(&args.config).map(drop),
    };
    let mut findings: Vec<Problem> = loaded.warnings.iter().cloned().collect();
    let memories = match args.file_only {
        true => Memories::new(),
        // Without them the schedule is that of devices not yet known.
        false => lessons::read(&loaded.value.lessons()).unwrap_or_default(),
    };
    findings.extend(plan::overload(&loaded.value, &loaded.document, &memories));
    if !args.file_only {
        findings.extend(machine(&loaded.value, &loaded.document));
    }
    findings.sort_by_key(|finding| finding.location);
    report(&findings, &loaded.value, args.json)?;
    match findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count()
    {
        0 => Ok(()),
        errors => Err(Failure::new(
            Exit::Failed,
            anyhow!("{errors} of these keep the gateway from working as written"),
        )),
    }
}

fn report(findings: &[Problem], config: &Config, json: bool) -> anyhow::Result<()> {
    if json {
        return print(&format!("{:#}\n", serde_json::json!(findings)));
    }
    let mut text = String::new();
    for finding in findings {
        writeln!(text, "{finding}")?;
    }
    if let Some(place) = trusted::link_key(config) {
        writeln!(text, "{place}")?;
    }
    writeln!(text, "{}: {}", contents(config), verdict(findings.len()))?;
    print(&text)
}

fn contents(config: &Config) -> String {
    let points: usize = config
        .devices
        .iter()
        .map(|device| device.points.len())
        .sum();
    format!(
        "{}, {} with {}, {}, {}",
        counted(config.buses.len(), "bus", "buses"),
        counted(config.devices.len(), "device", "devices"),
        counted(points, "point", "points"),
        counted(
            config.serials.len(),
            "other serial line",
            "other serial lines"
        ),
        counted(config.forwards.len(), "forward rule", "forward rules")
    )
}

/// What comes of so many findings.
pub(super) fn verdict(findings: usize) -> String {
    match findings {
        0 => "all is well".to_owned(),
        count => counted(count, "finding", "findings"),
    }
}

/// What this machine lacks of what `config` needs.
fn machine(config: &Config, document: &Document) -> Vec<Problem> {
    let mut findings = Vec::new();
    ports(config, document, &mut findings);
    credentials(config, document, &mut findings);
    disk(config, document, &mut findings);
    findings.extend(tpm::findings(config, document));
    findings.extend(update::findings(config, document));
    if clock::now().clock == ClockState::Unsynced {
        findings.push(document.warning(
            "",
            "the clock of this machine is not synchronised; readings will say so",
            "let systemd-timesyncd or chrony run",
        ));
    }
    findings
}

fn ports(config: &Config, document: &Document, findings: &mut Vec<Problem>) {
    let of_buses = config
        .buses
        .iter()
        .enumerate()
        .filter_map(|(i, bus)| Some((format!("bus[{i}].port"), bus.port.as_ref()?)));
    let of_lines = config
        .serials
        .iter()
        .enumerate()
        .map(|(i, line)| (format!("serial[{i}].port"), &line.port));
    for (path, port) in of_buses.chain(of_lines) {
        findings.extend(latency(&path, port, document));
        let opened = fs::OpenOptions::new().read(true).write(true).open(port);
        if let Err(error) = opened {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "is the user in group dialout?",
                io::ErrorKind::NotFound => "plug it in, or look at /dev/serial/by-id",
                _ => "",
            };
            findings.push(document.error(
                &path,
                format!(
                    "cannot open serial port {}: {}",
                    port.display(),
                    plain(&error)
                ),
                remedy,
            ));
        }
    }
}

/// A converter that holds back what it has received for longer than it must.
fn latency(path: &str, port: &Path, document: &Document) -> Option<Problem> {
    let timer = fieldbus::latency_timer(port).filter(|timer| *timer > LATENCY_LEAST)?;
    let device = fs::canonicalize(port).ok()?;
    let device = device.file_name()?.to_string_lossy().into_owned();
    Some(document.warning(
        path,
        format!(
            "latency timer of {device} is {} ms: its USB converter delays each answer by up to that",
            timer.as_millis()
        ),
        format!(
            "install systemd/gateway.udev.rules as /usr/lib/udev/rules.d/60-gateway.rules, or now: \
             echo 1 > /sys/class/tty/{device}/device/latency_timer"
        ),
    ))
}

/// Files for TLS with devices.
fn bus_credentials(config: &Config, document: &Document, findings: &mut Vec<Problem>) {
    for (index, bus) in config.buses.iter().enumerate() {
        let Some(tls) = &bus.tls else { continue };
        for (name, file) in [("ca", &tls.ca), ("certificate", &tls.certificate)] {
            let path = format!("bus[{index}].tls.{name}");
            findings.extend(preflight::certificate(file, &path, document));
        }
        let path = format!("bus[{index}].tls.key");
        findings.extend(preflight::key(&tls.key, &path, document));
    }
}

fn credentials(config: &Config, document: &Document, findings: &mut Vec<Problem>) {
    let office = clients::office(config);
    // That it cannot be read is said of [clients].
    let known = office.look().unwrap_or_default();
    let served = clients::served(config, &office, &known);
    findings.extend(preflight::check(&served, document, "broker."));
    findings.extend(clients::findings(config, document));
    bus_credentials(config, document, findings);
    let Some(upstream) = &config.upstream else {
        return;
    };
    for (name, file) in [("ca", &upstream.ca), ("certificate", &upstream.certificate)] {
        if let Some(file) = file {
            let path = format!("upstream.{name}");
            findings.extend(preflight::certificate(file, &path, document));
        }
    }
    if upstream.identity.is_some() {
        findings.extend(identity(config, document));
    }
    if let Some(file) = &upstream.key {
        findings.extend(preflight::key(file, "upstream.key", document));
    }
}

/// The identity that is offered to the upstream.
fn identity(config: &Config, document: &Document) -> Vec<Problem> {
    let path = "identity.directory";
    let error = |error: IdentityError| document.error(path, error.to_string(), "");
    let directory = match trusted::identity(config) {
        Ok(directory) => directory,
        Err(why) => return vec![document.error(path, format!("{why:#}"), "")],
    };
    let inventory = match directory.inventory() {
        Ok(inventory) => inventory,
        Err(why) => return vec![error(why)],
    };
    let mut findings = Vec::new();
    if let Some(est) = &config.identity.est {
        findings.extend(preflight::certificate(&est.ca, "identity.est.ca", document));
        let password = est.password.as_ref().map(Secret::read);
        if let Some(Err(error)) = password {
            findings.push(document.error("identity.est.password", error.to_string(), ""));
        }
    }
    let Some(in_use) = inventory.in_use() else {
        let remedy = match config.identity.renew {
            Renew::Off => "run gateway identity csr, have it signed, then gateway identity enrol",
            Renew::Est | Renew::Command => "run gateway identity enrol, or let the service do it",
        };
        let what = "there is no certificate for the upstream yet";
        findings.push(document.error(path, what, remedy));
        return findings;
    };
    let certified = directory.certified(in_use).err();
    // That the TPM does not answer is said of [tpm].
    let of_files = certified.filter(|why| !matches!(why, IdentityError::Tpm(_)));
    findings.extend(of_files.map(error));
    let file = directory.certificate_path(in_use);
    findings.extend(preflight::certificate(&file, path, document));
    findings
}

fn disk(config: &Config, document: &Document, findings: &mut Vec<Problem>) {
    let Some(directory) = config.buffer.path.parent() else {
        return;
    };
    match statvfs(directory) {
        Err(error) => findings.push(document.error(
            "buffer.path",
            format!(
                "the buffer's directory {}: {}",
                directory.display(),
                plain(&error.into())
            ),
            "create it, writable for the gateway's user",
        )),
        Ok(disk) => {
            #[allow(
                clippy::useless_conversion,
                reason = "both are 32 bits wide on 32-bit boards"
            )]
            let free = u64::from(disk.blocks_available()) * u64::from(disk.fragment_size());
            let used = fs::metadata(&config.buffer.path).map_or(0, |metadata| metadata.len());
            let wanted = config.buffer.max_size.as_bytes().saturating_sub(used);
            if free < wanted {
                findings.push(document.warning(
                    "buffer.max_size",
                    format!(
                        "the buffer may grow by {}, but {} are free",
                        Size::from_bytes(wanted),
                        Size::from_bytes(free)
                    ),
                    "lower max_size, or free space",
                ));
            }
        }
    }
}
