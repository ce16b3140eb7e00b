//! Policies as digests: what the TPM arrives at after the same assertions (TPM 2.0 Part 1, 19.7, Part 3, 23). Core.
//!
//! Invariant: a digest computed here is the TPM's own for the same assertions; where it were not, nothing could be written
//! or unsealed under it.

use tpm2_protocol::data::{TpmCc, TpmEo};

use crate::crypt::{DIGEST, sha256};

/// A policy's digest, assertion by assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy([u8; DIGEST]);

impl Policy {
    /// The policy without assertions.
    #[must_use]
    pub fn new() -> Policy {
        Policy([0; DIGEST])
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> &[u8; DIGEST] {
        &self.0
    }

    fn and(self, cc: TpmCc, argument: &[u8]) -> Policy {
        Policy(sha256(&[&self.0, &cc.value().to_be_bytes(), argument]))
    }

    /// For this command only.
    #[must_use]
    pub fn command_code(self, cc: TpmCc) -> Policy {
        self.and(TpmCc::PolicyCommandCode, &cc.value().to_be_bytes())
    }

    /// For a command with these handles and parameters only.
    #[must_use]
    pub fn cp_hash(self, cp_hash: &[u8; DIGEST]) -> Policy {
        self.and(TpmCc::PolicyCpHash, cp_hash)
    }

    /// For an index that has been written, or has not.
    #[must_use]
    pub fn nv_written(self, written: bool) -> Policy {
        self.and(TpmCc::PolicyNvWritten, &[u8::from(written)])
    }

    /// While what stands at the start of the index compares so with `operand`.
    #[must_use]
    pub fn nv(self, index: &[u8], operand: &[u8], comparison: TpmEo) -> Policy {
        let arguments = sha256(&[operand, &[0, 0], &comparison.value().to_be_bytes()]);
        self.and(TpmCc::PolicyNv, &[&arguments[..], index].concat())
    }

    /// Under whatever policy the key of that name has signed for this reference.
    #[must_use]
    pub fn authorized(key_name: &[u8], reference: &[u8]) -> Policy {
        let first = Policy::new().and(TpmCc::PolicyAuthorize, key_name);
        Policy(sha256(&[&first.0, reference]))
    }

    /// Under any of these.
    #[must_use]
    pub fn any(branches: &[Policy]) -> Policy {
        let digests: Vec<u8> = branches.iter().flat_map(|branch| branch.0).collect();
        Policy::new().and(TpmCc::PolicyOr, &digests)
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::new()
    }
}

/// What is signed to approve `policy` for `reference`.
#[must_use]
pub(crate) fn approval_message(policy: &Policy, reference: &[u8]) -> Vec<u8> {
    [&policy.0[..], reference].concat()
}
