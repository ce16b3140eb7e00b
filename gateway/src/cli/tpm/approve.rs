//! `gateway tpm approve`: signs what the TPMs of a fleet may take. Shell.
//!
//! Invariant: no TPM and no network are touched; the same subject and key make an approval for every device.

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use tpm::{Approval, EpochApproval, Signature, Subject, TrustedRoot, recovery_message, sha256};

use super::super::{Exit, Failure, print, release::keys};

/// Arguments of `approve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: keys::Source,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Trust this root: these bytes, in place of any lower version
    Root {
        /// The root's file
        file: PathBuf,
        /// Its version
        #[arg(long)]
        version: u64,
    },
    /// Install nothing below this security epoch
    Floor {
        /// The epoch
        epoch: u64,
    },
    /// Let devices open releases of this security epoch, as long as their floor is not above it
    Epoch {
        /// The epoch
        epoch: u64,
    },
    /// Let one device unseal its hierarchies' authorisation values
    Recovery {
        /// The name of its storage key, from `gateway tpm status --json`
        name: String,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (key, signer) = args.source.approver()?;
    let sign = |message: &[u8]| {
        let signature = signer
            .sign(message)
            .map_err(|error| tpm::Error::Rule(error.to_string()))?;
        Signature::from_der(&signature)
            .ok_or_else(|| tpm::Error::Rule("the signature is not in DER".to_owned()))
    };
    let subject = match &args.what {
        What::Root { file, version } => {
            let bytes =
                fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            Subject::Root(TrustedRoot {
                version: *version,
                digest: sha256(&[&bytes]),
            })
        }
        What::Floor { epoch } => Subject::Floor(*epoch),
        What::Epoch { epoch } => {
            let approval = EpochApproval::make(*epoch, &key, &mut |message| sign(message))
                .context("cannot approve this")?;
            return Ok(print(&approval.to_json())?);
        }
        What::Recovery { name } => {
            let name = tpm::hex::decode(name)
                .filter(|name| name.len() == 34)
                .ok_or_else(|| {
                    Failure::new(
                        Exit::Usage,
                        anyhow!("a key's name has 68 hexadecimal digits"),
                    )
                })?;
            let signature = sign(&recovery_message(&name)).context("cannot sign")?;
            return Ok(print(&format!(
                "{}\n",
                tpm::hex::encode(&signature.fixed())
            ))?);
        }
    };
    let approval = Approval::make(subject, &key, &mut |message| sign(message))
        .context("cannot approve this")?;
    Ok(print(&approval.to_json())?)
}
