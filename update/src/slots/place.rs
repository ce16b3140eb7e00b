//! Reading and writing at a fixed place of a file or a device. Driver.
//!
//! Invariant: what was written is on the medium when [`write_at`] returns.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

use super::SlotError;

/// As many bytes as there are there, at most `size`.
pub(super) fn read_at(path: &Path, offset: u64, size: usize) -> Result<Vec<u8>, SlotError> {
    let failed = |source| SlotError::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::with_capacity(size);
    file.take(size as u64)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// Replaces what stands there, in one write, and waits for the medium.
pub(super) fn write_at(path: &Path, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
    let failed = |what| {
        move |source| SlotError::File {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(failed("write"))?;
    file.write_all_at(bytes, offset).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))
}
