//! What can go wrong with the TPM, as an operator reads it. Value.
//!
//! Invariant: each error names the command or file, the reason, and where one helps, what to do.

use std::{io, path::PathBuf, time::Duration};

use tpm2_protocol::data::TpmCc;

use crate::code::ResponseCode;

/// Short for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TPM cannot be opened.
    #[error("cannot open the TPM at {address}: {source}{}", hint(.source))]
    Open {
        /// The device file or socket.
        address: String,
        /// The system's word.
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("{command}: cannot talk to the TPM: {source}")]
    Io {
        /// What was asked.
        command: CommandName,
        /// The system's word.
        source: io::Error,
    },
    /// The TPM said no.
    #[error("{command}: the TPM refuses: {code}")]
    Refused {
        /// What was asked.
        command: CommandName,
        /// Its answer.
        code: ResponseCode,
    },
    /// The answer cannot be read.
    #[error("{command}: the TPM's answer is malformed: {what}")]
    Malformed {
        /// What was asked.
        command: CommandName,
        /// What does not fit.
        what: String,
    },
    /// The answer bears no valid proof of coming from the TPM for this command.
    #[error(
        "{command}: the proof on the TPM's answer does not hold: something between here and the TPM altered it, or answered instead"
    )]
    Tampered {
        /// What was asked.
        command: CommandName,
    },
    /// What we were about to send does not fit.
    #[error("{command}: cannot be put into a command: {what}")]
    Unfit {
        /// What was to be asked.
        command: CommandName,
        /// What does not fit.
        what: String,
    },
    /// A key or index is not the one that was recorded when the TPM was provisioned.
    #[error(
        "{what} is not the one that was provisioned: recorded {recorded}, found {found}. The TPM was cleared or exchanged, \
         or something between here and it answers instead"
    )]
    Exchanged {
        /// Which key or index.
        what: String,
        /// Its recorded name.
        recorded: String,
        /// What is there.
        found: String,
    },
    /// What was asked is against the rules that we keep ourselves.
    #[error("{0}")]
    Rule(String),
    /// A file beside the TPM cannot be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file beside the TPM does not hold what it should.
    #[error("{}: {what}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The queue to the TPM is full.
    #[error("{waiting} requests wait for the TPM already; try again later")]
    Busy {
        /// The queue's length.
        waiting: usize,
    },
    /// The answer did not come in time.
    #[error("no answer from the TPM within {} ms", patience.as_millis())]
    Late {
        /// How long was waited.
        patience: Duration,
    },
    /// The TPM is away and is tried again later.
    #[error("the TPM is away ({reason}); it is tried again every few seconds")]
    Away {
        /// Why, when it was last tried.
        reason: String,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

impl Error {
    /// The TPM's code, when it was the TPM that said no.
    #[must_use]
    pub fn code(&self) -> Option<ResponseCode> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the TPM refused with this code, whatever handle, parameter or session it is about.
    #[must_use]
    pub fn is(&self, base: u32) -> bool {
        self.code().is_some_and(|code| code.base() == base)
    }

    /// Whether the connection is of no further use.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(
            self,
            Error::Io { .. } | Error::Malformed { .. } | Error::Open { .. }
        )
    }
}

/// A command as the specification calls it, without the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandName(pub(crate) TpmCc);

impl std::fmt::Display for CommandName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.to_string();
        f.write_str(name.strip_prefix("TPM_CC_").unwrap_or(&name))
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            " (is the TPM switched on in the firmware, and its driver loaded?)"
        }
        io::ErrorKind::PermissionDenied => " (is the service user in group tss?)",
        io::ErrorKind::ResourceBusy => {
            " (something else holds it; /dev/tpmrm0 can be shared, /dev/tpm0 cannot)"
        }
        io::ErrorKind::ConnectionRefused => " (is the TPM simulator running?)",
        _ => "",
    }
}
