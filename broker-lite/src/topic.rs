//! Topic names, topic filters and shared subscriptions: MQTT 5.0 sections 4.7 and 4.8.2.
//!
//! Values. Invariant: a `TopicName`, `TopicFilter` or `ShareName` that exists is well formed, so
//! nothing past the parser checks one again. Clones share the text. Nothing here recurses: a topic
//! of 60,000 levels costs a loop, not stack.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest topic name or filter in bytes: its length travels in two bytes `[MQTT-4.7.3-3]`.
pub const MAX_TOPIC_BYTES: usize = 65_535;

const SHARE_PREFIX: &str = "$share/";

/// What a message is published to: at least one character, no wildcard.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// What is subscribed to: levels, of which `+` matches any one and a last `#` any number.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

/// The name of a group of sessions that share one subscription, as in `$share/NAME/filter`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(Arc<str>);

/// What SUBSCRIBE and UNSUBSCRIBE carry: a filter, and the group it is shared by if any.
///
/// `$share/…` is read so in MQTT 3.1.1 as well, as Mosquitto does; that version knows no shared
/// subscriptions but leaves topics that begin with `$` to the server.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionFilter {
    /// The group, for a shared subscription.
    pub share: Option<ShareName>,
    /// What topics match.
    pub filter: TopicFilter,
}

/// Why a text is no topic name, filter or share name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Zero bytes `[MQTT-4.7.3-1]`.
    #[error("a topic has at least one character [MQTT-4.7.3-1]")]
    Empty,
    /// More than [`MAX_TOPIC_BYTES`] `[MQTT-4.7.3-3]`.
    #[error("a topic has at most 65535 bytes [MQTT-4.7.3-3]")]
    TooLong,
    /// U+0000 `[MQTT-4.7.3-2]`.
    #[error("a topic must not contain the null character [MQTT-4.7.3-2]")]
    Null,
    /// `+` or `#` in a topic name `[MQTT-3.3.2-2]`.
    #[error("a topic name must not contain the wildcards + and # [MQTT-3.3.2-2]")]
    WildcardInName,
    /// `#` that shares its level or is not the last one `[MQTT-4.7.1-1]`.
    #[error("# must be a whole level and the last one, as in plant/# [MQTT-4.7.1-1]")]
    MisplacedHash,
    /// `+` that shares its level `[MQTT-4.7.1-2]`.
    #[error("+ must be a whole level, as in plant/+/state [MQTT-4.7.1-2]")]
    MisplacedPlus,
    /// `$share//filter`, or wildcards in the group's name `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`.
    #[error("a share name has at least one character and none of / + # [MQTT-4.8.2-1]")]
    BadShareName,
    /// `$share/group` with nothing behind it `[MQTT-4.8.2-2]`.
    #[error("a shared subscription reads $share/group/filter [MQTT-4.8.2-2]")]
    NoSharedFilter,
}

impl TopicName {
    /// Checks and keeps a topic name.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        if text.bytes().any(is_wildcard) {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(text.into()))
    }

    /// How many levels the name has: one more than it has slashes.
    pub fn levels(&self) -> usize {
        count_levels(&self.0)
    }

    /// Whether the first character is `$`, which leading wildcards do not match `[MQTT-4.7.2-1]`.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl TopicFilter {
    /// Checks and keeps a topic filter; `$share/…` has no meaning here, see [`SubscriptionFilter`].
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        check_wildcards(text)?;
        Ok(Self(text.into()))
    }

    /// How many levels the filter has: one more than it has slashes.
    pub fn levels(&self) -> usize {
        count_levels(&self.0)
    }

    /// Whether `+` or `#` occurs.
    pub fn has_wildcard(&self) -> bool {
        self.0.bytes().any(is_wildcard)
    }

    /// Whether a message published to `name` reaches this filter's subscribers.
    pub fn matches(&self, name: &TopicName) -> bool {
        // [MQTT-4.7.2-1]
        if name.is_reserved() && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.0.split('/');
        for own in self.0.split('/') {
            match (own, levels.next()) {
                // A last # also matches the level above it, so a missing level is no mismatch.
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (own, Some(level)) if own == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether every topic name that matches `other` also matches this filter.
    pub fn contains(&self, other: &TopicFilter) -> bool {
        // No name is empty, so the level above these # is never all there is.
        let other = match &*other.0 {
            "#" => "+/#",
            "/#" => "/+/#",
            text => text,
        };
        // [MQTT-4.7.2-1]
        if other.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = other.split('/');
        for own in self.0.split('/') {
            match (own, levels.next()) {
                ("#", _) => return true,
                (_, Some("#") | None) => return false,
                ("+", Some(_)) => {}
                (own, Some(level)) if own == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl From<&TopicName> for TopicFilter {
    /// The filter that matches exactly this name.
    fn from(name: &TopicName) -> Self {
        Self(Arc::clone(&name.0))
    }
}

impl ShareName {
    /// Checks and keeps a share name `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() || text.bytes().any(|byte| is_wildcard(byte) || byte == b'/') {
            return Err(TopicError::BadShareName);
        }
        check_common(text)?;
        Ok(Self(text.into()))
    }
}

impl SubscriptionFilter {
    /// Reads a filter, or `$share/group/filter`.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            return Ok(Self {
                share: None,
                filter: TopicFilter::parse(text)?,
            });
        };
        let (share, filter) = shared.split_once('/').ok_or(TopicError::NoSharedFilter)?;
        if filter.is_empty() {
            return Err(TopicError::NoSharedFilter);
        }
        Ok(Self {
            share: Some(ShareName::parse(share)?),
            filter: TopicFilter::parse(filter)?,
        })
    }

    /// The length of the text in bytes, group included.
    pub fn text_len(&self) -> usize {
        let group = self
            .share
            .as_ref()
            .map_or(0, |share| SHARE_PREFIX.len() + share.0.len() + 1);
        group + self.filter.0.len()
    }
}

