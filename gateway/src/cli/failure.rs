//! How a command ends when it fails: a code that means something, and one message. Shell.

use std::process::ExitCode;

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It was tried and did not work.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Refused for a reason of security.
    Refused = 3,
    /// What was asked for cannot be reached.
    Unreachable = 4,
}

/// An error with the code to end with.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// Ends with `exit`, saying `error`.
    pub(super) fn new(exit: Exit, error: anyhow::Error) -> Failure {
        Failure { exit, error }
    }

    /// Whether what was asked for cannot be reached.
    pub(super) fn is_unreachable(&self) -> bool {
        self.exit == Exit::Unreachable
    }

    /// Prints the chain on standard error, each cause after a colon.
    #[expect(
        clippy::print_stderr,
        reason = "the one place that prints the final error"
    )]
    pub(super) fn print(&self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(self.exit as u8)
    }
}

/// The chain, each cause after a colon.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::new(Exit::Failed, error)
    }
}
