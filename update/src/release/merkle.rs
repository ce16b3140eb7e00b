//! The Merkle tree over an image's chunks, built while they pass (RFC 6962, 2.1). Core.
//!
//! A leaf's data is the SHA-256 of the plain chunk, so that the root follows from an index as well as from the image itself:
//! whoever reads a slot back hashes each chunk once.
//!
//! Invariant: a leaf's hash begins with 00 and a node's with 01, so that neither can stand for the other; what is kept
//! grows with the logarithm of the number of chunks.

use super::{Digest, sha256};

/// A tree that takes its leaves one after the other.
#[derive(Debug, Clone, Default)]
pub struct Merkle {
    /// Roots of whole subtrees and how many leaves each has, larger ones first.
    peaks: Vec<(u64, Digest)>,
}

impl Merkle {
    /// A tree without leaves.
    #[must_use]
    pub fn new() -> Merkle {
        Merkle::default()
    }

    /// Adds the next chunk by the SHA-256 of its plain bytes.
    pub fn push(&mut self, chunk: &Digest) {
        let mut leaves = 1;
        let mut hash = sha256(&[&[0], chunk]);
        while let Some((_, left)) = self.peaks.pop_if(|(count, _)| *count == leaves) {
            hash = node(&left, &hash);
            leaves *= 2;
        }
        self.peaks.push((leaves, hash));
    }

    /// The root over all chunks so far; of none, SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> Digest {
        let peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        peaks
            .reduce(|right, left| node(&left, &right))
            .unwrap_or_else(|| sha256(&[]))
    }
}

fn node(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], left, right])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962, 2.1, word by word.
    fn by_the_book(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => sha256(&[]),
            [leaf] => sha256(&[&[0], leaf]),
            _ => {
                let split = (leaves.len() - 1).checked_ilog2().map_or(1, |log| 1 << log);
                let (left, right) = leaves.split_at(split);
                node(&by_the_book(left), &by_the_book(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_for_any_number_of_chunks() {
        let leaves: Vec<Digest> = (0..70u8).map(|number| sha256(&[&[number]])).collect();
        let mut tree = Merkle::new();
        for count in 0..leaves.len() {
            assert_eq!(tree.root(), by_the_book(&leaves[..count]), "{count} chunks");
            tree.push(&leaves[count]);
        }
    }

    #[test]
    fn an_inner_node_cannot_be_passed_off_as_a_chunk() {
        let [one, two, three] = [1u8, 2, 3].map(|number| sha256(&[&[number]]));
        let root_of = |leaves: &[Digest]| {
            let mut tree = Merkle::new();
            leaves.iter().for_each(|leaf| tree.push(leaf));
            tree.root()
        };
        assert_ne!(
            root_of(&[root_of(&[one, two]), three]),
            root_of(&[one, two, three])
        );
        assert_ne!(root_of(&[one, two]), root_of(&[two, one]));
    }
}
