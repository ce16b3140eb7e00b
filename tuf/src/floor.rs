//! The least that is acceptable, remembered where whoever writes the metadata directory cannot: in a TPM, for example.
//!
//! Invariant: with a pinned root, no root is trusted that the pinned one does not prove. A value.

mod file;
pub use file::FileFloor;

use ring::digest::{SHA256, digest};

/// A root, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPin {
    /// Its version.
    pub version: u64,
    /// The digest of its file.
    pub sha256: [u8; 32],
}

impl RootPin {
    /// The pin of a root's file.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self { version, sha256 }
    }
}

/// The newest of everything that was ever trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// `None` before the first update.
    pub root: Option<RootPin>,
    /// The timestamp's version; 0 for any.
    pub timestamp: u64,
    /// The snapshot's version; 0 for any.
    pub snapshot: u64,
    /// The top-level targets' version; 0 for any.
    pub targets: u64,
}

/// The store did not do it, or refused. The update stops, and what it did not keep is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the floor of versions could not be {action}: {reason}")]
pub struct FloorFailure {
    /// `read` or `kept`.
    pub action: &'static str,
    /// What the store said.
    pub reason: String,
}

/// Remembers the floor.
pub trait FloorStore {
    /// What is remembered.
    ///
    /// # Errors
    /// When it cannot be read.
    fn floor(&mut self) -> Result<Floor, FloorFailure>;

    /// Remembers `floor`. The root's version never falls. The others fall only after a root that took a key away from
    /// their role (5.3.11), which comes in the same call or an earlier one. A store may ask for an approval of a new
    /// root, and refuse it otherwise.
    ///
    /// # Errors
    /// When it is not remembered.
    fn keep(&mut self, floor: &Floor) -> Result<(), FloorFailure>;

    /// Remembers a `floor` whose root is a new one, the last of all that were followed. `approval` fetches the file that
    /// lies beside this root in the repository, `42.root.approval.json`, for stores that ask for one.
    ///
    /// # Errors
    /// When it is not remembered; then the root is not trusted.
    fn keep_root(
        &mut self,
        floor: &Floor,
        approval: &mut dyn FnMut() -> Result<Vec<u8>, FloorFailure>,
    ) -> Result<(), FloorFailure> {
        let _ = approval;
        self.keep(floor)
    }
}

/// Remembers nothing beyond the directory: for devices without a place for it, and for `tuf-client`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFloor;

impl FloorStore for NoFloor {
    fn floor(&mut self) -> Result<Floor, FloorFailure> {
        Ok(Floor::default())
    }

    fn keep(&mut self, _: &Floor) -> Result<(), FloorFailure> {
        Ok(())
    }
}

/// Remembers in memory: a process that updates several times.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryFloor(pub Floor);

impl FloorStore for MemoryFloor {
    fn floor(&mut self) -> Result<Floor, FloorFailure> {
        Ok(self.0)
    }

    fn keep(&mut self, floor: &Floor) -> Result<(), FloorFailure> {
        self.0 = *floor;
        Ok(())
    }
}
