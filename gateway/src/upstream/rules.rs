//! Maps local topics to upstream topics by the forward rules, and back by the receive rules.
//!
//! Invariant: a stored message always has somewhere to go: one whose rule is gone goes where the
//! default rule would send it. Layer: core.

use broker_lite::{
    packet::{MessageProperties, QoS},
    topic::{TopicError, TopicFilter, TopicName},
};
use bytes::Bytes;
use serde_json::json;

use super::outbound::{Key, Notices, Origin, Outbound, Packing};
use crate::{
    buffer::row::{Gap, Row},
    config::{Forward, Order, Receive},
    reading::ClockState,
};

const GATEWAY: &str = "{gateway}";
const TOPIC: &str = "{topic}";
/// Where messages go whose rule was removed while they waited, and gap markers.
const DEFAULT_TEMPLATE: &str = "{gateway}/{topic}";
/// Where the upstream is told of a message over which it closes the link.
const STAND_INS: &str = "alert/dead-letter/upstream";
/// Where the upstream is told that a budget is used up.
const BUDGET: &str = "alert/budget/upstream";

/// A rule that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("[[{table}]] filter = {filter:?}: topic = {template:?} makes {made:?}: {source}")]
    NoTopic {
        table: &'static str,
        filter: String,
        template: String,
        made: String,
        source: TopicError,
    },
    #[error(
        "[[receive]] filter = {filter:?} has wildcards, so its topic = {template:?} needs {{topic}}"
    )]
    NotInvertible { filter: String, template: String },
}

/// All rules of one link.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    gateway: String,
    /// With the gateway's name in their topics.
    forwards: Vec<Forward>,
    receives: Vec<Inverse>,
    /// Rows are put into another form behind the forwarder, which needs to know where they come from.
    reshaped: bool,
}

/// A receive rule, the other way round.
#[derive(Debug, Clone)]
struct Inverse {
    subscription: TopicFilter,
    local: TopicFilter,
    prefix: String,
    suffix: String,
    /// The local topic of a rule without `{topic}`.
    fixed: Option<TopicName>,
}

impl Rules {
    /// Compiles the rules, or says which one cannot work.
    pub(crate) fn new(
        gateway: &str,
        forwards: &[Forward],
        receives: &[Receive],
    ) -> Result<Rules, RuleError> {
        for rule in forwards {
            let made = fill(&rule.topic, gateway, "topic");
            TopicName::parse(&made).map_err(|source| RuleError::NoTopic {
                table: "forward",
                filter: rule.filter.to_string(),
                template: rule.topic.clone(),
                made,
                source,
            })?;
        }
        Ok(Rules {
            gateway: gateway.to_owned(),
            forwards: forwards
                .iter()
                .map(|rule| Forward {
                    topic: rule.topic.replace(GATEWAY, gateway),
                    ..rule.clone()
                })
                .collect(),
            receives: receives
                .iter()
                .map(|rule| Inverse::new(rule, gateway))
                .collect::<Result<_, _>>()?,
            reshaped: false,
        })
    }

    /// The rules of a Sparkplug link: they say what goes up and what may come down, but name no topics upstream.
    pub(crate) fn for_sparkplug(
        gateway: &str,
        forwards: &[Forward],
        receives: &[Receive],
    ) -> Result<Rules, RuleError> {
        let forwards: Vec<_> = forwards
            .iter()
            .map(|rule| Forward {
                topic: DEFAULT_TEMPLATE.to_owned(),
                batch: None,
                compress: None,
                ..rule.clone()
            })
            .collect();
        let receives: Vec<_> = receives
            .iter()
            .map(|rule| Receive {
                topic: TOPIC.to_owned(),
                ..rule.clone()
            })
            .collect();
        Ok(Rules {
            reshaped: true,
            ..Rules::new(gateway, &forwards, &receives)?
        })
    }

    /// Where the link's own words go.
    pub(crate) fn notices(&self) -> Result<Notices, TopicError> {
        let topic = |local| TopicName::parse(&fill(DEFAULT_TEMPLATE, &self.gateway, local));
        Ok(Notices {
            stand_ins: topic(STAND_INS)?,
            budget: topic(BUDGET)?,
        })
    }

    /// What is subscribed to upstream.
    pub(crate) fn subscriptions(&self) -> Vec<TopicFilter> {
        self.receives
            .iter()
            .map(|rule| rule.subscription.clone())
            .collect()
    }

    /// The local topic of a message from upstream; `None` if no rule takes it.
    pub(crate) fn local(&self, upstream: &str) -> Option<TopicName> {
        self.receives.iter().find_map(|rule| rule.local(upstream))
    }

