//! Promise: an authority that is asked for a certificate can tell that the key never leaves the TPM, by itself.

use tpm::{Blob, DeviceKey, Evidence, PublicKey, hex};

use crate::{simulator::Simulator, vendor::Vendor};

const REQUEST: &[u8] = b"a request in DER";

/// A provisioned TPM, whose maker has put a certificate where makers do.
fn device() -> (Simulator, DeviceKey, String) {
    let simulator = Simulator::new();
    // Starts it.
    drop(simulator.open());
    let tool = |program, arguments: &[&str]| simulator.tool(program, arguments).unwrap();
    let certificate = tool(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ek.key",
            "-subj",
            "/CN=the maker",
        ],
    );
    std::fs::write(simulator.file("ek.pem"), &certificate).unwrap();
    let convert = ["x509", "-in", "ek.pem", "-outform", "DER", "-out", "ek.der"];
    tool("openssl", &convert);
    // Longer than it needs to be, as makers have it.
    let mut content = std::fs::read(simulator.file("ek.der")).unwrap();
    content.resize(1200, 0xff);
    std::fs::write(simulator.file("ek.der"), content).unwrap();
    let index = "0x01c0000a";
    let attributes = "platformcreate|ppread|ppwrite|ownerread|authread|no_da";
    tool(
        "tpm2_nvdefine",
        &["-C", "p", "-s", "1200", "-a", attributes, index],
    );
    tool("tpm2_nvwrite", &["-C", "p", "-i", "ek.der", index]);
    Vendor::new().provisions(&mut simulator.open(), &simulator.file("files"));
    let key = DeviceKey::start(simulator.address(), simulator.file("files")).unwrap();
    (simulator, key, certificate)
}

#[test]
fn evidence_names_the_key_the_request_and_the_maker() {
    let (_simulator, device, certificate) = device();
    let made = device.make_key().unwrap();
    let provisioned = device.public_key().unwrap();
    for (blob, key) in [
        (None, provisioned),
        (Some(made.clone()), made.public_key().unwrap()),
    ] {
        let evidence = device.evidence(blob, REQUEST).unwrap();
        let evidence: Evidence = serde_json::from_str(&evidence.to_json()).unwrap();
        let attestation = evidence.check(REQUEST, &key).unwrap();
        let known = device.ask(std::time::Duration::from_secs(10), |_, keys| {
            Ok(keys.attestation_public)
        });
        assert_eq!(attestation, known.unwrap());
        let lines = |pem: &str| pem.split_whitespace().collect::<String>();
        let told = evidence.endorsement_certificates.iter();
        let told: Vec<_> = told.map(|pem| lines(pem)).collect();
        assert_eq!(told, [lines(&certificate)]);
    }
}

#[test]
fn evidence_of_another_request_or_key_or_of_a_key_in_a_file_is_none() {
    let (_simulator, device, _) = device();
    let key = device.public_key().unwrap();
    let evidence = device.evidence(None, REQUEST).unwrap();
    assert!(evidence.check(b"another request", &key).is_err());
    let other = device.make_key().unwrap();
    let why = evidence.check(REQUEST, &other.public_key().unwrap());
    assert!(why.unwrap_err().contains("another key"));
    let theirs = device.evidence(Some(other), REQUEST).unwrap();
    let mixed = Evidence {
        words: theirs.words,
        signature: theirs.signature,
        ..evidence.clone()
    };
    let why = mixed.check(REQUEST, &key).unwrap_err();
    assert_eq!(why, "the TPM speaks about another key");
    // The same key without what keeps it inside.
    let area = hex::decode(&evidence.key).unwrap();
    for bit in 0..32 {
        let mut loose = area.clone();
        loose[4 + bit / 8] ^= 1 << (bit % 8);
        let loose = Evidence {
            key: hex::encode(&loose),
            ..evidence.clone()
        };
        assert!(loose.check(REQUEST, &key).is_err(), "attribute {bit}");
    }
    // The signing key serves TLS: it would sign anything.
    let swapped = Evidence {
        attestation_key: evidence.key.clone(),
        ..evidence.clone()
    };
    let why = swapped.check(REQUEST, &key).unwrap_err();
    assert!(why.contains("attestation key is not of a kind"), "{why}");
}

#[test]
fn a_key_made_later_signs_in_its_own_tpm_alone_and_leaves_nothing_loaded() {
    let (simulator, device, _) = device();
    let made = device.make_key().unwrap();
    let kept = Blob::from_json(&made.to_json()).unwrap();
    assert_eq!(kept, made);
    let key: PublicKey = made.public_key().unwrap();
    let signature = device
        .sign_with(&kept, tpm::sha256(&[b"handshake"]))
        .unwrap();
    assert!(key.verifies(b"handshake", &signature));
    drop(device);
    assert!(simulator.open().handles(0x8000_0000).unwrap().is_empty());
    let (_other, elsewhere, _) = self::device();
    let refused = elsewhere.sign_with(&kept, [7; 32]).unwrap_err();
    assert!(refused.to_string().contains("Load"), "{refused}");
    assert_eq!(Blob::from_json("{}"), None);
}
