//! How a client comes in, and its bytes with it. Drivers.
//!
//! ```text
//!  socket ──▶ listener ──▶ entrance ──▶ tls ──▶ websocket ──▶ connection ──▶ the core
//!  (TCP, Unix)             handshakes: whose turn it is       call: the core has something for it
//! ```
//!
//! Invariant: a client reaches the core only through an entrance that knows who it is.

pub(crate) mod descriptors;

pub(crate) mod listener;

pub(crate) mod socket;

pub(crate) mod tls;

pub(crate) mod entrance;

pub(crate) mod handshakes;

pub(crate) mod websocket;

pub(crate) mod call;

pub(crate) mod connection;
