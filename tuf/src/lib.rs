//! Release metadata by The Update Framework (TUF), specification 1.0.34: a strict client, and a writer for vendors.
//!
//! ```text
//!                 Fetcher                                            Verifier: software, TPM, or both
//!  repository ──▶ fetch ──▶ client ──▶ trusted (5.2 … 5.6) ──▶ envelope ──▶ verify
//!                            │  ▲ │     Clock: time            key, json: what is signed
//!              root.json, …  │  │ └──▶ search (5.6.7) ──▶ metadata, pattern
//!                            ▼  │
//!                    directory  floor: FloorStore
//! ```
//!
//! `repository` is the other side: drafts, signatures from separate machines, a folder of static files.
//!
//! What the client guarantees, given one root that came with the device: a file is used only if a threshold of different
//! keys signed the whole of it; no role's version falls; no two files are combined that do not belong together; nothing
//! is read or followed without end; and an error leaves what was trusted before.

pub mod limits;

mod hex;
pub mod json;

pub mod key;

pub mod time;

mod pattern;

pub mod metadata;

mod names;

pub mod verify;

mod envelope;

pub mod refusal;

pub mod floor;

mod trusted;

mod search;

pub mod fetch;

pub mod directory;

mod failure;
pub use failure::UpdateError;

mod client;
pub use client::{Judges, Update, init, refresh};

pub mod repository;