impl From<TopicFilter> for SubscriptionFilter {
    fn from(filter: TopicFilter) -> Self {
        Self {
            share: None,
            filter,
        }
    }
}

impl fmt::Display for SubscriptionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(share) => write!(f, "{SHARE_PREFIX}{share}/{}", self.filter),
            None => self.filter.fmt(f),
        }
    }
}

impl fmt::Debug for SubscriptionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for SubscriptionFilter {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

/// Gives a text newtype what configuration, logs and comparisons need.
macro_rules! text_value {
    ($type:ident, $format:literal) => {
        impl $type {
            /// The text as it travels.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = TopicError;
            fn from_str(text: &str) -> Result<Self, TopicError> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "format": $format,
                    "minLength": 1,
                    "maxLength": MAX_TOPIC_BYTES,
                })
            }
        }
    };
}

text_value!(TopicName, "topic-name");
text_value!(TopicFilter, "topic-filter");
text_value!(ShareName, "share-name");

fn check_common(text: &str) -> Result<(), TopicError> {
    match text.len() {
        0 => Err(TopicError::Empty),
        length if length > MAX_TOPIC_BYTES => Err(TopicError::TooLong),
        _ if text.as_bytes().contains(&0) => Err(TopicError::Null),
        _ => Ok(()),
    }
}

fn check_wildcards(text: &str) -> Result<(), TopicError> {
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MisplacedHash);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::MisplacedPlus);
        }
    }
    Ok(())
}

fn is_wildcard(byte: u8) -> bool {
    matches!(byte, b'+' | b'#')
}

