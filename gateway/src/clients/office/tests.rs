//! What the office promises, with keys in files.

use std::{collections::BTreeMap, path::Path};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    CertificateError, RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use settings::Period;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

struct Scene {
    place: tempfile::TempDir,
    settings: Clients,
}

impl Scene {
    fn new() -> Scene {
        let place = tempfile::tempdir().unwrap();
        let settings = Clients {
            directory: place.path().join("clients"),
            ..Clients::default()
        };
        Scene { place, settings }
    }

    fn office(&self) -> Office {
        Office::new(&self.settings, &Arc::from("plant-7"), None)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.settings.directory.join(name)).unwrap()
    }

    /// Whether a listener that reads the files would let this certificate in.
    fn lets_in(&self, certificate: &str) -> Result<(), rustls::Error> {
        let mut anchors = RootCertStore::empty();
        for anchor in CertificateDer::pem_slice_iter(self.read("ca.pem").as_bytes()) {
            anchors.add(anchor.unwrap()).unwrap();
        }
        let lists: Vec<_> =
            CertificateRevocationListDer::pem_slice_iter(self.read("crl.pem").as_bytes())
                .map(Result::unwrap)
                .collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider)
            .with_crls(lists)
            .build()
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        verifier
            .verify_client_cert(&leaf, &[], UnixTime::now())
            .map(drop)
    }
}

fn name(text: &str) -> ClientName {
    text.parse().unwrap()
}

fn request(common_name: &str) -> NewProof {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap();
    NewProof::Request(request.pem().unwrap())
}

fn add(office: &Office, client: &str) -> String {
    let name = name(client);
    let added = office.add(&name, &request(client), Access::least(&name));
    added.unwrap().answer.unwrap().certificate
}

fn is_revoked(refused: Result<(), rustls::Error>) -> bool {
    let revoked = CertificateError::Revoked;
    refused == Err(rustls::Error::InvalidCertificate(revoked))
}

#[test]
fn a_certificate_is_let_in_until_its_client_is_revoked_and_others_stay() {
    let scene = Scene::new();
    let office = scene.office();
    let (press, other) = (add(&office, "press-3"), add(&office, "press-4"));
    assert_eq!(scene.lets_in(&press), Ok(()));
    let revoked = office.revoke(&name("press-3")).unwrap();
    assert_eq!(revoked.answer, 1);
    assert!(is_revoked(scene.lets_in(&press)));
    assert_eq!(scene.lets_in(&other), Ok(()));
    // The name is free again, and its old certificate stays void.
    let again = add(&office, "press-3");
    assert_eq!(scene.lets_in(&again), Ok(()));
    assert!(is_revoked(scene.lets_in(&press)));
}

#[test]
fn a_rotation_keeps_the_old_certificate_or_voids_it() {
    let scene = Scene::new();
    let office = scene.office();
    let first = add(&office, "press-3");
    let press = name("press-3");
    let second = office.rotate(&press, &request("press-3"), false).unwrap();
    let second = second.answer.unwrap().certificate;
    assert_eq!(scene.lets_in(&first), Ok(()));
    let third = office.rotate(&press, &request("press-3"), true).unwrap();
    let third = third.answer.unwrap().certificate;
    assert!(is_revoked(scene.lets_in(&first)) && is_revoked(scene.lets_in(&second)));
    assert_eq!(scene.lets_in(&third), Ok(()));
}

#[test]
fn a_renewal_is_for_clients_that_are_known_and_for_their_own_name() {
    let scene = Scene::new();
    let office = scene.office();
    let NewProof::Request(of_press) = request("press-3") else {
        panic!("a request");
    };
    let unknown = office.renew(&name("press-3"), of_press.clone()).err();
    assert!(matches!(
        unknown,
        Some(OfficeError::Registry(RegistryError::Unknown(_)))
    ));
    add(&office, "press-3");
    add(&office, "press-4");
    let renewed = office.renew(&name("press-3"), of_press.clone()).unwrap();
    assert_eq!(scene.lets_in(&renewed.answer.certificate), Ok(()));
    let foreign = office.renew(&name("press-4"), of_press.clone()).err();
    assert!(matches!(foreign, Some(OfficeError::Request(_))));
    office.revoke(&name("press-3")).unwrap();
    assert!(office.renew(&name("press-3"), of_press).is_err());
}

#[test]
fn certificates_are_for_clients_alone_bear_one_name_and_numbers_of_their_own() {
    let scene = Scene::new();
    let office = scene.office();
    let wanted = Wanted {
        server_names: Some(vec!["localhost".to_owned()]),
        authority: true,
    };
    office.keep(&wanted).unwrap();
    let mut serials = BTreeMap::new();
    for number in 0..20 {
        let client = format!("press-{number}");
        let pem = add(&office, &client);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert!(!certificate.is_ca());
        assert_eq!(certificate.subject().to_string(), format!("CN={client}"));
        let serial = certificate.raw_serial();
        assert_eq!(serial.len(), 16);
        serials.insert(serial.to_vec(), client);
    }
    assert_eq!(serials.len(), 20);
    // The listeners' certificate is no client's.
    assert!(scene.lets_in(&scene.read("server.pem")).is_err());
}

#[test]
fn an_authority_is_made_only_for_those_who_need_one_and_once() {
    let scene = Scene::new();
    let office = scene.office();
    let (known, trouble) = office.keep(&Wanted::default()).unwrap();
    assert!(trouble.is_none() && known.generations.is_empty());
    assert!(!Path::new(&scene.settings.directory).exists());
    let wanted = Wanted {
        authority: true,
        ..Wanted::default()
    };
    let (made, _) = office.keep(&wanted).unwrap();
    let (again, _) = scene.office().keep(&wanted).unwrap();
    assert_eq!(made, again);
    assert_eq!(made.generations.len(), 1);
}

#[test]
fn a_successor_comes_before_the_authority_ends_and_both_are_trusted_meanwhile() {
    let mut scene = Scene::new();
    scene.settings.certificate_life = Period::from_secs(3_600);
    let old = add(&scene.office(), "press-3");
    // What is left of the first one is less than a fifth of such a life.
    scene.settings.ca_life = Period::from_secs(3_651 * 5 * 86_400);
    let office = scene.office();
    let wanted = Wanted {
        server_names: Some(vec!["localhost".to_owned()]),
        authority: true,
    };
    let (known, trouble) = office.keep(&wanted).unwrap();
    assert!(trouble.is_none());
    assert_eq!(known.generations.len(), 2);
    let new = add(&office, "press-4");
    assert_eq!(scene.lets_in(&old), Ok(()));
    assert_eq!(scene.lets_in(&new), Ok(()));
    office.revoke(&name("press-3")).unwrap();
    assert!(is_revoked(scene.lets_in(&old)));
    assert_eq!(scene.lets_in(&new), Ok(()));
}

#[test]
fn files_that_a_power_cut_left_old_are_written_again_from_the_registry() {
    let scene = Scene::new();
    let office = scene.office();
    let press = add(&office, "press-3");
    let before = scene.read("crl.pem");
    office.revoke(&name("press-3")).unwrap();
    std::fs::write(scene.settings.directory.join("crl.pem"), before).unwrap();
    std::fs::remove_file(scene.settings.directory.join("ca.pem")).unwrap();
    office.keep(&Wanted::default()).unwrap();
    assert!(is_revoked(scene.lets_in(&press)));
    assert!(scene.place.path().exists());
}
