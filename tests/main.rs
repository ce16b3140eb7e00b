//! Promises to the customer, kept by real processes.

#[cfg(test)]
mod layers;

mod machine;

mod arm64;
mod systemd;
