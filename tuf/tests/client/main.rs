//! The client against a vendor who is honest, careless or under attack, each way by name.
//! Layer: tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

mod honest;

mod signatures;

mod versions;

mod time;

mod sizes;

mod recovery;

mod power_cut;

mod floor;

mod delegations;

mod publishing;
