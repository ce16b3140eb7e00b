//! What is left of a file when its faulty keys are taken out, so that checks across keys can
//! speak in the same breath.
//!
//! Invariant: what a faulty key may have caused is not reported a second time. Layer: value.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::{Document, Step, steps};
use crate::problem::{Problem, Severity};

/// What `across` finds in the file without the keys that `found` calls wrong; nothing where too
/// little is left of it.
pub(crate) fn check<T: DeserializeOwned>(
    mut tree: Spanned<DeTable<'_>>,
    document: &Document,
    found: &[Problem],
    across: fn(&mut T, &Document) -> Vec<Problem>,
) -> Vec<Problem> {
    let faulty: Vec<&str> = found
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.path.as_str())
        .collect();
    for path in &faulty {
        remove(tree.get_mut(), path);
    }
    let Ok(mut value) = T::deserialize(toml::Deserializer::from(tree)) else {
        return Vec::new();
    };
    let mut more = across(&mut value, document);
    more.retain(|problem| !faulty.iter().any(|path| related(path, &problem.path)));
    more
}

/// Whether one path is the other or leads through it.
fn related(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() {
        (one, other)
    } else {
        (other, one)
    };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Takes a key out of its table. An element of an array stays: the others keep their places.
fn remove(table: &mut DeTable<'_>, path: &str) {
    let steps: Vec<Step> = steps(path).collect();
    let Some((Step::Key(last), way)) = steps.split_last() else {
        return;
    };
    let Some((Step::Key(first), way)) = way.split_first() else {
        table.remove(last.as_str());
        return;
    };
    let start = table.get_mut(first.as_str()).map(Spanned::get_mut);
    let holder = way.iter().fold(start, |value, step| match (value?, step) {
        (DeValue::Table(table), Step::Key(key)) => {
            table.get_mut(key.as_str()).map(Spanned::get_mut)
        }
        (DeValue::Array(array), Step::Index(index)) => array.get_mut(*index).map(Spanned::get_mut),
        _ => None,
    });
    if let Some(DeValue::Table(holder)) = holder {
        holder.remove(last.as_str());
    }
}
