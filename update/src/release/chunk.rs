//! Turns plain chunks into stored ones and back. Core.
//!
//! Invariant: bytes that are not what the index names go no further: the length before the hash, the hash before the
//! decryption, the decryption before the decompression, which never writes beyond the chunk's length.

use zstd::bulk::{Compressor, Decompressor};

use super::{
    About, CHUNK, Chunk, ContentKey, Digest, Index, index::plain_length, sealed::Sealer, sha256,
};

/// A chunk that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The image has fewer.
    #[error("the release has no chunk {0}")]
    None(usize),
    /// Too few bytes, or too many.
    #[error("chunk {number} has {found} bytes, the index says {expected}")]
    Length {
        /// Which.
        number: usize,
        /// By the index.
        expected: u32,
        /// As it came.
        found: usize,
    },
    /// Other bytes than those that were signed.
    #[error("chunk {0} is not the one that the index names: its SHA-256 differs")]
    Stored(usize),
    /// Another release's chunk, another position's, or another key.
    #[error("chunk {0} does not open with this release's content key at this position")]
    Sealed(usize),
    /// What came out is no frame, or one that is longer than the chunk.
    #[error("chunk {number} does not decompress to its {expected} bytes: {why}")]
    Frame {
        /// Which.
        number: usize,
        /// Bytes of the plain chunk.
        expected: usize,
        /// What zstd says.
        why: String,
    },
    /// The packer's fault: the stored chunk was made from something else.
    #[error("chunk {0} opens to other bytes than the index names: its plain SHA-256 differs")]
    Plain(usize),
}

/// The plain bytes of chunk `number`. For a chunk of zeros `stored` is empty.
///
/// # Errors
/// When `stored` is anything but what the packer stored for just this chunk of this release.
pub fn open_chunk(
    index: &Index,
    number: usize,
    stored: &[u8],
    key: &ContentKey,
) -> Result<Vec<u8>, ChunkError> {
    let chunk = index.chunks().get(number);
    let chunk = chunk.ok_or(ChunkError::None(number))?;
    if stored.len() != chunk.stored_length as usize {
        return Err(ChunkError::Length {
            number,
            expected: chunk.stored_length,
            found: stored.len(),
        });
    }
    let expected = index.plain_length(number);
    if chunk.is_zero() {
        return Ok(vec![0; expected]);
    }
    if sha256(&[stored]) != chunk.stored {
        return Err(ChunkError::Stored(number));
    }
    let frame = sealer(index.about(), key).open(&position(number), stored);
    let plain = decompress(number, &frame.ok_or(ChunkError::Sealed(number))?, expected)?;
    match sha256(&[&plain]) == chunk.plain {
        true => Ok(plain),
        false => Err(ChunkError::Plain(number)),
    }
}

fn decompress(number: usize, frame: &[u8], expected: usize) -> Result<Vec<u8>, ChunkError> {
    let plain = Decompressor::new().and_then(|mut zstd| zstd.decompress(frame, expected));
    let failure = |why| ChunkError::Frame {
        number,
        expected,
        why,
    };
    let plain = plain.map_err(|error| failure(error.to_string()))?;
    match plain.len() == expected {
        true => Ok(plain),
        false => Err(failure(format!("it has {}", plain.len()))),
    }
}

/// Makes the stored chunks of one release.
pub(crate) struct Sealing {
    about: About,
    sealer: Sealer,
    compressor: Compressor<'static>,
    zero: Digest,
}

/// A chunk, and the bytes that are stored for it.
pub(crate) struct Stored {
    /// For the index.
    pub(crate) chunk: Chunk,
    /// Empty for zeros.
    pub(crate) bytes: Vec<u8>,
}

impl Sealing {
    /// `level` is zstd's, 1 to 22.
    pub(crate) fn new(about: &About, key: &ContentKey, level: i32) -> std::io::Result<Sealing> {
        Ok(Sealing {
            sealer: sealer(about, key),
            about: about.clone(),
            compressor: Compressor::new(level)?,
            zero: sha256(&[&[0; CHUNK]]),
        })
    }

    /// Compresses and encrypts chunk `number`, which must be as long as the image leaves it.
    pub(crate) fn seal(&mut self, number: usize, plain: &[u8]) -> std::io::Result<Stored> {
        debug_assert_eq!(plain.len(), plain_length(self.about.image_size, number));
        let digest = sha256(&[plain]);
        let zero = digest == self.zero || plain.iter().all(|byte| *byte == 0);
        let bytes = match zero {
            true => Vec::new(),
            false => {
                let frame = self.compressor.compress(plain)?;
                self.sealer.seal(&position(number), &frame)
            }
        };
        let chunk = Chunk {
            plain: digest,
            stored: if zero { [0; 32] } else { sha256(&[&bytes]) },
            // At most `STORED_MAX`.
            stored_length: bytes.len() as u32,
        };
        Ok(Stored { chunk, bytes })
    }
}

/// The keys of one release.
fn sealer(about: &About, key: &ContentKey) -> Sealer {
    Sealer::new(key.bytes(), &about.release_id())
}

/// Where in the image a chunk stands, as it is bound to it.
fn position(number: usize) -> [u8; 4] {
    // Below `CHUNKS_MAX`.
    (number as u32).to_be_bytes()
}

#[cfg(test)]
mod tests;
