//! Who subscribes to what: a trie of filter levels, with shared groups at its nodes. A core.
//!
//! Invariant: a node without subscribers and children does not exist, so memory follows the
//! number of subscriptions down as well as up; and no topic visits more nodes than it has levels
//! and [`WILDCARD_NODES_MAX`] together.

mod children;

use std::sync::Arc;

use crate::{
    ids::SessionId,
    memory::{Charge, Meter},
    packet::{SubscribeOptions, SubscriptionId},
    router::children::Children,
    topic::{SubscriptionFilter, TopicName},
};

/// Nodes at and below a `+`, of all filters together: a topic may have to visit them all, which
/// takes two milliseconds and holds everybody up. Filters that are alike share them.
pub(crate) const WILDCARD_NODES_MAX: usize = 32_768;

/// What a node costs beside its text: itself, what its row keeps free, and two allocations.
const NODE_BYTES: usize = 2 * size_of::<(Box<str>, Node)>() + 64;

/// What a subscriber costs at its node: its entry, what the list keeps free, and a part of the
/// list's allocation and of a shared one's group.
const SUBSCRIBER_BYTES: usize = 2 * size_of::<Subscriber>() + 96;

/// One session's subscription as it stands in the trie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Subscriber {
    pub(crate) session: SessionId,
    pub(crate) options: SubscribeOptions,
    pub(crate) id: Option<SubscriptionId>,
}

/// A subscription that a message fits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Match {
    pub(crate) subscriber: Subscriber,
    /// The shared subscription it came by, so that another member can take over.
    pub(crate) shared: Option<Arc<SubscriptionFilter>>,
}

/// Members of one shared subscription, served in turn.
#[derive(Debug)]
struct Group {
    filter: Arc<SubscriptionFilter>,
    members: Vec<Subscriber>,
    next: usize,
}

impl Group {
    /// The next member that is connected, or the next one at all.
    fn choose(&mut self, connected: &dyn Fn(SessionId) -> bool) -> Option<Subscriber> {
        let count = self.members.len();
        let turn = (0..count).map(|step| (self.next + step) % count);
        let chosen = turn
            .clone()
            .find(|index| connected(self.members[*index].session));
        let index = chosen.or_else(|| turn.clone().next())?;
        self.next = (index + 1) % count;
        Some(self.members[index])
    }
}

/// The subscribers of one exact filter.
#[derive(Debug, Default)]
struct Subscribers {
    plain: Vec<Subscriber>,
    groups: Vec<Group>,
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    fn insert(&mut self, filter: &SubscriptionFilter, subscriber: Subscriber) -> bool {
        let members = if filter.share.is_none() {
            &mut self.plain
        } else if let Some(index) = self
            .groups
            .iter()
            .position(|group| *group.filter == *filter)
        {
            &mut self.groups[index].members
        } else {
            self.groups.push(Group {
                filter: Arc::new(filter.clone()),
                members: Vec::new(),
                next: 0,
            });
            let last = self.groups.len() - 1;
            &mut self.groups[last].members
        };
        match members
            .iter_mut()
            .find(|member| member.session == subscriber.session)
        {
            Some(member) => {
                *member = subscriber;
                false
            }
            None => {
                if members.is_empty() {
                    // Most filters have one subscriber.
                    members.reserve_exact(1);
                }
                members.push(subscriber);
                true
            }
        }
    }

    fn remove(&mut self, filter: &SubscriptionFilter, session: SessionId) -> bool {
        if filter.share.is_none() {
            return remove_member(&mut self.plain, session);
        }
        let Some(index) = self
            .groups
            .iter()
            .position(|group| *group.filter == *filter)
        else {
            return false;
        };
        let removed = remove_member(&mut self.groups[index].members, session);
        if self.groups[index].members.is_empty() {
            self.groups.swap_remove(index);
        }
        removed
    }

    fn collect(&mut self, connected: &dyn Fn(SessionId) -> bool, matches: &mut Vec<Match>) {
        let plain = self.plain.iter().map(|subscriber| Match {
            subscriber: *subscriber,
            shared: None,
        });
        matches.extend(plain);
        for group in &mut self.groups {
            if let Some(subscriber) = group.choose(connected) {
                matches.push(Match {
                    subscriber,
                    shared: Some(Arc::clone(&group.filter)),
                });
            }
        }
    }
}

