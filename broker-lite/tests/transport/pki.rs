//! A throwaway authority with a server and clients.

use std::path::{Path, PathBuf};

use broker_lite::config::{ClientAuth, ListenerTls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, DnValue, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

pub(crate) struct Pki {
    directory: tempfile::TempDir,
    pub(crate) authority: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let names = &mut params.distinguished_name;
        names.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        let pki = Pki {
            directory,
            authority: Issuer::new(params, key),
        };
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        pki.issue("server", 1, &server);
        pki
    }

    pub(crate) fn client(&self, name: &str, serial: u8) {
        self.client_named(name, serial, &[name.into()]);
    }

    /// One with these common names, none included.
    pub(crate) fn client_named(&self, file: &str, serial: u8, common_names: &[DnValue]) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for name in common_names {
            let names = &mut params.distinguished_name;
            names.push(DnType::CommonName, name.clone());
        }
        self.issue(file, serial, &params);
    }

    pub(crate) fn client_by_uri(&self, file: &str, serial: u8, uri: &str) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let names = &mut params.subject_alt_names;
        names.push(SanType::URI(uri.try_into().unwrap()));
        self.issue(file, serial, &params);
    }

    fn issue(&self, name: &str, serial: u8, params: &CertificateParams) {
        let mut params = params.clone();
        params.serial_number = Some(serial_number(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.path(name, "crt"), certificate.pem()).unwrap();
        std::fs::write(self.path(name, "key"), key.serialize_pem()).unwrap();
    }

    /// Writes the list of what is revoked; its name for the configuration.
    pub(crate) fn revoke(&self, serials: &[u8]) -> PathBuf {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: serial_number(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2024, 2, 1),
            crl_number: serial_number(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.authority).unwrap();
        let path = self.path("revoked", "crl");
        std::fs::write(&path, list.pem().unwrap()).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{kind}"))
    }

    pub(crate) fn tls(&self, client_auth: Option<ClientAuth>) -> ListenerTls {
        ListenerTls {
            certificate: self.path("server", "crt"),
            key: self.path("server", "key"),
            client_ca: Some(self.path("ca", "crt")),
            client_auth,
            ..ListenerTls::default()
        }
    }

    /// What mosquitto's clients need to connect as this one, or without a certificate.
    pub(crate) fn arguments(&self, client: Option<&str>) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut arguments = vec!["--cafile".to_owned(), text(&self.path("ca", "crt"))];
        if let Some(client) = client {
            arguments.extend(["--cert".to_owned(), text(&self.path(client, "crt"))]);
            arguments.extend(["--key".to_owned(), text(&self.path(client, "key"))]);
        }
        arguments
    }
}

fn serial_number(serial: u8) -> SerialNumber {
    SerialNumber::from_slice(&[serial])
}
