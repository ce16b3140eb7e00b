//! Runs the broker's fuzz targets: for a long time with libFuzzer, or shortly as ordinary tests. Shell.
//!
//! ```text
//!  cargo xtask fuzz       broker-lite/fuzz/targets (libFuzzer, on stable Rust) ── new inputs ──▶ target/fuzz/corpus
//!  cargo xtask test fuzz  broker-lite/fuzz/corpus and changes to it, in the crate's own tests
//! ```
//! Invariant: the committed corpus is read and never written.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{cargo, root, run, target_dir};
use crate::packages::{self, BUILD, Consent, FUZZ};
use crate::tools;

/// Changed inputs that each target gets in `cargo xtask test fuzz`: some twenty seconds.
const MUTATIONS: &str = "20000";
/// Longest input; the targets find nothing in longer ones that they do not in these.
const INPUT_MAX: &str = "-max_len=4096";

/// How long one target runs.
#[derive(Clone, Copy)]
pub(crate) struct Seconds(u64);

impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(['s', 'm', 'h']);
        let factor = match &text[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err("write a time as 30s, 10m or 2h".to_owned()),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| "write a time as 30s, 10m or 2h".to_owned())?;
        Ok(Seconds(number * factor))
    }
}

/// `cargo xtask fuzz`: one target, or one after the other, each for so long.
pub(crate) fn long(target: Option<&str>, time: Seconds, consent: Consent) -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = targets
        .iter()
        .filter(|name| target.is_none_or(|wanted| wanted == *name))
        .collect();
    ensure!(!chosen.is_empty(), "the targets are {}", targets.join(", "));
    packages::need(&[BUILD, FUZZ], consent)?;
    let cargo_fuzz = tools::cargo_fuzz(consent)?;
    for name in chosen {
        let found = target_dir().join("fuzz/corpus").join(name);
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut command = Command::new(&cargo_fuzz);
        // Without a sanitizer it needs no nightly compiler: the code under test is safe Rust, whose
        // faults are panics.
        command.current_dir(root()).args([
            "fuzz",
            "run",
            "--sanitizer",
            "none",
            "--fuzz-dir",
            "broker-lite/fuzz",
        ]);
        command.arg("--target-dir").arg(target_dir().join("fuzz"));
        command
            .arg(name)
            .arg(found)
            .arg(root().join("broker-lite/fuzz/corpus").join(name));
        command.args(["--", INPUT_MAX, "-print_final_stats=1"]);
        run(command.arg(format!("-max_total_time={}", time.0)))?;
    }
    Ok(())
}

/// `cargo xtask test fuzz`.
pub(crate) fn short() -> Result<()> {
    run(cargo("test")
        .args(["--locked", "--package", "broker-lite", "--lib", "fuzzing::"])
        .env("FUZZ_MUTATIONS", MUTATIONS))
}

/// Every file in `targets` is one.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("broker-lite/fuzz/targets");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::{Seconds, targets};
    use crate::command::root;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        let seconds = |text: &str| text.parse::<Seconds>().map(|time| time.0);
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("2h"), Ok(7_200));
        assert!(seconds("soon").is_err());
    }

    #[test]
    fn every_target_is_built_and_has_a_corpus() {
        let fuzz = root().join("broker-lite/fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for name in targets().unwrap() {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(fuzz.join("corpus").join(&name).is_dir(), "{name}");
        }
    }
}
