//! What a release is: an index that is signed as a TUF target, and encrypted chunks that anybody may hold.
//!
//! ```text
//!  image ─▶ 256 KiB ─▶ zstd ─▶ AES-256-GCM ─▶ chunks/SHA-256 of it        pack
//!                │                  ▲ content key ─▶ wrapped per recipient  content_key, file_key
//!                └─▶ SHA-256 ─▶ merkle ─▶ index ◀───────────┘               index, fields
//!
//!  index ─▶ stored chunk ─▶ length, SHA-256 ─▶ decrypt ─▶ decompress ─▶ SHA-256 ─▶ plain chunk    chunk
//! ```
//!
//! Nothing in a release is a path, an archive or a program for the installer.
//!
//! Invariant: no byte of an image is handed on before it was found to be the one the index names. Core, but for [mod@fresh] and [mod@pack].

mod fields;

mod merkle;

mod index;

mod sealed;

mod chunk;

mod content_key;

mod file_key;

mod key_file;

pub mod fresh;

pub mod pack;

#[cfg(test)]
mod sample;

use chunk::Sealing;
pub use chunk::{ChunkError, open_chunk};
pub use content_key::{ContentKey, Grants, Recipient, WrappedKey};
pub use fields::{Malformed, NAME_MAX};
pub use file_key::{FileKey, SealedKey};
pub use index::{About, Chunk, HARDWARE_MAX, INDEX_MAX, Index, RECIPIENTS_MAX, SBOM_MAX, Sbom};
pub use key_file::{KEY_FILE_MAX, KeyFile};
pub use merkle::Merkle;

/// Bytes of a plain chunk; the last one of an image may be shorter.
pub const CHUNK: usize = 256 * 1024;

/// Bytes of a stored chunk at most: what zstd makes of noise, a nonce and a tag.
pub const STORED_MAX: usize = CHUNK + CHUNK / 256 + sealed::OVERHEAD;

/// Chunks of an image at most: 8 GiB, and an index of 2 MiB.
pub const CHUNKS_MAX: usize = 32 * 1024;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// SHA-256 of `parts`, one behind the other.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    tpm::sha256(parts)
}
