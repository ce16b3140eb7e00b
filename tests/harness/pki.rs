//! A throwaway public key infrastructure: one authority, and certificates for servers and clients.

use std::path::PathBuf;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::Scene;

/// An authority whose certificates are files in the scene.
pub(crate) struct Pki {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The authority's certificate.
    pub(crate) ca: PathBuf,
}

/// A certificate and its key, as PEM files.
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

impl Pki {
    /// An authority of this name.
    pub(crate) fn new(scene: &Scene, name: &str) -> Result<Pki> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let ca = scene.write(&format!("{name}.ca.pem"), &issuer.pem())?;
        Ok(Pki {
            name: name.to_owned(),
            issuer,
            ca,
        })
    }

    /// The authority's key, for those who sign with other programs.
    pub(crate) fn authority_key(&self, scene: &Scene) -> Result<PathBuf> {
        let pem = self.issuer.key().serialize_pem();
        scene.write_secret(&format!("{}.ca.key.pem", self.name), &pem)
    }

    /// A server's certificate for loopback.
    pub(crate) fn server(&self, scene: &Scene) -> Result<Identity> {
        self.server_named(scene, &["localhost", "127.0.0.1"])
    }

    /// A server's certificate for these names and addresses.
    pub(crate) fn server_named(&self, scene: &Scene, names: &[&str]) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let label = format!("server-{}", names[0]);
        let mut parameters = CertificateParams::new(names)?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(scene, &label, parameters)
    }

    /// A client's certificate; its common name is the client's identity.
    pub(crate) fn client(&self, scene: &Scene, name: &str) -> Result<Identity> {
        let mut parameters = CertificateParams::default();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.distinguished_name.push(DnType::CommonName, name);
        self.issue(scene, name, parameters)
    }

    fn issue(&self, scene: &Scene, label: &str, parameters: CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        let file = |end: &str| format!("{}.{label}.{end}.pem", self.name);
        let key_path = scene.write_secret(&file("key"), &key.serialize_pem())?;
        Ok(Identity {
            certificate: scene.write(&file("crt"), &certificate.pem())?,
            key: key_path,
        })
    }
}
