//! `gateway demo`: the whole appliance in one command, plain when piped, and honest about losses.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Process, Scene, gateway, promise, until};

/// `--for 15s`, and the time to start and stop.
const WHOLE_DEMO: Duration = Duration::from_secs(45);

#[test]
fn the_demo_ends_by_itself_and_has_lost_nothing() {
    promise(|scene| {
        let mut demo = start(scene, &["--for", "15s"])?;
        let status = demo.ended(WHOLE_DEMO)?;
        ensure!(status.code() == Some(0), "the demo ended with {status}");
        let said = demo.log()?;
        ensure!(
            !said.contains('\u{1b}'),
            "escape sequences where nobody has a terminal"
        );
        let taken = number_at(&said, "taken").context("no count of readings taken")?;
        let forwarded = number_at(&said, "forwarded").context("no count of forwarded readings")?;
        ensure!(
            taken > 0 && forwarded == taken,
            "{taken} taken, {forwarded} forwarded"
        );
        ensure!(
            number_at(&said, "lost") == Some(0),
            "the demo lost readings"
        );
        Ok(())
    });
}

#[test]
fn any_client_attaches_with_the_line_that_the_demo_prints() {
    promise(|scene| {
        let demo = start(scene, &["--for", "60s"])?;
        let line = until("the demo prints how to attach", PATIENCE, || {
            let said = demo.log()?;
            Ok(said
                .find("mosquitto_sub")
                .map(|start| first_line(&said[start..])))
        })?;
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("{line} -C 3 -W 20"))
            .current_dir(scene.path(""))
            .output()?;
        let heard = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "`{line}` failed: {output:?}");
        ensure!(heard.lines().count() >= 3, "heard {heard:?}");
        Ok(())
    });
}

#[test]
fn ctrl_c_ends_the_demo_cleanly() {
    promise(|scene| {
        let mut demo = start(scene, &[])?;
        until("the demo shows a reading", PATIENCE, || {
            Ok(number_at(&demo.log()?, "forwarded").filter(|count| *count > 0))
        })?;
        demo.signal(Signal::SIGINT)?;
        let status = demo.ended(Duration::from_secs(10))?;
        ensure!(status.code() == Some(0), "the demo ended with {status}");
        ensure!(
            number_at(&demo.log()?, "lost") == Some(0),
            "no summary after Ctrl-C"
        );
        Ok(())
    });
}

fn start(scene: &Scene, arguments: &[&str]) -> Result<Process> {
    let mut command = Command::new(gateway::binary()?);
    command
        .arg("demo")
        .args(arguments)
        .current_dir(scene.path(""));
    Process::start("demo", &scene.log_path("demo"), command)
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(['`', '"'])
        .trim()
        .to_owned()
}

/// The number that follows the last mention of a word, as in `lost: 0`.
fn number_at(text: &str, word: &str) -> Option<u64> {
    let (_, after) = text.rsplit_once(word)?;
    let digits = after.trim_start_matches([':', '=', ' ']);
    let end = digits
        .find(|c: char| !c.is_ascii_digit() && c != ',')
        .unwrap_or(digits.len());
    digits[..end].replace(',', "").parse().ok()
}
