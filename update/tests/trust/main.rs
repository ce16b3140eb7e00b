//! Promise: what a device with a TPM trusts, nobody but the vendor moves, whoever holds the device or the repository. Over
//! swtpm, with real release metadata. Layer: tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[expect(clippy::disallowed_methods, reason = "waits for the simulator")]
#[path = "../../../tpm/tests/swtpm/simulator.rs"]
mod simulator;

#[expect(dead_code, reason = "the TPM's own tests use all of it")]
#[path = "../../../tpm/tests/swtpm/vendor.rs"]
mod approver;

#[expect(dead_code, reason = "the metadata's own tests use all of it")]
#[path = "../../../tuf/tests/client/support.rs"]
mod repository;

mod device;

mod roots;

mod attacks;

mod signatures;

mod epochs;

mod receipts;
