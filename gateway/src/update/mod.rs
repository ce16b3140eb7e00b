//! What the unprivileged gateway does about releases of its own system.
//!
//! ```text
//!  plant before the update ─▶ baseline ─▶ a file that outlives the restart
//!                                             │
//!  plant on trial ─▶ Sight ─▶ health ◀────────┘ ─▶ commit, or roll back and why ─▶ the updater
//! ```
//!
//! Invariant: nothing here writes a slot or the boot loader's state; that is `gateway updater`'s. Cores but for
//! [`mod@record`], a driver.

pub(crate) mod sight;

pub(crate) mod baseline;

pub(crate) mod record;

pub mod health;
