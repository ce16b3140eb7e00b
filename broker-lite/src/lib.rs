//! broker-lite
pub mod packet;
pub mod topic;
