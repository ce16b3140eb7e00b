//! The edge gateway: sensors on wires become messages upstream, and commands find their way back.
//!
//! ```text
//!  wire ─▶ fieldbus ─▶ Reading ─▶ payload ─▶ broker-lite ─┬─▶ local subscribers
//!                                                        └─▶ buffer ─▶ upstream ─▶ cloud
//!  wire ◀─ fieldbus ◀─ Command ◀──────────── broker-lite ◀──────────── upstream ◀─ cloud
//! ```
//!
//! `appliance` starts these parts, joins them with bounded channels and stops them in reverse.

pub mod config;

pub mod clock;

mod wording;

mod alert;
mod credentials;

mod whole_file;

pub mod fieldbus;

pub mod reading;

pub mod payload;

pub mod buffer;

pub mod upstream;

mod name;

pub mod identity;

pub mod clients;
pub mod update;

pub mod appliance;

pub use broker_lite::{observe::control, observe::logging};
pub mod service;

pub mod demo;

pub mod cli;
