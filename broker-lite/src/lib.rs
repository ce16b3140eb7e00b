//! broker-lite
