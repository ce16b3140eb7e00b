//! Entry points for fuzzers: each takes any bytes, and panics where a promise is broken.
//!
//! ```text
//!  fuzz/targets/*.rs (libFuzzer) ──▶ TARGETS ──▶ packet · exchange · stream · websocket · password · configuration
//!  corpus.rs (unit tests)        ──▶
//! ```
//!
//! For tests alone: it is compiled for them and with the feature `fuzzing`. Driver, because a byte
//! stream needs a runtime. Invariant: one run depends on its bytes alone.

mod configuration;
#[cfg(test)]
mod corpus;
mod exchange;
mod packet;
mod password;
pub(crate) mod script;
mod stream;

/// One thing to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As its file in `fuzz/targets` and its folder in `fuzz/corpus` are called.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

/// Everything that reads what a stranger wrote.
pub const TARGETS: &[Target] = &[
    Target {
        name: "packet_v3",
        run: packet::v3,
    },
    Target {
        name: "packet_v5",
        run: packet::v5,
    },
    Target {
        name: "exchange",
        run: exchange::run,
    },
    Target {
        name: "stream",
        run: stream::run,
    },
    Target {
        name: "websocket",
        run: crate::entry::websocket::fuzzing::run,
    },
    Target {
        name: "password",
        run: password::run,
    },
    Target {
        name: "configuration",
        run: configuration::run,
    },
];

/// Runs the target of this name.
///
/// # Panics
/// There is no such target, or it found something.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target").run)(data);
}
