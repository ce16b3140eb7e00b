//! What hangs below a level of filters, by the text of the next level. A value.
//!
//! Invariant: no text occurs twice. Few children lie in a row, which takes an eighth of a hash
//! table's memory and no hashing; past that many a table finds them.

use std::collections::HashMap;

/// Up to this many are looked through one by one.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) enum Children<T> {
    Few(Vec<(Box<str>, Box<T>)>),
    /// Boxed, because a node with many is rare and each node has room for either.
    #[expect(clippy::box_collection, reason = "keeps the common node small")]
    Many(Box<HashMap<Box<str>, Box<T>>>),
}

impl<T> Default for Children<T> {
    fn default() -> Children<T> {
        Children::Few(Vec::new())
    }
}

impl<T: Default> Children<T> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Children::Few(row) => row.is_empty(),
            Children::Many(table) => table.is_empty(),
        }
    }

    pub(super) fn get(&self, level: &str) -> Option<&T> {
        match self {
            Children::Few(row) => row
                .iter()
                .find(|(text, _)| **text == *level)
                .map(|(_, child)| &**child),
            Children::Many(table) => table.get(level).map(|child| &**child),
        }
    }

    pub(super) fn get_mut(&mut self, level: &str) -> Option<&mut T> {
        match self {
            Children::Few(row) => row
                .iter_mut()
                .find(|(text, _)| **text == *level)
                .map(|(_, child)| &mut **child),
            Children::Many(table) => table.get_mut(level).map(|child| &mut **child),
        }
    }

    pub(super) fn get_or_insert(&mut self, level: &str) -> &mut T {
        if self.get(level).is_none() {
            self.insert(level);
        }
        self.get_mut(level).expect("inserted above")
    }

    pub(super) fn remove(&mut self, level: &str) {
        match self {
            Children::Few(row) => {
                row.retain(|(text, _)| **text != *level);
                row.shrink_to_fit();
            }
            Children::Many(table) => {
                table.remove(level);
                if table.len() <= FEW / 2 {
                    *self = Children::Few(table.drain().collect());
                } else if table.capacity() > 4 * table.len() {
                    table.shrink_to_fit();
                }
            }
        }
    }

    fn insert(&mut self, level: &str) {
        if let Children::Few(row) = self
            && row.len() == FEW
        {
            *self = Children::Many(Box::new(row.drain(..).collect()));
        }
        let child = (level.into(), Box::default());
        match self {
            Children::Few(row) => {
                row.reserve_exact(1);
                row.push(child);
            }
            Children::Many(table) => {
                table.insert(child.0, child.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_however_many_there_are_and_were() {
        let mut children: Children<usize> = Children::default();
        let names: Vec<String> = (0..4 * FEW).map(|number| number.to_string()).collect();
        for (number, name) in names.iter().enumerate() {
            *children.get_or_insert(name) = number;
            *children.get_or_insert(name) += 100;
        }
        for (number, name) in names.iter().enumerate() {
            assert_eq!(children.get(name), Some(&(number + 100)));
        }
        for (number, name) in names.iter().enumerate() {
            assert_eq!(children.get_mut(name), Some(&mut (number + 100)));
            children.remove(name);
            assert_eq!(children.get(name), None);
            assert_eq!(children.is_empty(), number + 1 == names.len());
        }
        assert!(matches!(children, Children::Few(row) if row.capacity() == 0));
    }
}
