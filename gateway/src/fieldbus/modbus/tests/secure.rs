//! Modbus/TCP Security: devices that are to be trusted, devices that are not, and ones that do not
//! trust us.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::config::BusTls;

use super::*;

/// A certificate authority whose files stand in a directory.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "plant");
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(parameters, key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { directory, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for 127.0.0.1 and its key.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let names = vec!["127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(names).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let files = ["pem", "key"].map(|kind| self.file(&format!("{name}.{kind}")));
        fs::write(&files[0], certificate.pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        fs::set_permissions(&files[1], fs::Permissions::from_mode(0o600)).unwrap();
        let [certificate, key] = files;
        (certificate, key)
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_file_iter(path).unwrap();
    found.collect::<Result<_, _>>().unwrap()
}

/// A device with `authority`'s certificate that wants one of `clients`', and has seven everywhere.
async fn secure_device(
    authority: &Authority,
    clients: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
    cancel: CancellationToken,
) -> String {
    let (certificate, key) = authority.issue("device");
    let mut anchors = RootCertStore::empty();
    for anchor in certificates(&clients.file("ca.pem")) {
        anchors.add(anchor).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider))
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&certificate),
            PrivateKeyDer::from_pem_file(&key).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 12];
            while stream.read_exact(&mut request).await.is_ok() {
                let answer = [&request[..5], &[5, request[6], 3, 2, 0, 7]].concat();
                stream.write_all(&answer).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    };
    tokio::spawn(async move { cancel.run_until_cancelled(serve).await });
    address
}

fn secure_bus(address: String, trusted: &Authority, ours: &Authority) -> Bus {
    let (certificate, key) = ours.issue("gateway");
    Bus {
        tls: Some(BusTls {
            ca: trusted.file("ca.pem"),
            certificate,
            key,
            server_name: None,
        }),
        ..bus(None, Some(address))
    }
}

fn level() -> Vec<Device> {
    let points = vec![point("level", "holding:4", PointType::U16, None)];
    vec![device("plc", 1, points)]
}

async fn why_down(bus: Bus, cancel: CancellationToken) -> String {
    let mut rig = Rig::new(bus, level(), cancel);
    let state = rig.state("plc").await;
    rig.stop().await;
    match state {
        DeviceState::Offline { reason } => reason,
        DeviceState::Online => panic!("online"),
    }
}

#[tokio::test]
async fn a_device_that_both_sides_trust_is_read_over_either_version_of_tls() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let plant = Authority::new();
        let cancel = CancellationToken::new();
        let address = secure_device(&plant, &plant, &[version], cancel.clone()).await;
        let mut rig = Rig::new(secure_bus(address, &plant, &plant), level(), cancel);
        let read = rig.reading("level").await.value;
        assert_eq!(read, Some(Value::Integer(7)));
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_device_that_is_not_trusted_and_one_that_refuses_us_are_told_apart() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (plant, other) = (Authority::new(), Authority::new());
        let cancel = CancellationToken::new();
        let address = secure_device(&plant, &plant, &[version], cancel.clone()).await;
        let stranger = secure_bus(address.clone(), &other, &plant);
        let reason = why_down(stranger, CancellationToken::new()).await;
        assert!(
            reason.contains("the device's certificate is not trusted"),
            "{reason}"
        );
        let refused = secure_bus(address, &plant, &other);
        let reason = why_down(refused, cancel).await;
        assert!(
            reason.contains("the device refuses our certificate"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_device_that_is_not_there_and_files_that_are_not_there_are_told_apart_too() {
    let plant = Authority::new();
    // Nobody listens on the port that a listener has just left.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let nobody = secure_bus(address.clone(), &plant, &plant);
    let reason = why_down(nobody, CancellationToken::new()).await;
    assert!(
        reason.starts_with(&format!("cannot connect to {address}")),
        "{reason}"
    );

    let cancel = CancellationToken::new();
    let address = secure_device(&plant, &plant, rustls::ALL_VERSIONS, cancel.clone()).await;
    let keyless = secure_bus(address, &plant, &plant);
    fs::remove_file(plant.file("gateway.key")).unwrap();
    let reason = why_down(keyless, cancel).await;
    assert!(reason.contains("cannot read key"), "{reason}");
}
