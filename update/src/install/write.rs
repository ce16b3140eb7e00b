//! Writes a verified release into a slot, chunk by chunk, and reads it back. Driver.
//!
//! Invariant: a chunk's bytes are hashed in memory, and those very bytes are written; in memory there is one chunk, however large
//! the image.

use super::{
    InstallError,
    image::Image,
    source::{Source, Sources},
    staging::Staging,
    verify::Verified,
};
use crate::{
    protocol::{MISSING_MAX, Progress, Work},
    release::{CHUNK, Index, Merkle, STORED_MAX, open_chunk, sha256},
};

/// Chunks between two waits for the medium: 16 MiB, of which no more is ever dirty.
const BATCH: usize = 64;

/// Hears how far it is, and may end it.
pub trait Observer {
    /// After each chunk.
    fn tell(&self, work: Work);
    /// Whether to end where it is; it goes on at the next start.
    fn is_stopped(&self) -> bool;
}

/// Where the chunks come from.
pub struct Supplies<'s> {
    /// What is installed.
    pub release: &'s Verified,
    /// What was last written to the slot.
    pub there: Option<&'s Index>,
    /// What is in the slot that runs, and that slot.
    pub running: Option<(&'s Index, Image)>,
    /// What was downloaded.
    pub staging: &'s Staging,
}

/// Writes all chunks to `slot`, and waits for the medium.
///
/// # Errors
/// [`InstallError::Missing`] after all that could be written; a medium that fails.
pub fn write(
    mut supplies: Supplies<'_>,
    slot: &mut Image,
    observer: &dyn Observer,
) -> Result<Progress, InstallError> {
    let index = &supplies.release.index;
    let running = supplies.running.as_ref().map(|(index, _)| *index);
    let sources = Sources::new(index, supplies.there, running);
    let mut progress = progress_of(index);
    let mut missing = Vec::new();
    for number in 0..index.chunks().len() {
        if observer.is_stopped() {
            slot.sync()?;
            return Err(InstallError::Stopped);
        }
        match supplies.place(&sources, number, slot)? {
            Some(Source::InPlace) => progress.kept += 1,
            Some(Source::Running(_)) => progress.reused += 1,
            Some(_) => {}
            None if missing.len() < MISSING_MAX => missing.push(number_of(number)),
            None => break,
        }
        if number % BATCH == BATCH - 1 {
            slot.sync()?;
        }
        progress.done = number_of(number + 1);
        observer.tell(Work::Writing(progress.clone()));
    }
    slot.sync()?;
    match missing.is_empty() {
        true => Ok(progress),
        false => Err(InstallError::Missing(missing)),
    }
}

impl Supplies<'_> {
    /// Brings a chunk to its place, and says where from; `None` when it is nowhere.
    fn place(
        &mut self,
        sources: &Sources<'_>,
        number: usize,
        slot: &mut Image,
    ) -> Result<Option<Source>, InstallError> {
        let index = &self.release.index;
        let (wanted, length) = (&index.chunks()[number], index.plain_length(number));
        for source in sources.of(number) {
            let found = match source {
                Source::InPlace => slot.chunk(number, length)?.to_vec(),
                Source::Earlier(at) => slot.chunk(at, length)?.to_vec(),
                Source::Running(at) => match &mut self.running {
                    Some((_, image)) => image.chunk(at, length)?.to_vec(),
                    None => continue,
                },
                Source::Zeros => vec![0; length],
                Source::Staged => match self.staged(number) {
                    Some(plain) => plain,
                    None => continue,
                },
            };
            if sha256(&[&found]) != wanted.plain {
                continue;
            }
            if source != Source::InPlace {
                slot.put(number, &found)?;
            }
            return Ok(Some(source));
        }
        Ok(None)
    }

    /// One that is staged, and is the one that was signed; anything else counts as none, and is downloaded again.
    fn staged(&self, number: usize) -> Option<Vec<u8>> {
        let Verified { index, key } = self.release;
        let name = tpm::hex::encode(&index.chunks()[number].stored);
        let stored = self.staging.chunk(&name, STORED_MAX as u64).ok()??;
        open_chunk(index, number, &stored, key).ok()
    }
}

/// Reads all chunks from the medium, and compares them with the release's Merkle root.
///
/// # Errors
/// [`InstallError::ReadBack`]; a medium that does not read.
pub fn read_back(
    index: &Index,
    slot: &mut Image,
    progress: &mut Progress,
    observer: &dyn Observer,
) -> Result<(), InstallError> {
    let path = slot.path().to_owned();
    let differs = |chunk| {
        let path = path.clone();
        InstallError::ReadBack { path, chunk }
    };
    let mut tree = Merkle::new();
    for (number, chunk) in index.chunks().iter().enumerate() {
        if observer.is_stopped() {
            return Err(InstallError::Stopped);
        }
        let found = sha256(&[slot.read_back(number, index.plain_length(number))?]);
        if found != chunk.plain {
            return Err(differs(number));
        }
        tree.push(&found);
        progress.done = number_of(number + 1);
        observer.tell(Work::ReadingBack(progress.clone()));
    }
    match tree.root() == *index.root() {
        true => Ok(()),
        false => Err(differs(index.chunks().len())),
    }
}

fn progress_of(index: &Index) -> Progress {
    Progress {
        release: index.release(),
        chunks: number_of(index.chunks().len()),
        done: 0,
        kept: 0,
        reused: 0,
    }
}

/// An index has at most `CHUNKS_MAX` chunks.
fn number_of(chunk: usize) -> u32 {
    const _: () = assert!(crate::release::CHUNKS_MAX * CHUNK <= 1 << 33);
    u32::try_from(chunk).unwrap_or(u32::MAX)
}
