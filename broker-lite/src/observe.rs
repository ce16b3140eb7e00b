//! What the broker tells about itself: events, counts, topics, pages, and signs of life. Values,
//! and the drivers that carry them out.
//!
//! ```text
//!  core ──▶ audit ──▶ log ──▶ logging (journal, terminal)     catalog: what each event means
//!       ──▶ traffic, status ──▶ sys ($SYS) · report (control) · metrics (http)
//!       ──▶ probe ──▶ manager (the service manager's watchdog)
//! ```
//!
//! Invariant: who looks costs no message a wait.

pub(crate) mod audit;

pub(crate) mod catalog;

pub(crate) mod log;

pub mod status;

pub mod report;

pub mod metrics;

pub(crate) mod sys;

pub(crate) mod traffic;

pub mod written;

pub mod http;

pub mod control;

pub mod probe;

pub mod manager;

pub mod logging;
