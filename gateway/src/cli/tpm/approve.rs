//! `gateway tpm approve`: signs what the TPMs of a fleet may take. Shell.
//!
//! Invariant: no TPM and no network are touched; the same subject and key make an approval for every device.

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow};
use base64ct::{Base64, Encoding};
use clap::Subcommand;
use tpm::{Approval, FileSigner, Subject, TrustedRoot, recovery_message, sha256};

use crate::appliance::trusted;

use super::super::{Exit, Failure, print};

/// A private key in PEM takes 250 bytes.
const KEY_MAX: u64 = 8 * 1024;
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Arguments of `approve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The vendor's private key: P-256, PKCS #8, PEM (openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
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
    /// Let one device unseal its hierarchies' authorisation values
    Recovery {
        /// The name of its storage key, from `gateway tpm status --json`
        name: String,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let pem = trusted::read_small(&args.key, KEY_MAX)?;
    let pkcs8 = private_key(&pem).with_context(|| {
        format!(
            "{} holds no private key in PKCS #8 and PEM",
            args.key.display()
        )
    })?;
    let signer = FileSigner::new(&pkcs8).context("cannot use the vendor's key")?;
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
        What::Recovery { name } => {
            let name = tpm::hex::decode(name)
                .filter(|name| name.len() == 34)
                .ok_or_else(|| {
                    Failure::new(
                        Exit::Usage,
                        anyhow!("a key's name has 68 hexadecimal digits"),
                    )
                })?;
            let signature = signer
                .sign(&recovery_message(&name))
                .context("cannot sign")?;
            return Ok(print(&format!(
                "{}\n",
                tpm::hex::encode(&signature.fixed())
            ))?);
        }
    };
    let approval = Approval::make(subject, signer.public(), &mut |message| {
        signer.sign(message)
    })
    .context("cannot approve this")?;
    Ok(print(&approval.to_json())?)
}

fn private_key(pem: &str) -> Option<Vec<u8>> {
    let (_, body) = pem.split_once(BEGIN)?;
    let (body, _) = body.split_once(END)?;
    let body: String = body.split_whitespace().collect();
    Base64::decode_vec(&body).ok()
}
