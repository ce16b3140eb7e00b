//! A small, secured MQTT 3.1.1 and 5.0 broker, as a library and as a binary.
//!
//! ```text
//!   TCP · Unix · TLS · WebSocket   decode          route               encode
//!  client ──▶ entry ──────────────▶ packet ──▶ broker ──▶ router ──▶ outbox ──▶ entry ──▶ client
//!                                             │ ▲ │  access  retained
//!                            login: who it is ┘ │ │ message
//!                                       receipt │ ▼
//!                                              keeper   (the gateway's buffer)
//! ```
//!
//! What is to outlive the broker leaves `broker` as changes (`journal`) for the disk (`store`), and
//! what promises it waits for their commit. What its operator is to know goes through `observe`.
//!
//! Values and cores decide; `entry`, `shared`, `store` and `server` are the drivers that give them
//! sockets, a disk and a clock. The gateway's own publishers use a [`server::LocalClient`], which
//! walks the same path as a socket.

pub mod address;

pub mod config;

pub mod topic;

pub mod packet;

pub mod message;

pub mod keeper;

mod arena;
mod ids;

mod heap;
mod memory;
mod rate;

mod publication;

mod start;

mod entry;

pub mod preflight;

mod local;

mod shared;

pub mod login;

mod access;

mod lasting;
mod session;

mod broker;

mod router;

mod retained;

mod outbox;

mod journal;

mod store;

pub mod server;

pub mod observe;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