fn remove_member(members: &mut Vec<Subscriber>, session: SessionId) -> bool {
    let Some(index) = members.iter().position(|member| member.session == session) else {
        return false;
    };
    members.remove(index);
    if members.capacity() > 4 * members.len() {
        members.shrink_to_fit();
    }
    true
}

/// A level of filters. Small, for nearly every subscription has nodes of its own.
#[derive(Debug, Default)]
struct Node {
    /// Next levels, `+` included.
    children: Children<Node>,
    /// Whose filter ends at this level.
    here: Option<Box<Subscribers>>,
    /// Whose filter ends with `#` below this level.
    below: Option<Box<Subscribers>>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_none() && self.below.is_none()
    }
}

/// Removes a subscription, and with the last one the place for them.
fn remove_from(
    place: &mut Option<Box<Subscribers>>,
    filter: &SubscriptionFilter,
    session: SessionId,
) -> bool {
    let Some(subscribers) = place else {
        return false;
    };
    let removed = subscribers.remove(filter, session);
    if subscribers.is_empty() {
        *place = None;
    }
    removed
}

/// How large a trie has become.
#[derive(Debug, Default)]
struct Grown {
    /// About what its nodes occupy.
    bytes: usize,
    /// Nodes at and below a `+`.
    wildcard_nodes: usize,
}

impl Grown {
    fn add(&mut self, level: &str, wild: bool) {
        self.bytes += NODE_BYTES + level.len();
        self.wildcard_nodes += usize::from(wild);
    }

    fn remove(&mut self, level: &str, wild: bool) {
        self.bytes -= NODE_BYTES + level.len();
        self.wildcard_nodes -= usize::from(wild);
    }
}

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct Router {
    root: Node,
    count: usize,
    size: Grown,
    charge: Charge,
}

impl Router {
    /// An empty one, which counts what it occupies on `meter`.
    pub(crate) fn new(meter: &Meter) -> Router {
        Router {
            root: Node::default(),
            count: 0,
            size: Grown::default(),
            charge: meter.charge(0),
        }
    }

    /// Whether a filter's wildcards fit beside those of the others.
    pub(crate) fn has_room_for(&self, filter: &SubscriptionFilter) -> bool {
        let levels = filter.filter.as_str().split('/');
        let wild = levels.skip_while(|level| *level != "+").count();
        wild == 0 || self.size.wildcard_nodes + wild <= WILDCARD_NODES_MAX
    }

    fn weigh(&mut self) {
        let subscribers = self.count * SUBSCRIBER_BYTES;
        self.charge.set(self.size.bytes + subscribers);
    }

    /// Subscriptions, shared memberships included.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Adds or replaces a session's subscription; says whether it is new.
    pub(crate) fn subscribe(
        &mut self,
        filter: &SubscriptionFilter,
        subscriber: Subscriber,
    ) -> bool {
        let mut node = &mut self.root;
        let (mut below, mut wild) = (false, false);
        for level in filter.filter.as_str().split('/') {
            if level == "#" {
                below = true;
                break;
            }
            wild |= level == "+";
            if node.children.get(level).is_none() {
                self.size.add(level, wild);
            }
            node = node.children.get_or_insert(level);
        }
        let place = if below {
            &mut node.below
        } else {
            &mut node.here
        };
        let new = place.get_or_insert_default().insert(filter, subscriber);
        self.count += usize::from(new);
        self.weigh();
        new
    }

    /// Removes a session's subscription; says whether there was one.
    pub(crate) fn unsubscribe(&mut self, filter: &SubscriptionFilter, session: SessionId) -> bool {
        let levels: Vec<&str> = filter.filter.as_str().split('/').collect();
        let leaving = Leaving { filter, session };
        let removed = leaving.remove(&mut self.root, &levels, false, &mut self.size);
        self.count -= usize::from(removed);
        self.weigh();
        removed
    }

