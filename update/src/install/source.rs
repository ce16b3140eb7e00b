//! Decides where each chunk of a release may come from. A core.
//!
//! Invariant: a source is a guess, made from what was once written where; a chunk is used after its bytes were hashed, and
//! the next source is tried where the guess was wrong.

use std::collections::HashMap;

use crate::release::{Digest, Index};

/// Where a chunk may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In its place already: written before an interruption, or by an earlier release.
    InPlace,
    /// At this position of the slot that runs.
    Running(usize),
    /// Nowhere, as it is zeros.
    Zeros,
    /// At an earlier position of the release itself, which is written already.
    Earlier(usize),
    /// In staging.
    Staged,
}

/// What is known of both slots.
pub struct Sources<'s> {
    index: &'s Index,
    /// What was last begun to be written to the slot.
    there: Option<&'s Index>,
    /// Positions in the slot that runs.
    running: HashMap<Digest, usize>,
    /// First positions in the release.
    first: HashMap<Digest, usize>,
}

impl<'s> Sources<'s> {
    /// `there` was last written to the slot, in whole or in part, and `running` to the other one.
    pub fn new(index: &'s Index, there: Option<&'s Index>, running: Option<&Index>) -> Sources<'s> {
        Sources {
            index,
            there,
            running: running.map(first_positions).unwrap_or_default(),
            first: first_positions(index),
        }
    }

    /// What to try for chunk `number`, one after the other.
    pub fn of(&self, number: usize) -> impl Iterator<Item = Source> {
        let chunk = self.index.chunks().get(number);
        let there = self.there.and_then(|there| there.chunks().get(number));
        let in_place =
            chunk.is_some_and(|chunk| there.is_some_and(|there| there.plain == chunk.plain));
        let zeros = chunk.is_some_and(|chunk| chunk.is_zero());
        let running = chunk.and_then(|chunk| self.running.get(&chunk.plain));
        let first = chunk.and_then(|chunk| self.first.get(&chunk.plain));
        let earlier = first.filter(|first| **first < number);
        [
            in_place.then_some(Source::InPlace),
            zeros.then_some(Source::Zeros),
            earlier.copied().map(Source::Earlier),
            running.copied().map(Source::Running),
            (!zeros).then_some(Source::Staged),
        ]
        .into_iter()
        .flatten()
    }
}

/// The chunks of a release that the slot that runs does not have, as far as is known: what is to be downloaded.
pub fn to_fetch<'i>(index: &'i Index, running: Option<&Index>) -> impl Iterator<Item = usize> + 'i {
    let sources = Sources::new(index, None, running);
    (0..index.chunks().len())
        .filter(move |number| sources.of(*number).next() == Some(Source::Staged))
}

/// Where each chunk that is not zeros stands first.
fn first_positions(index: &Index) -> HashMap<Digest, usize> {
    let chunks = index.chunks().iter().enumerate().rev();
    chunks
        .filter(|(_, chunk)| !chunk.is_zero())
        .map(|(at, chunk)| (chunk.plain, at))
        .collect()
}
