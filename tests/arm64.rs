//! Promise: the gateway runs on 64-bit ARM boards. Here QEMU's user emulation stands in for the processor.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// Debian's statically linked emulator; it needs no registration with the kernel.
const QEMU: &str = "qemu-aarch64-static";
/// Seconds after which timeout(1) ends a run; emulation makes the demonstration's half minute a little longer.
const GIVE_UP_AFTER: &str = "180";

#[test]
fn the_arm64_binary_starts_and_tells_its_version() -> Result<()> {
    let output = gateway(&["--version"])?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        said.trim() == concat!("gateway ", env!("CARGO_PKG_VERSION")),
        "it said {said:?}"
    );
    Ok(())
}

/// Sockets, pseudo-terminals, TLS, SQLite and timers, all of them on the other architecture.
#[test]
fn the_arm64_binary_carries_readings_from_wire_to_upstream_without_loss() -> Result<()> {
    let output = gateway(&["demo", "--for", "30s"])?;
    let said = String::from_utf8(output.stdout)?;
    let lost = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("lost:"));
    ensure!(
        lost.is_some_and(|count| count.trim() == "0"),
        "the summary does not say \"lost: 0\":\n{said}"
    );
    Ok(())
}

fn gateway(arguments: &[&str]) -> Result<Output> {
    let binary = std::env::var_os("GATEWAY_ARM64_BIN")
        .context("GATEWAY_ARM64_BIN is not set: run `cargo xtask test promises`")?;
    let output = Command::new("timeout")
        .args([GIVE_UP_AFTER, QEMU])
        .arg(&binary)
        .args(arguments)
        .output()
        .context("cannot start timeout(1)")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "gateway {arguments:?} on ARM64 ended with {}:\n{errors}",
        output.status
    );
    Ok(output)
}
