//! `gateway client`: adds, lists, rotates and revokes clients of the local broker. Shell.
//!
//! Invariant: a private key is made by this command and written for its owner alone; the service
//! sees requests and hashes, never keys or passwords.

mod files;
mod text;

use std::{fs, io, path::PathBuf};

use anyhow::{Context, anyhow};
use broker_lite::login::password::{Verifier, disk};
use clap::Subcommand;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::{ConfigPath, Exit, Failure, load, print};
use crate::{
    appliance::trusted,
    clients::{self, ClientName, Done, Listing, NewProof, Office, Wish},
    config::Config,
    control, name,
};
use files::Files;

/// Characters of a password that is made here: five bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// How many of them: more than anybody guesses.
const PASSWORD_LENGTH: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a client: issue its certificate, or set its password, and let it use its own topics
    Add(AddArgs),
    /// List clients, what they may do, and when their certificates end
    List(ListArgs),
    /// Give a client a new certificate or password; the old certificate counts until it ends
    Rotate(RotateArgs),
    /// Take a client away: its certificates and password count no more, and its sessions end now
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// Its name: in certificates and topics
    name: ClientName,
    #[command(flatten)]
    proof: ProofArgs,
    /// Topic filters it may publish to [default: telemetry/NAME/#]
    #[arg(long, num_args = 1.., value_name = "FILTER")]
    publish: Option<Vec<String>>,
    /// Topic filters it may receive from [default: command/NAME/#]
    #[arg(long, num_args = 1.., value_name = "FILTER")]
    subscribe: Option<Vec<String>>,
    #[command(flatten)]
    asking: ListArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RotateArgs {
    /// The client
    name: ClientName,
    #[command(flatten)]
    proof: ProofArgs,
    /// Revoke the certificates that it has, now
    #[arg(long)]
    revoke_old: bool,
    #[command(flatten)]
    asking: ListArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    /// The client
    name: ClientName,
    #[command(flatten)]
    asking: ListArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// By what the client is to be known.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProofArgs {
    /// Sign this certificate request (PKCS#10, PEM), so that the key never leaves the client
    #[arg(long, value_name = "FILE", group = "proof")]
    csr: Option<PathBuf>,
    /// Make a password and print it once
    #[arg(long, group = "proof")]
    password: bool,
    /// Take the password from the first line of a file, such as /dev/stdin
    #[arg(long, value_name = "FILE", group = "proof")]
    password_file: Option<PathBuf>,
    /// Where certificate, key and CA are written
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    out: PathBuf,
}

/// Does what is asked for.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Add(args) => add(args),
        Command::List(args) => list(args),
        Command::Rotate(args) => rotate(args),
        Command::Revoke(args) => revoke(args),
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let config = load(&args.asking.config)?.value;
    let files = Files::new(&args.proof.out, &args.name);
    files.are_free(!args.proof.is_said())?;
    let wish = |proof| Wish::Add {
        name: args.name.clone(),
        proof,
        publish: args.publish.clone(),
        subscribe: args.subscribe.clone(),
    };
    give(
        &config,
        &args.name,
        &args.proof,
        &files,
        wish,
        &args.asking,
        "added",
    )
}

fn rotate(args: &RotateArgs) -> Result<(), Failure> {
    let config = load(&args.asking.config)?.value;
    let files = Files::new(&args.proof.out, &args.name);
    let wish = |proof| Wish::Rotate {
        name: args.name.clone(),
        proof,
        alone: args.revoke_old,
    };
    let mut proof = args.proof.clone();
    if !proof.is_said() {
        proof.password = has_password(&config, &args.name)?;
    }
    give(
        &config,
        &args.name,
        &proof,
        &files,
        wish,
        &args.asking,
        "rotated",
    )
}

fn has_password(config: &Config, name: &ClientName) -> Result<bool, Failure> {
    let listing = listing(config)?;
    let mut clients = listing.clients.iter();
    Ok(clients.any(|client| client.name == *name && client.by == "password"))
}

/// Has a certificate issued or a password set, and hands it over.
fn give(
    config: &Config,
    name: &ClientName,
    proof: &ProofArgs,
    files: &Files,
    wish: impl FnOnce(NewProof) -> Wish,
    asking: &ListArgs,
    done_to_it: &str,
) -> Result<(), Failure> {
    let made = proof.make(name)?;
    let (done, running) = carry_out(config, &wish(made.proof))?;
    let listing = listing(config)?;
    let shown = listing.clients.iter().find(|client| client.name == *name);
    let shown = shown.with_context(|| format!("client {name} is gone already"))?;
    let given = match &done {
        Done::Certified(certified) => {
            files.write(certified, made.key.as_deref())?;
            text::Given::Certificate {
                certified,
                files,
                with_key: made.key.is_some(),
            }
        }
        Done::PasswordSet { ca } => {
            let needs_ca = text::serves_own(config) && !ca.is_empty();
            if needs_ca {
                files.write_ca(ca)?;
            }
            text::Given::Password {
                made: made.password.as_deref(),
                files: needs_ca.then_some(files),
            }
        }
        Done::Listed(_) | Done::Revoked { .. } => {
            return Err(anyhow!("the service answered something else than was asked").into());
        }
    };
    let text = match asking.json {
        true => format!("{}\n", text::given_json(shown, &given)),
        false => text::given(config, shown, &given, done_to_it, running),
    };
    Ok(print(&text)?)
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let config = load(&args.config)?.value;
    let listing = listing(&config)?;
    let text = match args.json {
        true => format!("{}\n", json!(listing)),
        false => text::listing(&listing),
    };
    Ok(print(&text)?)
}