    /// The message that carries a row upstream; an error if its topic grows too long for MQTT.
    pub(crate) fn outbound(&self, row: Row) -> Result<Outbound, TopicError> {
        let rule = self
            .forwards
            .iter()
            .find(|rule| rule.filter.matches(&row.topic));
        let (topic, qos) = match rule {
            Some(rule) => (rule.topic.replace(TOPIC, row.topic.as_str()), rule.qos),
            None => (
                fill(DEFAULT_TEMPLATE, &self.gateway, row.topic.as_str()),
                QoS::AtLeastOnce,
            ),
        };
        let overtakes = rule.is_some_and(|rule| rule.order == Order::LiveFirst);
        let topic = TopicName::parse(&topic)?;
        let batch = rule.and_then(|rule| rule.batch);
        let compress = rule.and_then(|rule| rule.compress);
        let packs = self.reshaped || batch.is_some() || compress.is_some();
        let packing = packs.then(|| {
            Box::new(Packing {
                batch,
                compress,
                origin: origin(&row),
            })
        });
        let mut properties = row.properties.unwrap_or_default();
        // In a batch the row's entry says it.
        if packing
            .as_ref()
            .is_none_or(|packing| packing.batch.is_none())
        {
            note(&mut properties, "seq", &row.seq.to_string());
            note(&mut properties, "time", &row.received.to_string());
            if row.clock == ClockState::Unsynced {
                note(&mut properties, "clock", "unsynced");
            }
        }
        Ok(Outbound {
            key: Key::Row(row.id),
            source: row.topic,
            overtakes,
            topic,
            payload: row.payload,
            qos,
            retain: row.retain,
            properties,
            packing,
        })
    }

    /// The message that tells the upstream what it will never get.
    pub(crate) fn gap_marker(&self, gap: &Gap) -> Result<Outbound, TopicError> {
        let local = format!("alert/gap/{}", gap.topic);
        let topic = TopicName::parse(&fill(DEFAULT_TEMPLATE, &self.gateway, &local))?;
        let marker = json!({
            "topic": gap.topic,
            "first": gap.first_seq,
            "last": gap.last_seq,
            "count": gap.count,
            "from": gap.from.to_string(),
            "to": gap.to.to_string(),
            "reason": gap.reason,
        });
        Ok(Outbound {
            key: Key::Gap {
                id: gap.id,
                count: gap.count,
            },
            source: topic.clone(),
            overtakes: false,
            topic,
            payload: Bytes::from(marker.to_string()),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            packing: None,
        })
    }
}

impl Inverse {
    fn new(rule: &Receive, gateway: &str) -> Result<Inverse, RuleError> {
        let template = rule.topic.replace(GATEWAY, gateway);
        let made = template.replace(TOPIC, rule.filter.as_str());
        let subscription = TopicFilter::parse(&made).map_err(|source| RuleError::NoTopic {
            table: "receive",
            filter: rule.filter.to_string(),
            template: rule.topic.clone(),
            made,
            source,
        })?;
        let (prefix, suffix, fixed) = match template.split_once(TOPIC) {
            Some((prefix, suffix)) => (prefix.to_owned(), suffix.to_owned(), None),
            None => {
                let fixed = TopicName::parse(rule.filter.as_str()).map_err(|_| {
                    RuleError::NotInvertible {
                        filter: rule.filter.to_string(),
                        template: rule.topic.clone(),
                    }
                })?;
                (String::new(), String::new(), Some(fixed))
            }
        };
        Ok(Inverse {
            subscription,
            local: rule.filter.clone(),
            prefix,
            suffix,
            fixed,
        })
    }

    fn local(&self, upstream: &str) -> Option<TopicName> {
        if let Some(fixed) = &self.fixed {
            return (upstream == self.subscription.as_str()).then(|| fixed.clone());
        }
        let name = upstream
            .strip_prefix(self.prefix.as_str())?
            .strip_suffix(self.suffix.as_str())?;
        let name = TopicName::parse(name).ok()?;
        self.local.matches(&name).then_some(name)
    }
}

fn fill(template: &str, gateway: &str, topic: &str) -> String {
    template.replace(GATEWAY, gateway).replace(TOPIC, topic)
}

fn origin(row: &Row) -> Origin {
    Origin {
        topic: row.topic.clone(),
        seq: row.seq,
        received: row.received,
        clock: row.clock,
    }
}

