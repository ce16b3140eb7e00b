//! The TPM as the service uses it, and what is said where there is none. Shell.
//!
//! Invariant: a TPM that is away, locked or lost stops nothing but what needs its keys; only `require_tpm` keeps the
//! service from starting.

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use tpm::{Address, DeviceKey, PublicKey, State};
use tracing::{info, warn};

use crate::{
    config::{self, Config, KeyPlace},
    identity::Directory,
};

/// Files larger than this are no public key.
const PEM_MAX: u64 = 8 * 1024;

/// The TPM at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TpmStatus {
    /// `none`, `opening`, `ready` or `away`.
    pub state: String,
    /// Why it is away, or what its absence means.
    pub reason: Option<String>,
}

/// The device's key in the TPM, where `[tpm]` is configured.
#[derive(Clone)]
pub(crate) struct Trusted(Option<DeviceKey>);

impl Trusted {
    /// Starts the TPM's owner. Without a TPM that says so and goes on, unless `require_tpm` stands: only then the TPM is
    /// waited for.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Trusted> {
        match link_key(config) {
            Some(TPM_KEY) => info!("{}", TPM_KEY),
            Some(in_files) => warn!("{in_files}"),
            None => {}
        }
        let Some(table) = &config.tpm else {
            return Ok(Trusted(None));
        };
        let key = start(table)?;
        let asked = key.clone();
        let device = table.device.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let answer = asked.public_key();
            match &answer {
                Ok(_) => info!(
                    device,
                    "the TPM answers, and its keys are those that were provisioned"
                ),
                Err(error) => {
                    warn!(device, %error, "no TPM: what needs its keys waits, all else goes on")
                }
            }
            answer
        });
        if table.require_tpm {
            answer
                .await
                .context("the TPM's thread ended")?
                .context("require_tpm is set, so the service does not start without its TPM")?;
        }
        Ok(Trusted(Some(key)))
    }

    /// The signing key, where there is a TPM.
    pub(crate) fn key(&self) -> Option<&DeviceKey> {
        self.0.as_ref()
    }

    /// How it is.
    pub(crate) fn status(&self) -> TpmStatus {
        let (state, reason) = match self.0.as_ref().map(DeviceKey::state) {
            None => ("none", Some(NO_TPM.to_owned())),
            Some(State::Opening) => ("opening", None),
            Some(State::Ready) => ("ready", None),
            Some(State::Away { reason }) => ("away", Some(reason)),
        };
        TpmStatus {
            state: state.to_owned(),
            reason,
        }
    }
}

/// Where the upstream link's key is, and what that means; nothing without a link.
pub(crate) fn link_key(config: &Config) -> Option<&'static str> {
    let link = config.upstream.as_ref()?;
    Some(match (&config.tpm, link.identity) {
        (_, Some(KeyPlace::Tpm)) => TPM_KEY,
        (None, _) => NO_TPM,
        (Some(_), _) => FILE_KEY,
    })
}

/// Said of an upstream link whose key is in the TPM.
const TPM_KEY: &str = "the upstream link signs with the TPM's key, which never leaves the TPM; without it there is no link";

/// Said of an upstream link whatever TPM there is, as long as the link's key is a file.
const FILE_KEY: &str =
    "the upstream link signs with a key in a file, and whoever copies it is this gateway";

/// What the absence of `[tpm]` means.
const NO_TPM: &str =
    "no [tpm]: the gateway's keys are files, and whoever copies them is this gateway";

/// The identity's directory, with its keys in the TPM where the link signs with that.
pub(crate) fn identity(config: &Config) -> anyhow::Result<Directory> {
    let at = &config.identity.directory;
    let place = config.upstream.as_ref().and_then(|link| link.identity);
    // A configuration that asks for a TPM without naming one is refused when it is loaded.
    let (Some(KeyPlace::Tpm), Some(table)) = (place, &config.tpm) else {
        return Ok(Directory::new(at));
    };
    Ok(Directory::in_tpm(at, start(table)?))
}

/// Starts the TPM's owner.
pub(crate) fn start(table: &config::Tpm) -> anyhow::Result<DeviceKey> {
    DeviceKey::start(address(table)?, table.directory.clone())
        .context("cannot start the TPM's thread")
}

/// Where the TPM is.
pub(crate) fn address(table: &config::Tpm) -> anyhow::Result<Address> {
    table
        .device
        .parse()
        .map_err(|wrong: String| anyhow!("[tpm] device: {wrong}"))
}

/// The vendor's key, where one is configured.
pub(crate) fn approval_key(table: &config::Tpm) -> anyhow::Result<Option<PublicKey>> {
    let Some(path) = &table.approval_key else {
        return Ok(None);
    };
    let text = read_small(path, PEM_MAX)?;
    let key = PublicKey::from_pem(&text);
    key.map(Some).with_context(|| {
        format!(
            "{} holds no P-256 public key in PEM, as openssl pkey -pubout writes it",
            path.display()
        )
    })
}

/// A file's text, when it is no longer than that.
pub(crate) fn read_small(path: &std::path::Path, limit: u64) -> anyhow::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}
