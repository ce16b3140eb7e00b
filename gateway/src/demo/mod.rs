//! `gateway demo`: the whole appliance on loopback, with instruments that are simulated.

pub mod station;
