//! The vendor's side: making metadata, signing them on separate machines, publishing them as static files.
//!
//! ```text
//!  draft ──▶ file without signatures ──▶ sign, sign, merge ──▶ publish ──▶ a folder for any HTTPS server
//! ```
//!
//! Invariant: nothing is drafted or published that our own client would refuse; the same draft makes the same bytes.
//! Drivers: keys and folders; the rest are values.

mod draft;
pub use draft::{
    DelegationDraft, DraftFailure, RootDraft, SnapshotDraft, TargetDraft, TargetsDraft,
    TimestampDraft,
};

mod signer;
pub use signer::{FileKey, KeyFailure, PrivatePem, Scheme, Signer};

mod signatures;
pub use signatures::{SignFailure, merge, sign, signed_by};

mod publish;
pub use publish::{Edition, PublishFailure, Tree};
