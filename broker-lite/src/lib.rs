//! A small, secured MQTT 3.1.1 and 5.0 broker, as a library and as a binary.
//!
//! ```text
//!            TCP · TLS              decode                  route                    encode
//!  client ──▶ listener ──▶ connection ──▶ packet ──▶ broker ──▶ router ──▶ outbox ──▶ connection ──▶ client
//!                                                      │ ▲        retained
//!                                              message │ │ receipt
//!                                                      ▼ │
//!                                                     keeper   (the gateway's buffer)
//! ```
//!
//! What is to outlive the broker leaves `broker` as changes (`journal`) for the disk (`store`), and
//! what promises it waits for their commit.
//!
//! Values and cores decide; `listener`, `tls`, `connection`, `store` and `server` are the drivers that give
//! them sockets and a clock. The gateway's own publishers use a [`server::LocalClient`], which walks the
//! same path as a socket.

pub mod config;
pub mod keeper;
pub mod message;
pub mod packet;
pub mod server;
pub mod status;
pub mod topic;

mod arena;

mod access;
mod bans;

mod broker;
mod journal;
mod outbox;
mod retained;
mod router;
mod session;

mod audit;
mod connection;
mod listener;
mod local;
mod log;
mod store;
mod tls;
