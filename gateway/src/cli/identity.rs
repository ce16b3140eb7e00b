//! `gateway identity`: makes the device's key, shows it, has its certificate issued and renewed.
//! Shell.
//!
//! A running gateway sees what is done here and takes a new identity up by itself.

mod evidence;

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::{ConfigPath, Exit, Failure, load, print, runtime};
use crate::{
    appliance::trusted,
    config::{Config, Renew},
    identity::{self, Directory, Generation, IdentityError, Next, Renewer},
    name,
    upstream::reach::Reach,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the device's key; one that is there is never overwritten
    Init(Asking),
    /// Show keys and certificates, and which of them is in use
    Show(Asking),
    /// Print a certificate request (PKCS#10) for the key that waits for a certificate, or a new one
    Csr(CsrArgs),
    /// Get a certificate for the key that waits for one: as [identity] renew says, or from a file
    Enrol(EnrolArgs),
    /// Make a new key and get its certificate as [identity] renew says, now
    Renew(RenewArgs),
    /// For authorities: check what a TPM says about the key of a request, offline
    CheckEvidence(evidence::Args),
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
pub(super) struct CsrArgs {
    #[command(flatten)]
    asking: Asking,
    /// Write what the TPM says about the key, and the TPM maker's certificates, for the authority
    #[arg(long, value_name = "FILE")]
    attest: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct EnrolArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// The certificate that was issued, PEM, followed by its intermediates
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    config: ConfigPath,
}

/// Does what is asked for.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Init(asking) => init(asking),
        Command::Show(asking) => show(asking),
        Command::Csr(args) => csr(args),
        Command::Enrol(args) => match &args.certificate {
            Some(certificate) => enrol(&args.config, certificate),
            None => renew(&args.config, "enrol --certificate FILE"),
        },
        Command::Renew(args) => renew(&args.config, "csr and enrol"),
        Command::CheckEvidence(args) => evidence::run(args),
    }
}

fn open(config: &ConfigPath) -> Result<(Config, Directory), Failure> {
    let config = load(config)?.value;
    let directory = trusted::identity(&config)?;
    Ok((config, directory))
}

/// The key cannot be used; one in a TPM that is away is out of reach.
fn unusable(what: &'static str, error: IdentityError) -> Failure {
    let exit = match error {
        IdentityError::Tpm(_) => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure::new(exit, anyhow::Error::from(error).context(what))
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
                .map_err(|error| unusable("the identity has no key", error))?;
            (generation, true)
        }
    };
    let Some(path) = directory.key_file(generation) else {
        return init_in_tpm(&directory, generation, asking.json);
    };
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
        let _infallible = write!(text, ", {certificate}");
    }
    if let Some(trouble) = &generation.trouble {
        let _infallible = write!(text, ", unusable: {trouble}");
    }
    text + "\n"
}

/// The key that the TPM was provisioned with: it only has to be there.
fn init_in_tpm(directory: &Directory, generation: u32, json: bool) -> Result<(), Failure> {
    directory
        .key(generation)
        .map_err(|error| unusable("the identity has no key", error))?;
    if json {
        let answer = json!({ "generation": generation, "place": directory.place(), "made": false });
        return Ok(print(&format!("{answer}\n"))?);
    }
    Ok(print(
        "the key is in the TPM, where gateway tpm provision made it; \
         `gateway identity csr` asks for its certificate\n",
    )?)
}

fn csr(args: &CsrArgs) -> Result<(), Failure> {
    let asking = &args.asking;
    let (config, directory) = open(&asking.config)?;
    let inventory = directory.inventory().context("cannot look for a key")?;
    let generation = match inventory.next() {
        Next::Enrol(waiting) => waiting,
        Next::MakeKey(next) => {
            directory
                .make_key(next)
                .map_err(|error| unusable("there is no new key", error))?;
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
    let key = directory
        .key(generation)
        .map_err(|error| unusable("cannot use the key", error))?;
    let asked = identity::request(&*key, &common_name(&config));
    let asked = asked.context("cannot make the request")?;
    let request = asked.pem().context("cannot make the request")?;
    if let Some(file) = &args.attest {
        attest(&directory, generation, asked.der(), file)?;
    }
    match asking.json {
        true => {
            let answer = json!({ "generation": generation, "request": request });
            Ok(print(&format!("{answer}\n"))?)
        }
        false => Ok(print(&request)?),
    }
}

/// Writes what the TPM says about the key beside the request.
fn attest(
    directory: &Directory,
    generation: u32,
    request: &[u8],
    file: &Path,
) -> Result<(), Failure> {
    let evidence = directory
        .evidence(generation, request)
        .map_err(|error| unusable("the TPM does not attest the key", error))?;
    let Some(evidence) = evidence else {
        let error = anyhow!("--attest is for keys in a TPM: [upstream] identity = \"tpm\"");
        return Err(Failure::new(Exit::Usage, error));
    };
    fs::write(file, evidence.to_json())
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
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
    Ok(print(WHOLE)?)
}

const WHOLE: &str = "the new identity is whole; a running gateway tries it beside the one in use\n";

/// Asks the configured authority; `by_hand` is what to do where there is none.
fn renew(config: &ConfigPath, by_hand: &str) -> Result<(), Failure> {
    let (config, directory) = open(config)?;
    if config.identity.renew == Renew::Off {
        let error = anyhow!("[identity] renew is off; by hand: gateway identity {by_hand}");
        return Err(Failure::new(Exit::Usage, error));
    }
    let reach = config.upstream.as_ref().map(Reach::of).transpose();
    let reach = reach.map_err(|why| anyhow!(why))?.unwrap_or_default();
    let name = common_name(&config);
    let renewer = Renewer::new(
        &config.identity,
        directory,
        &name,
        reach,
        Timestamp::UNIX_EPOCH,
    );
    let later = runtime()?.block_on(renewer.renew());
    match later.context("there is no new certificate")? {
        None => Ok(print(WHOLE)?),
        Some(pause) => Err(anyhow!(
            "the authority wants to be asked again in {} s; a running gateway does",
            pause.as_secs()
        )
        .into()),
    }
}

/// The name that is asked for.
fn common_name(config: &Config) -> String {
    let id = || name::gateway_id(&config.gateway).to_string();
    config.identity.name.clone().unwrap_or_else(id)
}
