//! How long the TPM takes: printed, never judged.
//!
//! `cargo xtask bench trust` writes them to `docs/benchmarks/trust.md`.

use std::time::{Duration, Instant};

use tpm::{Anchors, Layout, Subject, Template, Tpm, read_sealed, sha256, wrap};

use crate::{
    simulator::Simulator,
    vendor::{Vendor, root},
};

const ROUNDS: usize = 50;

/// The median of so many rounds.
#[expect(clippy::print_stdout, reason = "what was measured is what it is for")]
pub(crate) fn time<T>(what: &str, rounds: usize, mut act: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(act());
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!("{what}: {:.2} ms", times[rounds / 2].as_secs_f64() * 1e3);
}

#[test]
#[ignore = "measures"]
fn times_of_the_operations() {
    let mut simulator = Simulator::new();
    let vendor = Vendor::new();
    let files = simulator.file("files");
    let mut tpm = simulator.open();
    time("provision, all 14 steps", 1, || {
        vendor.provisions(&mut tpm, &files)
    });
    drop(tpm);
    time("open, salt, check the keys", 10, || {
        Tpm::open_provisioned(&simulator.address(), &files).unwrap();
    });
    let (mut tpm, keys) = Tpm::open_provisioned(&simulator.address(), &files).unwrap();
    let digest = sha256(&[b"hello"]);
    let signature = tpm.sign(&keys.signing, &digest).unwrap();
    time("sign", ROUNDS, || tpm.sign(&keys.signing, &digest).unwrap());
    time("load an external key, verify, flush", ROUNDS, || {
        assert!(tpm.verify(&keys.public, &digest, &signature).unwrap());
    });
    time("make a key", ROUNDS, || {
        tpm.create(&keys.storage, &Template::signing()).unwrap()
    });
    let anchors = Anchors::new(vendor.key, Layout::Platform).unwrap();
    time("attest the security floor (NV_Certify)", ROUNDS, || {
        tpm.attest_floor(&keys, &anchors, &digest).unwrap()
    });
    time("attest a key (Certify)", ROUNDS, || {
        tpm.attest_key(&keys, &keys.signing, &digest).unwrap()
    });
    let made = tpm.create(&keys.storage, &Template::signing()).unwrap();
    time("load a later key, sign, flush", ROUNDS, || {
        let key = tpm.load(&keys.storage, &made).unwrap();
        let signature = tpm.sign(&key, &digest).unwrap();
        tpm.flush(key.handle()).unwrap();
        signature
    });
    time("read the trusted root", ROUNDS, || {
        tpm.trusted_root(&anchors).unwrap()
    });
    let blob = read_sealed(&files.join("owner.sealed")).unwrap().unwrap();
    let approval = vendor.approves_recovery(keys.storage.name());
    time("unseal under an approved policy", ROUNDS, || {
        tpm.recover(&keys.storage, &blob, &vendor.key, &approval)
            .unwrap();
    });
    let wrapped = wrap(&keys.payload_public, &vendor.key, 3, &[7; 32]).unwrap();
    let approval = vendor.approves_epoch(3);
    time(
        "open a content key (import, load, PolicyNV, approval, unseal)",
        ROUNDS,
        || {
            tpm.unwrap_key(&anchors, &keys.payload, &wrapped, &approval)
                .unwrap();
        },
    );
    let mut tpm = Some(tpm);
    for version in 4..7 {
        drop(tpm.take());
        simulator.power_cycle();
        let mut opened = Tpm::open_provisioned(&simulator.address(), &files)
            .unwrap()
            .0;
        time(
            "raise the root (PolicyNV, approval, write, lock)",
            1,
            || {
                opened
                    .apply(&anchors, &vendor.approves(root(version)))
                    .unwrap();
            },
        );
        time("raise the floor", 1, || {
            opened
                .apply(&anchors, &vendor.approves(Subject::Floor(version)))
                .unwrap()
        });
        tpm = Some(opened);
    }
}
