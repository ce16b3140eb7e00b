//! What connections, sessions and kept messages are told apart by. Values.
//!
//! Invariant: an identifier is never taken for one of another kind.

use crate::arena::Id;

/// A connection, until it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) Id);

/// A session, until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) Id);

/// A message handed to the keeper, whose receipt is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);