    /// Adds every subscription that fits the topic to `matches`; of a shared one, a single member.
    pub(crate) fn matches(
        &mut self,
        topic: &TopicName,
        connected: &dyn Fn(SessionId) -> bool,
        matches: &mut Vec<Match>,
    ) {
        let mut search = Search { connected, matches };
        let wildcards = !topic.is_reserved(); // [MQTT-4.7.2-1]
        search.descend(&mut self.root, Some(topic.as_str()), wildcards);
    }

    /// A session's subscription.
    pub(crate) fn find(
        &self,
        filter: &SubscriptionFilter,
        session: SessionId,
    ) -> Option<Subscriber> {
        let mut node = &self.root;
        let mut below = false;
        for level in filter.filter.as_str().split('/') {
            if level == "#" {
                below = true;
            } else {
                node = node.children.get(level)?;
            }
        }
        let place = if below { &node.below } else { &node.here };
        let subscribers = place.as_ref()?;
        let group = || {
            let mut groups = subscribers.groups.iter();
            groups.find(|group| *group.filter == *filter)
        };
        let members = match filter.share {
            None => &subscribers.plain,
            Some(_) => &group()?.members,
        };
        let mut members = members.iter();
        members.find(|member| member.session == session).copied()
    }

    /// The member of a shared subscription whose turn it is.
    pub(crate) fn choose(
        &mut self,
        filter: &SubscriptionFilter,
        connected: &dyn Fn(SessionId) -> bool,
    ) -> Option<Subscriber> {
        let mut node = &mut self.root;
        let mut below = false;
        for level in filter.filter.as_str().split('/') {
            if level == "#" {
                below = true;
            } else {
                node = node.children.get_mut(level)?;
            }
        }
        let place = if below {
            &mut node.below
        } else {
            &mut node.here
        };
        let subscribers = place.as_mut()?;
        let group = subscribers
            .groups
            .iter_mut()
            .find(|group| *group.filter == *filter)?;
        group.choose(connected)
    }
}

struct Search<'a> {
    connected: &'a dyn Fn(SessionId) -> bool,
    matches: &'a mut Vec<Match>,
}

impl Search<'_> {
    /// Recursion is as deep as the deepest filter, which the configured number of levels bounds.
    fn descend(&mut self, node: &mut Node, rest: Option<&str>, wildcards: bool) {
        if wildcards && let Some(below) = &mut node.below {
            below.collect(self.connected, self.matches);
        }
        let Some(rest) = rest else {
            if let Some(here) = &mut node.here {
                here.collect(self.connected, self.matches);
            }
            return;
        };
        if node.children.is_empty() {
            return;
        }
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = node.children.get_mut(level) {
            self.descend(child, rest, true);
        }
        if wildcards && let Some(child) = node.children.get_mut("+") {
            self.descend(child, rest, true);
        }
    }
}

/// The subscription that is to be removed.
struct Leaving<'a> {
    filter: &'a SubscriptionFilter,
    session: SessionId,
}

