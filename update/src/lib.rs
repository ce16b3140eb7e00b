//! What a release is, and how it gets into a slot, is tried, and stays or goes.
//!
//! `release` says what a release is and opens its chunks. The slots:
//!
//! ```text
//!  journal (this system's memory) ─┐
//!  boot loader's state ────────────┼─▶ trial: what a start finds ─▶ one write after the other
//!  what was really started ────────┘                                journal, slots/
//! ```
//!
//! A library without network and without a reactor, so that the privileged process that installs holds little
//! else than this, `tpm` and `tuf`.
//!
//! Invariant: a slot that was not wholly written and verified is never what starts next. Core but for
//! the drivers that read and write.

pub mod release;

pub mod slots;

pub mod journal;

pub mod trial;

pub mod trust;

pub mod machine;

pub mod install;

pub mod protocol;

pub mod updater;

#[cfg(test)]
mod model;
