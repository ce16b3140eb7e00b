//! Promises to the customer, kept by real processes: the gateway's own binary between devices by
//! pymodbus, an upstream by Mosquitto and clients by paho and mosquitto_sub. One file per promise.
//!
//! Build the gateway first (`cargo build --package gateway`); `cargo xtask test` does, and makes
//! the Python environment `target/venv` from `requirements.txt`. `GATEWAY_BIN` and `TEST_PYTHON`
//! name others. Layer: tests; they own a clock.

#![expect(
    clippy::disallowed_methods,
    reason = "tests watch real processes by the real clock"
)]

mod harness;
mod stand_ins;

mod main_job;

mod kills;

mod interoperability;

mod commands;
mod complaints;
mod states;

mod bad_input;
mod batches;
mod clients;
mod commissioning;
mod dead_letters;
mod drains;
mod identity;
mod installing;
mod logins;
mod manners;
mod memory_first;
mod metrics;
mod profiles;
mod releases;
mod releases_on_trial;
mod security;
mod serial;
mod sparkplug;
mod trials;
mod trust;
mod wires;

mod demo;
mod example;

#[cfg(test)]
mod layers;

mod machine;

mod arm64;
mod broker_unit;
mod systemd;
