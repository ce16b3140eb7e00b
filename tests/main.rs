//! Promises to the customer, kept by real processes.

#[cfg(test)]
mod layers;
