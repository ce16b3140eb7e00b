//! An index is read as it was written, or not at all. Value.

use std::sync::LazyLock;

use proptest::prelude::*;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use tpm::{EpochApproval, FileSigner, PublicKey};

use super::*;
use crate::release::{
    ContentKey,
    sample::{about, grants, image, release},
};

fn refused(bytes: &[u8]) -> String {
    Index::parse(bytes).unwrap_err().to_string()
}

/// Of a small image, made once.
fn bytes() -> Vec<u8> {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| release("1.0", &image()).0.to_bytes());
    BYTES.clone()
}

/// Where the chunks begin: behind the fixed part and the names.
const CHUNKS_AT: usize = 100 + (2 + 13) + (2 + 3) + 2 + (2 + 21) + (2 + 14) + 4;

#[test]
fn an_index_reads_back_as_it_was_written() {
    let (index, _) = release("1.0", &image());
    let read = Index::parse(&index.to_bytes()).unwrap();
    assert_eq!(read, index);
    assert!(read.about().fits("press-gateway", "ti,am335x-bone"));
    assert!(!read.about().fits("press-gateway", "ti,am335x"));
    assert!(!read.about().fits("other-gateway", "ti,am335x-bone"));
    assert_eq!(read.plain_length(3), 3);
    assert_eq!(read.plain_length(4), 0);
    assert_eq!(read.release().epoch, 3);
}

#[test]
fn what_follows_or_lacks_at_the_end_is_refused() {
    let bytes = bytes();
    assert!(refused(&[&bytes[..], &[0]].concat()).contains("follow its end"));
    for length in 0..bytes.len() {
        assert!(
            refused(&bytes[..length]).contains("ends before"),
            "{length} bytes"
        );
    }
}

#[test]
fn another_format_or_chunk_size_is_refused() {
    for (at, word) in [(0, "GWRELIDX"), (11, "format 0"), (15, "chunks have")] {
        let mut bytes = bytes();
        bytes[at] ^= 1;
        assert!(refused(&bytes).contains(word), "{}", refused(&bytes));
    }
}

#[test]
fn chunks_that_do_not_add_up_to_the_signed_root_are_refused() {
    let mut bytes = bytes();
    bytes[CHUNKS_AT] ^= 1;
    assert!(refused(&bytes).contains("Merkle root"));
}

#[test]
fn an_image_of_more_or_fewer_chunks_than_its_size_takes_is_refused() {
    let (index, _) = release("1.0", &image());
    let mut chunks = index.chunks().to_vec();
    chunks.pop();
    let fewer = Index::new(index.about().clone(), chunks.clone(), grants(3));
    assert!(fewer.unwrap_err().to_string().contains("takes 4"));
    chunks.extend([index.chunks()[0]; 2]);
    assert!(Index::new(index.about().clone(), chunks, grants(3)).is_err());
}

#[test]
fn counts_beyond_the_maximum_are_refused_before_anything_is_set_aside() {
    let mut many_chunks = bytes();
    many_chunks[CHUNKS_AT - 4..CHUNKS_AT].fill(0xff);
    assert!(refused(&many_chunks).contains("chunks, at most"));
    let mut endless_image = bytes();
    endless_image[16..24].fill(0xff);
    assert!(refused(&endless_image).contains("its image has"));
    assert!(refused(&vec![0; INDEX_MAX as usize + 1]).contains("more than"));
}

#[test]
fn an_epoch_that_would_shut_out_all_later_ones_is_refused() {
    let mut about = about("1.0", &image());
    about.epoch = u64::MAX;
    assert!(
        about
            .check()
            .unwrap_err()
            .to_string()
            .contains("none could rise")
    );
}

#[test]
fn names_that_could_be_paths_or_fool_a_screen_are_refused() {
    for name in [
        "",
        "..",
        "../x",
        "a/b",
        "a b",
        "a\u{1b}[2J",
        "é",
        "-x",
        &"x".repeat(65),
    ] {
        for field in 0..3 {
            let mut about = about("1.0", &image());
            match field {
                0 => about.product = name.into(),
                1 => about.version = name.into(),
                _ => about.hardware = vec![name.into()],
            }
            assert!(about.check().is_err(), "{name:?}");
        }
    }
}