fn count_levels(text: &str) -> usize {
    1 + text.bytes().filter(|byte| *byte == b'/').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).expect("a valid topic name")
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).expect("a valid topic filter")
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        let rows = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("sport/#", "sport", true),
            ("sport/#", "sport/", true),
            ("#", "a", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+", "/finance", false),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+/tennis/#", "sport/tennis", true),
            ("a/b", "a/b", true),
            ("a/b", "A/b", false),
            ("a/b", "a/b/", false),
            ("a", "a/b", false),
            ("ACCOUNTS", "Accounts", false),
        ];
        for (text, topic, expected) in rows {
            assert_eq!(
                filter(text).matches(&name(topic)),
                expected,
                "{text} on {topic}"
            );
        }
    }

    /// `[MQTT-4.7.2-1]`
    #[test]
    fn leading_wildcards_do_not_match_topics_that_begin_with_a_dollar() {
        let topic = name("$SYS/monitor/Clients");
        for text in ["#", "+/monitor/Clients", "+/#"] {
            assert!(!filter(text).matches(&topic), "{text}");
        }
        for text in ["$SYS/#", "$SYS/monitor/+", "$SYS/monitor/Clients"] {
            assert!(filter(text).matches(&topic), "{text}");
        }
        assert!(filter("+/$SYS").matches(&name("a/$SYS")));
    }

    #[test]
    fn containment_is_decided_level_by_level() {
        let rows = [
            ("#", "a/b", true),
            ("#", "+/b/#", true),
            ("#", "$SYS/a", false),
            ("+/#", "#", true),
            ("/+/#", "/#", true),
            ("+", "#", false),
            ("+/+/#", "#", false),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/#", "a/+/c", true),
            ("a", "a/#", false),
            ("a/+", "a/#", false),
            ("a/+/#", "a/#", false),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("+/b", "a/b", true),
            ("+/b", "$a/b", false),
            ("$SYS/#", "$SYS/+", true),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
        ];
        for (outer, inner, expected) in rows {
            assert_eq!(
                filter(outer).contains(&filter(inner)),
                expected,
                "{outer} over {inner}"
            );
        }
    }

    #[test]
    fn malformed_texts_are_refused_by_name() {
        let rows = [
            ("", TopicError::Empty),
            ("a\0", TopicError::Null),
            ("sport/tennis#", TopicError::MisplacedHash),
            ("sport/#/ranking", TopicError::MisplacedHash),
            ("##", TopicError::MisplacedHash),
            ("sport+", TopicError::MisplacedPlus),
            ("+a/b", TopicError::MisplacedPlus),
        ];
        for (text, error) in rows {
            assert_eq!(TopicFilter::parse(text), Err(error), "{text:?}");
        }
        let longest = "a/".repeat(MAX_TOPIC_BYTES / 2) + "a";
        assert_eq!(
            TopicName::parse(&longest).map(|name| name.levels()),
            Ok(32_768)
        );
        assert_eq!(TopicName::parse(&(longest + "a")), Err(TopicError::TooLong));
        assert_eq!(TopicName::parse("a/+"), Err(TopicError::WildcardInName));
    }

    #[test]
    fn a_topic_may_begin_with_a_character_of_many_bytes() {
        assert!(filter("é/+").matches(&name("é/ü")));
        assert!(!filter("+").matches(&name("$é")));
    }

    #[test]
    fn shared_subscriptions_are_taken_apart_and_put_together() {
        let shared = SubscriptionFilter::parse("$share/group/a/+").expect("a shared filter");
        assert_eq!(shared.share, ShareName::parse("group").ok());
        assert_eq!(shared.filter, filter("a/+"));
        assert_eq!(shared.to_string(), "$share/group/a/+");
        assert_eq!(shared.text_len(), "$share/group/a/+".len());
        let rows = [
            ("$share/group", TopicError::NoSharedFilter),
            ("$share/group/", TopicError::NoSharedFilter),
            ("$share//a", TopicError::BadShareName),
            ("$share/+/a", TopicError::BadShareName),
            ("$share/group/a#", TopicError::MisplacedHash),
        ];
        for (text, error) in rows {
            assert_eq!(SubscriptionFilter::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn configuration_reads_filters_and_says_what_is_wrong_with_them() {
        let read: TopicFilter = serde_json::from_str(r#""a/#""#).expect("a valid filter");
        assert_eq!(read, filter("a/#"));
        let error = serde_json::from_str::<TopicFilter>(r#""a#""#).expect_err("misplaced");
        assert!(
            error.to_string().contains("must be a whole level"),
            "{error}"
        );
        let schema = schemars::schema_for!(TopicFilter);
        assert_eq!(
            schema.get("format").and_then(|value| value.as_str()),
            Some("topic-filter")
        );
    }

    proptest! {
        /// Over a small alphabet, so that filters and names meet.
        #[test]
        fn a_filter_contains_another_exactly_when_it_matches_all_that_the_other_does(
            outer in "#|(/|[ab$]|\\+)(/([ab]|\\+)?){0,3}(/#)?",
            inner in "#|(/|[ab$]|\\+)(/([ab]|\\+)?){0,3}(/#)?",
            topic in "(/|[ab$])(/[ab]?){0,3}",
        ) {
            let (outer, inner, topic) = (filter(&outer), filter(&inner), name(&topic));
            if outer.contains(&inner) && inner.matches(&topic) {
                prop_assert!(outer.matches(&topic));
            }
            prop_assert_eq!(outer.contains(&TopicFilter::from(&topic)), outer.matches(&topic));
            let witnesses = witnesses(inner.as_str());
            let all_match = witnesses.iter().all(|witness| outer.matches(witness));
            prop_assert_eq!(outer.contains(&inner), all_match);
        }
    }
    /// Names that match `inner`, of which a filter that does not contain it misses one: its
    /// wildcards stand for a level that no filter here spells out.
    fn witnesses(inner: &str) -> Vec<TopicName> {
        let (stem, tails): (&str, &[&str]) = match inner.strip_suffix("/#") {
            Some(stem) => (stem, &["", "/x", "/x/x/x/x/x/x"]),
            None if inner == "#" => ("x", &["", "/x/x/x/x/x/x"]),
            None => (inner, &[""]),
        };
        let stem = stem.replace('+', "x");
        let names = tails.iter().map(|tail| format!("{stem}{tail}"));
        names
            .filter_map(|text| TopicName::parse(&text).ok())
            .collect()
    }
}
