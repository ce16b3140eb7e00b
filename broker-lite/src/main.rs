//! broker-lite
fn main() {}