#[test]
fn hardware_that_is_missing_repeated_or_out_of_order_is_refused() {
    for hardware in [vec![], vec!["b", "a"], vec!["a", "a"]] {
        let mut about = about("1.0", &image());
        about.hardware = hardware.into_iter().map(String::from).collect();
        assert!(about.check().is_err(), "{:?}", about.hardware);
    }
}

#[test]
fn zeros_that_are_stored_and_chunks_that_are_not_are_refused() {
    let (index, _) = release("1.0", &image());
    for (number, stored_length) in [(2, 100), (0, 0), (0, 28), (1, STORED_MAX as u32 + 1)] {
        let mut chunks = index.chunks().to_vec();
        chunks[number].stored_length = stored_length;
        let index = Index::new(index.about().clone(), chunks, grants(3));
        assert!(
            index
                .unwrap_err()
                .to_string()
                .contains(&format!("chunk {number}"))
        );
    }
}

#[test]
fn keys_of_another_epoch_and_recipients_that_occur_twice_are_refused() {
    let mut twice = grants(3);
    twice.keys.push(twice.keys[0].clone());
    assert!(twice.check(3).is_err());
    let mut mixed = for_tpm(3);
    assert!(mixed.check(3).is_ok());
    assert!(mixed.check(4).is_err());
    mixed.keys[0].0 = grants(3).keys[0].0;
    assert!(
        mixed.check(3).is_err(),
        "a TPM's key under a file key's name"
    );
}

#[test]
fn a_key_for_a_tpm_without_the_vendors_approval_is_refused() {
    let mut lacking = for_tpm(3);
    lacking.approval = None;
    assert!(lacking.check(3).is_err());
    let mut short = for_tpm(3);
    if let Some(approval) = &mut short.approval {
        approval.signatures.pop();
    }
    assert!(short.check(3).is_err());
}

#[test]
fn keys_for_tpms_and_files_stand_side_by_side() {
    let both = Grants {
        keys: [for_tpm(3).keys, grants(3).keys].concat(),
        ..for_tpm(3)
    };
    let (index, _) = release("1.0", &image());
    let index = Index::new(index.about().clone(), index.chunks().to_vec(), both).unwrap();
    assert_eq!(Index::parse(&index.to_bytes()).unwrap(), index);
    for (recipient, key) in &index.grants().keys {
        assert_eq!(index.content_key_for(recipient), Some(key));
    }
    assert_eq!(index.content_key_for(&Recipient::File([0; 32])), None);
}

#[test]
fn the_largest_index_stays_within_its_maximum() {
    let chunk = 32 + 32 + 4;
    let key = 1 + 32 + 3 * (2 + 160);
    let names = (2 + HARDWARE_MAX) * (2 + super::super::NAME_MAX);
    let most = 106 + names + CHUNKS_MAX * chunk + 4 * 64 + RECIPIENTS_MAX * key;
    assert!(most as u64 <= INDEX_MAX, "{most}");
}

fn for_tpm(epoch: u64) -> Grants {
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let vendor = FileSigner::new(pkcs8.as_ref()).unwrap();
    let approval = EpochApproval::make(epoch, vendor.public(), &mut |message| vendor.sign(message));
    let device: PublicKey = *vendor.public();
    let content = ContentKey::new(&[7; 32]);
    let wrapped = tpm::wrap(&device, vendor.public(), epoch, content.bytes()).unwrap();
    Grants {
        approval: Some(approval.unwrap()),
        keys: vec![(Recipient::tpm(&device), WrappedKey::Tpm(wrapped))],
    }
}

proptest! {
    /// A byte changed anywhere: another index, or none, and never the same one from other bytes.
    #[test]
    fn one_index_has_one_form(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let honest = bytes();
        let mut altered = honest.clone();
        altered[at.index(honest.len())] ^= 1 << bit;
        if let Ok(index) = Index::parse(&altered) {
            prop_assert_eq!(index.to_bytes(), altered);
        }
    }

    #[test]
    fn arbitrary_bytes_behind_an_honest_beginning_never_panic(
        honest in 0usize..600, noise in prop::collection::vec(any::<u8>(), 0..400)
    ) {
        let bytes = bytes();
        let _ = Index::parse(&[&bytes[..honest.min(bytes.len())], &noise].concat());
    }
}
