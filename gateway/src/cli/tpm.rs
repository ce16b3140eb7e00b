//! `gateway tpm`: provisions the device's TPM, shows what stands in it, makes the vendor's approvals, and checks receipts. Shell.
//!
//! Invariant: `provision` says what it will do before it does anything, and `--dry-run` and `status` change nothing.

mod approve;
mod receipt;

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use tpm::{
    Approval, Layout, PublicKey, Tpm,
    provision::{Provisioner, Request, Standing, Trust, provision},
};

use crate::{appliance::trusted, config, wording::counted};

use super::{ConfigPath, Exit, Failure, consent, load, print};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the device's keys and trust anchors; done again, it does what is missing
    Provision(ProvisionArgs),
    /// Show what stands in the TPM, in plain words
    Status(StatusArgs),
    /// Print the public key to which releases for this device are encrypted
    PayloadKey(ConfigPath),
    /// For vendors: approve a trusted root or a security floor, offline
    Approve(approve::Args),
    /// For whoever looks after a fleet: check the receipt of an installation, offline
    Receipt(receipt::Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct ProvisionArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// The vendor's approval of the first trusted root
    #[arg(long, value_name = "FILE", requires = "floor")]
    root: Option<PathBuf>,
    /// The vendor's approval of the first security floor
    #[arg(long, value_name = "FILE", requires = "root")]
    floor: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Provision(args) => run_provision(args),
        Command::Status(args) => run_status(args),
        Command::PayloadKey(path) => payload_key(path),
        Command::Approve(args) => approve::run(args),
        Command::Receipt(args) => receipt::run(args),
    }
}

fn run_provision(args: &ProvisionArgs) -> Result<(), Failure> {
    let table = table(&args.config)?;
    let request = Request {
        directory: table.directory.clone(),
        trust: trust(args, &table)?,
    };
    let mut tpm = open(&table)?;
    let to_do = plan(&mut tpm, &request)?;
    if args.dry_run || to_do == 0 {
        return Ok(());
    }
    consent::need(
        args.yes,
        "Authorisation values set here come back only with the vendor's approval. Go on?",
        "nothing was done",
    )?;
    // Told step by step, so that a cut shows where it came.
    let mut unsaid = Ok(());
    provision(&mut tpm, &request, &mut |step, standing| {
        if *standing == Standing::ToDo && unsaid.is_ok() {
            unsaid = print(&format!("doing: {}\n", step.what()));
        }
    })
    .context("the TPM is not provisioned; run this again once that is put right")?;
    unsaid?;
    Ok(print("the TPM is provisioned\n")?)
}

/// Prints every step and how it stands; how many are to be done.
fn plan(tpm: &mut Tpm, request: &Request) -> Result<usize, Failure> {
    let mut provisioner = Provisioner::new(tpm, request).context("cannot look at the TPM")?;
    let mut text = String::new();
    match provisioner.layout() {
        Some(Layout::Platform) => {
            text += "The platform hierarchy is open: indices are created by it, outlive a clear, and only the vendor's approval removes them.\n"
        }
        Some(Layout::Owner) => {
            text += "The platform hierarchy is closed: indices are created by the owner. A clear removes them, which the record shows.\n"
        }
        None => {
            text += "No [tpm] approval_key: only keys are made; hierarchies stay as they are, and nothing guards what may be installed.\n"
        }
    }
    let mut to_do = 0;
    let mut refused = None;
    for step in provisioner.steps() {
        let standing = provisioner
            .standing(step)
            .context("cannot look at the TPM")?;
        let word = match &standing {
            Standing::Done => "done ",
            Standing::ToDo => "to do",
            Standing::Refused(_) => "no   ",
        };
        to_do += usize::from(standing == Standing::ToDo);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{word}  {}", step.what());
        if let Standing::Refused(why) = standing {
            refused.get_or_insert(format!("cannot {}: {why}", step.what()));
        }
    }
    print(&text)?;
    match refused {
        None => Ok(to_do),
        Some(why) => Err(Failure::new(Exit::Refused, anyhow!(why))),
    }
}

fn trust(args: &ProvisionArgs, table: &config::Tpm) -> Result<Option<Trust>, Failure> {
    let key: Option<PublicKey> = trusted::approval_key(table)?;
    match (key, &args.root, &args.floor) {
        (None, None, None) => Ok(None),
        (Some(key), Some(root), Some(floor)) => Ok(Some(Trust {
            key,
            root: approval(root)?,
            floor: approval(floor)?,
        })),
        (None, ..) => Err(Failure::new(
            Exit::Usage,
            anyhow!("approvals are of use only with [tpm] approval_key"),
        )),
        (Some(_), ..) => Err(Failure::new(
            Exit::Usage,
            anyhow!(
                "[tpm] approval_key is set: give the vendor's first approvals with --root FILE --floor FILE"
            ),
        )),
    }
}

fn approval(path: &Path) -> anyhow::Result<Approval> {
    let text = trusted::read_small(path, tpm::APPROVAL_MAX)?;
    Approval::from_json(&text).map_err(|wrong| anyhow!("{}: {wrong}", path.display()))
}

fn run_status(args: &StatusArgs) -> Result<(), Failure> {
    let table = table(&args.config)?;
    let key = trusted::approval_key(&table)?;
    let mut tpm = open(&table)?;
    let report = tpm
        .report(&table.directory, key.as_ref())
        .context("cannot look at the TPM")?;
    match args.json {
        true => print(&format!("{:#}\n", serde_json::json!(report)))?,
        false => print(&report.to_string())?,
    }
    match report.problems.len() {
        0 => Ok(()),
        count => {
            let problems = counted(count, "problem", "problems");
            Err(anyhow!("{problems} with the TPM").into())
        }
    }
}

fn payload_key(path: &ConfigPath) -> Result<(), Failure> {
    let table = table(path)?;
    let opened = Tpm::open_provisioned(&trusted::address(&table)?, &table.directory);
    let (_, keys) = opened.map_err(|error| Failure::new(Exit::Unreachable, error.into()))?;
    Ok(print(&keys.payload_public.pem())?)
}

fn table(path: &ConfigPath) -> Result<config::Tpm, Failure> {
    load(path)?.value.tpm.ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            anyhow!(
                "{} has no [tpm] table; write at least [tpm]",
                path.path.display()
            ),
        )
    })
}

fn open(table: &config::Tpm) -> Result<Tpm, Failure> {
    let address = trusted::address(table)?;
    Tpm::open(&address).map_err(|error| Failure::new(Exit::Unreachable, error.into()))
}
