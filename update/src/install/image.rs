//! A slot as a row of chunks: a block device, or a file in tests and demonstrations. Driver.
//!
//! What is read back comes from the medium: after fsync the pages are dropped from the cache (posix_fadvise), and the
//! reading itself goes past the cache (`O_DIRECT`) wherever the file system lets it; a few, such as tmpfs, do not.
//!
//! Invariant: a block device that is mounted is not opened for writing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use super::InstallError;
use crate::release::CHUNK;

/// Direct reads begin in memory at a multiple of this, which is one of every medium's block.
const ALIGNMENT: usize = 4096;

/// How what is read back gets past the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Read directly from the medium.
    Direct,
    /// Dropped from the cache before it is read; the file system reads no other way.
    Dropped,
}

/// A slot's device or file.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    /// The same, read past the cache.
    direct: Option<File>,
    buffer: Vec<u8>,
}

impl Image {
    /// For reading alone.
    ///
    /// # Errors
    /// It is not there, or not to be read.
    pub fn read(path: &Path) -> Result<Image, InstallError> {
        let opened = OpenOptions::new().read(true).open(path);
        Image::new(path, opened, None)
    }

    /// For writing an image of `size` bytes.
    ///
    /// # Errors
    /// It is mounted, too small, or cannot be opened.
    pub fn write(path: &Path, size: u64) -> Result<Image, InstallError> {
        let failed = failure("open", path);
        let is_device = path
            .metadata()
            .map_err(&failed)?
            .file_type()
            .is_block_device();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if is_device {
            // The kernel refuses it for a device that is in use (open(2)).
            options.custom_flags(OFlag::O_EXCL.bits());
        }
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(path);
        let mut image = Image::new(path, options.open(path), direct.ok())?;
        if is_device {
            let slot = image.file.seek(SeekFrom::End(0)).map_err(&failed)?;
            if slot < size {
                let path = path.to_owned();
                return Err(InstallError::TooSmall {
                    path,
                    slot,
                    image: size,
                });
            }
        }
        Ok(image)
    }

    fn new(
        path: &Path,
        opened: io::Result<File>,
        direct: Option<File>,
    ) -> Result<Image, InstallError> {
        Ok(Image {
            path: path.to_owned(),
            file: opened.map_err(failure("open", path))?,
            direct,
            buffer: vec![0; CHUNK + ALIGNMENT],
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are the same device or file.
    ///
    /// # Errors
    /// The system does not say.
    pub fn is_same(&self, other: &Image) -> io::Result<bool> {
        let (one, other) = (self.file.metadata()?, other.file.metadata()?);
        let same_device = one.rdev() != 0 && one.rdev() == other.rdev();
        Ok(same_device || (one.dev(), one.ino()) == (other.dev(), other.ino()))
    }

    /// How [`Image::read_back`] gets past the cache.
    pub fn past(&self) -> Past {
        match self.direct {
            Some(_) => Past::Direct,
            None => Past::Dropped,
        }
    }

    /// `length` bytes of chunk `number`, or fewer at the end.
    ///
    /// # Errors
    /// The medium does not read.
    pub fn chunk(&mut self, number: usize, length: usize) -> Result<&[u8], InstallError> {
        let read = fill(&self.file, &mut self.buffer[..length], offset(number));
        let read = read.map_err(failure("read", &self.path))?;
        Ok(&self.buffer[..read])
    }

    /// Writes chunk `number`; on the medium it is after [`Image::sync`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn put(&self, number: usize, bytes: &[u8]) -> Result<(), InstallError> {
        let written = self.file.write_all_at(bytes, offset(number));
        written.map_err(failure("write", &self.path))
    }

    /// Waits for the medium, and drops what was written from the page cache, which others need more.
    ///
    /// # Errors
    /// Something that was written is not on the medium.
    pub fn sync(&self) -> Result<(), InstallError> {
        self.file.sync_all().map_err(failure("sync", &self.path))?;
        let dropped = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        dropped.map_err(|error| failure("sync", &self.path)(error.into()))
    }

    /// As [`Image::chunk`], from the medium; only after [`Image::sync`].
    ///
    /// # Errors
    /// The medium does not read.
    pub fn read_back(&mut self, number: usize, length: usize) -> Result<&[u8], InstallError> {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        // Whole blocks; a file ends where it ends, and a device is not shorter than its image.
        let rounded = length.next_multiple_of(ALIGNMENT).min(CHUNK);
        let aligned = &mut self.buffer[start..start + rounded];
        let file = self.direct.as_ref().unwrap_or(&self.file);
        let read = fill(file, aligned, offset(number)).map_err(failure("read", &self.path))?;
        Ok(&self.buffer[start..start + read.min(length)])
    }
}

fn offset(number: usize) -> u64 {
    number as u64 * CHUNK as u64
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Behind the end of a file that is no multiple of a block, nothing more is read directly.
            Err(error) if filled > 0 && error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(super) fn failure(what: &'static str, path: &Path) -> impl Fn(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Slot {
        what,
        path: path.clone(),
        source,
    }
}
