//! Promise: the boot loader's own tools and the gateway read the same environment, whoever wrote it
//! last. Needs Debian's libubootenv-tool.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use update::slots::{BootState, Slot, SlotBackend, Trial, uboot::UBoot};

/// Bytes of a copy, as on many boards.
const SIZE: usize = 0x2000;

/// An environment of two copies in a file, and where libubootenv finds them.
struct Environment {
    folder: tempfile::TempDir,
}

impl Environment {
    fn new() -> Result<Environment> {
        let folder = tempfile::tempdir()?;
        let (device, places) = (folder.path().join("device"), folder.path().join("places"));
        fs::write(&device, vec![0xFF; 4 * SIZE])?;
        let device = device.display();
        fs::write(
            places,
            format!(
                "{device} {SIZE:#x} {SIZE:#x}\n{device} {:#x} {SIZE:#x}\n",
                2 * SIZE
            ),
        )?;
        let environment = Environment { folder };
        // Without a valid copy the tool starts from this file.
        let defaults = "bootcmd=run start\nbootdelay=2\ngateway_slot=a\n";
        fs::write(environment.path("defaults"), defaults)?;
        environment.tool("fw_setenv", &["--defenv", "defaults", "bootdelay", "1"])?;
        Ok(environment)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What U-Boot's tool prints.
    fn tool(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(program)
            .current_dir(self.folder.path())
            .args(["--config", "places"])
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {program}: cargo xtask setup installs it"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{program} {arguments:?} ended with {}: {said}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    fn backend(&self) -> Result<UBoot> {
        fs::write(self.path("cmdline"), "root=/dev/mmcblk0p2 gateway.slot=a\n")?;
        Ok(UBoot::open(&self.path("places"), &self.path("cmdline"))?)
    }
}

#[test]
fn u_boots_tools_read_what_is_stored_and_the_gateway_reads_what_they_set() -> Result<()> {
    let environment = Environment::new()?;
    let mut slots = environment.backend()?;
    ensure!(slots.load()? == BootState::settled(Slot::A));
    ensure!(slots.booted()? == Slot::A);

    slots.store(BootState::trying(Slot::A, 3))?;
    let printed = environment.tool("fw_printenv", &[])?;
    for line in [
        "gateway_slot=a",
        "gateway_trial=b",
        "gateway_left=3",
        "gateway_refunds=0",
        "bootcmd=run start",
        "bootdelay=1",
    ] {
        ensure!(
            printed.lines().any(|printed| printed == line),
            "{line} is missing in:\n{printed}"
        );
    }

    // As the boot command does before it starts the slot.
    environment.tool("fw_setenv", &["gateway_left", "2"])?;
    let trial = Some(Trial {
        left: 2,
        refunds: 0,
    });
    let expected = BootState {
        default: Slot::A,
        trial,
    };
    ensure!(slots.load()? == expected, "{:?}", slots.load()?);

    slots.store(BootState::settled(Slot::B))?;
    let printed = environment.tool("fw_printenv", &[])?;
    ensure!(printed.contains("gateway_slot=b") && !printed.contains("gateway_trial"));
    Ok(())
}

#[test]
fn both_agree_on_the_newer_copy_when_the_counter_wraps_around() -> Result<()> {
    let environment = Environment::new()?;
    let mut slots = environment.backend()?;
    // More than 256 writes by turns, so that each side wraps around once at least.
    for round in 0..140_u16 {
        let left = (round % 9) as u8;
        slots.store(BootState::trying(Slot::A, left))?;
        let printed = environment.tool("fw_printenv", &["gateway_left"])?;
        ensure!(
            printed.trim() == format!("gateway_left={left}"),
            "round {round}: {printed}"
        );
        environment.tool("fw_setenv", &["gateway_refunds", "1"])?;
        let found = slots.load()?.trial;
        ensure!(
            found == Some(Trial { left, refunds: 1 }),
            "round {round}: {found:?}"
        );
    }
    Ok(())
}
