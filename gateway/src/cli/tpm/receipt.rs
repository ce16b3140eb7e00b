//! `gateway tpm receipt`: checks what a device's TPM signed about a release that it installed. Shell.
//!
//! Invariant: no TPM and no network are touched, and nothing is printed of a receipt that does not hold.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::json;
use tpm::PublicKey;
use update::trust::receipt::{RECEIPT_MAX, Receipt};

use crate::appliance::trusted;

use super::super::{Exit, Failure, print};

/// A public key in PEM takes 180 bytes.
const KEY_MAX: u64 = 8 * 1024;

/// Arguments of `receipt`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The receipt, as the gateway published it
    file: PathBuf,
    /// The device's attestation key in PEM, as it was known before: from `gateway tpm status --json` or its request
    #[arg(long, value_name = "FILE")]
    attestation_key: PathBuf,
    /// The vendor's root-approval key in PEM
    #[arg(long, value_name = "FILE")]
    approval_key: PathBuf,
    /// Print what it proves as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let text = trusted::read_small(&args.file, RECEIPT_MAX)?;
    let receipt: Receipt = serde_json::from_str(&text)
        .with_context(|| format!("{} is no receipt", args.file.display()))?;
    let (attestation, approval) = (public(&args.attestation_key)?, public(&args.approval_key)?);
    let proven = receipt.prove(&attestation, &approval).map_err(|why| {
        let error = anyhow!("{} proves nothing: {why}", args.file.display());
        Failure::new(Exit::Refused, error)
    })?;
    let (installed, floor) = (&proven.installed, proven.floor);
    if args.json {
        let answer = json!({ "installed": installed, "security_floor": floor });
        return Ok(print(&format!("{answer}\n"))?);
    }
    Ok(print(&format!(
        "{} committed release {} of security epoch {}, Merkle root {}, at {} by its clock; its TPM held security floor \
         {floor}\n",
        installed.gateway,
        installed.release,
        installed.security_epoch,
        installed.merkle_root,
        installed.committed
    ))?)
}

fn public(path: &Path) -> anyhow::Result<PublicKey> {
    let text = trusted::read_small(path, KEY_MAX)?;
    PublicKey::from_pem(&text)
        .with_context(|| format!("{} holds no P-256 public key in PEM", path.display()))
}
