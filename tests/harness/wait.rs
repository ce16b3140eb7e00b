//! Waiting for a condition, with a name and a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long a condition may take that should come true within a second or two: slack for a machine
/// that builds and tests at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until `probe` finds something; fails by the condition's name when `limit` has passed.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let give_up = Instant::now() + limit;
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if Instant::now() > give_up {
            bail!("waited {limit:?} in vain: {what}");
        }
        thread::sleep(LOOK);
    }
}
