//! The search for a target through the roles that may speak of it (5.6.7): pre-order, depth first, the most trusted
//! first.
//!
//! Invariant: a role is looked at once, and only through delegations that cover the target. Number and depth are
//! bounded; a search that reaches a bound says so instead of "no such target". A core.

use std::collections::BTreeSet;

use crate::limits::{MAX_DELEGATION_DEPTH, MAX_ROLES_VISITED};
use crate::metadata::{Authority, Target, Targets};
use crate::refusal::Refusal;

/// A search under way.
pub(crate) struct Search<'a> {
    path: &'a str,
    /// Roles that were looked at, with their depth.
    delegators: Vec<(Targets, usize)>,
    /// Names of roles to look at, the next one last, with the index of their delegator.
    pending: Vec<(String, usize)>,
    visited: BTreeSet<String>,
}

/// The role whose metadata the search wants next.
pub(crate) struct Wanted {
    pub(crate) role: String,
    delegator: usize,
}

impl<'a> Search<'a> {
    pub(crate) fn new(path: &'a str) -> Self {
        Self {
            path,
            delegators: Vec::new(),
            pending: Vec::new(),
            visited: BTreeSet::from(["targets".to_owned()]),
        }
    }

    /// 5.6.7: the search begins at the top-level targets.
    pub(crate) fn start(&mut self, top: &Targets) -> Result<Option<Target>, Refusal> {
        self.look(top.clone(), 0)
    }

    /// 5.6.7.1: the next role, skipping those that were visited; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Wanted>, Refusal> {
        while let Some((role, delegator)) = self.pending.pop() {
            if self.visited.contains(&role) {
                continue;
            }
            if self.visited.len() > MAX_ROLES_VISITED {
                return Err(self.too_long(format!("{MAX_ROLES_VISITED} delegated roles")));
            }
            self.visited.insert(role.clone());
            return Ok(Some(Wanted { role, delegator }));
        }
        Ok(None)
    }

    /// Whose signatures the wanted role takes: as its delegator on this very path says.
    pub(crate) fn authority(&self, wanted: &Wanted) -> Authority<'_> {
        let (delegator, _) = &self.delegators[wanted.delegator];
        delegator
            .authority(&wanted.role)
            .expect("a role is wanted because its delegator names it")
    }

    /// Looks at the wanted role's metadata.
    pub(crate) fn found(
        &mut self,
        wanted: &Wanted,
        targets: Targets,
    ) -> Result<Option<Target>, Refusal> {
        let (_, above) = self.delegators[wanted.delegator];
        self.look(targets, above + 1)
    }

    /// 5.6.7.1 and 5.6.7.2: its target, or else its delegations in order; after a terminating one, nothing else.
    fn look(&mut self, targets: Targets, depth: usize) -> Result<Option<Target>, Refusal> {
        if let Some(target) = targets.target(self.path) {
            return Ok(Some(target.clone()));
        }
        let mut names = Vec::new();
        for role in targets.roles_for(self.path) {
            names.push((role.name.clone(), self.delegators.len()));
            if role.terminating {
                self.pending.clear();
                break;
            }
        }
        if depth >= MAX_DELEGATION_DEPTH && !names.is_empty() {
            return Err(self.too_long(format!("{MAX_DELEGATION_DEPTH} delegations in a row")));
        }
        self.pending.extend(names.into_iter().rev());
        self.delegators.push((targets, depth));
        Ok(None)
    }

    fn too_long(&self, limit: String) -> Refusal {
        Refusal::SearchTooLong {
            target: self.path.into(),
            limit,
        }
    }
}
