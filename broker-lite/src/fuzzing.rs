//! Entry points for fuzzers: each takes any bytes, and panics where a promise is broken.
//!
//! ```text
//!  fuzz/targets/*.rs (libFuzzer) ──▶ TARGETS ──▶ packet · exchange · stream · configuration
//!  corpus.rs (unit tests)        ──▶
//! ```
//!
//! For tests alone: it is compiled for them and with the feature `fuzzing`. Driver, because a byte
//! stream needs a runtime. Invariant: one run depends on its bytes alone.

mod configuration;
#[cfg(test)]
mod corpus;
mod packet;
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
        run: crate::broker::exchange::run,
    },
    Target {
        name: "stream",
        run: stream::run,
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

/// Reads decisions off the front of a fuzzer's bytes; at their end it answers with zeros.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Script<'a> {
        Script(data)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u8) -> u8 {
        self.byte() % sides
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// As many bytes as the next one says, or as there are.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}
