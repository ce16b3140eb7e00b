//! What the unprivileged gateway does about releases of its own system.
//!
//! ```text
//!  repository ─▶ meter: budget, rate ─▶ download ─▶ stage ─▶ the updater installs
//!                                         ▲ step: what comes next
//!                       timer, people ─▶ agent
//!
//!  plant before the update ─▶ baseline ─▶ a file that outlives the restart
//!                                             │
//!  plant on trial ─▶ Sight ─▶ health ◀────────┘ ─▶ commit, or roll back and why ─▶ the updater
//! ```
//!
//! Invariant: nothing here writes a slot or the boot loader's state; that is `gateway updater`'s. Cores but for
//! the drivers that download, and `record`.

mod meter;

mod repository;

mod stage;

pub(crate) mod download;

mod step;

pub mod agent;

pub(crate) mod sight;

pub(crate) mod baseline;

pub(crate) mod record;

pub mod health;

#[cfg(test)]
mod tests;
