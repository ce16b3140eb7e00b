//! `cargo xtask bench trust`: how long the TPM takes for what the gateway asks of it, and a handshake beside one with a key
//! in a file.
//!
//! ```text
//! tpm's own ignored tests over swtpm ──▶ "what: 1.23 ms" ──▶ trust.md
//! ```
//! Invariant: a figure is the median of rounds in one process, and stands here as the tests print it. Shell.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::brokers::machine;
use crate::command::{cargo, output};
use crate::packages::{self, BUILD, Consent, TEST};

const FILE_HANDSHAKE: &str = "TLS 1.3 handshake, key in a file";
const TPM_HANDSHAKE: &str = "TLS 1.3 handshake, key in the TPM";

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Cargo profile of the measured code
    #[arg(long, default_value = "demo")]
    profile: String,
    /// Where the page is written
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks/trust.md")]
    page: PathBuf,
}

/// Measures, and writes the page.
pub(crate) fn trust(options: &Options, consent: Consent) -> Result<()> {
    packages::need(&[BUILD, TEST], consent)?;
    let mut tests = cargo("test");
    tests
        .args([
            "--locked",
            "--package",
            "tpm",
            "--profile",
            &options.profile,
        ])
        .args(["--test", "swtpm", "--", "--ignored", "--nocapture"])
        .args(["--test-threads", "1", "times_of"]);
    let printed = output(&mut tests)?;
    let times: Vec<(&str, f64)> = printed.lines().filter_map(time).collect();
    let page = render(&times, &machine()?, &options.profile)?;
    fs::write(&options.page, page)
        .with_context(|| format!("cannot write {}", options.page.display()))?;
    println!("written: {}", options.page.display());
    Ok(())
}

/// `what: 1.23 ms`, which may stand behind a test's name.
fn time(line: &str) -> Option<(&str, f64)> {
    let (what, time) = line.rsplit_once(": ")?;
    let what = what.rsplit_once(" ... ").map_or(what, |(_, what)| what);
    Some((what, time.strip_suffix(" ms")?.parse().ok()?))
}

fn render(times: &[(&str, f64)], machine: &str, profile: &str) -> Result<String> {
    let of = |what| times.iter().find(|(found, _)| *found == what);
    let (file, tpm) = (of(FILE_HANDSHAKE), of(TPM_HANDSHAKE));
    let (Some((_, file)), Some((_, tpm))) = (file, tpm) else {
        bail!("the tests printed no handshakes: {times:?}");
    };
    let mut text = format!(
        "# What the TPM takes\n\nWritten by `cargo xtask bench trust`: medians over swtpm on a Unix socket, sessions and proofs \
         included. Chips take 10 to 100 times as long. Cargo profile `{profile}`.\n\n- Machine: {machine}.\n\n\
         | operation | ms |\n|---|---:|\n"
    );
    for (what, time) in times {
        writeln!(text, "| {what} | {time:.2} |")?;
    }
    writeln!(
        text,
        "\nBoth sides of a handshake with certificates, in memory and without resumption: with the key in the TPM {:.1} times \
         as long as with one in a file. A resumed session needs no signature: OpenSSL's server resumes with the TPM switched \
         off, in TLS 1.2 and 1.3 (`tpm/tests/swtpm/tls.rs`).",
        tpm / file
    )?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_out_of_what_tests_print() {
        assert_eq!(time("sign: 0.74 ms"), Some(("sign", 0.74)));
        assert_eq!(
            time("test tls::times ... TLS 1.3 handshake: 1.00 ms"),
            Some(("TLS 1.3 handshake", 1.0))
        );
        assert_eq!(time("test result: ok"), None);
    }

    #[test]
    fn a_page_without_handshakes_is_not_written() {
        assert!(render(&[("sign", 1.0)], "a machine", "demo").is_err());
        let times = [(FILE_HANDSHAKE, 1.0), (TPM_HANDSHAKE, 2.5)];
        let page = render(&times, "a machine", "demo").unwrap();
        assert!(page.contains("2.5 times"), "{page}");
    }
}
