//! Who the gateway is to the upstream: its key, its certificate, and how both are renewed.
//!
//! ```text
//!  key ──CSR──▶ enrolment ──certificate──▶ directory ──▶ upstream/tls ──▶ tried, then used
//! ```
//!
//! Invariant: nothing here stops the plant side; an identity that cannot be renewed degrades the
//! link alone. Shell of this room.

pub(crate) mod refusal;

mod key;

mod rotation;

mod directory;

mod tpm;

mod request;

mod listing;

mod chain;

mod command;
mod est;

mod schedule;

mod renewal;

pub use command::CommandError;
pub(crate) use directory::Directory;
pub use directory::IdentityError;
pub use est::EstError;
pub use key::{DeviceKey, FileKey, POINT_BYTES, TlsKey};
pub(crate) use listing::{Generation, generations};
pub use refusal::SignError;
pub(crate) use renewal::Renewer;
pub use renewal::{Renewal, RenewalError};
pub(crate) use request::{Requester, request};
pub(crate) use rotation::Next;
