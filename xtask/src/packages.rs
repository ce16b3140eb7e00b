//! Debian packages: which ones a task needs, which of them are missing, and how they are installed.
//!
//! Invariant: what is missing is listed before anything is changed, and `--no-install` changes nothing. A driver.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{line, output, run, succeeds};

/// A package as apt names it, with `:arm64` where it is not this machine's architecture.
type Package = &'static str;

/// SQLite and ring are compiled from C.
pub(crate) const BUILD: &[Package] = &["gcc", "libc6-dev"];

/// libFuzzer is compiled from C++.
pub(crate) const FUZZ: &[Package] = &["g++"];

/// What the promises in tests/ run against: other people's implementations.
pub(crate) const TEST: &[Package] = &[
    "gcc",               // compiles tests/peers/*.c
    "libmodbus-dev",     // an independent Modbus server
    "libubootenv-tool",  // U-Boot's own reading of its environment
    "mbpoll",            // an independent Modbus client
    "microsocks",        // an independent SOCKS5 proxy
    "mosquitto",         // the upstream
    "mosquitto-clients", // independent MQTT clients
    "opensc",            // pkcs11-tool, the signing program of vendors' tokens
    "openssl",           // an independent opinion on our TLS
    "python3-venv",      // pymodbus and paho-mqtt, see tests/requirements.txt
    "socat",             // pty pairs as serial lines
    "softhsm2",          // a PKCS #11 token in software
    "strace",            // records and fails the buffer's system calls
    "swtpm",             // a TPM in software
    "systemd",           // systemd-analyze
    "systemd-container", // systemd as PID 1
    "tinyproxy",         // an independent HTTP proxy
    "tpm2-tools",        // an independent reading of what is in the TPM
    "tshark",            // an independent reading of our captures
    "zstd",              // an independent reading of what we compress
];

/// Rust for Debian's own cross compiler, and QEMU to start what it built. `libstd-rust-web-dev` brings `libc6:arm64`,
/// which lets QEMU run dynamically linked programs without `-L`.
pub(crate) const CROSS: &[Package] = &[
    "cargo-web",
    "crossbuild-essential-arm64",
    "libstd-rust-web-dev:arm64",
    "qemu-user-static",
    "rustc-web",
];

/// Whether the user lets us install things (`--no-install` does not).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Install what is missing.
    Given,
    /// Stop with the command to type.
    Refused,
}

/// Makes sure that the packages are installed.
pub(crate) fn need(groups: &[&[Package]], consent: Consent) -> Result<()> {
    let missing = missing(&groups.concat(), &installed()?);
    if missing.is_empty() {
        return Ok(());
    }
    println!(
        "Debian packages that are missing here: {}",
        missing.join(" ")
    );
    let mut commands = install_commands(&missing);
    if consent == Consent::Refused {
        let lines: Vec<_> = commands.iter().map(line).collect();
        bail!(
            "not installing anything; type this, then try again:\n  {}",
            lines.join(" && ")
        );
    }
    commands.iter_mut().try_for_each(run)?;
    if missing.contains(&"mosquitto") {
        stop_mosquitto_service()?;
    }
    Ok(())
}

/// The program with `sudo` before it where we are not root.
pub(crate) fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Each installed package as `name` if it suits this machine, and as `name:architecture`.
fn installed() -> Result<BTreeSet<String>> {
    let format = "-f=${db:Status-Status} ${Package} ${Architecture}\n";
    let listing = output(Command::new("dpkg-query").args(["-W", format])).context(
        "this needs Debian 12 or a relative of it; elsewhere, see the README for what to install",
    )?;
    let native = output(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(parse_listing(&listing, native.trim()))
}

fn parse_listing(listing: &str, native: &str) -> BTreeSet<String> {
    let mut installed = BTreeSet::new();
    for line in listing.lines() {
        let ["installed", name, architecture] = line.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        if architecture == native || architecture == "all" {
            installed.insert(name.to_owned());
        }
        installed.insert(format!("{name}:{architecture}"));
    }
    installed
}

fn missing(needed: &[Package], installed: &BTreeSet<String>) -> Vec<Package> {
    let needed: BTreeSet<_> = needed.iter().copied().collect();
    needed
        .into_iter()
        .filter(|package| !installed.contains(*package))
        .collect()
}

fn install_commands(missing: &[Package]) -> Vec<Command> {
    let mut commands = Vec::new();
    let foreign: BTreeSet<_> = missing
        .iter()
        .filter_map(|package| package.split_once(':'))
        .collect();
    for (_, architecture) in foreign {
        let mut add = as_root("dpkg");
        add.args(["--add-architecture", architecture]);
        commands.push(add);
    }
    let mut update = as_root("apt-get");
    update.arg("update");
    let mut install = as_root("env");
    install.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
    ]);
    install.args(missing);
    commands.extend([update, install]);
    commands
}

/// The package starts a broker on port 1883 and at every boot. We only wanted the program, so we undo that.
fn stop_mosquitto_service() -> Result<()> {
    let runs_systemd = Path::new("/run/systemd/system").is_dir();
    if runs_systemd && succeeds(Command::new("systemctl").args(["is-enabled", "mosquitto.service"]))
    {
        run(as_root("systemctl").args(["disable", "--now", "mosquitto.service"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{install_commands, line, missing, parse_listing};

    #[test]
    fn a_package_that_was_removed_or_is_of_another_architecture_is_missing() {
        let listing = "installed socat amd64\nconfig-files mosquitto amd64\ninstalled libc6 arm64\ninstalled gcc all\n";
        let installed = parse_listing(listing, "amd64");
        let needed = ["socat", "mosquitto", "libc6", "libc6:arm64", "gcc"];
        assert_eq!(missing(&needed, &installed), ["libc6", "mosquitto"]);
    }

    #[test]
    fn a_package_that_two_checks_need_is_missing_once() {
        assert_eq!(
            missing(&["gcc", "socat", "gcc"], &parse_listing("", "amd64")),
            ["gcc", "socat"]
        );
    }

    #[test]
    fn a_foreign_package_makes_its_architecture_known_first() {
        let lines: Vec<_> = install_commands(&["socat", "libc6:arm64"])
            .iter()
            .map(line)
            .collect();
        assert!(
            lines[0].ends_with("dpkg --add-architecture arm64"),
            "{lines:?}"
        );
        assert!(lines[1].ends_with("apt-get update"), "{lines:?}");
        assert!(
            lines[2].ends_with("--no-install-recommends socat libc6:arm64"),
            "{lines:?}"
        );
        assert_eq!(install_commands(&["socat"]).len(), 2);
    }
}
