//! The link of a Sparkplug edge node: births before rows, NDEATH before the goodbye, commands on their local topics.
//!
//! Invariant: the forwarder knows of a link only once the births are on their way, and a row leaves the buffer only when the
//! upstream has read past it. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::time::Instant;

use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    super::{
        Cause, State,
        forwarder::{Allowance, Answer, Input},
        outbound::Outbound,
        packer::Ticket,
        session::{Received, Session},
        sparkplug::{Edge, Fence, Heard, Latest, Plant, Sent, milliseconds},
    },
    Connection, Hello, Leave, Link, MAX_WAITING, Pump, not_acknowledged,
};
use crate::clock;

/// The edge node, over all connections.
pub(super) struct Node {
    edge: Edge,
    latest: Latest,
    states: watch::Receiver<u64>,
}

/// What it knows of one connection.
pub(super) struct NodeSession {
    fence: Fence<(Ticket, Instant)>,
    allowance: Allowance,
}

impl NodeSession {
    /// A packet is on its way, which nobody will answer.
    pub(super) fn written(&mut self, packet: (Ticket, Instant)) {
        self.fence.written(packet);
    }
}

impl Connection {
    /// Whether the upstream has answered the subscriptions before.
    pub(super) fn has_subscribed(&self) -> bool {
        self.node
            .as_ref()
            .is_some_and(|node| node.fence.subscribed())
    }
}

impl Node {
    /// When the node has something to do by itself.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.edge.poll_timeout()
    }

    /// A message of the forwarder's.
    pub(super) fn push(&mut self, message: Outbound) {
        self.edge.push(message);
    }

    /// Takes in what the local broker has told meanwhile.
    pub(super) fn learn(&mut self, now: Instant) {
        for (topic, (payload, taken)) in self.latest.take() {
            self.edge.learn(&topic, &payload, taken, now);
        }
    }
}

impl Link {
    /// The edge node, where the configuration wants one.
    pub(super) fn node(&self, plant: Option<Plant>) -> Result<Option<Node>, Cause> {
        let (Some(config), Some(Plant { catalog, latest })) = (&self.config.sparkplug, plant)
        else {
            return Ok(None);
        };
        let several = self.config.url.iter().count() > 1;
        let edge = Edge::new(config, &self.gateway, several, &catalog).map_err(|error| {
            Cause::Configuration(format!(
                "[upstream.sparkplug]: the names make no topic: {error}"
            ))
        })?;
        let states = latest.states();
        Ok(Some(Node {
            edge,
            latest,
            states,
        }))
    }
}

impl Pump {
    /// What the next connection begins with.
    pub(super) fn begin_session(&mut self) -> Hello {
        match &mut self.node {
            Some(node) => Hello {
                will: Some(node.edge.connect()),
                filters: node.edge.subscriptions(),
            },
            None => Hello {
                will: None,
                filters: self.rules.subscriptions(),
            },
        }
    }

    /// The upstream has let us in: rows may go, behind the births where there is a node.
    pub(super) fn link_up(&mut self, connection: &mut Connection, allowance: Allowance) {
        let Some(node) = &mut self.node else {
            return self.rows_may_go(allowance);
        };
        node.edge.accepted();
        connection.node = Some(NodeSession {
            fence: Fence::new(),
            allowance,
        });
    }

    fn rows_may_go(&mut self, allowance: Allowance) {
        self.board.set(State::Connected);
        self.buffer.link_is_up(true);
        self.input(Input::LinkUp(allowance));
    }

    /// The upstream answered a subscription, and with it whatever was written before.
    pub(super) fn subscribed(&mut self, connection: &mut Connection) {
        let Some(session) = &mut connection.node else {
            return;
        };
        let arrived: Vec<_> = session.fence.answered().collect();
        let now = Instant::now();
        for (ticket, sent) in arrived {
            self.answered(ticket, sent, now, Answer::Acknowledged);
        }
    }

    /// Births, data and deaths that are due.
    pub(super) fn follow_node(&mut self, connection: &mut Connection) -> Result<(), Cause> {
        let (Some(node), Some(session)) = (&mut self.node, &mut connection.node) else {
            return Ok(());
        };
        if node.edge.has_to_leave() {
            self.leaves = Some(Leave::WithoutHost);
            self.gave_up = true;
            let what = "the primary host application is offline there";
            return Err(Cause::Closed(what.to_owned()));
        }
        let stamp = clock::now();
        let (now, now_ms) = (stamp.monotonic, milliseconds(stamp.wall));
        if node.edge.is_born() {
            self.flush(connection, now, now_ms)?;
        } else if session.fence.subscribed() && node.edge.may_be_born() {
            node.learn(now);
            let births = node.edge.birth(now, now_ms);
            info!(births = births.len(), "the edge node is born");
            let allowance = session.allowance;
            self.pass_on(births, connection)?;
            self.rows_may_go(allowance);
            self.drain()?;
            self.flush(connection, now, now_ms)?;
        } else if let Some(host) = node.edge.awaits() {
            let host = host.to_owned();
            self.board.set(State::Waiting { host });
        }
        self.ask_what_arrived(connection)
    }

