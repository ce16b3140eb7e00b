//! Promise: a key in the TPM is a client of TLS 1.2 and 1.3 to OpenSSL, and a resumed session needs no TPM. And how long a
//! handshake takes beside one with a key in a file: printed, never judged.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    SubjectPublicKeyInfo,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion,
    client::Resumption,
    crypto::ring::{default_provider, sign::any_ecdsa_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tpm::{DeviceKey, sha256};

use crate::{simulator::Simulator, times::time, vendor::Vendor};

const PATIENCE: Duration = Duration::from_secs(20);

/// The TPM's key as rustls wants one, and how often it signed.
#[derive(Debug, Clone)]
struct InTpm {
    key: DeviceKey,
    signatures: Arc<AtomicUsize>,
}

impl SigningKey for InTpm {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = SignatureScheme::ECDSA_NISTP256_SHA256;
        offered
            .contains(&ours)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for InTpm {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        let signature = self.key.sign_p256_sha256(sha256(&[message]));
        let signature = signature.map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(signature.der())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Authority(issuer.unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    fn issue(&self, key: &impl rcgen::PublicKeyData) -> CertificateDer<'static> {
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.signed_by(key, &self.0).unwrap().der().clone()
    }

    fn client(
        &self,
        certificate: CertificateDer<'static>,
        key: Arc<dyn SigningKey>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let certified = CertifiedKey::new(vec![certificate], key);
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
    }

    /// A client whose key is the TPM's.
    fn client_in_tpm(
        &self,
        key: &InTpm,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let public = key.key.public_key().unwrap().pem();
        let certificate = self.issue(&SubjectPublicKeyInfo::from_pem(&public).unwrap());
        self.client(certificate, Arc::new(key.clone()), version)
    }
}

fn provisioned() -> (Simulator, InTpm) {
    let simulator = Simulator::new();
    Vendor::new().provisions(&mut simulator.open(), &simulator.file("files"));
    let key = DeviceKey::start(simulator.address(), simulator.file("files")).unwrap();
    let signatures = Arc::default();
    (simulator, InTpm { key, signatures })
}

/// `openssl s_server` that demands a certificate; ended with its owner.
struct OpenSsl {
    process: Child,
    port: u16,
}

impl OpenSsl {
    fn start(simulator: &Simulator, authority: &Authority, version: &str) -> OpenSsl {
        let key = KeyPair::generate().unwrap();
        let certificate = authority.0.pem();
        fs::write(simulator.file("ca.pem"), certificate).unwrap();
        let der = authority.issue(&key);
        fs::write(simulator.file("server.der"), &der).unwrap();
        fs::write(simulator.file("server.key"), key.serialize_pem()).unwrap();
        let convert = [
            "x509",
            "-inform",
            "DER",
            "-in",
            "server.der",
            "-out",
            "server.pem",
        ];
        simulator.tool("openssl", &convert).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new("openssl")
            .args(["s_server", version, "-www", "-verify_return_error"])
            .args(["-Verify", "1", "-CAfile", "ca.pem"])
            .args(["-cert", "server.pem", "-key", "server.key"])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .current_dir(simulator.file(""))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        OpenSsl { process, port }
    }

    /// Asks for its page: how the handshake came about, and what it says.
    fn visit(&self, config: &Arc<ClientConfig>) -> (Option<HandshakeKind>, String) {
        let end = Instant::now() + PATIENCE;
        let mut socket = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < end, "s_server: {error}"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut page = Vec::new();
        let mut stream = rustls::Stream::new(&mut client, &mut socket);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        // It ends without a word of TLS, which is an error here and of no interest.
        let _ = stream.read_to_end(&mut page);
        let page = String::from_utf8_lossy(&page).into_owned();
        (client.handshake_kind(), page)
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn openssl_takes_the_tpms_signature_in_tls_1_2_and_1_3_and_a_resumed_session_needs_none() {
    for (version, option) in [(&TLS12, "-tls1_2"), (&TLS13, "-tls1_3")] {
        let (mut simulator, key) = provisioned();
        let authority = Authority::new();
        let config = Arc::new(authority.client_in_tpm(&key, version));
        let openssl = OpenSsl::start(&simulator, &authority, option);
        let (kind, page) = openssl.visit(&config);
        assert_eq!(kind, Some(HandshakeKind::Full), "{option}");
        assert!(page.contains("Client certificate"), "{option}: {page}");
        assert_eq!(key.signatures.load(Ordering::Relaxed), 1);
        simulator.power_off();
        let (kind, page) = openssl.visit(&config);
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{option}");
        assert!(page.contains("Client certificate"), "{option}: {page}");
        assert_eq!(key.signatures.load(Ordering::Relaxed), 1);
    }
}

/// One whole handshake in memory, both sides' work included.
fn shake_hands(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) {
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
}

#[test]
#[ignore = "measures"]
fn times_of_handshakes() {
    const ROUNDS: usize = 100;
    let (_simulator, key) = provisioned();
    let authority = Authority::new();
    let own = KeyPair::generate().unwrap();
    let der = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let provider = Arc::new(default_provider());
    let roots = Arc::new(authority.roots());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![authority.issue(&own)], der())
        .unwrap();
    let server = Arc::new(server);
    let in_file = any_ecdsa_type(&der()).unwrap();
    let mut in_file = authority.client(authority.issue(&own), in_file, &TLS13);
    let mut in_tpm = authority.client_in_tpm(&key, &TLS13);
    in_file.resumption = Resumption::disabled();
    in_tpm.resumption = Resumption::disabled();
    let (in_file, in_tpm) = (Arc::new(in_file), Arc::new(in_tpm));
    time("TLS 1.3 handshake, key in a file", ROUNDS, || {
        shake_hands(&in_file, &server)
    });
    time("TLS 1.3 handshake, key in the TPM", ROUNDS, || {
        shake_hands(&in_tpm, &server)
    });
}