fn note(properties: &mut MessageProperties, name: &str, value: &str) {
    properties
        .user_properties
        .push(name, value)
        .expect("numbers and times are short and free of null characters");
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::config::{Priority, Store};

    #[test]
    fn the_first_rule_that_matches_names_the_upstream_topic() {
        let rules = rules(
            &[
                ("telemetry/a/#", "site/{gateway}/first/{topic}"),
                ("telemetry/#", "second/{topic}"),
            ],
            &[],
        );
        assert_eq!(
            upstream(&rules, "telemetry/a/x"),
            "site/gw-1/first/telemetry/a/x"
        );
        assert_eq!(upstream(&rules, "telemetry/b/x"), "second/telemetry/b/x");
    }

    #[test]
    fn a_row_whose_rule_is_gone_still_has_somewhere_to_go() {
        let rules = rules(&[], &[]);
        assert_eq!(upstream(&rules, "telemetry/a"), "gw-1/telemetry/a");
    }

    #[test]
    fn a_message_bears_its_number_and_its_own_time() {
        let outbound = rules(&[], &[]).outbound(row("telemetry/a")).unwrap();
        let pairs: Vec<_> = outbound.properties.user_properties.iter().collect();
        assert_eq!(
            pairs,
            [
                ("seq", "42"),
                ("time", "2026-11-22T11:35:17.123Z"),
                ("clock", "unsynced")
            ]
        );
    }

    #[test]
    fn commands_find_their_way_back_to_local_topics() {
        let rules = rules(
            &[],
            &[("command/#", "{gateway}/{topic}"), ("time", "fleet/time")],
        );
        let filters: Vec<_> = rules
            .subscriptions()
            .iter()
            .map(|f| f.to_string())
            .collect();
        assert_eq!(filters, ["gw-1/command/#", "fleet/time"]);
        let local = |topic| rules.local(topic).map(|name| name.to_string());
        assert_eq!(
            local("gw-1/command/meter/x").as_deref(),
            Some("command/meter/x")
        );
        assert_eq!(local("fleet/time").as_deref(), Some("time"));
        assert_eq!(local("gw-2/command/meter/x"), None);
        assert_eq!(
            local("gw-1/telemetry/meter/x"),
            None,
            "only what the filter allows comes in"
        );
    }

    #[test]
    fn rules_that_cannot_work_are_refused_in_words() {
        let receive = |filter: &str, topic: &str| {
            let rule = Receive {
                filter: TopicFilter::parse(filter).unwrap(),
                topic: topic.to_owned(),
            };
            Rules::new("gw-1", &[], &[rule]).unwrap_err().to_string()
        };
        assert_eq!(
            receive("command/#", "all"),
            "[[receive]] filter = \"command/#\" has wildcards, so its topic = \"all\" needs {topic}"
        );
        assert!(receive("command/#", "{topic}/down").contains("makes \"command/#/down\""));
        let forward = forward("a/#", "a/+/{topic}");
        let error = Rules::new("gw-1", &[forward], &[]).unwrap_err().to_string();
        assert!(error.contains("[[forward]] filter = \"a/#\""), "{error}");
    }

    #[test]
    fn a_gap_marker_names_what_is_missing() {
        let gap = Gap {
            id: 1,
            topic: "telemetry/a".to_owned(),
            reason: "evicted".to_owned(),
            first_seq: 7,
            last_seq: 9,
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::UNIX_EPOCH,
            count: 3,
        };
        let marker = rules(&[], &[]).gap_marker(&gap).unwrap();
        assert_eq!(marker.topic.as_str(), "gw-1/alert/gap/telemetry/a");
        let value: serde_json::Value = serde_json::from_slice(&marker.payload).unwrap();
        assert_eq!(
            (value["first"].as_u64(), value["count"].as_u64()),
            (Some(7), Some(3))
        );
    }

    fn rules(forwards: &[(&str, &str)], receives: &[(&str, &str)]) -> Rules {
        let forwards: Vec<_> = forwards
            .iter()
            .map(|(filter, topic)| forward(filter, topic))
            .collect();
        let receives: Vec<_> = receives
            .iter()
            .map(|(filter, topic)| Receive {
                filter: TopicFilter::parse(filter).unwrap(),
                topic: (*topic).to_owned(),
            })
            .collect();
        Rules::new("gw-1", &forwards, &receives).unwrap()
    }

    fn forward(filter: &str, topic: &str) -> Forward {
        Forward {
            filter: TopicFilter::parse(filter).unwrap(),
            topic: topic.to_owned(),
            qos: QoS::AtLeastOnce,
            priority: Priority::Normal,
            order: Order::default(),
            quota: None,
            batch: None,
            compress: None,
            store: Store::Durable,
        }
    }

    fn upstream(rules: &Rules, topic: &str) -> String {
        rules.outbound(row(topic)).unwrap().topic.to_string()
    }

    fn row(topic: &str) -> Row {
        Row {
            id: 1,
            topic: TopicName::parse(topic).unwrap(),
            seq: 42,
            qos: QoS::AtLeastOnce,
            retain: false,
            received: "2026-11-22T11:35:17.123Z".parse().unwrap(),
            clock: ClockState::Unsynced,
            properties: None,
            payload: Bytes::new(),
        }
    }
}
