//! Promise: what an unprivileged, perhaps hostile gateway leaves in staging becomes the verified release in the other slot, or
//! nothing. With real release metadata and slots in files. Layer: tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[expect(dead_code, reason = "the metadata's own tests use all of it")]
#[path = "../../../tuf/tests/client/support.rs"]
mod repository;

mod device;

mod whole;

mod attacks;

mod interruptions;

mod updater;

mod power_cut;
