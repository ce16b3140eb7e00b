//! Promises of the TPM layer, kept against swtpm and looked at by tpm2-tools.
#![expect(clippy::disallowed_methods, reason = "tests wait")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod anchors;
mod attestations;
mod evidence;
mod interposer;
mod keys;
mod payloads;
mod provisioning;
mod simulator;
mod times;
mod tls;
mod vendor;
