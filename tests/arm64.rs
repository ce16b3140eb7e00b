//! Promise: the gateway runs on 64-bit ARM boards. Here QEMU's user emulation stands in for the processor.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// Debian's statically linked emulator; it needs no registration with the kernel.
const QEMU: &str = "qemu-aarch64-static";

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
    ensure!(
        said.contains("lost: 0"),
        "the summary does not say that nothing was lost:\n{said}"
    );
    Ok(())
}

fn gateway(arguments: &[&str]) -> Result<Output> {
    let binary = std::env::var_os("GATEWAY_ARM64_BIN")
        .context("GATEWAY_ARM64_BIN is not set: run `cargo xtask test promises`")?;
    let output = Command::new(QEMU)
        .arg(&binary)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {QEMU}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "gateway {arguments:?} on ARM64 ended with {}:\n{errors}",
        output.status
    );
    Ok(output)
}
