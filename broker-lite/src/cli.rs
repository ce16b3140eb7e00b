//! The program's commands beside serving. Shell.

pub(crate) mod check;
pub(crate) mod passwd;
pub(crate) mod status;
mod terminal;

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Exit code of a wrong configuration.
pub(crate) const CONFIGURATION: u8 = 2;
/// Exit code when no broker answers.
pub(crate) const UNREACHABLE: u8 = 4;

/// Writes to standard output; a reader that went away is no failure.
pub(crate) fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Says why on standard error, and ends with a code.
pub(crate) fn fail(code: u8, why: &str) -> ExitCode {
    // Nothing is left to tell it to.
    let _unheard = writeln!(io::stderr(), "{why}");
    ExitCode::from(code)
}
