//! Measures how fast an image is packed and how much memory that takes. Layer: tests.
//!
//! `PACK_IMAGE=FILE cargo test --release -p update --test packing -- --ignored --nocapture`

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::{env, fs, time::Instant};

use update::release::{
    About, FileKey, Grants, WrappedKey, fresh,
    pack::{Parameters, pack},
};

#[test]
#[ignore = "a measurement; takes minutes"]
fn packing_takes_the_same_memory_for_any_image() {
    let path = env::var("PACK_IMAGE").unwrap();
    let key = fresh::content_key().unwrap();
    let file_key = FileKey::new(&[1; 32]);
    let sealed = WrappedKey::File(file_key.wrap(1, &key));
    let parameters = Parameters {
        about: About {
            product: "p".into(),
            version: "1".into(),
            hardware: vec!["h".into()],
            epoch: 1,
            image_size: fs::metadata(&path).unwrap().len(),
            sbom: None,
        },
        grants: Grants {
            approval: None,
            keys: vec![(file_key.recipient(), sealed)],
        },
        key,
        sbom: None,
        level: env::var("PACK_LEVEL").map_or(9, |level| level.parse().unwrap()),
    };
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let index = pack(
        &mut fs::File::open(&path).unwrap(),
        &parameters,
        folder.path(),
        &mut |_| {},
    )
    .unwrap();
    let took = began.elapsed().as_secs_f64();
    let size = index.about().image_size;
    let memory = fs::read_to_string("/proc/self/status").unwrap();
    let peak = memory
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    println!(
        "{size} bytes in {took:.1} s, {:.1} MB/s, {} stored, {peak}",
        size as f64 / took / 1e6,
        index.stored_bytes()
    );
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 64 * 1024, "{peak} KiB");
}
