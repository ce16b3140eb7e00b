//! The edge node's promises, read by a host that trusts nothing. The tests are the cores' driver.

mod births;
mod commands;
mod values;

mod bench;
mod host;
