//! What there is of the identity, as people and programs are shown it. Driver: reads the directory.
//!
//! Invariant: nothing of a key but its state is shown.

use std::{fmt, path::Path};

use jiff::Timestamp;
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Directory, IdentityError};
use crate::{clock, credentials};

/// What a generation is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GenerationState {
    /// Offered to upstreams.
    InUse,
    /// Whole, to be tried beside the one in use.
    Candidate,
    /// A key without a certificate.
    AwaitsCertificate,
    /// Kept behind the one in use.
    Former,
}

impl GenerationState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            GenerationState::InUse => "in use",
            GenerationState::Candidate => "to be tried",
            GenerationState::AwaitsCertificate => "awaits its certificate",
            GenerationState::Former => "former",
        }
    }
}

/// A key and what belongs to it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Generation {
    pub(crate) number: u32,
    pub(crate) state: GenerationState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

/// A certificate's words.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shown {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) starts: Timestamp,
    pub(crate) ends: Timestamp,
    /// By this machine's clock; negative when it has ended.
    pub(crate) days_left: i64,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} by {}, until {} ({} days)",
            self.subject, self.issuer, self.ends, self.days_left
        )
    }
}

/// All generations, oldest first.
pub(crate) fn generations(directory: &Directory) -> Result<Vec<Generation>, IdentityError> {
    let inventory = directory.inventory()?;
    let in_use = inventory.in_use();
    let shown = inventory.keys.iter().map(|number| {
        let has_certificate = inventory.certificates.contains(number);
        let state = match has_certificate {
            _ if in_use == Some(*number) => GenerationState::InUse,
            true if in_use < Some(*number) => GenerationState::Candidate,
            false if in_use < Some(*number) => GenerationState::AwaitsCertificate,
            _ => GenerationState::Former,
        };
        let trouble = match has_certificate {
            true => directory.certified(*number).err(),
            false => directory.key(*number).err(),
        };
        Generation {
            number: *number,
            state,
            certificate: has_certificate
                .then(|| read(&directory.certificate_path(*number)))
                .flatten(),
            trouble: trouble.map(|error| error.to_string()),
        }
    });
    Ok(shown.collect())
}

/// What a certificate's file says; the reason why it cannot be read is told beside it.
pub(crate) fn read(path: &Path) -> Option<Shown> {
    let chain = credentials::certificates("certificate", path).ok()?;
    let (_, leaf) = X509Certificate::from_der(&chain[0]).ok()?;
    let moment = |second| Timestamp::from_second(second).ok();
    let ends = moment(leaf.validity().not_after.timestamp())?;
    let left = ends.as_second() - clock::now().wall.as_second();
    Some(Shown {
        subject: leaf.subject().to_string(),
        issuer: leaf.issuer().to_string(),
        starts: moment(leaf.validity().not_before.timestamp())?,
        ends,
        days_left: left.div_euclid(86_400),
    })
}