fn revoke(args: &RevokeArgs) -> Result<(), Failure> {
    let config = load(&args.asking.config)?.value;
    let name = args.name.clone();
    let (done, _) = carry_out(&config, &Wish::Revoke { name })?;
    let text = match args.asking.json {
        true => format!("{}\n", json!(done)),
        false => text::revoked(&args.name, &done),
    };
    Ok(print(&text)?)
}

fn listing(config: &Config) -> Result<Listing, Failure> {
    match carry_out(config, &Wish::List)? {
        (Done::Listed(listing), _) => Ok(listing),
        _ => Err(anyhow!("the service answered something else than was asked").into()),
    }
}

/// Has the service fulfil a wish, or does it where no service runs; tells which.
fn carry_out(config: &Config, wish: &Wish) -> Result<(Done, bool), Failure> {
    let socket = &config.gateway.control;
    let question = serde_json::to_string(wish).context("cannot write the question")?;
    match control::ask(socket, &format!("client {question}")) {
        Ok(answer) => Ok((read(answer)?, true)),
        Err(error) if is_away(&error) => Ok((alone(config, wish)?, false)),
        Err(error) => {
            let error = anyhow::Error::new(error).context(format!(
                "cannot ask the service at {}; nothing was changed, or it was and the answer was lost",
                socket.display()
            ));
            Err(Failure::new(Exit::Unreachable, error))
        }
    }
}

/// Nobody listens at the socket.
fn is_away(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn read(answer: serde_json::Value) -> Result<Done, Failure> {
    if let Some(error) = answer["error"].as_str() {
        let exit = exit(answer["exit"].as_u64().unwrap_or(1));
        return Err(Failure::new(exit, anyhow!("{error}")));
    }
    let done = serde_json::from_value(answer);
    Ok(done.context("the service answers in other words; are both of the same version?")?)
}

fn alone(config: &Config, wish: &Wish) -> Result<Done, Failure> {
    let device = match &config.tpm {
        Some(table) => Some(
            tpm::DeviceKey::start(trusted::address(table)?, table.directory.clone())
                .context("cannot start the TPM's thread")?,
        ),
        None => None,
    };
    let id = name::gateway_id(&config.gateway);
    let office = Office::new(&config.clients, &id, device.as_ref());
    match wish.fulfil(&office, &config.broker) {
        Ok((_, done)) => Ok(done),
        Err(error) => {
            let exit = exit(error.exit().into());
            Err(Failure::new(exit, anyhow!("{}", clients::told(&error))))
        }
    }
}

fn exit(code: u64) -> Exit {
    match code {
        2 => Exit::Usage,
        3 => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// What the client will show, and what of it only the client may have.
struct Made {
    proof: NewProof,
    key: Option<String>,
    /// One that was made here.
    password: Option<String>,
}

impl ProofArgs {
    /// Whether it says what the client is to be known by; else a key is made here.
    fn is_said(&self) -> bool {
        self.csr.is_some() || self.password || self.password_file.is_some()
    }

    fn make(&self, name: &ClientName) -> anyhow::Result<Made> {
        if let Some(path) = &self.csr {
            let request = fs::read_to_string(path)
                .with_context(|| format!("cannot read the request {}", path.display()))?;
            return Ok(Made {
                proof: NewProof::Request(request),
                key: None,
                password: None,
            });
        }
        if self.password || self.password_file.is_some() {
            return self.make_password();
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        let request = params
            .serialize_request(&pair)
            .and_then(|request| request.pem())
            .context("cannot make a certificate request")?;
        Ok(Made {
            proof: NewProof::Request(request),
            key: Some(pair.serialize_pem()),
            password: None,
        })
    }

    fn make_password(&self) -> anyhow::Result<Made> {
        let given = match &self.password_file {
            Some(path) => Some(
                fs::read_to_string(path)
                    .with_context(|| format!("cannot read the password from {}", path.display()))?,
            ),
            None => None,
        };
        let password = match given {
            Some(text) => text.lines().next().unwrap_or_default().to_owned(),
            None => random_password()?,
        };
        anyhow::ensure!(!password.is_empty(), "the password is empty");
        let verifier = Verifier::new(password.as_bytes(), disk::fresh_salt()?);
        Ok(Made {
            proof: NewProof::Password(verifier.to_string()),
            key: None,
            password: self.password_file.is_none().then_some(password),
        })
    }
}

fn random_password() -> anyhow::Result<String> {
    let mut drawn = [0_u8; PASSWORD_LENGTH];
    let filled = SystemRandom::new().fill(&mut drawn);
    filled.map_err(|_| anyhow!("the system gives no random numbers"))?;
    let letters = drawn
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
    Ok(letters.collect())
}