impl Leaving<'_> {
    /// `wild` below a `+`. Recursion is as deep as the filter.
    fn remove(&self, node: &mut Node, levels: &[&str], wild: bool, size: &mut Grown) -> bool {
        match levels {
            [] => remove_from(&mut node.here, self.filter, self.session),
            ["#"] => remove_from(&mut node.below, self.filter, self.session),
            [level, rest @ ..] => {
                let wild = wild || *level == "+";
                let Some(child) = node.children.get_mut(level) else {
                    return false;
                };
                let removed = self.remove(child, rest, wild, size);
                if child.is_empty() {
                    node.children.remove(level);
                    size.remove(level, wild);
                }
                removed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arena::Arena, packet::QoS};

    struct Sessions(Vec<SessionId>);

    impl Sessions {
        fn new(count: usize) -> Sessions {
            let mut arena = Arena::new();
            Sessions((0..count).map(|_| SessionId(arena.insert(()))).collect())
        }

        fn subscriber(&self, index: usize) -> Subscriber {
            Subscriber {
                session: self.0[index],
                options: SubscribeOptions::at(QoS::AtLeastOnce),
                id: None,
            }
        }

        fn found(&self, router: &mut Router, topic: &str, connected: &[usize]) -> Vec<usize> {
            let mut matches = Vec::new();
            let connected: Vec<SessionId> = connected.iter().map(|index| self.0[*index]).collect();
            let topic = TopicName::parse(topic).expect("a topic name");
            router.matches(
                &topic,
                &|session| connected.contains(&session),
                &mut matches,
            );
            let index =
                |found: &Match| self.0.iter().position(|id| *id == found.subscriber.session);
            let mut found: Vec<usize> = matches.iter().filter_map(index).collect();
            found.sort_unstable();
            found
        }
    }

    fn filter(text: &str) -> SubscriptionFilter {
        SubscriptionFilter::parse(text).expect("a filter")
    }

    #[test]
    fn wildcards_match_as_the_specification_lists_them() {
        let sessions = Sessions::new(1);
        for (text, topic, fits) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
        ] {
            let mut router = Router::new(&Meter::default());
            router.subscribe(&filter(text), sessions.subscriber(0));
            let found = !sessions.found(&mut router, topic, &[]).is_empty();
            assert_eq!(found, fits, "{text} on {topic}");
        }
    }

    #[test]
    fn nothing_remains_of_subscriptions_that_ended() {
        let sessions = Sessions::new(2);
        let mut router = Router::new(&Meter::default());
        for text in ["a/b/c", "a/+/#", "$share/g/a/b", "#"] {
            for index in 0..2 {
                assert!(router.subscribe(&filter(text), sessions.subscriber(index)));
                assert!(!router.subscribe(&filter(text), sessions.subscriber(index)));
            }
        }
        assert_eq!(router.len(), 8);
        for text in ["a/b/c", "a/+/#", "$share/g/a/b", "#"] {
            for index in 0..2 {
                assert!(router.unsubscribe(&filter(text), sessions.0[index]));
                assert!(!router.unsubscribe(&filter(text), sessions.0[index]));
            }
        }
        assert_eq!(router.len(), 0);
        assert!(router.root.is_empty());
    }

    /// The worst that all subscriptions together can do to one topic: each level of each filter is
    /// the topic's or a `+`, so that every node is visited.
    #[test]
    fn a_topic_visits_no_more_nodes_than_the_wildcards_may_have() {
        let sessions = Sessions::new(1);
        let mut router = Router::new(&Meter::default());
        let filters = (0_u32..).map(|number| {
            let level = |bit: u32| if number >> bit & 1 == 0 { "+" } else { "t" };
            filter(&(0..20).map(level).collect::<Vec<_>>().join("/"))
        });
        let mut granted = Vec::new();
        for filter in filters {
            if !router.has_room_for(&filter) {
                break;
            }
            router.subscribe(&filter, sessions.subscriber(0));
            granted.push(filter);
        }
        assert!(router.size.wildcard_nodes <= WILDCARD_NODES_MAX);
        assert!(router.size.wildcard_nodes + 20 > WILDCARD_NODES_MAX);
        assert!(router.has_room_for(&filter("t/t/#")), "needs none");
        let topic = ["t"; 20].join("/");
        assert_eq!(
            sessions.found(&mut router, &topic, &[]).len(),
            granted.len()
        );
        for filter in &granted {
            assert!(router.unsubscribe(filter, sessions.0[0]));
        }
        assert_eq!(router.size.wildcard_nodes, 0);
    }

    #[test]
    fn members_of_a_group_take_turns_and_absent_ones_are_passed_over() {
        let sessions = Sessions::new(3);
        let mut router = Router::new(&Meter::default());
        for index in 0..3 {
            router.subscribe(&filter("$share/g/t"), sessions.subscriber(index));
        }
        let turns: Vec<_> = (0..4)
            .map(|_| sessions.found(&mut router, "t", &[0, 2]))
            .collect();
        assert_eq!(turns, [vec![0], vec![2], vec![0], vec![2]]);
        assert_eq!(sessions.found(&mut router, "t", &[]).len(), 1);
    }
}
