//! Attacks on TLS: before it, at its handshake, and with certificates that are none.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use broker_lite::packet::{Packet, Version};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    bytes_on_the_wire::{Client, ELSEWHERE, End, HERE, bytes_of, connect, tcp_from},
    pki::Pki,
    raw_name,
    victim::{LONGEST_WAIT, Victim},
};

/// Beside the plain listener of the healthy client, one by TLS.
fn configuration(pki: &Pki, of_tls: &str) -> String {
    let path = |name, kind| pki.path(name, kind).display().to_string();
    format!(
        "[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         tls = {{ certificate = {:?}, key = {:?}, client_ca = {:?}, {of_tls} }}\n\
         [limits]\nhandshake_timeout = \"1s\"\nconnect_timeout = \"1s\"\n",
        path("server", "crt"),
        path("server", "key"),
        path("ca", "crt"),
    )
}

/// Anybody is let in by TLS.
fn open_by_tls(pki: &Pki) -> Victim {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(pki, "client_auth = \"none\"");
    Victim::start(folder, &config.replace("tls =", "anonymous = true\ntls ="))
}

/// As one of the authority's clients speaks TLS, or one without a certificate.
pub(crate) fn tls(pki: &Pki, client: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(pki.path("ca", "crt")).unwrap();
    roots.add(authority).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    match client {
        Some(name) => {
            let certificate = CertificateDer::from_pem_file(pki.path(name, "crt")).unwrap();
            let key = PrivateKeyDer::from_pem_file(pki.path(name, "key")).unwrap();
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
        None => config.with_no_client_auth(),
    }
}

pub(crate) fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap()
}

fn client(
    victim: &Victim,
    source: [u8; 4],
    config: &Arc<ClientConfig>,
    id: &str,
) -> Result<Client, End> {
    let stream = tcp_from(source, victim.address_of(1));
    Client::secured(connection(config), stream).welcomed(connect(id, Version::V5))
}

/// The first bytes of a handshake.
fn client_hello(pki: &Pki) -> Vec<u8> {
    let mut bytes = Vec::new();
    connection(&Arc::new(tls(pki, None)))
        .write_tls(&mut bytes)
        .unwrap();
    bytes
}

/// Waits until the broker has ended the connection, whatever it says before.
pub(crate) fn wait_for_end(stream: &mut TcpStream) {
    loop {
        match stream.read(&mut [0; 512]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is still open"),
            Err(_) => return,
        }
    }
}

/// While the flood lasts, healthy clients come by TLS one after another: none may wait too long.
fn while_others_come(name: &str, victim: &Victim, pki: &Pki, flood: impl FnOnce() + Send) {
    let mut config = tls(pki, None);
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    thread::scope(|scope| {
        let flood = scope.spawn(flood);
        let (mut longest, mut served) = (Duration::ZERO, 0);
        while served == 0 || !flood.is_finished() {
            let start = Instant::now();
            let newcomer = client(victim, HERE, &config, "newcomer-by-tls");
            newcomer.unwrap().round_trip_of_its_own("healthy/by-tls");
            longest = longest.max(start.elapsed());
            served += 1;
        }
        println!("attack {name}: {served} new clients by TLS waited {longest:?} at most");
        assert!(longest < LONGEST_WAIT, "{name}: {longest:?}");
    });
}

#[test]
fn a_tls_handshake_that_comes_byte_by_byte_is_given_up() {
    let pki = Pki::new();
    open_by_tls(&pki).survives("slow-loris at TLS", |victim| {
        while_others_come("slow-loris at TLS", victim, &pki, || {
            let hello = client_hello(&pki);
            let mut streams: Vec<TcpStream> = (0..60)
                .map(|_| tcp_from(ELSEWHERE, victim.address_of(1)))
                .collect();
            for byte in &hello[..25] {
                thread::sleep(Duration::from_millis(100));
                for stream in &mut streams {
                    // It may be closed already.
                    let _refused = stream.write_all(&[*byte]);
                }
            }
            streams.iter_mut().for_each(wait_for_end);
        });
    });
}

