//! `gateway identity`: makes the device's key, shows it, has its certificate issued and renewed.
//! Shell.
//!
//! A running gateway sees what is done here and takes a new identity up by itself.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use serde_json::json;

use super::{ConfigPath, Exit, Failure, load, print};
use crate::{
    config::Config,
    identity::{self, Directory, Generation, Next},
    name,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the device's key; one that is there is never overwritten
    Init(Asking),
    /// Show keys and certificates, and which of them is in use
    Show(Asking),
    /// Print a certificate request (PKCS#10) for the key that waits for a certificate, or a new one
    Csr(Asking),
    /// Take a certificate for the key that waits for one
    Enrol(EnrolArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct Asking {
    #[command(flatten)]
    config: ConfigPath,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct EnrolArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// The certificate that was issued, PEM, followed by its intermediates
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
}

/// Does what is asked for.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Init(asking) => init(asking),
        Command::Show(asking) => show(asking),
        Command::Csr(asking) => csr(asking),
        Command::Enrol(args) => enrol(&args.config, &args.certificate),
    }
}

fn open(config: &ConfigPath) -> Result<(Config, Directory), Failure> {
    let config = load(config)?.value;
    let directory = Directory::new(&config.identity.directory);
    Ok((config, directory))
}

fn init(asking: &Asking) -> Result<(), Failure> {
    let (_, directory) = open(&asking.config)?;
    let inventory = directory.inventory().context("cannot look for a key")?;
    let (generation, made) = match inventory.keys.last() {
        Some(newest) => (*newest, false),
        None => {
            let generation = inventory.unused();
            directory
                .make_key(generation)
                .context("the identity has no key")?;
            (generation, true)
        }
    };
    let path = directory.key_path(generation);
    if asking.json {
        let answer = json!({ "generation": generation, "key": path, "made": made });
        return Ok(print(&format!("{answer}\n"))?);
    }
    let done = match made {
        true => "made",
        false => "there is one already:",
    };
    let next = "`gateway identity csr` asks for its certificate";
    Ok(print(&format!("{done} key {}; {next}\n", path.display()))?)
}

fn show(asking: &Asking) -> Result<(), Failure> {
    let (config, directory) = open(&asking.config)?;
    let generations = identity::generations(&directory).context("cannot read the identity")?;
    if asking.json {
        return Ok(print(&format!("{}\n", json!(generations)))?);
    }
    if generations.is_empty() {
        let path = config.identity.directory.display().to_string();
        return Ok(print(&format!(
            "no key in {path}; `gateway identity init` makes one\n"
        ))?);
    }
    let mut text = String::new();
    for generation in &generations {
        text += &line(generation);
    }
    Ok(print(&text)?)
}

fn line(generation: &Generation) -> String {
    let mut text = format!("{:>3}  {}", generation.number, generation.state.as_str());
    if let Some(certificate) = &generation.certificate {
        let _infallible = write!(
            text,
            ", {} by {}, until {} ({} days)",
            certificate.subject, certificate.issuer, certificate.ends, certificate.days_left
        );
    }
    if let Some(trouble) = &generation.trouble {
        let _infallible = write!(text, ", unusable: {trouble}");
    }
    text + "\n"
}

fn csr(asking: &Asking) -> Result<(), Failure> {
    let (config, directory) = open(&asking.config)?;
    let inventory = directory.inventory().context("cannot look for a key")?;
    let generation = match inventory.next() {
        Next::Enrol(waiting) => waiting,
        Next::MakeKey(next) => {
            directory.make_key(next).context("there is no new key")?;
            next
        }
        Next::Use(candidate) => {
            return Err(anyhow!(
                "identity {candidate} has its certificate and waits to be let in by the upstream; \
                 another one is made after that"
            )
            .into());
        }
    };
    let key = directory.key(generation).context("cannot use the key")?;
    let request = identity::request(&*key, &common_name(&config))
        .and_then(|request| request.pem())
        .context("cannot make the request")?;
    match asking.json {
        true => {
            let answer = json!({ "generation": generation, "request": request });
            Ok(print(&format!("{answer}\n"))?)
        }
        false => Ok(print(&request)?),
    }
}

fn enrol(config: &ConfigPath, certificate: &Path) -> Result<(), Failure> {
    let (_, directory) = open(config)?;
    let inventory = directory.inventory().context("cannot look for a key")?;
    let Next::Enrol(generation) = inventory.next() else {
        let error = anyhow!("no key waits for a certificate; `gateway identity csr` makes one");
        return Err(Failure::new(Exit::Usage, error));
    };
    let pem = fs::read_to_string(certificate)
        .with_context(|| format!("cannot read {}", certificate.display()))?;
    directory
        .put_certificate(generation, &pem)
        .with_context(|| format!("{} is not taken", certificate.display()))?;
    Ok(print(&format!(
        "identity {generation} is whole; a running gateway tries it beside the one in use\n"
    ))?)
}

/// The name that is asked for.
fn common_name(config: &Config) -> String {
    let id = || name::gateway_id(&config.gateway).to_string();
    config.identity.name.clone().unwrap_or_else(id)
}
