//! Values that may have one of several shapes: which of them was meant, and what it still lacks.
//!
//! Invariant: the problems of one shape are reported, never those of all. Layer: value.

use serde_json::Value as Json;

use crate::check::{Check, Place};
use crate::document::{Node, Value};
use crate::problem::{Problem, Severity};
use crate::shape::{Shape, one_of};

impl Check<'_> {
    /// Reports what keeps the value from having one of the shapes; nothing if it has one.
    pub(crate) fn choose(
        &self,
        choices: &[Shape<'_>],
        node: &Node,
        place: &Place<'_>,
        out: &mut Vec<Problem>,
    ) {
        let mut trials = Vec::new();
        for choice in choices.iter().filter(|choice| choice.accepts_kind(node)) {
            let mut problems = Vec::new();
            self.value(choice, node, place, &mut problems);
            if problems.iter().all(|p| p.severity == Severity::Warning) {
                out.extend(problems);
                return;
            }
            trials.push((choice, problems));
        }
        out.extend(self.meant(trials, node, place));
    }

    /// The problems of the shape that was most likely meant.
    fn meant(
        &self,
        mut trials: Vec<(&Shape<'_>, Vec<Problem>)>,
        node: &Node,
        place: &Place<'_>,
    ) -> Vec<Problem> {
        if let Some(tag) = tag_of(&trials) {
            if let Some(problem) = self.wrong_tag(tag, &trials, node, place) {
                return vec![problem];
            }
            trials.retain(|(choice, _)| self.has_tag(tag, choice, node, place));
        }
        let fit = |choice: &Shape<'_>| {
            let known = choice.known_keys();
            known.iter().filter(|key| node.entry(key).is_some()).count()
        };
        let best = trials.iter().map(|(choice, _)| fit(choice)).max();
        let mut likely = trials
            .iter()
            .filter(|(choice, _)| Some(fit(choice)) == best);
        match (likely.next(), likely.next()) {
            (Some((_, problems)), None) => problems.clone(),
            (Some((_, problems)), Some(_)) if !matches!(node.value, Value::Table(_)) => {
                problems.clone()
            }
            _ => vec![self.no_form(&trials, node, place)],
        }
    }

    /// What is wrong with the key that tells the shapes apart.
    fn wrong_tag(
        &self,
        tag: &str,
        trials: &[(&Shape<'_>, Vec<Problem>)],
        node: &Node,
        place: &Place<'_>,
    ) -> Option<Problem> {
        let choices = trials.iter().map(|(choice, _)| choice);
        let values: Vec<&Json> = choices.flat_map(|choice| tag_values(choice, tag)).collect();
        match node.entry(tag) {
            Some(entry) => self.not_among(&values, &entry.node, &place.inside(tag)),
            None => {
                let what = format!("{} lacks the key {tag:?}", self.label(node, place));
                let remedy = format!("add {tag} = …, {}", one_of(&values));
                Some(self.error(node, place, what, remedy))
            }
        }
    }

    fn has_tag(&self, tag: &str, choice: &Shape<'_>, node: &Node, place: &Place<'_>) -> bool {
        node.entry(tag).is_some_and(|entry| {
            let values = tag_values(choice, tag);
            self.not_among(&values, &entry.node, &place.inside(tag))
                .is_none()
        })
    }

    fn no_form(
        &self,
        trials: &[(&Shape<'_>, Vec<Problem>)],
        node: &Node,
        place: &Place<'_>,
    ) -> Problem {
        let forms: Vec<String> = trials.iter().map(|(choice, _)| choice.form()).collect();
        let label = self.label(node, place);
        let what = format!("{label} must be just one of {}", forms.join(" or "));
        self.error(node, place, what, "")
    }
}

/// The key whose fixed value tells the shapes apart, if they have one.
fn tag_of<'s>(trials: &[(&Shape<'s>, Vec<Problem>)]) -> Option<&'s str> {
    let (first, _) = trials.first()?;
    first.known_keys().into_iter().find(|key| {
        trials
            .iter()
            .all(|(choice, _)| !tag_values(choice, key).is_empty())
    })
}

fn tag_values<'s>(choice: &Shape<'s>, key: &str) -> Vec<&'s Json> {
    let fixed = choice
        .property(key)
        .into_iter()
        .filter_map(|schema| schema.get("const"));
    fixed.collect()
}