#[test]
fn what_is_no_handshake_ends_its_connection() {
    let pki = Pki::new();
    open_by_tls(&pki).survives("flood before TLS", |victim| {
        let hello = client_hello(&pki);
        let mqtt = bytes_of(
            &Packet::Connect(Box::new(connect("plain", Version::V5))),
            Version::V5,
        );
        let mut too_long = hello.clone();
        too_long[3..5].copy_from_slice(&[0xFF, 0xFF]);
        let garbage = [
            mqtt,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            vec![0; 16 * 1024],
            vec![0xFF; 16 * 1024],
            too_long,
            [&hello[..], &[0x17; 512]].concat(),
            hello[..hello.len() / 2].to_vec(),
        ];
        while_others_come("flood before TLS", victim, &pki, || {
            for bytes in garbage.iter().cycle().take(210) {
                let mut stream = tcp_from(ELSEWHERE, victim.address_of(1));
                // It may be closed before all is written.
                let _refused = stream.write_all(bytes);
                let _closed = stream.shutdown(std::net::Shutdown::Write);
                wait_for_end(&mut stream);
            }
        });
    });
}

/// Each costs the broker a signature.
#[test]
fn a_flood_of_handshakes_delays_nobody_else() {
    let pki = Pki::new();
    open_by_tls(&pki).survives("handshake flood", |victim| {
        let mut config = tls(&pki, None);
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        while_others_come("handshake flood", victim, &pki, || {
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            let mut tls = connection(&config);
                            let mut stream = tcp_from(ELSEWHERE, victim.address_of(1));
                            // Its turn may not come in time.
                            let _refused = tls.complete_io(&mut stream);
                        }
                    });
                }
            });
        });
    });
}

/// By a full handshake as by a session that was begun before, and at once.
#[test]
fn a_revoked_client_is_sent_away_and_stays_out() {
    let pki = Pki::new();
    pki.client("good", 2);
    pki.client("stolen", 3);
    let list = pki.revoke(&[9]);
    let config = configuration(&pki, &format!("crl = [{:?}]", list.display().to_string()));
    let folder = tempfile::tempdir().unwrap();
    Victim::start(folder, &config).survives("revoked certificate", |victim| {
        let [good, stolen] = ["good", "stolen"].map(|name| Arc::new(tls(&pki, Some(name))));
        let mut stays = client(victim, HERE, &good, "good").unwrap();
        let mut thief = client(victim, HERE, &stolen, "stolen").unwrap();
        thief.round_trip_of_its_own("stolen/1");
        pki.revoke(&[9, 3]);
        victim.reload(&config, "configuration reloaded");
        assert_ne!(thief.sooner_than(Duration::from_secs(5)), None);
        // The first tries the ticket that it has.
        for _ in 0..2 {
            assert!(client(victim, HERE, &stolen, "stolen").is_err());
        }
        let fresh = Arc::new(tls(&pki, Some("stolen")));
        assert!(client(victim, HERE, &fresh, "stolen").is_err());
        stays.round_trip_of_its_own("good/1");
        assert!(client(victim, HERE, &good, "good-again").is_ok());
    });
}

/// Or is a wildcard, or holds what no topic may.
#[test]
fn a_certificate_whose_name_is_no_text_names_nobody() {
    let pki = Pki::new();
    pki.client("press-3", 2);
    let names: [&[u8]; 4] = [
        b"pre\xFF\xFE-3",
        b"pr\xC0\xAFss-3",
        b"press\0-3",
        b"press/+",
    ];
    for (serial, name) in (3..).zip(names) {
        raw_name::issue(&pki, &format!("raw-{serial}"), serial, name);
    }
    let config = configuration(&pki, "client_auth = \"required\"");
    let folder = tempfile::tempdir().unwrap();
    Victim::start(folder, &config).survives("non-UTF-8 common name", |victim| {
        for serial in 3..7 {
            let config = Arc::new(tls(&pki, Some(&format!("raw-{serial}"))));
            assert!(client(victim, HERE, &config, "nobody").is_err(), "{serial}");
            victim.says("common name");
        }
        let named = Arc::new(tls(&pki, Some("press-3")));
        assert!(client(victim, HERE, &named, "somebody").is_ok());
    });
}
