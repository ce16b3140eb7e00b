//! The named maxima of everything that comes from a repository.
//!
//! Invariant: nothing is read, parsed, followed or believed beyond one of these. A value.

use std::time::Duration;

/// Bytes of one root file (W in 5.3.3). Twenty keys with their names take about 12 KiB.
pub const MAX_ROOT_BYTES: u64 = 512 * 1024;

/// Bytes of an approval beside a root, for those floors that ask for one.
pub const MAX_APPROVAL_BYTES: u64 = 16 * 1024;

/// Bytes of the timestamp file (X in 5.4.1), whose length nothing tells.
pub const MAX_TIMESTAMP_BYTES: u64 = 16 * 1024;

/// Bytes of the snapshot file (Y in 5.5.1), also where the timestamp lists more.
pub const MAX_SNAPSHOT_BYTES: u64 = 2 * 1024 * 1024;

/// Bytes of one targets file (Z in 5.6.1), also where the snapshot lists more.
pub const MAX_TARGETS_BYTES: u64 = 4 * 1024 * 1024;

/// Root files followed in one update (Y in 5.3.3); the next update goes on from there.
pub const MAX_ROOTS_PER_UPDATE: u32 = 1024;

/// Levels of nested objects and lists in a file. The formats need eight.
pub const MAX_DEPTH: usize = 32;

/// Values in one file: what it takes in memory stays near 16 MiB, whatever its bytes are.
pub const MAX_VALUES: usize = 256 * 1024;

/// Signatures on one file.
pub const MAX_SIGNATURES: usize = 64;

/// Keys of one role: each may cost a verification, in a TPM about a millisecond.
pub const MAX_ROLE_KEYS: usize = 64;

/// Roles looked at in the search for one target (5.6.7.1).
pub const MAX_ROLES_VISITED: usize = 32;

/// Delegations from the top-level targets down to a role (5.6.7.2).
pub const MAX_DELEGATION_DEPTH: usize = 8;

/// Bytes of a role's name. Percent-encoded, three times as many, it stays a file name.
pub const MAX_ROLE_NAME: usize = 80;

/// Bytes of a target's path.
pub const MAX_TARGET_PATH: usize = 1024;

/// How far a version may rise at once: a version a minute for thirty years. One at the end of the number range would
/// lock the device out of every later version.
pub const MAX_VERSION_JUMP: u64 = 1 << 24;

/// How far in the future metadata may expire. What never expires protects from no freeze.
pub const MAX_LIFETIME: Duration = Duration::from_secs(50 * 365 * 24 * 3600);

/// How far beyond the build a signed time or a clock chip is believed as lower bound of the time: the life of a device.
pub const MAX_TIME_JUMP: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
