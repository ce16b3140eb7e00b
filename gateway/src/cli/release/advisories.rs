//! Which components are known to be vulnerable, by an OSV export (OSV schema 1.6). Core.
//!
//! Invariant: a range whose order of versions is not known here counts nobody as safe: what cannot be judged is told.

use serde::Deserialize;

use super::{components::Component, versions::Rules};

/// A record of OSV, as far as it is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Advisory {
    id: String,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    aliases: Vec<String>,
    /// When it was taken back.
    withdrawn: Option<String>,
    #[serde(default)]
    affected: Vec<Affected>,
}

#[derive(Debug, Deserialize)]
struct Affected {
    package: Option<AffectedPackage>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    ranges: Vec<Range>,
}

#[derive(Debug, Deserialize)]
struct AffectedPackage {
    ecosystem: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Introduced(String),
    Fixed(String),
    LastAffected(String),
    Limit(String),
}

/// A component that an advisory names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The advisory's id, and others that it is known by.
    pub(super) ids: Vec<String>,
    /// What is wrong, in a line.
    pub(super) summary: String,
    /// The component's name.
    pub(super) component: String,
    /// Its version.
    pub(super) version: String,
    /// The versions in which it is put right.
    pub(super) fixed: Vec<String>,
    /// Whether the version was judged; else it might be concerned.
    pub(super) certain: bool,
}

/// Every component that an advisory concerns, in the order of the components.
pub(super) fn findings(components: &[Component], advisories: &[Advisory]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for component in components {
        for advisory in advisories.iter().filter(|one| one.withdrawn.is_none()) {
            findings.extend(finding(component, advisory));
        }
    }
    findings
}

fn finding(component: &Component, advisory: &Advisory) -> Option<Finding> {
    let concerned: Vec<_> = advisory
        .affected
        .iter()
        .filter(|affected| is_of(affected, component))
        .map(|affected| (affected, affects(affected, &component.version)))
        .filter(|(_, verdict)| *verdict != Verdict::Safe)
        .collect();
    let certain = concerned
        .iter()
        .any(|(_, verdict)| *verdict == Verdict::Vulnerable);
    let ranges = concerned.iter().flat_map(|(affected, _)| &affected.ranges);
    let fixed = ranges
        .flat_map(|range| &range.events)
        .filter_map(|event| match event {
            Event::Fixed(version) => Some(version.clone()),
            _ => None,
        });
    (!concerned.is_empty()).then(|| Finding {
        ids: std::iter::once(&advisory.id)
            .chain(&advisory.aliases)
            .cloned()
            .collect(),
        summary: advisory.summary.clone(),
        component: component.name.clone(),
        version: component.version.clone(),
        fixed: fixed.collect(),
        certain,
    })
}

/// `Debian:12` speaks of `Debian`; which release of it a component is from, lists do not tell.
fn is_of(affected: &Affected, component: &Component) -> bool {
    let (Some(package), Some(ours)) = (&affected.package, &component.package) else {
        return false;
    };
    package.ecosystem.split(':').next() == Some(ours.ecosystem) && package.name == ours.name
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Safe,
    Vulnerable,
    Unknown,
}

/// The evaluation of the OSV schema: listed by name, or within a range.
fn affects(affected: &Affected, version: &str) -> Verdict {
    if affected.versions.iter().any(|listed| listed == version) {
        return Verdict::Vulnerable;
    }
    let ecosystem = affected
        .package
        .as_ref()
        .map_or("", |package| &package.ecosystem);
    let mut verdict = Verdict::Safe;
    for range in &affected.ranges {
        let rules = match range.kind.as_str() {
            "SEMVER" => Some(Rules::Semantic),
            "ECOSYSTEM" => Rules::of(ecosystem),
            // Commits say nothing about versions; those are listed beside.
            _ => continue,
        };
        match rules {
            Some(rules) if within(rules, &range.events, version) => return Verdict::Vulnerable,
            Some(_) => {}
            // The list of versions beside such a range is complete where there is one.
            None if affected.versions.is_empty() => verdict = Verdict::Unknown,
            None => {}
        }
    }
    verdict
}

fn within(rules: Rules, events: &[Event], version: &str) -> bool {
    let at_or_after = |other: &str| rules.compare(version, other).is_ge();
    let limits: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Limit(limit) if limit != "*" => Some(limit),
            _ => None,
        })
        .collect();
    if !limits.is_empty() && limits.iter().all(|limit| at_or_after(limit)) {
        return false;
    }
    let mut sorted: Vec<_> = events.iter().collect();
    sorted.sort_by(|one, other| rules.compare(bound(one), bound(other)));
    sorted.iter().fold(false, |vulnerable, event| match event {
        Event::Introduced(bound) if at_or_after(bound) => true,
        Event::Fixed(bound) if at_or_after(bound) => false,
        Event::LastAffected(bound) if rules.compare(version, bound).is_gt() => false,
        _ => vulnerable,
    })
}

