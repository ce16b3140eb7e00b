//! Which generation of the identity counts, which comes next, and the writes that lead there.
//!
//! Invariant: whatever write the power fails at, the generation in use is whole before and after,
//! and the next one is used only when it is whole. Layer: core.
//!
//! ```text
//!  N.key N.pem current=N │ make key   │ enrol      │ tried and let in │ the one before last leaves
//!                        │ (N+1).key  │ (N+1).pem  │ current=N+1      │ (N-1).key, (N-1).pem
//! ```

use std::collections::BTreeSet;

/// The file that names the generation in use.
pub(crate) const CURRENT: &str = "current";

/// What stands in the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// The generation that an upstream has let in last.
    pub(crate) current: Option<u32>,
    pub(crate) keys: BTreeSet<u32>,
    pub(crate) certificates: BTreeSet<u32>,
}

/// What a new identity lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Its key.
    MakeKey(u32),
    /// A certificate for its key.
    Enrol(u32),
    /// To be let in by an upstream.
    Use(u32),
}

impl Inventory {
    fn complete(&self) -> impl DoubleEndedIterator<Item = u32> {
        let keys = self.keys.iter().copied();
        keys.filter(|key| self.certificates.contains(key))
    }

    /// The generation to be offered to an upstream unless a newer one is let in.
    pub(crate) fn in_use(&self) -> Option<u32> {
        let current = self.current;
        let current = current.filter(|current| self.complete().any(|found| found == *current));
        current.or_else(|| self.complete().next_back())
    }

    /// A newer generation that has all it needs.
    pub(crate) fn candidate(&self) -> Option<u32> {
        let newest = self.complete().next_back();
        newest.filter(|newest| self.in_use().is_some_and(|in_use| *newest > in_use))
    }

    /// The next step to another identity than the one in use. A key that was made is enrolled
    /// rather than another one: its certificate may be on the way.
    pub(crate) fn next(&self) -> Next {
        if let Some(candidate) = self.candidate() {
            return Next::Use(candidate);
        }
        let in_use = self.in_use();
        match self.keys.last() {
            Some(newest) if Some(*newest) > in_use => Next::Enrol(*newest),
            _ => Next::MakeKey(self.unused()),
        }
    }

    /// A generation that nothing bears yet.
    pub(crate) fn unused(&self) -> u32 {
        let last = self.keys.last().max(self.certificates.last());
        last.copied()
            .max(self.current)
            .unwrap_or(0)
            .saturating_add(1)
    }

    /// Those that are not needed any more: all below the one before the one in use.
    pub(crate) fn superfluous(&self) -> Vec<u32> {
        let Some(in_use) = self.in_use() else {
            return Vec::new();
        };
        let before = self.complete().rfind(|found| *found < in_use);
        let all = self.keys.union(&self.certificates).copied();
        // A key without a file cannot leave; its certificate can.
        all.filter(|found| *found > 0 || self.certificates.contains(found))
            .filter(|found| *found < in_use && Some(*found) != before)
            .collect()
    }
}

/// One call to the file system, in the identity's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// Creates or empties a file and fills it.
    Write(String),
    /// Has its bytes on disk.
    Sync(String),
    /// Gives it its name in one step, in the place of what bears it.
    Rename(String, String),
    /// The same, but refuses when something bears the name.
    Link(String, String),
    /// Takes a name away.
    Remove(String),
    /// Has the names on disk.
    SyncDirectory,
}

pub(crate) fn key_name(generation: u32) -> String {
    format!("{generation}.key")
}

pub(crate) fn certificate_name(generation: u32) -> String {
    format!("{generation}.pem")
}

/// Puts a whole file in the place of what there is.
pub(crate) fn replace(name: &str) -> Vec<Call> {
    let fresh = format!("{name}.new");
    vec![
        Call::Write(fresh.clone()),
        Call::Sync(fresh.clone()),
        Call::Rename(fresh, name.to_owned()),
        Call::SyncDirectory,
    ]
}

/// Puts a whole file where there is none: keys are never overwritten.
pub(crate) fn add(name: &str) -> Vec<Call> {
    let fresh = format!("{name}.new");
    vec![
        Call::Write(fresh.clone()),
        Call::Sync(fresh.clone()),
        Call::Link(fresh.clone(), name.to_owned()),
        Call::SyncDirectory,
        Call::Remove(fresh),
    ]
}

