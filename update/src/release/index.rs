//! The index of a release: what it is, its chunks in order, and who may open it. Value.
//!
//! Invariant: an [`Index`] is consistent, however it was made: its chunks add up to its image and to its Merkle root, every
//! size is within its maximum, and the same index always has the same bytes.

use std::fmt::Write;

use crate::journal::Release;

use super::{
    CHUNK, CHUNKS_MAX, Digest, Merkle, STORED_MAX,
    content_key::{Grants, Recipient, WrappedKey},
    fields::{Malformed, Reader, check_name, malformed, put_sized},
    sealed, sha256,
};

const MAGIC: &[u8; 8] = b"GWRELIDX";
const FORMAT: u32 = 1;

/// Hardware that one release is for.
pub const HARDWARE_MAX: usize = 64;

/// Fleets and devices that one release is for.
pub const RECIPIENTS_MAX: usize = 1024;

/// Bytes of a list of components.
pub const SBOM_MAX: u32 = 16 * 1024 * 1024;

/// Bytes of an index: 8 GiB in chunks, and every other field at its maximum.
pub const INDEX_MAX: u64 = 3 * 1024 * 1024;

/// What a release is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Whose release it is: a device takes those of its own product alone.
    pub product: String,
    /// Its version, as its maker writes it.
    pub version: String,
    /// The hardware that it runs on, in ascending order.
    pub hardware: Vec<String>,
    /// Its security epoch: it is not installed where the floor is higher.
    pub epoch: u64,
    /// Bytes of the image.
    pub image_size: u64,
    /// The list of what is in it.
    pub sbom: Option<Sbom>,
}

/// A list of components, by its digest; it lies beside the chunks, `sbom/` and the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sbom {
    /// Of its bytes.
    pub sha256: Digest,
    /// How many there are, at most [`SBOM_MAX`].
    pub length: u32,
}

/// A chunk of the image, plain and as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 of the plain chunk.
    pub plain: Digest,
    /// SHA-256 of the stored chunk, and its name; zeros where nothing is stored.
    pub stored: Digest,
    /// Bytes of the stored chunk; 0 for a chunk of zeros, which is not stored.
    pub stored_length: u32,
}

impl Chunk {
    /// Whether it consists of zeros, and is not stored.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.stored_length == 0
    }
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    about: About,
    root: Digest,
    chunks: Vec<Chunk>,
    grants: Grants,
}

impl Index {
    /// Puts an index together.
    ///
    /// # Errors
    /// When its parts contradict each other or exceed a maximum.
    pub fn new(about: About, chunks: Vec<Chunk>, grants: Grants) -> Result<Index, Malformed> {
        about.check()?;
        check_chunks(&about, &chunks)?;
        grants.check(about.epoch)?;
        let mut tree = Merkle::new();
        chunks.iter().for_each(|chunk| tree.push(&chunk.plain));
        Ok(Index {
            about,
            root: tree.root(),
            chunks,
            grants,
        })
    }

    /// Reads an index that fills `bytes`.
    ///
    /// # Errors
    /// What is wrong with it: every byte must be as [`Index::to_bytes`] writes it.
    pub fn parse(bytes: &[u8]) -> Result<Index, Malformed> {
        if bytes.len() as u64 > INDEX_MAX {
            return malformed(format!("it has more than {INDEX_MAX} bytes"));
        }
        let mut reader = Reader(bytes);
        let (about, root) = read_about(&mut reader)?;
        let chunks = read_chunks(&mut reader)?;
        let grants = Grants::read(&mut reader, about.epoch)?;
        reader.end()?;
        let index = Index::new(about, chunks, grants)?;
        match index.root == root {
            true => Ok(index),
            false => malformed("its Merkle root is not that of its chunks"),
        }
    }

