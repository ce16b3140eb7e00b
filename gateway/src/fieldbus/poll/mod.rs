//! What is asked of the devices on a bus, and when. Cores.
//!
//! ```text
//!  configuration ─▶ device, point ─▶ plan ─▶ schedule ─▶ Transaction
//!  Command ─▶ write ──────────────────────────┘  ▲
//!  Reply ─▶ health, device (what it has taught) ─┘
//! ```

pub(crate) mod device;
mod forecast;
mod health;
mod jitter;
pub(crate) mod memory;
pub(crate) mod overload;
mod pace;
mod patience;
pub mod plan;
mod point;
pub(crate) mod schedule;
mod turnaround;
mod write;
