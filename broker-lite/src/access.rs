//! Who may publish and receive what. A core.
//!
//! Invariant: nothing is allowed that no rule names, and no client ever publishes to a `$`-topic.

use std::net::IpAddr;

use crate::{
    config::AccessRule,
    topic::{TopicFilter, TopicName},
};

/// What a filled-in pattern costs beside its text: its place in a list, and an allocation.
const PATTERN_BYTES: usize = 64;

/// Who a client was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User name, or the certificate's name; absent for anonymous clients.
    pub(crate) user: Option<String>,
    pub(crate) client: String,
    pub(crate) address: IpAddr,
}

impl Identity {
    /// Bytes that it occupies, about.
    pub(crate) fn size(&self) -> usize {
        let user = self.user.as_ref().map_or(0, String::len);
        size_of::<Identity>() + self.client.len() + user
    }
}

/// What one identity may do: the rules that fit it, with `%c` and `%u` filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Permissions {
    publish: Vec<TopicFilter>,
    subscribe: Vec<TopicFilter>,
    /// The process' own publishers: everything, `$`-topics too.
    unrestricted: bool,
}

impl Permissions {
    /// Everything, for the process' own publishers.
    pub(crate) fn unrestricted() -> Permissions {
        Permissions {
            unrestricted: true,
            ..Permissions::default()
        }
    }

    /// What the rules allow an identity.
    pub(crate) fn of(identity: &Identity, rules: &[AccessRule]) -> Permissions {
        let mut permissions = Permissions::default();
        for rule in rules.iter().filter(|rule| fits(rule, identity)) {
            let filled = |pattern: &crate::config::TopicPattern| fill_in(&pattern.0, identity);
            permissions
                .publish
                .extend(rule.publish.iter().filter_map(filled));
            permissions
                .subscribe
                .extend(rule.subscribe.iter().filter_map(filled));
        }
        // Every client has a copy for as long as it stays.
        permissions.publish.shrink_to_fit();
        permissions.subscribe.shrink_to_fit();
        permissions
    }

    /// Bytes that they occupy, about.
    pub(crate) fn size(&self) -> usize {
        let patterns = self.publish.iter().chain(&self.subscribe);
        patterns
            .map(|pattern| pattern.as_str().len() + PATTERN_BYTES)
            .sum()
    }

    /// Whether no rule speaks for the identity at all.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.unrestricted && self.publish.is_empty() && self.subscribe.is_empty()
    }

    /// Whether a message may be published on this topic.
    pub(crate) fn may_publish(&self, topic: &TopicName) -> bool {
        self.unrestricted
            || !topic.is_reserved() && self.publish.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether a message on this topic may be delivered.
    pub(crate) fn may_receive(&self, topic: &TopicName) -> bool {
        self.unrestricted || self.subscribe.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether every topic that this filter matches may be received.
    pub(crate) fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        self.unrestricted
            || self
                .subscribe
                .iter()
                .any(|pattern| pattern.contains(filter))
    }
}

/// The rules that speak for a client, by their places in the list from 1, as an operator reads it.
pub(crate) fn speaking_for(user: Option<&str>, client: &str, rules: &[AccessRule]) -> String {
    let fitting = (1..)
        .zip(rules)
        .filter(|(_, rule)| names(rule, user, client))
        .map(|(number, _): (usize, _)| number.to_string());
    let numbers: Vec<String> = fitting.collect();
    match numbers.is_empty() {
        true => "no access rule speaks for it".to_owned(),
        false => format!("not in access rule {}", numbers.join(", ")),
    }
}

fn fits(rule: &AccessRule, identity: &Identity) -> bool {
    names(rule, identity.user.as_deref(), &identity.client)
}

fn names(rule: &AccessRule, user: Option<&str>, client: &str) -> bool {
    let user_fits = rule.user.is_none() || rule.user.as_deref() == user;
    let client_fits = rule.client.as_deref().is_none_or(|named| named == client);
    user_fits && client_fits
}

/// Puts the identity into a pattern; a name that is not one plain level would widen the pattern,
/// so it makes the pattern void instead (CVE-2017-7650).
pub(crate) fn fill_in(pattern: &str, identity: &Identity) -> Option<TopicFilter> {
    let mut filled = pattern.to_owned();
    if pattern.contains("%c") {
        filled = filled.replace("%c", plain_level(&identity.client)?);
    }
    if pattern.contains("%u") {
        filled = filled.replace("%u", plain_level(identity.user.as_deref()?)?);
    }
    TopicFilter::parse(&filled).ok()
}

fn plain_level(name: &str) -> Option<&str> {
    let plain = !name.is_empty() && !name.contains(['+', '#', '/', '%']) && !name.starts_with('$');
    plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicPattern;

    fn identity(user: Option<&str>, client: &str, address: [u8; 4]) -> Identity {
        Identity {
            user: user.map(str::to_owned),
            client: client.to_owned(),
            address: address.into(),
        }
    }

    fn rule(user: Option<&str>, publish: &str, subscribe: &str) -> AccessRule {
        AccessRule {
            user: user.map(str::to_owned),
            client: None,
            publish: vec![TopicPattern(publish.to_owned())],
            subscribe: vec![TopicPattern(subscribe.to_owned())],
        }
    }

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).expect("a topic name")
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).expect("a filter")
    }

    #[test]
    fn a_rule_speaks_for_its_own_user_alone() {
        let rules = [rule(Some("press"), "t/%u/#", "c/%c/#")];
        let press = Permissions::of(&identity(Some("press"), "p1", [10, 0, 0, 1]), &rules);
        assert!(press.may_publish(&name("t/press/x")));
        assert!(!press.may_publish(&name("t/other/x")));
        assert!(press.may_subscribe(&filter("c/p1/+")));
        assert!(!press.may_subscribe(&filter("c/#")));
        let other = Permissions::of(&identity(None, "p1", [127, 0, 0, 1]), &rules);
        assert_eq!(other, Permissions::default());
    }

    #[test]
    fn names_with_wildcards_do_not_widen_a_pattern() {
        let rules = [rule(None, "t/%c", "t/%u")];
        for level in ["+", "#", "a/b", "", "$SYS", "%u"] {
            let permissions =
                Permissions::of(&identity(Some(level), level, [127, 0, 0, 1]), &rules);
            assert_eq!(permissions, Permissions::default(), "{level:?}");
        }
    }

    #[test]
    fn without_rules_nothing_is_allowed_on_loopback_too() {
        let local = Permissions::of(&identity(None, "c", [127, 0, 0, 1]), &[]);
        assert!(local.is_nothing());
        assert!(!local.may_publish(&name("a/b")) && !local.may_subscribe(&filter("a/b")));
    }

    #[test]
    fn no_rule_opens_reserved_topics_for_publishing() {
        let rules = [rule(None, "$SYS/#", "$SYS/#")];
        let permissions = Permissions::of(&identity(None, "c", [127, 0, 0, 1]), &rules);
        assert!(!permissions.may_publish(&name("$SYS/x")));
        assert!(permissions.may_receive(&name("$SYS/x")));
    }
}