    /// The bytes that are signed as a TUF target.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let about = &self.about;
        let mut out = MAGIC.to_vec();
        out.extend(FORMAT.to_be_bytes());
        out.extend((CHUNK as u32).to_be_bytes());
        out.extend(about.image_size.to_be_bytes());
        out.extend(about.epoch.to_be_bytes());
        out.extend(self.root);
        out.extend(about.sbom.map_or([0; 32], |sbom| sbom.sha256));
        out.extend(about.sbom.map_or(0, |sbom| sbom.length).to_be_bytes());
        put_sized(&mut out, about.product.as_bytes());
        put_sized(&mut out, about.version.as_bytes());
        out.extend((about.hardware.len() as u16).to_be_bytes());
        for name in &about.hardware {
            put_sized(&mut out, name.as_bytes());
        }
        out.extend((self.chunks.len() as u32).to_be_bytes());
        for chunk in &self.chunks {
            out.extend(chunk.plain);
            out.extend(chunk.stored);
            out.extend(chunk.stored_length.to_be_bytes());
        }
        self.grants.write(&mut out);
        out
    }

    /// What the release is.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The root of the Merkle tree over the plain chunks.
    #[must_use]
    pub fn root(&self) -> &Digest {
        &self.root
    }

    /// All chunks in the order of the image.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Bytes of the plain chunk `number`: [`CHUNK`], or fewer for the last; 0 beyond it.
    #[must_use]
    pub fn plain_length(&self, number: usize) -> usize {
        plain_length(self.about.image_size, number)
    }

    /// Bytes that are to be fetched where nothing of the image is at hand.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let lengths = self.chunks.iter().map(|chunk| chunk.stored_length);
        lengths.map(u64::from).sum()
    }

    /// The content key as it is wrapped for `recipient`.
    #[must_use]
    pub fn content_key_for(&self, recipient: &Recipient) -> Option<&WrappedKey> {
        self.grants.key_for(recipient)
    }

    /// Who may open it, and under which approval.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// The release, as the journal names it.
    #[must_use]
    pub fn release(&self) -> Release {
        Release {
            version: self.about.version.clone(),
            epoch: self.about.epoch,
            root: hex(&self.root),
        }
    }
}

impl About {
    /// What chunks are bound to: one release's chunk does not open as another's.
    #[must_use]
    pub fn release_id(&self) -> Digest {
        let mut names = Vec::new();
        put_sized(&mut names, self.product.as_bytes());
        put_sized(&mut names, self.version.as_bytes());
        sha256(&[
            b"gateway release 1",
            &self.image_size.to_be_bytes(),
            &self.epoch.to_be_bytes(),
            &names,
        ])
    }

    /// Whether it is for this product and hardware.
    #[must_use]
    pub fn fits(&self, product: &str, hardware: &str) -> bool {
        self.product == product && self.hardware.iter().any(|name| name == hardware)
    }

    /// How many chunks the image has.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.image_size.div_ceil(CHUNK as u64)
    }

    /// Whether a release can be described so.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Malformed> {
        check_name(&self.product, "product")?;
        check_name(&self.version, "version")?;
        for name in &self.hardware {
            check_name(name, "hardware")?;
        }
        if self.hardware.is_empty() || self.hardware.len() > HARDWARE_MAX {
            return malformed(format!(
                "it is for {} kinds of hardware, not for 1 to {HARDWARE_MAX}",
                self.hardware.len()
            ));
        }
        if !self.hardware.is_sorted_by(|one, next| one < next) {
            return malformed("its hardware is not in ascending order, each kind once");
        }
        if self.epoch > tpm::VERSION_MAX {
            return malformed(format!(
                "its epoch {} is above {}, after which none could rise any more",
                self.epoch,
                tpm::VERSION_MAX
            ));
        }
        if !(1..=CHUNKS_MAX as u64).contains(&self.chunk_count()) {
            return malformed(format!(
                "its image has {} bytes, not 1 to {}",
                self.image_size,
                CHUNKS_MAX * CHUNK
            ));
        }
        match self.sbom {
            Some(Sbom { length, .. }) if length == 0 || length > SBOM_MAX => malformed(format!(
                "its list of components has {length} bytes, not 1 to {SBOM_MAX}"
            )),
            _ => Ok(()),
        }
    }
}

