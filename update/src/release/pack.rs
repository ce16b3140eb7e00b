//! Makes a release from an image: a folder of static files. Driver: reads the image, writes the folder.
//!
//! ```text
//!  FOLDER/release.index          to be signed as a TUF target
//!  FOLDER/chunks/SHA-256         encrypted chunks
//!  FOLDER/sbom/SHA-256           the list of components, in the clear
//! ```
//!
//! Invariant: the same image, content key and parameters make the same bytes in every file; memory does not grow with the
//! image; a file bears its name only when it is whole.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{
    About, CHUNK, Chunk, ContentKey, Grants, Index, Malformed, SBOM_MAX, Sbom, Sealing,
    index::{hex, plain_length},
    sha256,
};

/// The index's name in a release's folder.
pub const INDEX_FILE: &str = "release.index";

/// The folder of stored chunks, in a release and in a repository.
pub const CHUNKS_FOLDER: &str = "chunks";

/// The folder of lists of components, in a release and in a repository.
pub const SBOM_FOLDER: &str = "sbom";

/// What a release is made from, besides the image.
#[derive(Debug, Clone)]
pub struct Parameters<'p> {
    /// What it is. Its `sbom` is set from [`Parameters::sbom`].
    pub about: About,
    /// For whom.
    pub grants: Grants,
    /// With what its chunks are encrypted; `grants` hold it wrapped.
    pub key: ContentKey,
    /// The list of components.
    pub sbom: Option<&'p [u8]>,
    /// zstd's level, 1 to 22.
    pub level: i32,
}

/// How far it is, after each chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the image that are packed.
    pub done: u64,
    /// Bytes of the image.
    pub total: u64,
    /// Bytes of the stored chunks so far.
    pub stored: u64,
}

/// A release that was not made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// By its parameters no device would take it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The image.
    #[error("cannot read the image: {0}")]
    Image(#[source] io::Error),
    /// Somebody wrote to it.
    #[error("the image does not have the {0} bytes it had at first: it changed while it was read")]
    Changed(u64),
    /// zstd refused.
    #[error("cannot compress chunk {number}: {source}")]
    Compress {
        /// Which.
        number: usize,
        /// Why.
        source: io::Error,
    },
    /// The folder.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Packs `image` into `folder`, which is made where it is missing. Chunks that stand there whole are not written again.
///
/// # Errors
/// The parameters, the image or the folder; what was written stays, and the index is the last file to be.
pub fn pack(
    image: &mut dyn Read,
    parameters: &Parameters<'_>,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Index, PackError> {
    let about = described(parameters)?;
    parameters.grants.check(about.epoch)?;
    if let (Some(sbom), Some(text)) = (about.sbom, parameters.sbom) {
        store(&folder.join(SBOM_FOLDER), &hex(&sbom.sha256), text)?;
    }
    let chunks = pack_chunks(image, &about, parameters, folder, progress)?;
    let index = Index::new(about, chunks, parameters.grants.clone())?;
    store(folder, INDEX_FILE, &index.to_bytes())?;
    Ok(index)
}

fn described(parameters: &Parameters<'_>) -> Result<About, Malformed> {
    let sbom = parameters.sbom.map(|text| Sbom {
        sha256: sha256(&[text]),
        // What is too long for a number is too long for the index.
        length: u32::try_from(text.len()).unwrap_or(SBOM_MAX + 1),
    });
    let about = About {
        sbom,
        ..parameters.about.clone()
    };
    about.check().map(|()| about)
}

fn pack_chunks(
    image: &mut dyn Read,
    about: &About,
    parameters: &Parameters<'_>,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Chunk>, PackError> {
    let folder = folder.join(CHUNKS_FOLDER);
    let compress = |number| move |source| PackError::Compress { number, source };
    let mut sealing =
        Sealing::new(about, &parameters.key, parameters.level).map_err(compress(0))?;
    let (mut chunks, mut plain) = (Vec::new(), vec![0; CHUNK]);
    let (mut done, mut stored) = (0, 0);
    for number in 0.. {
        let plain = &mut plain[..plain_length(about.image_size, number)];
        if plain.is_empty() {
            break;
        }
        read_exact(image, plain, about.image_size)?;
        let sealed = sealing.seal(number, plain).map_err(compress(number))?;
        if !sealed.chunk.is_zero() {
            store(&folder, &hex(&sealed.chunk.stored), &sealed.bytes)?;
        }
        chunks.push(sealed.chunk);
        done += plain.len() as u64;
        stored += sealed.bytes.len() as u64;
        progress(Progress {
            done,
            total: about.image_size,
            stored,
        });
    }
    match image.read(&mut [0]).map_err(PackError::Image)? {
        0 => Ok(chunks),
        _ => Err(PackError::Changed(about.image_size)),
    }
}

fn read_exact(image: &mut dyn Read, plain: &mut [u8], size: u64) -> Result<(), PackError> {
    image.read_exact(plain).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => PackError::Changed(size),
        _ => PackError::Image(error),
    })
}

