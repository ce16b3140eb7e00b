//! Small releases for the tests of this room. Value.
//!
//! Invariant: the same image makes the same release.

use super::{About, CHUNK, ContentKey, FileKey, Grants, Index, Sealing, WrappedKey};

pub(super) fn key() -> ContentKey {
    ContentKey::new(&[7; 32])
}

pub(super) fn file_key() -> FileKey {
    FileKey::new(&[9; 32])
}

pub(super) fn about(version: &str, image: &[u8]) -> About {
    About {
        product: "press-gateway".into(),
        version: version.into(),
        hardware: vec!["raspberrypi,4-model-b".into(), "ti,am335x-bone".into()],
        epoch: 3,
        image_size: image.len() as u64,
        sbom: None,
    }
}

pub(super) fn grants(epoch: u64) -> Grants {
    let sealed = file_key().wrap(epoch, &key());
    Grants {
        approval: None,
        keys: vec![(file_key().recipient(), WrappedKey::File(sealed))],
    }
}

/// The index and the stored chunks, empty ones for zeros.
pub(super) fn release(version: &str, image: &[u8]) -> (Index, Vec<Vec<u8>>) {
    let about = about(version, image);
    let mut sealing = Sealing::new(&about, &key(), 1).unwrap();
    let stored: Vec<_> = image
        .chunks(CHUNK)
        .enumerate()
        .map(|(number, plain)| sealing.seal(number, plain).unwrap())
        .collect();
    let chunks = stored.iter().map(|stored| stored.chunk).collect();
    let index = Index::new(about, chunks, grants(3)).unwrap();
    (
        index,
        stored.into_iter().map(|stored| stored.bytes).collect(),
    )
}

/// An image of text, noise, zeros and a shorter last chunk.
pub(super) fn image() -> Vec<u8> {
    let text = b"the quick brown fox ".iter().copied().cycle().take(CHUNK);
    let mut state = 1u64;
    let noise = std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    let zeros = std::iter::repeat_n(0, CHUNK);
    text.chain(noise.take(CHUNK))
        .chain(zeros)
        .chain(*b"end")
        .collect()
}
