//! Local clients: who they are, the authority that certifies them, and how that is changed.
//!
//! ```text
//!  gateway client ─┐            ┌─ registry ─┐
//!  control socket ─┼─▶ office ──┤            ├─▶ directory ─▶ broker: rules, anchors, lists, passwords
//!  client/+/renew ─┘            └─ authority ┘
//! ```
//!
//! Invariant: whatever is promised to anybody is on disk before it is said. Shell of this room.

pub(crate) mod name;

mod serial;

mod request;

mod authority;

mod registry;

mod directory;

mod keys;

mod office;

pub(crate) mod listing;

mod wish;

mod listeners;

pub use directory::FileError;
pub(crate) use listeners::{is_own, served, trusts_own, wanted};
pub use listing::{AuthorityShown, Certified, ClientShown, Listing};
pub use name::ClientName;
pub use office::OfficeError;
pub(crate) use office::{NewProof, Office, Wanted, shown, told};
pub use registry::RegistryError;
pub(crate) use registry::{Access, Registry};

pub use request::RequestError;
pub(crate) use wish::{Done, Wish};
