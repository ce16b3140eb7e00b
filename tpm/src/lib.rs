//! A TPM 2.0, in pure Rust.
//!
//! ```text
//!  callers ─▶ queue ─▶ one thread ─▶ device: run ─┬─ session: proof, encryption ─┬─▶ transport ─▶ /dev/tpmrm0
//!   sign      bounded   owns the      keys, nv,   └─ wire: frames, fields        │              or a simulator's
//!   verify    queue     connection    trust, seal    code: what a refusal says ◀─┘              socket
//! ```
//!
//! `anchor` says which indices hold the trusted root and the security floor and under which policies, `approval` what the
//! vendor signs for them, `trust` brings both to the TPM, `provision` makes all of it once, `report` looks at it. `wrap` makes content keys that only
//! a TPM opens, and only while its floor allows.
//!
//! Structures are tpm2-protocol's, primitives ring's and RustCrypto's; no C but ring's is linked.

mod crypt;
mod secret;

pub mod hex;

mod error;

pub mod code;

pub mod ecdsa;

mod entity;

mod wire;

mod session;

mod salt;

mod address;

pub mod transport;

mod public;

mod device;

mod keys;

mod policy;

mod index;

mod fulfil;

mod nv;

mod anchor;

mod approval;

mod signer;

mod wrap;

mod trust;

mod attest;

mod evidence;

mod notes;

pub mod provision;

mod report;

mod queue;

mod device_key;

mod child_key;

pub use address::{Address, RESOURCE_MANAGER};
pub use anchor::{Anchors, Layout, Record, Subject, TrustedRoot, VERSION_MAX};
pub use approval::{Approval, FILE_MAX as APPROVAL_MAX, recovery_message};
pub use attest::{Attestation, Attested, Says, attested_floor, qualifying};
pub use child_key::ChildKey;
pub use code::ResponseCode;
pub use crypt::sha256;
pub use device::Tpm;
pub use device_key::DeviceKey;
pub use ecdsa::{PublicKey, Signature};
pub use entity::{Entity, Name};
pub use error::{CommandName, Error, Result};
pub use evidence::{EVIDENCE_MAX, Evidence};
pub use index::{Found, Index, Use};
pub use keys::Blob;
pub use notes::read_sealed;
pub use policy::Policy;
pub use provision::Keys;
pub use public::{Public, Template, external_name, short};
pub use queue::{Opener, Queue, State};
pub use report::{AnchorReport, Hierarchies, KeyReport, Lockout, Report};
pub use secret::Secret;
pub use signer::FileSigner;
pub use wrap::{EpochApproval, Wrapped, wrap};
