//! What comes out of a stored chunk is the plain chunk or nothing. Core.

use proptest::prelude::*;

use super::*;
use crate::release::sample::{about, image, key, release};

#[test]
fn an_image_survives_being_packed_and_opened() {
    let image = image();
    let (index, stored) = release("1.0", &image);
    let plain: Vec<u8> = (0..stored.len())
        .flat_map(|number| open_chunk(&index, number, &stored[number], &key()).unwrap())
        .collect();
    assert_eq!(plain, image);
    assert!(
        stored[0].len() < 1000,
        "text is compressed: {}",
        stored[0].len()
    );
    assert!(index.chunks()[2].is_zero(), "zeros are not stored");
    let all: usize = stored.iter().map(Vec::len).sum();
    assert_eq!(index.stored_bytes(), all as u64);
}

#[test]
fn chunks_in_another_order_are_refused() {
    let (index, stored) = release("1.0", &image());
    assert!(matches!(
        open_chunk(&index, 1, &stored[0], &key()),
        Err(ChunkError::Length { number: 1, .. })
    ));
    // Even by an index that a signer was talked into: the position is part of what is encrypted.
    let mut chunks = index.chunks().to_vec();
    chunks.swap(0, 1);
    let swapped = Index::new(index.about().clone(), chunks, index.grants().clone()).unwrap();
    assert_eq!(
        open_chunk(&swapped, 0, &stored[1], &key()),
        Err(ChunkError::Sealed(0))
    );
}

#[test]
fn a_chunk_of_another_release_is_refused_though_its_key_is_the_same() {
    let (one, stored) = release("1.0", &image());
    let other = Index::new(
        about("1.1", &image()),
        one.chunks().to_vec(),
        one.grants().clone(),
    );
    assert_eq!(
        open_chunk(&other.unwrap(), 0, &stored[0], &key()),
        Err(ChunkError::Sealed(0))
    );
}

#[test]
fn another_content_key_opens_nothing() {
    let (index, stored) = release("1.0", &image());
    assert_eq!(
        open_chunk(&index, 0, &stored[0], &ContentKey::new(&[8; 32])),
        Err(ChunkError::Sealed(0))
    );
}

#[test]
fn a_flipped_bit_is_refused_before_anything_is_decrypted() {
    let (index, mut stored) = release("1.0", &image());
    let last = stored[0].len() - 1;
    stored[0][last] ^= 1;
    assert_eq!(
        open_chunk(&index, 0, &stored[0], &key()),
        Err(ChunkError::Stored(0))
    );
}

#[test]
fn endless_data_in_place_of_a_chunk_are_refused_by_their_length() {
    let (index, stored) = release("1.0", &image());
    let longer = [&stored[0][..], &[0; 100]].concat();
    assert!(matches!(
        open_chunk(&index, 0, &longer, &key()),
        Err(ChunkError::Length { .. })
    ));
    assert!(matches!(
        open_chunk(&index, 2, b"zeros have no bytes", &key()),
        Err(ChunkError::Length { expected: 0, .. })
    ));
    assert_eq!(open_chunk(&index, 4, b"", &key()), Err(ChunkError::None(4)));
}

/// An index that names `stored` as its chunk 0, as a signer with the content key could make it.
fn naming(index: &Index, stored: &[u8]) -> Index {
    let mut chunks = index.chunks().to_vec();
    chunks[0].stored = sha256(&[stored]);
    chunks[0].stored_length = stored.len() as u32;
    Index::new(index.about().clone(), chunks, index.grants().clone()).unwrap()
}

#[test]
fn a_decompression_bomb_stops_at_the_length_of_a_chunk() {
    let (index, _) = release("1.0", &image());
    let bomb = zstd::bulk::compress(&vec![0; 64 * CHUNK], 19).unwrap();
    let stored = sealer(index.about(), &key()).seal(&position(0), &bomb);
    assert!(matches!(
        open_chunk(&naming(&index, &stored), 0, &stored, &key()),
        Err(ChunkError::Frame { number: 0, .. })
    ));
}

#[test]
fn a_chunk_that_opens_to_too_little_or_to_other_bytes_is_refused() {
    let (index, _) = release("1.0", &image());
    let opened = |plain: &[u8]| {
        let frame = zstd::bulk::compress(plain, 1).unwrap();
        let stored = sealer(index.about(), &key()).seal(&position(0), &frame);
        open_chunk(&naming(&index, &stored), 0, &stored, &key())
    };
    assert!(matches!(opened(&[1; 10]), Err(ChunkError::Frame { .. })));
    assert_eq!(opened(&[1; CHUNK]), Err(ChunkError::Plain(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Signed garbage: what a broken packer could make.
    #[test]
    fn no_stored_bytes_make_it_panic(frame in prop::collection::vec(any::<u8>(), 1..2000), sealed in any::<bool>()) {
        let (index, _) = release("1.0", b"a chunk of an image");
        let stored = match sealed {
            true => sealer(index.about(), &key()).seal(&position(0), &frame),
            false => [&[0; 30][..], &frame].concat(),
        };
        prop_assert!(open_chunk(&naming(&index, &stored), 0, &stored, &key()).is_err());
    }
}
