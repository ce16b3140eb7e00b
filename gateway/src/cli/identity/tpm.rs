//! `gateway identity` where the key is the TPM's. Shell.
//!
//! Invariant: no key is made and none is read; `gateway tpm provision` made the only one there is.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};
use serde_json::json;

use crate::{
    appliance::trusted,
    cli::{Exit, Failure, print},
    config::{Config, KeyPlace, Upstream},
    identity::{self, Directory, TpmIdentity},
};

/// The identity with the TPM's key, where `[upstream] identity` says so.
pub(super) struct InTpm<'a> {
    config: &'a Config,
    upstream: &'a Upstream,
    identity: TpmIdentity,
}

/// Opens it; the TPM is asked only for what is then done.
pub(super) fn of(config: &Config) -> Result<Option<InTpm<'_>>, Failure> {
    let Some(upstream) = config.upstream.as_ref() else {
        return Ok(None);
    };
    // A configuration that asks for a TPM without naming one is refused when it is loaded.
    let (Some(KeyPlace::Tpm), Some(table)) = (upstream.identity, &config.tpm) else {
        return Ok(None);
    };
    let key = tpm::DeviceKey::start(trusted::address(table)?, table.directory.clone())
        .context("cannot start the TPM's thread")?;
    Ok(Some(InTpm {
        config,
        upstream,
        identity: TpmIdentity::new(upstream, &config.identity, key),
    }))
}

impl InTpm<'_> {
    pub(super) fn init(&self, json: bool) -> Result<(), Failure> {
        self.key()?;
        if json {
            let answer = json!({ "place": KeyPlace::Tpm, "made": false });
            return Ok(print(&format!("{answer}\n"))?);
        }
        Ok(print(
            "the key is in the TPM, where gateway tpm provision made it; \
             `gateway identity csr` asks for its certificate\n",
        )?)
    }

    pub(super) fn show(&self, json: bool) -> Result<(), Failure> {
        let path = self.identity.certificate();
        let certificate = identity::shown(path);
        let trouble = match certificate.is_some() {
            true => self.identity.certified().err(),
            false => self.identity.key().err(),
        };
        let trouble = trouble.map(|error| error.to_string());
        if json {
            let place = KeyPlace::Tpm;
            let answer =
                json!([{ "place": place, "certificate": certificate, "trouble": trouble }]);
            return Ok(print(&format!("{answer}\n"))?);
        }
        let certificate = certificate.map_or_else(
            || format!("awaits its certificate in {}", path.display()),
            |certificate| certificate.to_string(),
        );
        let trouble = trouble.map_or_else(String::new, |why| format!(", unusable: {why}"));
        Ok(print(&format!("TPM  {certificate}{trouble}\n"))?)
    }

    pub(super) fn csr(&self, json: bool) -> Result<(), Failure> {
        let key = self.key()?;
        let request = identity::request(&*key, &super::common_name(self.config))
            .and_then(|request| request.pem())
            .context("cannot make the request")?;
        match json {
            true => {
                let answer = json!({ "place": KeyPlace::Tpm, "request": request });
                Ok(print(&format!("{answer}\n"))?)
            }
            false => Ok(print(&request)?),
        }
    }

    pub(super) fn enrol(&self, certificate: &Path) -> Result<(), Failure> {
        if let Some(own) = &self.upstream.certificate {
            let error = anyhow!(
                "[upstream] certificate names the file; put the certificate there: {}",
                own.display()
            );
            return Err(Failure::new(Exit::Usage, error));
        }
        let pem = fs::read_to_string(certificate)
            .with_context(|| format!("cannot read {}", certificate.display()))?;
        Directory::new(&self.config.identity.directory)
            .put_tpm_certificate(self.key()?, (certificate, &pem))
            .with_context(|| format!("{} is not taken", certificate.display()))?;
        Ok(print(super::WHOLE)?)
    }

    fn key(&self) -> Result<std::sync::Arc<dyn identity::DeviceKey>, Failure> {
        let key = self.identity.key();
        key.map_err(|error| Failure::new(Exit::Unreachable, error.into()))
    }
}

/// Why nothing is renewed without a hand.
pub(super) fn refuse_renewal() -> Failure {
    let error = anyhow!(
        "each renewal makes a new key, and the TPM has one: the certificate of its key is renewed by hand, \
         with gateway identity csr and enrol --certificate FILE"
    );
    Failure::new(Exit::Usage, error)
}
