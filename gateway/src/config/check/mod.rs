//! What one key says about another. Values: a configuration in, problems out.
//!
//! Invariant: every problem is found in one pass, stands at its place in the file, and says what
//! to write instead.

mod bus;
mod clients;
mod drain;
mod exposed;
mod identity;
mod link;
pub(super) mod point;
pub(super) mod requests;
mod serial;
mod tpm;
mod update;
mod wire;

use std::collections::HashMap;

use settings::{Document, Problem, nearest};

use super::Config;

/// Everything wrong between the keys of `config`, which was read from `document`.
pub(super) fn check(config: &Config, document: &Document) -> Vec<Problem> {
    let mut findings = Findings::new(document);
    findings.problems.extend(broker_lite::config::check(
        &config.broker,
        document,
        "broker.",
    ));
    let metrics = config.metrics.as_ref();
    findings
        .problems
        .extend(metrics.and_then(|metrics| metrics.check(document, "metrics")));
    clients::check(config, &mut findings);
    bus::check(config, &mut findings);
    serial::check(config, &mut findings);
    link::check(config, &mut findings);
    tpm::check(config, &mut findings);
    identity::check(config, &mut findings);
    update::check(config, &mut findings);
    findings.problems
}

/// Problems found so far.
pub(super) struct Findings<'a> {
    document: &'a Document,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(document: &'a Document) -> Findings<'a> {
        Findings {
            document,
            problems: Vec::new(),
        }
    }
}

impl Findings<'_> {
    pub(super) fn error(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(self.document.error(path, what, remedy));
    }

    fn warn(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems
            .push(self.document.warning(path, what, remedy));
    }

    /// Each of `names`, given with its path, may stand once.
    pub(super) fn unique<'n>(
        &mut self,
        what: &str,
        names: impl Iterator<Item = (String, &'n str)>,
    ) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (path, name) in names {
            if let Some(line) = seen.get(name) {
                self.error(
                    &path,
                    format!("{what} {name:?} stands twice, first in line {line}"),
                    "give each its own name",
                );
            } else {
                seen.insert(name, self.document.at(&path).line);
            }
        }
    }
}

/// ` (did you mean "rs485-0"?)`, or a list where nothing is near.
pub(super) fn did_you_mean<'n>(
    written: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> String {
    match nearest(written, known.clone()) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("known are: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests;
