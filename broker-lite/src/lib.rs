//! A small, durable, secured MQTT 3.1.1 and 5.0 broker, as a library and as a binary.
//!
//! ```text
//!            TCP · TLS              decode                      route                 encode
//!  client ──▶ listener ──▶ connection ──▶ packet ──▶ session ──▶ broker ──▶ session ──▶ connection ──▶ client
//!                                                      │            │
//!                                                      │            ├──▶ keeper   (the gateway's buffer)
//!                                                      └────────────┴──▶ store    (broker.db)
//! ```
//!
//! Values and cores decide; `listener`, `connection`, `store` and `server` are the drivers that
//! give them sockets, a disk and a clock. The gateway's own publishers use a [`LocalClient`],
//! which walks the same path as a socket.

pub mod topic;

pub mod packet;

pub mod config;

pub mod message;

pub mod keeper;
