//! Rows become dead letters, and on demand dead letters become rows again.
//!
//! Invariant: a message is one or the other, never both; one that comes back has its topic, number
//! and time, and pushes nothing out. Layer: driver.

use std::collections::HashSet;

use broker_lite::{message::Message, packet::QoS, topic::TopicName};
use rusqlite::OptionalExtension;

use super::{Draft, Insertion};
use crate::{
    buffer::{
        clock::RowStamp,
        dead::{self, Corpse},
        errand::{Errand, Fate, Left, Settled, Which},
        inbox,
        retention::{RANKS, Rank, Reason},
    },
    reading::ClockState,
};

impl Draft<'_> {
    pub(super) fn bury(
        &mut self,
        row: i64,
        reason: &str,
        now_us: i64,
    ) -> Result<(), rusqlite::Error> {
        let corpse = self
            .transaction
            .prepare_cached(
                "SELECT t.name, m.seq, m.qos, m.retain, m.wall_us, m.monotonic_ns, m.boot, m.synced,
                        m.properties, m.payload, ?2, true
                 FROM message m JOIN topic t ON t.id = m.topic WHERE m.row = ?1",
            )?
            .query_row([row, Rank::of_row(row).index() as i64], dead::read_corpse)
            .optional()?;
        self.done.buried += self.delete_rows(row, row)?;
        let Some(corpse) = corpse else { return Ok(()) };
        if let Ok(topic) = TopicName::parse(&corpse.topic) {
            let (seq, wall_us) = (corpse.seq as u64, corpse.wall_us);
            self.done
                .gaps
                .enter(&topic, Reason::DeadLetter, seq, wall_us);
        }
        let max_bytes = self.store.limits.dead_bytes();
        dead::bury(self.transaction, &corpse, reason, now_us, max_bytes)
    }

    /// Keeps the dead letters within their share.
    pub(in crate::buffer) fn trim_dead_letters(&self) -> Result<(), rusqlite::Error> {
        match self.done.buried {
            0 => Ok(()),
            _ => dead::trim(self.transaction, self.store.limits.dead_bytes()),
        }
    }

    /// Does to dead letters what is asked for, within a topic by number.
    pub(in crate::buffer) fn settle(
        &mut self,
        errand: &Errand,
    ) -> Result<Settled, rusqlite::Error> {
        if errand.is_proof() {
            self.note(&[("proof", 1)])?;
            return Ok(Settled::default());
        }
        let kept = dead::ids(self.transaction)?;
        let mut settled = Settled::default();
        let chosen = match &errand.which {
            Which::All => kept,
            Which::These(ids) => {
                let wanted: HashSet<i64> = ids.iter().copied().collect();
                let known: HashSet<i64> = kept.iter().copied().collect();
                let unknown = wanted.difference(&known);
                settled.left.extend(unknown.map(|id| (*id, Left::Unknown)));
                kept.into_iter().filter(|id| wanted.contains(id)).collect()
            }
        };
        for id in chosen {
            let left = match errand.fate {
                Fate::Resend => self.exhume(id)?,
                Fate::Drop => None,
            };
            match left {
                Some(left) => settled.left.push((id, left)),
                None => {
                    dead::remove(self.transaction, id)?;
                    settled.done.push(id);
                }
            }
        }
        settled.left.sort_unstable_by_key(|(id, _)| *id);
        Ok(settled)
    }

    /// Enters a dead letter as the newest row of its topic; tells why not.
    fn exhume(&mut self, id: i64) -> Result<Option<Left>, rusqlite::Error> {
        let Some(corpse) = dead::find(self.transaction, id)? else {
            return Ok(Some(Left::Unknown));
        };
        let Some((message, stamp)) = revive(&corpse) else {
            return Ok(Some(Left::PayloadNotKept));
        };
        let cost = inbox::cost(&message, corpse.properties.as_deref()) as u64;
        let Some(mut topic) = self.topic(&message.topic)? else {
            return Ok(Some(Left::NoRoom));
        };
        let rule = self.usage.rule_of(topic.id);
        if cost > self.room || rule.is_some_and(|rule| self.usage.excess(rule, cost) > 0) {
            return Ok(Some(Left::NoRoom));
        }
        let rank = Rank::all()
            .nth(corpse.rank.clamp(0, RANKS as i64 - 1) as usize)
            .unwrap_or_default();
        let rank = self.rank_in_order(rank, topic.last_row)?;
        let seq = corpse.seq as u64;
        topic.last_row = rank.row(self.next_order);
        topic.last_seq = topic.last_seq.max(seq);
        self.insert(&Insertion {
            row: topic.last_row,
            topic: topic.id,
            seq,
            message: &message,
            properties: corpse.properties.as_deref(),
            stamp,
            boot: corpse.boot,
        })?;
        self.next_order += 1;
        self.waiting[rank.index()] += 1;
        self.room -= cost;
        self.weigh(topic.id, cost as i64);
        self.topics.insert(message.topic, topic);
        Ok(None)
    }
}

/// The message as it was; `None` where too little of it was kept.
fn revive(corpse: &Corpse) -> Option<(Message, RowStamp)> {
    let topic = TopicName::parse(&corpse.topic).ok()?;
    if !corpse.whole {
        return None;
    }
    let mut message = Message::new(topic, corpse.payload.clone());
    message.qos = QoS::from_u8(corpse.qos).unwrap_or(QoS::AtLeastOnce);
    message.retain = corpse.retain;
    let stamp = RowStamp {
        wall_us: corpse.wall_us,
        monotonic_ns: corpse.monotonic_ns,
        clock: match corpse.synced {
            true => ClockState::Synced,
            false => ClockState::Unsynced,
        },
    };
    Some((message, stamp))
}
