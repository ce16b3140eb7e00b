//! Promise: no client, whatever it sends or withholds, takes the broker down, past its memory bound
//! or out of reach of the others. One named test per class of attack, each against the real program.
//!
//! `cargo test -p broker-lite --test attacks -- --nocapture | grep ^attack` lists each attack with
//! the broker's memory peak and the longest wait of a healthy client meanwhile.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::print_stdout,
    reason = "the list of attacks and what they took"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "real processes, so the real clock"
)]

#[path = "../transport/pki.rs"]
#[expect(dead_code, reason = "the tests of the transport use the rest of it")]
mod pki;
mod raw_name;

mod bytes_on_the_wire;
mod samples;
mod victim;

mod malformed;

mod slow;

mod floods;

mod secured;

mod websocket;

mod access;

mod logins;

mod files;

mod table;