/// Writes a file under another name first, unless it stands there already.
fn store(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), PackError> {
    let path = folder.join(name);
    if fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    let partial = folder.join(format!(".{name}.part"));
    let write = || {
        fs::create_dir_all(folder)?;
        fs::File::create(&partial)?.write_all(bytes)?;
        fs::rename(&partial, &path)
    };
    write().map_err(|source| PackError::Write { path, source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::release::{
        open_chunk,
        sample::{about, grants, image, key},
    };

    fn parameters<'p>(image: &[u8], sbom: Option<&'p [u8]>) -> Parameters<'p> {
        Parameters {
            about: about("1.0", image),
            grants: grants(3),
            key: key(),
            sbom,
            level: 3,
        }
    }

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let files = entries.flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => BTreeMap::from([(path.clone(), fs::read(&path).unwrap())]),
        });
        let relative = |path: PathBuf| path.strip_prefix(folder).map(Path::to_owned).unwrap();
        files
            .map(|(path, bytes)| (relative(folder.join(path)), bytes))
            .collect()
    }

    #[test]
    fn the_same_image_key_and_parameters_make_the_same_files() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let image = image();
        for folder in [&one, &two] {
            pack(
                &mut &image[..],
                &parameters(&image, Some(b"{}")),
                folder.path(),
                &mut |_| {},
            )
            .unwrap();
        }
        assert_eq!(files(one.path()), files(two.path()));
        assert_eq!(files(one.path()).len(), 1 + 1 + 3);
    }

    #[test]
    fn a_packed_folder_holds_the_image_and_each_file_under_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let image = image();
        let mut told = Vec::new();
        let index = pack(
            &mut &image[..],
            &parameters(&image, None),
            folder.path(),
            &mut |progress| {
                told.push(progress.done);
            },
        )
        .unwrap();
        let written = fs::read(folder.path().join(INDEX_FILE)).unwrap();
        assert_eq!(Index::parse(&written).unwrap(), index);
        let plain = index
            .chunks()
            .iter()
            .enumerate()
            .flat_map(|(number, chunk)| {
                let path = folder.path().join(CHUNKS_FOLDER).join(hex(&chunk.stored));
                let stored = if chunk.is_zero() {
                    Vec::new()
                } else {
                    fs::read(path).unwrap()
                };
                open_chunk(&index, number, &stored, &key()).unwrap()
            });
        assert_eq!(plain.collect::<Vec<_>>(), image);
        assert_eq!(told.last(), Some(&(image.len() as u64)));
        assert!(told.is_sorted());
    }

    #[test]
    fn an_image_that_grows_or_shrinks_meanwhile_makes_no_index() {
        let folder = tempfile::tempdir().unwrap();
        let image = image();
        for read in [
            [&image[..], b"more"].concat(),
            image[..image.len() - 1].to_vec(),
        ] {
            let packed = pack(
                &mut &read[..],
                &parameters(&image, None),
                folder.path(),
                &mut |_| {},
            );
            assert!(matches!(packed, Err(PackError::Changed(_))));
            assert!(!folder.path().join(INDEX_FILE).exists());
        }
    }

    #[test]
    fn a_chunk_that_a_power_cut_damaged_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let image = image();
        let parameters = parameters(&image, None);
        let index = pack(&mut &image[..], &parameters, folder.path(), &mut |_| {}).unwrap();
        let chunk = folder
            .path()
            .join(CHUNKS_FOLDER)
            .join(hex(&index.chunks()[0].stored));
        fs::write(&chunk, b"").unwrap();
        pack(&mut &image[..], &parameters, folder.path(), &mut |_| {}).unwrap();
        assert_eq!(
            fs::read(&chunk).unwrap().len(),
            index.chunks()[0].stored_length as usize
        );
    }

    #[test]
    fn a_list_of_components_beyond_its_maximum_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = vec![b' '; SBOM_MAX as usize + 1];
        let packed = pack(
            &mut &b"x"[..],
            &parameters(b"x", Some(&long)),
            folder.path(),
            &mut |_| {},
        );
        assert!(matches!(packed, Err(PackError::Malformed(_))));
    }
}