/// Takes a generation away, the certificate first: half of one counts for nothing.
pub(crate) fn evict(generation: u32) -> Vec<Call> {
    vec![
        Call::Remove(certificate_name(generation)),
        Call::SyncDirectory,
        Call::Remove(key_name(generation)),
        Call::SyncDirectory,
    ]
}

/// What a file's name says about the inventory; anything else is not ours to judge.
pub(crate) fn note(inventory: &mut Inventory, name: &str) {
    let Some((generation, kind)) = name.split_once('.') else {
        return;
    };
    // One spelling for each number.
    let Some(generation) = generation
        .parse()
        .ok()
        .filter(|number: &u32| *number > 0 && number.to_string() == generation)
    else {
        return;
    };
    match kind {
        "key" => inventory.keys.insert(generation),
        "pem" => inventory.certificates.insert(generation),
        _ => false,
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A directory of which only what was synced is sure to outlast a power cut.
    #[derive(Debug, Clone, Default)]
    struct Disk {
        /// Name to content; `None` is a file whose bytes are not on disk.
        durable: BTreeMap<String, Option<String>>,
        seen: BTreeMap<String, Option<String>>,
        /// Changes of names since the directory was synced.
        pending: Vec<Change>,
        content: String,
    }

    #[derive(Debug, Clone)]
    enum Change {
        Put(String),
        Gone(String),
    }

    impl Disk {
        fn call(&mut self, call: &Call) {
            match call {
                Call::Write(name) => {
                    self.seen.insert(name.clone(), None);
                    self.pending.push(Change::Put(name.clone()));
                }
                Call::Sync(name) => {
                    self.seen.insert(name.clone(), Some(self.content.clone()));
                }
                Call::Rename(from, to) => {
                    let file = self.seen.remove(from).unwrap();
                    self.seen.insert(to.clone(), file);
                    self.pending.push(Change::Put(to.clone()));
                    self.pending.push(Change::Gone(from.clone()));
                }
                Call::Link(from, to) => {
                    assert!(!self.seen.contains_key(to), "{to} would be overwritten");
                    self.seen.insert(to.clone(), self.seen[from].clone());
                    self.pending.push(Change::Put(to.clone()));
                }
                Call::Remove(name) => {
                    self.seen.remove(name);
                    self.pending.push(Change::Gone(name.clone()));
                }
                Call::SyncDirectory => {
                    self.durable = self.seen.clone();
                    self.pending.clear();
                }
            }
        }

        /// Every state that a power cut may leave: any of the changes of names not yet synced.
        fn after_a_cut(&self) -> Vec<Disk> {
            (0..1_u32 << self.pending.len())
                .map(|kept| {
                    let mut left = self.durable.clone();
                    for (index, change) in self.pending.iter().enumerate() {
                        if kept & (1 << index) == 0 {
                            continue;
                        }
                        match change {
                            Change::Put(name) => {
                                let file = self.seen.get(name).cloned().flatten();
                                left.insert(name.clone(), file);
                            }
                            Change::Gone(name) => drop(left.remove(name)),
                        }
                    }
                    Disk {
                        seen: left.clone(),
                        durable: left,
                        ..Disk::default()
                    }
                })
                .collect()
        }

        fn inventory(&self) -> Inventory {
            let mut inventory = Inventory::default();
            for (name, content) in &self.durable {
                note(&mut inventory, name);
                if name == CURRENT {
                    let content = content.as_ref().expect("never named before it is whole");
                    inventory.current = content.parse().ok();
                }
            }
            for name in inventory.keys.iter().map(|n| key_name(*n)) {
                assert!(self.durable[&name].is_some(), "{name} is not whole");
            }
            for name in inventory.certificates.iter().map(|n| certificate_name(*n)) {
                assert!(self.durable[&name].is_some(), "{name} is not whole");
            }
            inventory
        }

        /// The calls of the next step towards a new identity; none once `target` is in use.
        fn next_calls(&mut self, target: u32) -> Vec<Call> {
            let inventory = self.inventory();
            if let Some(old) = inventory.superfluous().first() {
                return evict(*old);
            }
            if inventory.current == Some(target) {
                return Vec::new();
            }
            let (calls, content) = match inventory.next() {
                Next::MakeKey(n) => (add(&key_name(n)), format!("key {n}")),
                Next::Enrol(n) => (replace(&certificate_name(n)), format!("certificate {n}")),
                Next::Use(n) => (replace(CURRENT), n.to_string()),
            };
            self.content = content;
            calls
        }

        fn finish(mut self, target: u32) -> Disk {
            for _ in 0..20 {
                let calls = self.next_calls(target);
                if calls.is_empty() {
                    return self;
                }
                for call in &calls {
                    self.call(call);
                }
                self.call(&Call::SyncDirectory);
            }
            panic!("the rotation does not end: {:?}", self.inventory());
        }
    }

    /// Two generations, of which the second is in use, with what has to be there for it.
    fn begun() -> Disk {
        let mut disk = Disk::default();
        for (name, content) in [
            ("1.key", "key 1"),
            ("1.pem", "certificate 1"),
            ("2.key", "key 2"),
            ("2.pem", "certificate 2"),
            (CURRENT, "2"),
        ] {
            disk.durable
                .insert(name.to_owned(), Some(content.to_owned()));
        }
        disk.seen = disk.durable.clone();
        disk
    }

    #[test]
    fn a_power_cut_at_any_write_leaves_a_whole_identity_and_the_rotation_goes_on() {
        let mut disk = begun();
        let mut cuts = 0;
        loop {
            let calls = disk.next_calls(3);
            if calls.is_empty() {
                break;
            }
            for call in &calls {
                disk.call(call);
                for left in disk.after_a_cut() {
                    cuts += 1;
                    let inventory = left.inventory();
                    let in_use = inventory.in_use().expect("an identity");
                    let switched = inventory.current == Some(3);
                    assert_eq!(in_use, if switched { 3 } else { 2 }, "{inventory:?}");
                    let end = left.finish(3).inventory();
                    assert_eq!((end.in_use(), end.current), (Some(3), Some(3)));
                    assert!(end.superfluous().is_empty());
                }
            }
        }
        assert!(cuts > 30, "only {cuts} cuts");
        let end = disk.inventory();
        assert_eq!(end.keys, BTreeSet::from([2, 3]), "the one before is kept");
    }

    #[test]
    fn a_first_identity_is_in_use_once_it_is_whole() {
        let mut inventory = Inventory::default();
        assert_eq!(
            (inventory.in_use(), inventory.next()),
            (None, Next::MakeKey(1))
        );
        note(&mut inventory, "1.key");
        assert_eq!(
            (inventory.in_use(), inventory.next()),
            (None, Next::Enrol(1))
        );
        note(&mut inventory, "1.pem");
        assert_eq!((inventory.in_use(), inventory.candidate()), (Some(1), None));
        assert_eq!(inventory.next(), Next::MakeKey(2));
    }

    #[test]
    fn the_key_that_a_tpm_was_provisioned_with_is_the_first_identity_and_then_makes_room() {
        let mut inventory = Inventory::default();
        inventory.keys.insert(0);
        assert_eq!(
            (inventory.in_use(), inventory.next()),
            (None, Next::Enrol(0))
        );
        inventory.certificates.insert(0);
        assert_eq!(
            (inventory.in_use(), inventory.next()),
            (Some(0), Next::MakeKey(1))
        );
        for name in ["1.key", "1.pem", "2.key", "2.pem"] {
            note(&mut inventory, name);
        }
        inventory.current = Some(2);
        assert_eq!(
            (inventory.in_use(), inventory.superfluous()),
            (Some(2), vec![0])
        );
    }

    #[test]
    fn a_generation_that_was_never_let_in_is_no_fall_back_before_the_one_in_use() {
        let mut inventory = begun().inventory();
        note(&mut inventory, "3.key");
        note(&mut inventory, "3.pem");
        assert_eq!(
            (inventory.in_use(), inventory.candidate()),
            (Some(2), Some(3))
        );
        inventory.current = None;
        assert_eq!(
            inventory.in_use(),
            Some(3),
            "the newest, when nothing tells"
        );
    }

    #[test]
    fn other_files_are_not_ours() {
        let mut inventory = Inventory::default();
        for name in [
            "1.key.new",
            "01.key",
            "0.pem",
            "x.pem",
            "current",
            "1.csr",
            "-1.key",
        ] {
            note(&mut inventory, name);
        }
        assert_eq!(inventory, Inventory::default());
    }
}