pub(super) fn plain_length(image_size: u64, number: usize) -> usize {
    let start = (number as u64).saturating_mul(CHUNK as u64);
    // At most a chunk.
    image_size.saturating_sub(start).min(CHUNK as u64) as usize
}

fn check_chunks(about: &About, chunks: &[Chunk]) -> Result<(), Malformed> {
    if chunks.len() as u64 != about.chunk_count() {
        return malformed(format!(
            "it has {} chunks, its image of {} bytes takes {}",
            chunks.len(),
            about.image_size,
            about.chunk_count()
        ));
    }
    let whole = sha256(&[&[0; CHUNK]]);
    for (number, chunk) in chunks.iter().enumerate() {
        let zero = match plain_length(about.image_size, number) {
            CHUNK => whole,
            length => sha256(&[&vec![0; length]]),
        };
        let length = chunk.stored_length as usize;
        let fits = match chunk.plain == zero {
            true => length == 0 && chunk.stored == [0; 32],
            false => length > sealed::OVERHEAD && length <= STORED_MAX,
        };
        if !fits {
            return malformed(format!(
                "its chunk {number} is stored in {length} bytes: zeros are not stored, others in more than {} and at most {STORED_MAX}",
                sealed::OVERHEAD
            ));
        }
    }
    Ok(())
}

fn read_about(reader: &mut Reader<'_>) -> Result<(About, Digest), Malformed> {
    if reader.bytes(MAGIC.len(), "first bytes")? != MAGIC {
        return malformed("it does not begin with GWRELIDX");
    }
    let format = reader.number("format")?;
    if format != FORMAT {
        return malformed(format!(
            "it has format {format}, and this version reads format {FORMAT} alone"
        ));
    }
    let chunk = reader.number("chunk size")?;
    if chunk as usize != CHUNK {
        return malformed(format!("its chunks have {chunk} bytes, not {CHUNK}"));
    }
    let image_size = reader.long("image size")?;
    let epoch = reader.long("security epoch")?;
    let root = reader.digest("Merkle root")?;
    let sbom = read_sbom(reader)?;
    let product = reader.name("product")?;
    let version = reader.name("version")?;
    let count = usize::from(reader.short("number of hardware")?);
    if count > HARDWARE_MAX {
        return malformed(format!(
            "it is for {count} kinds of hardware, at most {HARDWARE_MAX} are read"
        ));
    }
    let hardware = (0..count).map(|_| reader.name("hardware"));
    let about = About {
        hardware: hardware.collect::<Result<_, _>>()?,
        product,
        version,
        epoch,
        image_size,
        sbom,
    };
    about.check()?;
    Ok((about, root))
}

fn read_sbom(reader: &mut Reader<'_>) -> Result<Option<Sbom>, Malformed> {
    let sha256 = reader.digest("digest of components")?;
    match reader.number("length of components")? {
        0 if sha256 == [0; 32] => Ok(None),
        0 => malformed("it has a digest of a list of components, but no length"),
        length => Ok(Some(Sbom { sha256, length })),
    }
}

fn read_chunks(reader: &mut Reader<'_>) -> Result<Vec<Chunk>, Malformed> {
    let count = reader.number("number of chunks")? as usize;
    if count > CHUNKS_MAX {
        return malformed(format!(
            "it has {count} chunks, at most {CHUNKS_MAX} are read"
        ));
    }
    let chunks = (0..count).map(|_| {
        Ok(Chunk {
            plain: reader.digest("chunks")?,
            stored: reader.digest("chunks")?,
            stored_length: reader.number("chunks")?,
        })
    });
    chunks.collect()
}

/// Two lower-case digits for each byte, as a chunk's file is named.
pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
