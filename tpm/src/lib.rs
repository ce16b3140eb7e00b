//! A TPM 2.0, in pure Rust.
//!
//! ```text
//!  callers ─▶ queue ─▶ one thread ─▶ device: run ─┬─ session: proof, encryption ─┬─▶ transport ─▶ /dev/tpmrm0
//!   sign      bounded   owns the      keys, nv,   └─ wire: frames, fields        │              or a simulator's
//!   verify    queue     connection    seal, policy   code: what a refusal says ◀─┘              socket
//! ```
//!
//! Structures are tpm2-protocol's, primitives ring's and RustCrypto's; no C but ring's is linked.

#![expect(dead_code, reason = "provisioning, which uses the rest, comes next")]

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

mod queue;

pub use address::{Address, RESOURCE_MANAGER};
pub use anchor::{Anchors, Layout, Record, Subject, TrustedRoot, VERSION_MAX};
pub use code::ResponseCode;
pub use crypt::sha256;
pub use device::Tpm;
pub use ecdsa::{PublicKey, Signature};
pub use entity::{Entity, Name};
pub use error::{CommandName, Error, Result};
pub use index::{Found, Index, Use};
pub use keys::Blob;
pub use policy::Policy;
pub use public::{Public, Template, external_name, short};
pub use queue::{Opener, Queue, State};
pub use secret::Secret;
