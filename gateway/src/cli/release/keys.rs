//! Keys of the vendor: made in files, or used through a program that signs. Shell.
//!
//! Invariant: a private key's file is for its owner alone and is never overwritten; a signature is handed on only after it
//! was verified by the public key that it is said to be of.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, anyhow};
use tuf::{
    key::PublicKey,
    repository::{FileKey, KeyFailure, PrivatePem, Scheme, Signer},
    verify::{Software, Verdict, Verifier},
};
use update::release::fresh;

use super::{Failure, print, read_text, usage};

/// Bytes of a key in PEM at most.
const PEM_MAX: u64 = 8 * 1024;
/// Bytes that a signing program answers with at most.
const ANSWER_MAX: u64 = 4 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Signs metadata and, in a TPM's scheme, approvals
    P256,
    /// Signs metadata
    Ed25519,
    /// Opens releases on devices without a TPM; the vendor and the devices hold the same
    FileKey,
}

/// Arguments of `keygen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which kind of key
    #[arg(long, value_enum, default_value = "p256")]
    kind: Kind,
    /// Where the files go: NAME.key, and NAME.pub unless it is a file key
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// One key for each name
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) fn keygen(args: &Args) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    for name in &args.names {
        let path = |end: &str| args.out.join(format!("{name}.{end}"));
        let (private, public) = match args.kind {
            Kind::P256 => signing_key(Scheme::P256)?,
            Kind::Ed25519 => signing_key(Scheme::Ed25519)?,
            Kind::FileKey => (fresh::file_key().context("no key")?.to_text(), None),
        };
        write_private(&path("key"), &private)?;
        print(&format!("{}\n", path("key").display()))?;
        if let Some(public) = public {
            super::write(&path("pub"), public.as_bytes())?;
            print(&format!("{}\n", path("pub").display()))?;
        }
    }
    Ok(())
}

fn signing_key(scheme: Scheme) -> anyhow::Result<(String, Option<String>)> {
    let pem = FileKey::generate(scheme)?;
    let public = FileKey::from_pem(&pem)?.public_key().to_pem();
    Ok((pem.0, Some(public)))
}

/// Makes a file that its owner alone can read; one that is there stays.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .with_context(|| {
        format!(
            "cannot make {} (a key is never overwritten)",
            path.display()
        )
    })
}

/// The public key in a file, as `keygen` and `openssl pkey -pubout` write it.
pub(super) fn public(path: &Path) -> Result<PublicKey, Failure> {
    let text = read_text(path, PEM_MAX)?;
    PublicKey::from_pem(&text).ok_or_else(|| {
        usage(format!(
            "{} holds no P-256 or Ed25519 public key in PEM, as openssl pkey -pubout writes it",
            path.display()
        ))
    })
}

/// Where a private key is.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// A private key: PKCS #8, PEM; more than one signs one after the other
    #[arg(long, value_name = "FILE")]
    pub(super) key: Vec<PathBuf>,
    /// A program that signs, for keys in PKCS #11 tokens and the like: the message on its standard input, the signature on
    /// its standard output. Its words are separated by spaces; no shell is asked
    #[arg(long, value_name = "PROGRAM", requires = "public")]
    pub(super) signer: Option<String>,
    /// Give the program the message's SHA-256, for tokens that sign P-256 without hashing
    #[arg(long, requires = "signer")]
    pub(super) digest: bool,
    /// The public key of the one that the program signs with
    #[arg(long, value_name = "FILE", requires = "signer")]
    pub(super) public: Option<PathBuf>,
}

impl Source {
    /// Whether any key was named.
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_empty() && self.signer.is_none()
    }

    /// The keys, at least one.
    pub(super) fn signers(&self) -> Result<Vec<Box<dyn Signer>>, Failure> {
        let mut signers: Vec<Box<dyn Signer>> = Vec::new();
        for path in &self.key {
            let pem = PrivatePem(read_text(path, PEM_MAX)?);
            let key = FileKey::from_pem(&pem).with_context(|| path.display().to_string())?;
            signers.push(Box::new(key));
        }
        if let (Some(program), Some(path)) = (&self.signer, &self.public) {
            signers.push(Box::new(Program {
                words: program.split_whitespace().map(str::to_owned).collect(),
                public: public(path)?,
                digest: self.digest,
            }));
        }
        match signers.is_empty() {
            true => Err(usage(
                "name a key: --key FILE, or --signer PROGRAM --public FILE",
            )),
            false => Ok(signers),
        }
    }

    /// The one P-256 key, in the form in which a TPM asks for approvals.
    pub(crate) fn approver(&self) -> Result<(tpm::PublicKey, Box<dyn Signer>), Failure> {
        let mut signers = self.signers()?;
        match (signers.pop(), signers.is_empty()) {
            (Some(signer), true) => {
                let PublicKey::P256(point) = signer.public_key() else {
                    return Err(usage("approvals take a P-256 key: TPMs know no Ed25519"));
                };
                let key = tpm::PublicKey::from_sec1(point).context("no point of P-256")?;
                Ok((key, signer))
            }
            _ => Err(usage("approvals are of one key")),
        }
    }
}

/// A program that signs, for example `pkcs11-tool`.
struct Program {
    words: Vec<String>,
    public: PublicKey,
    digest: bool,
}

impl Signer for Program {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        let failure = |error: anyhow::Error| KeyFailure {
            action: "sign with",
            reason: format!("{}: {error:#}", self.words.join(" ")),
        };
        let answer = match self.digest {
            true => self.ask(&tpm::sha256(&[message])),
            false => self.ask(message),
        };
        let answer = answer.map_err(failure)?;
        let signature = match (&self.public, tpm::Signature::from_fixed(&answer)) {
            // Tokens answer with the two numbers, others in DER.
            (PublicKey::P256(_), Some(fixed)) => fixed.der(),
            _ => answer,
        };
        match Software.verify(&self.public, message, &signature) {
            Ok(Verdict::Genuine) => Ok(signature),
            _ => Err(failure(anyhow!(
                "its {} bytes are no signature of the key in --public",
                signature.len()
            ))),
        }
    }
}

impl Program {
    fn ask(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (program, arguments) = self.words.split_first().context("no program is named")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start it")?;
        let answer = exchange(&mut child, message);
        let ended = child.wait().context("cannot wait for it")?;
        match ended.success() {
            true => answer,
            false => Err(anyhow!("it ended with {ended}")),
        }
    }
}

/// Messages are files of metadata: what a pipe does not take at once, the program reads before it answers.
fn exchange(child: &mut Child, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    stdin
        .write_all(message)
        .context("it does not read the message")?;
    drop(stdin);
    let stdout = child.stdout.take().context("it has no standard output")?;
    let mut answer = Vec::new();
    stdout
        .take(ANSWER_MAX)
        .read_to_end(&mut answer)
        .context("it does not answer")?;
    Ok(answer)
}
