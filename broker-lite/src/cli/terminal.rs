//! A password from whoever calls: typed without echo, or a line of standard input. Shell.
//!
//! Invariant: a password is never an argument, which every user of the machine could read.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
};

use anyhow::{Context, ensure};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use settings::{Secret, SecretText};

/// Longest password taken, in bytes; clients have little room.
const PASSWORD_BYTES_MAX: u64 = 1_024;

/// The password in `file`, else what is typed at the terminal, else the first line of standard
/// input. A password that is to be set is typed twice.
pub(crate) fn password(
    file: Option<&Path>,
    prompt: &str,
    twice: bool,
) -> anyhow::Result<SecretText> {
    if let Some(path) = file {
        let secret = Secret::File(path.to_owned());
        return Ok(secret.read()?);
    }
    let input = io::stdin();
    if !input.is_terminal() {
        return line(input.lock()).context("cannot take the password from standard input");
    }
    let password = typed(prompt)?;
    if twice {
        let again = typed("The same again: ")?;
        ensure!(
            password.expose() == again.expose(),
            "the two passwords differ; nothing was changed"
        );
    }
    Ok(password)
}

/// Asks at the terminal itself, so that output may be redirected.
fn typed(prompt: &str) -> anyhow::Result<SecretText> {
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("cannot ask for the password at the terminal")?;
    terminal.write_all(prompt.as_bytes())?;
    let silenced = Silenced::begin(&terminal)?;
    let typed = line(io::BufReader::new(&terminal));
    drop(silenced);
    terminal.write_all(b"\n")?;
    typed.context("no password was typed")
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silenced<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Silenced<'_> {
    fn begin(terminal: &File) -> anyhow::Result<Silenced<'_>> {
        let before = tcgetattr(terminal).context("cannot turn the terminal's echo off")?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)
            .context("cannot turn the terminal's echo off")?;
        Ok(Silenced { terminal, before })
    }
}

impl Drop for Silenced<'_> {
    fn drop(&mut self) {
        // Whoever sees no echo now types `reset`.
        let _unrestored = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

fn line(input: impl BufRead) -> anyhow::Result<SecretText> {
    let mut text = String::new();
    input
        .take(PASSWORD_BYTES_MAX + 2)
        .read_line(&mut text)
        .context("it is not UTF-8 text")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    ensure!(!text.is_empty(), "it is empty");
    ensure!(
        text.len() as u64 <= PASSWORD_BYTES_MAX,
        "it has more than {PASSWORD_BYTES_MAX} bytes"
    );
    Ok(text.to_owned().into())
}
