//! Builds the boards' binaries with Debian's cross compiler and its own Rust, and starts them under QEMU. A driver.
//!
//! Invariant: the targets are those of cross.toml; here stands only how Debian builds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{root, run, target_dir};
use crate::packages::{self, BUILD, CROSS, Consent};

/// How Debian 12 builds and runs a target.
struct Debian {
    triple: &'static str,
    gcc: &'static str,
    qemu: &'static str,
}

/// Debian 12 has a recent enough Rust (`rustc-web`) with a standard library for this one; its newest for 32-bit ARM is
/// 1.85, older than our minimum.
const DEBIAN: &[Debian] = &[ARM64];

/// The one the tests build.
const ARM64: Debian = Debian {
    triple: "aarch64-unknown-linux-gnu",
    gcc: "aarch64-linux-gnu-gcc",
    qemu: "qemu-aarch64-static",
};

/// `cargo xtask cross`: builds `target`, or all that Debian can build, and starts each.
pub(crate) fn build_and_start(target: Option<&str>, profile: &str, consent: Consent) -> Result<()> {
    let targets = chosen(target, &read_targets(&root().join("cross.toml"))?)?;
    packages::need(&[BUILD, CROSS], consent)?;
    for debian in targets {
        let gateway = debian.build(profile)?;
        run(Command::new(debian.qemu).arg(&gateway).arg("--version"))?;
        println!("built and started: {}", gateway.display());
    }
    Ok(())
}

/// The gateway for 64-bit ARM as the tests want it: quick to build.
pub(crate) fn arm64_for_tests() -> Result<PathBuf> {
    ARM64.build("dev")
}

impl Debian {
    fn build(&self, profile: &str) -> Result<PathBuf> {
        let target_dir = target_dir().join("cross");
        run(self
            .cargo()
            .args([
                "build",
                "--locked",
                "--package",
                "gateway",
                "--profile",
                profile,
                "--target",
                self.triple,
            ])
            .arg("--target-dir")
            .arg(&target_dir))?;
        let folder = if profile == "dev" { "debug" } else { profile };
        Ok(target_dir.join(self.triple).join(folder).join("gateway"))
    }

    /// Debian's cargo and rustc, kept apart from a rustup that is installed beside them and from the `cargo run` that
    /// started us: both lead to another compiler or its libraries.
    fn cargo(&self) -> Command {
        let variable = self.triple.replace('-', "_");
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo.current_dir(root()).env("PATH", "/usr/bin:/bin");
        for inherited in [
            "CARGO",
            "LD_LIBRARY_PATH",
            "RUSTC_WRAPPER",
            "RUSTUP_TOOLCHAIN",
        ] {
            cargo.env_remove(inherited);
        }
        cargo
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTDOC", "/usr/bin/rustdoc");
        cargo.env(
            format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()),
            self.gcc,
        );
        cargo.env(format!("CC_{variable}"), self.gcc);
        cargo
    }
}

/// The triples that cross.toml names.
fn read_targets(file: &Path) -> Result<Vec<String>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("cannot parse {}", file.display()))?;
    let targets = table.get("target").and_then(toml::Value::as_table);
    Ok(targets
        .with_context(|| format!("{} has no [target.…]", file.display()))?
        .keys()
        .cloned()
        .collect())
}

fn chosen(wanted: Option<&str>, targets: &[String]) -> Result<Vec<&'static Debian>> {
    let in_debian = |triple: &String| DEBIAN.iter().find(|debian| debian.triple == triple);
    let Some(wanted) = wanted else {
        return Ok(targets.iter().filter_map(in_debian).collect());
    };
    let short = |triple: &&String| *triple == wanted || triple.split('-').next() == Some(wanted);
    let Some(triple) = targets.iter().find(short) else {
        bail!(
            "no target \"{wanted}\" in cross.toml; it has {}",
            targets.join(", ")
        );
    };
    let debian = in_debian(triple).with_context(|| {
        format!(
            "Debian 12 packages no recent Rust for {triple}; with docker or podman: \
             CROSS_CONFIG=cross.toml cross build --release --package gateway --target {triple}"
        )
    })?;
    Ok(vec![debian])
}

#[cfg(test)]
mod tests {
    use super::{DEBIAN, chosen, read_targets};
    use crate::command::root;

    #[test]
    fn what_debian_builds_is_a_target_of_cross_toml() {
        let targets = read_targets(&root().join("cross.toml")).unwrap();
        for debian in DEBIAN {
            assert!(
                targets.iter().any(|triple| triple == debian.triple),
                "{} in {targets:?}",
                debian.triple
            );
        }
    }

    #[test]
    fn a_target_may_be_named_by_its_first_word() {
        let targets = read_targets(&root().join("cross.toml")).unwrap();
        let triples: Vec<_> = chosen(Some("aarch64"), &targets)
            .unwrap()
            .iter()
            .map(|debian| debian.triple)
            .collect();
        assert_eq!(triples, ["aarch64-unknown-linux-gnu"]);
    }

    #[test]
    fn a_target_that_debian_cannot_build_is_refused_with_another_way() {
        let targets = read_targets(&root().join("cross.toml")).unwrap();
        let error = chosen(Some("armv7"), &targets).err().unwrap().to_string();
        assert!(error.contains("cross build"), "{error}");
        assert!(chosen(Some("riscv64"), &targets).is_err());
    }
}
