//! Promise: what the TPM says of itself is signed by a key that signs nothing else, and others can check it.

use tpm::{Anchors, Keys, Layout, Says, Subject, Tpm, attested_floor, qualifying, sha256};

use crate::{simulator::Simulator, vendor::Vendor};

fn device() -> (Simulator, Vendor, Anchors, Tpm, Keys) {
    let simulator = Simulator::new();
    let vendor = Vendor::new();
    vendor.provisions(&mut simulator.open(), &simulator.file("files"));
    let anchors = Anchors::new(vendor.key, Layout::Platform).unwrap();
    let (tpm, keys) =
        Tpm::open_provisioned(&simulator.address(), &simulator.file("files")).unwrap();
    (simulator, vendor, anchors, tpm, keys)
}

#[test]
fn the_floor_that_the_tpm_attests_is_the_one_that_it_holds() {
    let (_simulator, vendor, anchors, mut tpm, keys) = device();
    let asked = qualifying("test", b"statement");
    for (floor, rise) in [(2, None), (4, Some(Subject::Floor(4)))] {
        if let Some(rise) = rise {
            tpm.apply(&anchors, &vendor.approves(rise)).unwrap();
        }
        let attestation = tpm.attest_floor(&keys, &anchors, &asked).unwrap();
        let said = attestation.read(&keys.attestation_public).unwrap();
        assert_eq!(said.qualifying, asked);
        assert_eq!(attested_floor(&said.says, &anchors), Ok(floor));
        // Of another vendor's index nothing was said.
        let theirs = Anchors::new(Vendor::new().key, Layout::Platform).unwrap();
        assert!(attested_floor(&said.says, &theirs).is_err());
        let mut altered = attestation.clone();
        *altered.words.last_mut().unwrap() ^= 1;
        assert!(altered.read(&keys.attestation_public).is_err());
        assert!(attestation.read(&keys.public).is_err());
    }
    let key = tpm.attest_key(&keys, &keys.signing, &asked).unwrap();
    let said = key.read(&keys.attestation_public).unwrap();
    assert_eq!(said.says, Says::Key(keys.signing.name().to_vec()));
}

#[test]
fn the_attestation_key_signs_nothing_that_comes_from_outside() {
    let (_simulator, _, anchors, mut tpm, keys) = device();
    let genuine = tpm.attest_floor(&keys, &anchors, &[7; 32]).unwrap();
    let mut forged = genuine.words.clone();
    *forged.last_mut().unwrap() = 0;
    for words in [forged.as_slice(), b"anything"] {
        let refused = tpm.sign(&keys.attestation, &sha256(&[words])).unwrap_err();
        assert!(refused.to_string().contains("ticket"), "{refused}");
    }
}

#[test]
fn an_attestation_is_checked_by_openssl_and_laid_out_as_the_specification_says() {
    let (simulator, _, anchors, mut tpm, keys) = device();
    let asked = qualifying("test", b"statement");
    let attestation = tpm.attest_floor(&keys, &anchors, &asked).unwrap();
    drop(tpm);
    std::fs::write(simulator.file("key.pem"), keys.attestation_public.pem()).unwrap();
    std::fs::write(simulator.file("words"), &attestation.words).unwrap();
    std::fs::write(simulator.file("signature"), attestation.signature.der()).unwrap();
    let arguments = [
        "dgst",
        "-sha256",
        "-verify",
        "key.pem",
        "-signature",
        "signature",
        "words",
    ];
    simulator.tool("openssl", &arguments).unwrap();
    // Magic, kind and a name of 34 bytes come before what the asker gave along (Part 2, 10.12.12).
    assert_eq!(attestation.words[..4], [0xff, b'T', b'C', b'G']);
    assert_eq!(attestation.words[44..76], asked);
}
