//! What a technician does at a bus: look for units, read and write, guess what registers mean, and
//! watch the frames. Cores, but for the driver `line`.
//!
//! ```text
//!  scan ──▶ which unit at which line setting next   ──▶ line ──▶ wire
//!  meaning ──▶ which registers, and what they say   ──▶ line, or the running service
//!  guess ◀── registers and a known reading
//!  frame, sniff, pcapng ◀── what went over the wire
//! ```
//!
//! Invariant: nothing here is asked of a unit that the person at the terminal did not ask for.

pub(crate) mod adhoc;

pub(crate) mod line;

pub(crate) mod guess;
pub(crate) mod meaning;
pub(crate) mod views;

pub(crate) mod identity;
pub(crate) mod scan;

pub(crate) mod frame;
mod pdu_text;
pub(crate) mod sniff;

pub(crate) mod pcapng;