fn bound(event: &Event) -> &str {
    let (Event::Introduced(bound)
    | Event::Fixed(bound)
    | Event::LastAffected(bound)
    | Event::Limit(bound)) = event;
    bound
}

/// The records in a file: one, a list of them, or one behind the other.
///
/// # Errors
/// What is not a record.
pub(super) fn read(text: &[u8]) -> Result<Vec<Advisory>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum File {
        Many(Vec<Advisory>),
        One(Box<Advisory>),
    }
    let mut advisories = Vec::new();
    for file in serde_json::Deserializer::from_slice(text).into_iter::<File>() {
        match file? {
            File::Many(many) => advisories.extend(many),
            File::One(one) => advisories.push(*one),
        }
    }
    Ok(advisories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::release::components::Package;

    fn component(ecosystem: &'static str, name: &str, version: &str) -> Component {
        Component {
            name: name.into(),
            version: version.into(),
            package: Some(Package {
                ecosystem,
                name: name.into(),
            }),
        }
    }

    fn judged(record: &str, component: &Component) -> Option<bool> {
        let advisories = read(record.as_bytes()).unwrap();
        let found = findings(std::slice::from_ref(component), &advisories);
        found.first().map(|finding| finding.certain)
    }

    const TWICE: &str = r#"{"id":"RUSTSEC-1","affected":[{"package":{"ecosystem":"crates.io","name":"ring"},
        "ranges":[{"type":"SEMVER","events":[{"introduced":"0.0.0-0"},{"fixed":"0.17.12"},{"introduced":"0.18.0"},
        {"last_affected":"0.18.2"}]}]}]}"#;

    #[test]
    fn a_version_within_a_range_is_vulnerable_and_one_beyond_it_is_not() {
        for (version, vulnerable) in [
            ("0.17.11", true),
            ("0.17.12", false),
            ("0.17.14", false),
            ("0.18.0", true),
            ("0.18.2", true),
            ("0.18.3", false),
            ("0.17.12-rc.1", true),
        ] {
            let found = judged(TWICE, &component("crates.io", "ring", version));
            assert_eq!(found, vulnerable.then_some(true), "{version}");
        }
        assert_eq!(judged(TWICE, &component("PyPI", "ring", "0.17.11")), None);
        assert_eq!(
            judged(TWICE, &component("crates.io", "rings", "0.17.11")),
            None
        );
    }

    #[test]
    fn debian_advisories_speak_of_any_of_its_releases() {
        let record = r#"{"id":"DSA-1","affected":[{"package":{"ecosystem":"Debian:12","name":"openssl"},
            "ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3.0.15-1~deb12u1"}]}]}]}"#;
        assert_eq!(
            judged(record, &component("Debian", "openssl", "3.0.14-1")),
            Some(true)
        );
        assert_eq!(
            judged(record, &component("Debian", "openssl", "3.0.15-1")),
            None
        );
    }

    #[test]
    fn what_cannot_be_judged_is_told_and_not_called_safe() {
        let record = r#"[{"id":"P-1","affected":[{"package":{"ecosystem":"PyPI","name":"tuf"},
            "ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"6"}]}]}]}]"#;
        assert_eq!(judged(record, &component("PyPI", "tuf", "7")), Some(false));
    }

    #[test]
    fn a_withdrawn_advisory_names_nobody_and_a_listed_version_is_enough() {
        let withdrawn = TWICE.replace(
            "\"affected\":[{",
            "\"withdrawn\":\"2026-01-01T00:00:00Z\",\"affected\":[{",
        );
        assert_eq!(
            judged(&withdrawn, &component("crates.io", "ring", "0.17.11")),
            None
        );
        let listed = r#"{"id":"L","affected":[{"package":{"ecosystem":"crates.io","name":"a"},"versions":["1.0.0"]}]}"#;
        assert_eq!(
            judged(listed, &component("crates.io", "a", "1.0.0")),
            Some(true)
        );
        assert_eq!(judged(listed, &component("crates.io", "a", "1.0.1")), None);
    }

    #[test]
    fn a_limit_ends_a_range_for_versions_on_other_branches() {
        let record = r#"{"id":"L","affected":[{"package":{"ecosystem":"crates.io","name":"a"},"ranges":[{"type":"SEMVER",
            "events":[{"introduced":"1.0.0"},{"limit":"2.0.0"}]}]}]}"#;
        assert_eq!(
            judged(record, &component("crates.io", "a", "1.9.0")),
            Some(true)
        );
        assert_eq!(judged(record, &component("crates.io", "a", "2.0.0")), None);
    }
}
