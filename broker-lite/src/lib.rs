//! A small, secured MQTT 3.1.1 and 5.0 broker, as a library and as a binary.
//!
//! ```text
//!      TCP · Unix · TLS            decode                  route                    encode
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
//! A user's name and password, or the steps of an exchange (`auth`, `scram`), are held against its
//! `login`; hashed passwords (`password`) take their turn (`checks`) on a thread beside.
//!
//! Values and cores decide; `listener`, `socket`, `descriptors`, `entrance`, `tls`, `websocket`, `connection`, `shared`, `heap`,
//! `store`, `credentials` and `server` are the drivers that give them sockets and a clock. The gateway's own publishers use a [`server::LocalClient`], which walks the
//! same path as a socket.

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
mod tls;

pub mod preflight;

mod descriptors;
mod listener;
mod socket;

mod entrance;
mod handshakes;
mod websocket;

mod call;
mod connection;

mod local;

mod shared;

mod credentials;

pub mod password;

mod login;

mod auth;

mod scram;

mod checks;

mod access;
mod arrivals;
mod bans;

mod lasting;
mod session;
mod traffic;

mod sys;

mod broker;

mod router;

mod retained;

mod outbox;

mod journal;

mod store;

mod audit;
mod catalog;
mod log;

pub mod status;

pub mod server;

pub mod probe;

pub mod report;

pub mod metrics;

pub mod http;

pub mod control;

pub mod manager;

pub mod logging;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
