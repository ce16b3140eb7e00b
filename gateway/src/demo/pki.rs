//! A throwaway public key infrastructure: an authority, a server, a client. Driver: writes files.
//!
//! Invariant: the keys live in a directory of this process' user alone, which goes with the demo.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// PEM files of the demonstration.
pub(super) struct Pki {
    /// The authority both sides trust.
    pub(super) ca: PathBuf,
    /// The upstream broker's certificate and key, for `localhost` and `127.0.0.1`.
    pub(super) server: Credentials,
    /// The gateway's certificate and key; its common name is the gateway's id.
    pub(super) client: Credentials,
}

/// A certificate and its key, as PEM files.
pub(super) struct Credentials {
    /// The certificate.
    pub(super) certificate: PathBuf,
    /// Its private key.
    pub(super) key: PathBuf,
}

impl Pki {
    /// Makes fresh keys and certificates in `directory`.
    ///
    /// # Errors
    /// A key cannot be made, or a file cannot be written.
    pub(super) fn create(directory: &Path, gateway_id: &str) -> anyhow::Result<Pki> {
        let authority = authority()?;
        let ca = directory.join("ca.pem");
        fs::write(&ca, &authority.pem).with_context(|| format!("cannot write {}", ca.display()))?;
        let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let client = CertificateParams::new(Vec::new())?;
        Ok(Pki {
            ca,
            server: issue(
                directory,
                "server",
                server,
                ExtendedKeyUsagePurpose::ServerAuth,
                "localhost",
                &authority,
            )?,
            client: issue(
                directory,
                "client",
                client,
                ExtendedKeyUsagePurpose::ClientAuth,
                gateway_id,
                &authority,
            )?,
        })
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> anyhow::Result<Authority> {
    let key = KeyPair::generate().context("cannot make the authority's key")?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "gateway demo authority");
    let pem = params.self_signed(&key)?.pem();
    Ok(Authority {
        issuer: Issuer::new(params, key),
        pem,
    })
}

fn issue(
    directory: &Path,
    name: &str,
    mut params: CertificateParams,
    usage: ExtendedKeyUsagePurpose,
    common_name: &str,
    authority: &Authority,
) -> anyhow::Result<Credentials> {
    let key_pair = KeyPair::generate().with_context(|| format!("cannot make the {name}'s key"))?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    let certificate = directory.join(format!("{name}.pem"));
    let key = directory.join(format!("{name}.key"));
    let pem = params.signed_by(&key_pair, &authority.issuer)?.pem();
    fs::write(&certificate, pem)
        .with_context(|| format!("cannot write {}", certificate.display()))?;
    write_secret(&key, &key_pair.serialize_pem())
        .with_context(|| format!("cannot write {}", key.display()))?;
    Ok(Credentials { certificate, key })
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
