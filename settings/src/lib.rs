//! Configuration files with positions: TOML checked against the types it fills, every problem at once.
//!
//! ```text
//!   types of the program ──schemars──► schema ──► editors
//!                                        │
//!   gateway.toml ──► spanned tree ──► check ──► problems (file:line:column: what; remedy)
//!                         │              │ none
//!                         ▼              ▼
//!                      Document        serde ──► the program's value
//! ```
//!
//! The schema that is generated from the program's types is the only description of the file. The
//! check reads it, so an editor and the program never disagree about what is allowed. A
//! [`Document`] stays with the value, so that later checks across several keys can name the line
//! they speak of.
//!
//! Invariant: a value is handed out only when the whole file had no error. Layer: values; reading
//! files ([`load()`], [`Secret::read`]) is the only contact with the machine.

mod units;
pub use units::{Period, Size, UnitError};

mod secret;
pub use secret::{Secret, SecretError, SecretText};

mod problem;
pub use problem::{Location, Problem, Problems, Severity};

mod document;
pub use document::Document;

mod format;
pub use format::Formats;

mod shape;

mod check;

mod bounds;
mod keys;
mod nearest;
pub use nearest::nearest;

mod alternatives;

mod rest;

mod load;
pub use load::{Checks, LoadError, Loaded, MAX_FILE_BYTES, load, parse, schema};

#[cfg(test)]
mod tests;
