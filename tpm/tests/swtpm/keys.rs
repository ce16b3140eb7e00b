//! Promise: keys are made in the TPM, sign there, and stay there.

use tpm::{Entity, PublicKey, Secret, Signature, Template, Tpm, sha256};
use tpm2_protocol::data::TpmRh;

use crate::simulator::Simulator;

const STORAGE: u32 = 0x8100_0001;

/// A TPM with a storage key to which sessions are salted.
pub(crate) fn salted(simulator: &Simulator) -> (Tpm, Entity) {
    let mut tpm = simulator.open();
    let storage = tpm
        .storage_key(&Entity::hierarchy(TpmRh::Owner, Secret::default()), STORAGE)
        .unwrap();
    (tpm, storage)
}

fn openssl_verifies(
    simulator: &Simulator,
    key: &PublicKey,
    message: &[u8],
    signature: &Signature,
) -> bool {
    std::fs::write(simulator.file("key.pem"), key.pem()).unwrap();
    std::fs::write(simulator.file("message"), message).unwrap();
    std::fs::write(simulator.file("signature"), signature.der()).unwrap();
    let arguments = [
        "dgst",
        "-sha256",
        "-verify",
        "key.pem",
        "-signature",
        "signature",
        "message",
    ];
    simulator.tool("openssl", &arguments).is_ok()
}

#[test]
fn a_signature_made_in_the_tpm_verifies_everywhere() {
    let simulator = Simulator::new();
    let (mut tpm, storage) = salted(&simulator);
    let blob = tpm.create(&storage, &Template::signing()).unwrap();
    let key = tpm.load(&storage, &blob).unwrap();
    let public = tpm.read_public(key.handle()).unwrap().unwrap();
    let message = b"meter-1 reads 231.4 V";
    let digest = sha256(&[message]);
    let signature = tpm.sign(&key, &digest).unwrap();
    assert!(public.key().verifies(message, &signature));
    assert!(openssl_verifies(
        &simulator,
        public.key(),
        message,
        &signature
    ));
    assert!(tpm.verify(public.key(), &digest, &signature).unwrap());
    let other = sha256(&[b"meter-1 reads 231.5 V"]);
    assert!(!tpm.verify(public.key(), &other, &signature).unwrap());
    tpm.flush(key.handle()).unwrap();
    assert!(
        tpm.handles(0x8000_0000).unwrap().is_empty(),
        "a key was left loaded"
    );
}

#[test]
fn what_others_left_loaded_is_flushed_when_a_raw_device_is_opened() {
    let simulator = Simulator::new();
    let (mut tpm, storage) = salted(&simulator);
    let blob = tpm.create(&storage, &Template::signing()).unwrap();
    let full = (0..10)
        .find_map(|_| tpm.load(&storage, &blob).err())
        .unwrap();
    assert!(
        full.to_string().contains("no room for another object"),
        "{full}"
    );
    drop(tpm);
    let (mut tpm, _) = salted(&simulator);
    assert!(tpm.handles(0x8000_0000).unwrap().is_empty());
}

#[test]
fn a_session_that_the_tpm_forgot_is_opened_anew() {
    let simulator = Simulator::new();
    let (mut tpm, _) = salted(&simulator);
    tpm.random().unwrap();
    for session in tpm.handles(0x0200_0000).unwrap() {
        tpm.flush(session).unwrap();
    }
    assert_ne!(tpm.random().unwrap(), tpm.random().unwrap());
}

#[test]
fn the_storage_key_is_the_one_that_others_read() {
    let simulator = Simulator::new();
    let (mut tpm, storage) = salted(&simulator);
    assert_eq!(
        tpm.read_public(STORAGE).unwrap().unwrap().name(),
        storage.name()
    );
    drop(tpm);
    let told = simulator
        .tool("tpm2_readpublic", &["-c", "0x81000001"])
        .unwrap();
    assert!(told.contains(&tpm::hex::encode(storage.name())), "{told}");
    assert!(
        told.contains(
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"
        ),
        "{told}"
    );
}

#[test]
fn a_storage_key_other_than_the_recorded_one_is_refused() {
    let simulator = Simulator::new();
    let (_, storage) = salted(&simulator);
    let mut tpm = simulator.open();
    let mut recorded = storage.name().to_vec();
    assert!(tpm.salt_to(STORAGE, Some(&recorded)).is_ok());
    recorded[5] ^= 1;
    let error = tpm.salt_to(STORAGE, Some(&recorded)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("not the one that was provisioned"),
        "{error}"
    );
}

#[test]
fn the_storage_key_survives_a_power_cut() {
    let mut simulator = Simulator::new();
    let (tpm, storage) = salted(&simulator);
    drop(tpm);
    simulator.power_cycle();
    assert_eq!(salted(&simulator).1, storage);
}