    /// What was said already makes room for more rows, so again until nothing is due.
    fn flush(&mut self, connection: &Connection, now: Instant, now_ms: u64) -> Result<(), Cause> {
        while let Some(node) = &mut self.node {
            let sent = node.edge.flush(now, now_ms);
            if sent.is_empty() {
                break;
            }
            self.pass_on(sent, connection)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, sent: Vec<Sent>, connection: &Connection) -> Result<(), Cause> {
        for sent in sent {
            match sent {
                Sent::Data(message) => self.packer.push(message, Instant::now()),
                Sent::Own(message) => {
                    fits(&message, connection)?;
                    self.packer.push_own(message);
                }
                Sent::Said(key) => self.input(Input::Answered(key, Answer::Acknowledged)),
                Sent::Never(key, reason) => {
                    self.input(Input::Answered(key, Answer::Never(reason)));
                }
            }
        }
        self.drain()
    }

    fn ask_what_arrived(&mut self, connection: &mut Connection) -> Result<(), Cause> {
        let (Some(node), Some(session)) = (&self.node, &mut connection.node) else {
            return Ok(());
        };
        if !session.fence.asks() {
            return Ok(());
        }
        let commands = node.edge.subscriptions();
        let asked = connection.session.subscribe(&commands[..1]);
        asked.map_err(|_| Cause::Closed("a subscription could not be sent".to_owned()))
    }

    /// Takes in a message from upstream: commands go the way that all take.
    pub(super) fn heard(
        &mut self,
        connection: &mut Connection,
        received: Received,
    ) -> Result<(), Cause> {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let (topic, now) = (&received.topic, Instant::now());
        let heard = node
            .edge
            .received(topic, &received.payload, received.retain, now);
        let mut commands = match heard {
            Heard::Commands(commands) => commands,
            Heard::Nothing => Vec::new(),
            Heard::Refused(reason) => {
                warn!(
                    topic,
                    reason, "a Sparkplug message from upstream is not carried out"
                );
                Vec::new()
            }
        };
        if connection.waiting.len() + commands.len() > MAX_WAITING {
            warn!(
                topic,
                "too many commands at once from upstream; not carried out"
            );
            commands.clear();
        }
        let last = commands.len().checked_sub(1);
        if let (None, Some(packet_id)) = (last, received.packet_id) {
            let acknowledged = connection.session.acknowledge(packet_id);
            return acknowledged.map_err(|_| not_acknowledged());
        }
        for (index, (topic, value)) in commands.into_iter().enumerate() {
            connection.waiting.push_back(Received {
                packet_id: received.packet_id.filter(|_| Some(index) == last),
                duplicate: received.duplicate,
                topic,
                payload: value.into(),
                retain: false,
                properties: None,
            });
        }
        Ok(())
    }

    /// Tells of an end that is intended, for which no will is published.
    pub(super) fn say_dead(&self, session: &Session) {
        if let Some(node) = &self.node
            && node.edge.is_born()
        {
            // Over a link that is gone the will says it.
            let _gone = session.publish(&[node.edge.death()]);
        }
    }
}

/// A birth cannot be divided.
fn fits(message: &Outbound, connection: &Connection) -> Result<(), Cause> {
    let session = connection.node.as_ref();
    let maximum = session.and_then(|session| session.allowance.maximum_packet);
    match maximum {
        Some(maximum) if message.wire_len() > maximum as usize => {
            Err(Cause::Configuration(format!(
                "{} has {} bytes, the upstream takes {maximum}: it has to take larger packets, or fewer points have to be configured",
                message.topic,
                message.wire_len(),
            )))
        }
        _ => Ok(()),
    }
}

/// Waits until a device came or went; for ever where nobody is told of it.
pub(super) async fn states_changed(node: &mut Option<Node>) {
    let changed = match node {
        Some(node) => node.states.changed().await,
        None => return std::future::pending().await,
    };
    if changed.is_err() {
        std::future::pending().await
    }
}
