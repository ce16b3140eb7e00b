//! One transaction of the store under way: rows come and go, and what that changes is noted.
//!
//! Invariant: nothing here outlives a transaction that fails; the store takes the notes over only
//! after the commit. Layer: driver.

mod letters;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use broker_lite::{keeper::Kept, message::Message, topic::TopicName};
use rusqlite::{Transaction, params};

use super::{
    arrivals::{Arrival, MAX_ARRIVALS},
    clock::RowStamp,
    inbox::{self, Entry, Removal},
    memory::Staged,
    quota::Usage,
    retention::{self, RANKS, Rank, Reason, Span, Taken, Verdict},
    schema::{COST, PAGE_BYTES},
    store::{self, Done, Store, Topic},
};
use crate::{config::WhenFull, reading::ClockState};

/// Pages left for gaps, topics and the tree above the rows when no row fits any more.
pub(super) const RESERVED_PAGES: u64 = 64;
/// Names forgotten at once when there are too many: those longest unused, of which no row waits.
const FORGOTTEN_AT_ONCE: usize = 1000;
/// How far the clock runs before its time is written again: an hour.
const FLOOR_STEP_US: i64 = 3_600_000_000;
/// Rows looked at for one message that is over its rule's quota; the next one looks further.
const MAX_SCANNED: usize = 20_000;

/// Numbers of a topic that are reserved at once for messages that wait in memory. Half of them used
/// cost one small commit; a crash leaps over what is left.
const RESERVED_NUMBERS: u64 = 1 << 16;
/// Topics whose numbers are reserved beside another's.
const RESERVED_AT_ONCE: usize = 1000;

/// A transaction under way and what it will have changed.
pub(super) struct Draft<'a> {
    store: &'a Store,
    transaction: &'a Transaction<'a>,
    pub(super) topics: HashMap<TopicName, Topic>,
    /// Names that are not numbered any more.
    pub(super) forgotten: HashSet<TopicName>,
    /// Bytes that came and went, per topic.
    weights: HashMap<i64, i64>,
    pub(super) usage: Usage,
    pub(super) waiting: [u64; RANKS],
    pub(super) next_order: i64,
    pub(super) floor_us: i64,
    room: u64,
    pub(super) done: Done,
}

impl<'a> Draft<'a> {
    pub(super) fn new(store: &'a Store, transaction: &'a Transaction<'a>) -> Draft<'a> {
        Draft {
            store,
            transaction,
            topics: HashMap::new(),
            forgotten: HashSet::new(),
            weights: HashMap::new(),
            usage: store.usage.clone(),
            waiting: store.waiting,
            next_order: store.next_order,
            floor_us: store.floor_us,
            room: 0,
            done: Done::default(),
        }
    }

    /// Finds out how many bytes of rows still fit.
    pub(super) fn measure(&mut self) -> Result<(), rusqlite::Error> {
        let pages: u64 = store::pragma(self.transaction, "page_count")?;
        let free: u64 = store::pragma(self.transaction, "freelist_count")?;
        let used = pages - free + RESERVED_PAGES + self.store.squeeze;
        self.room = self.store.limits.pages().saturating_sub(used) * PAGE_BYTES;
        Ok(())
    }

    pub(super) fn append(&mut self, entry: &Entry) -> Result<Kept, rusqlite::Error> {
        let cost = entry.cost() as u64;
        if cost > self.store.limits.pages() * PAGE_BYTES / 2 {
            return Ok(Kept::Refused);
        }
        let Some(mut topic) = self.topic(&entry.message.topic)? else {
            return Ok(Kept::Refused);
        };
        let seq = (topic.last_seq + 1).max(entry.message.sequence.unwrap_or(0));
        if entry.memory {
            self.reserve(&mut topic, seq);
        }
        match self.make_room(entry.rank, cost, &topic)? {
            Place::Found => {}
            Place::Refused => return Ok(Kept::Refused),
            Place::LeftOut(reason) => {
                let (name, wall_us) = (&entry.message.topic, entry.stamp.wall_us);
                self.done.gaps.enter(name, reason, seq, wall_us);
                topic.last_seq = seq;
                self.topics.insert(name.clone(), topic);
                return Ok(Kept::Committed);
            }
        }
        let rank = self.rank_in_order(entry.rank, topic.last_row)?;
        topic.last_row = rank.row(self.next_order);
        topic.last_seq = seq;
        self.insert(&Insertion {
            row: topic.last_row,
            topic: topic.id,
            seq,
            message: &entry.message,
            properties: entry.properties.as_deref(),
            stamp: entry.stamp,
            boot: self.store.boot,
        })?;
        self.next_order += 1;
        self.waiting[rank.index()] += 1;
        self.room -= cost;
        self.weigh(topic.id, cost as i64);
        self.done.appended += 1;
        self.done.payload_bytes += entry.message.payload.len() as u64;
        self.topics.insert(entry.message.topic.clone(), topic);
        Ok(Kept::Committed)
    }

    /// Writes a row that waited in memory, under the number and in the place that it has.
    pub(super) fn land(&mut self, row: i64, staged: &Staged) -> Result<(), rusqlite::Error> {
        let Staged {
            message,
            properties,
            stamp,
            seq,
        } = staged;
        let cost = inbox::cost(message, properties.as_deref()) as u64;
        let place = match self.topic(&message.topic)? {
            Some(topic) => Some((topic, self.make_room(Rank::of_row(row), cost, &topic)?)),
            None => None,
        };
        let Some((mut topic, Place::Found)) = place else {
            // Nobody can be told no any more.
            let reason = match place {
                Some((_, Place::LeftOut(reason))) => reason,
                _ => Reason::Full,
            };
            let wall_us = stamp.wall_us;
            self.done.gaps.enter(&message.topic, reason, *seq, wall_us);
            return Ok(());
        };
        self.insert(&Insertion {
            row,
            topic: topic.id,
            seq: *seq,
            message,
            properties: properties.as_deref(),
            stamp: *stamp,
            boot: self.store.boot,
        })?;
        topic.last_row = topic.last_row.max(row);
        topic.last_seq = topic.last_seq.max(*seq);
        self.waiting[Rank::of_row(row).index()] += 1;
        self.room -= cost;
        self.weigh(topic.id, cost as i64);
        self.done.spilled += 1;
        self.topics.insert(message.topic.clone(), topic);
        Ok(())
    }

    /// Goes on behind numbers of which it is not known who has them.
    pub(super) fn leap(&mut self, name: TopicName, topic: Topic, last_seq: u64, reason: Reason) {
        if last_seq > topic.last_seq {
            let span = Span {
                first_seq: topic.last_seq + 1,
                last_seq,
                first_us: 0,
                last_us: 0,
                count: 0,
            };
            self.done.gaps.enter_span(&name, reason, span);
        }
        let topic = Topic {
            last_seq: last_seq.max(topic.last_seq),
            reserved: 0,
            ..topic
        };
        self.topics.insert(name, topic);
    }

    /// Numbers for the topic's next messages, which wait in memory: a crash leaps over all of them.
    fn reserve(&mut self, topic: &mut Topic, seq: u64) {
        if topic.reserved >= seq + RESERVED_NUMBERS / 2 {
            return;
        }
        topic.reserved = seq + RESERVED_NUMBERS;
        // Others that will need it soon come along, so that one commit serves them all.
        let soon = |topic: &Topic| {
            topic.reserved > 0 && topic.reserved < topic.last_seq + RESERVED_NUMBERS / 2
        };
        let others = self.store.topics.iter();
        let others: Vec<_> = others
            .filter(|(name, topic)| soon(topic) && !self.is_touched(name))
            .take(RESERVED_AT_ONCE)
            .map(|(name, topic)| (name.clone(), *topic))
            .collect();
        for (name, mut topic) in others {
            topic.reserved = topic.last_seq + RESERVED_NUMBERS;
            self.topics.insert(name, topic);
        }
    }

    fn is_touched(&self, name: &TopicName) -> bool {
        self.topics.contains_key(name) || self.forgotten.contains(name)
    }

    fn make_room(
        &mut self,
        rank: Rank,
        cost: u64,
        topic: &Topic,
    ) -> Result<Place, rusqlite::Error> {
        if let Some(rule) = self.usage.rule_of(topic.id) {
            let place = self.room_in_quota(cost, rule)?;
            if place != Place::Found {
                return Ok(place);
            }
        }
        self.room_in_file(rank, cost)
    }

    fn room_in_quota(&mut self, cost: u64, rule: usize) -> Result<Place, rusqlite::Error> {
        if !self.usage.can_hold(rule, cost) {
            return Ok(Place::Refused);
        }
        let excess = self.usage.excess(rule, cost);
        if excess == 0 {
            return Ok(Place::Found);
        }
        match self.store.limits.when_full {
            WhenFull::Refuse => return Ok(Place::Refused),
            WhenFull::DropNewest => return Ok(Place::LeftOut(Reason::Quota)),
            WhenFull::DropOldest => self.evict_of_rule(rule, excess)?,
        }
        Ok(match self.usage.excess(rule, cost) {
            0 => Place::Found,
            _ => Place::LeftOut(Reason::Quota),
        })
    }

    fn room_in_file(&mut self, rank: Rank, cost: u64) -> Result<Place, rusqlite::Error> {
        while cost > self.room {
            let limits = self.store.limits;
            match retention::verdict(limits.when_full, rank, &self.waiting) {
                Verdict::Evict(rank, rows) => self.evict(rank, rows)?,
                Verdict::Refuse => return Ok(Place::Refused),
                Verdict::Drop => return Ok(Place::LeftOut(Reason::Full)),
            }
        }
        Ok(Place::Found)
    }

    fn insert(&self, new: &Insertion<'_>) -> Result<(), rusqlite::Error> {
        let message = new.message;
        self.transaction
            .prepare_cached("INSERT INTO message VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)")?
            .execute(params![
                new.row,
                new.topic,
                new.seq as i64,
                message.qos as u8,
                message.retain,
                new.stamp.wall_us,
                new.stamp.monotonic_ns,
                new.boot,
                new.stamp.clock == ClockState::Synced,
                new.properties,
                &message.payload[..],
            ])?;
        Ok(())
    }

    /// A rule's priority may change while older rows of a topic still wait: their order counts more.
    fn rank_in_order(&self, wanted: Rank, last_row: i64) -> Result<Rank, rusqlite::Error> {
        let last = Rank::of_row(last_row);
        if last_row == 0 || last == wanted || self.waiting[last.index()] == 0 {
            return Ok(wanted);
        }
        let (first, end) = last.rows();
        let oldest: Option<i64> = self
            .transaction
            .prepare_cached("SELECT min(row) FROM message WHERE row BETWEEN ?1 AND ?2")?
            .query_row([first, end], |row| row.get(0))?;
        let still_waits = oldest.is_some_and(|oldest| oldest <= last_row);
        Ok(if still_waits { last } else { wanted })
    }

    fn evict(&mut self, rank: Rank, rows: u64) -> Result<(), rusqlite::Error> {
        let victims = self.oldest(rank, -1, rows as usize)?;
        // A tally that promised rows that are not there is put right, else this would not end.
        if victims.is_empty() {
            self.waiting[rank.index()] = 0;
        }
        for victim in victims {
            self.drop_row(&victim, Reason::Evicted)?;
        }
        self.measure()
    }

    /// Frees bytes of a rule's oldest rows, lowest priority first.
    fn evict_of_rule(&mut self, rule: usize, excess: u64) -> Result<(), rusqlite::Error> {
        let (mut freed, mut scanned) = (0, 0);
        for rank in Rank::all().rev() {
            loop {
                let step = retention::EVICTED_AT_ONCE as usize;
                let found = self.oldest(rank, self.usage.passed(rule, rank), step)?;
                if found.is_empty() {
                    break;
                }
                for victim in found {
                    if freed >= excess || scanned >= MAX_SCANNED {
                        return self.measure();
                    }
                    scanned += 1;
                    self.usage.pass(rule, rank, victim.row);
                    if self.usage.rule_of(victim.topic) == Some(rule) {
                        freed += victim.cost as u64;
                        self.drop_row(&victim, Reason::Quota)?;
                    }
                }
            }
        }
        self.measure()
    }

    /// Takes out a step of the rows that are too old.
    pub(super) fn expire(
        &mut self,
        now: RowStamp,
        max_age: Duration,
    ) -> Result<(), rusqlite::Error> {
        let now = Taken {
            wall_us: now.wall_us,
            monotonic_ns: now.monotonic_ns,
            this_boot: true,
            synced: now.clock == ClockState::Synced,
        };
        for rank in Rank::all() {
            for victim in self.oldest(rank, -1, retention::EVICTED_AT_ONCE as usize)? {
                // Rows stand in the order of their age.
                if !retention::is_expired(victim.taken, now, max_age) {
                    break;
                }
                self.drop_row(&victim, Reason::Expired)?;
            }
        }
        Ok(())
    }

    fn oldest(&self, rank: Rank, after: i64, rows: usize) -> Result<Vec<Victim>, rusqlite::Error> {
        let (first, end) = rank.rows();
        self.transaction
            .prepare_cached(&format!(
                "SELECT m.row, m.topic, m.seq, m.wall_us, m.monotonic_ns, m.boot = ?4, m.synced,
                        {COST}, t.name
                 FROM message m LEFT JOIN topic t ON t.id = m.topic
                 WHERE m.row BETWEEN ?1 AND ?2 ORDER BY m.row LIMIT ?3"
            ))?
            .query_map(
                params![first.max(after + 1), end, rows as i64, self.store.boot],
                read_victim,
            )?
            .collect()
    }

    /// One message less, announced.
    fn drop_row(&mut self, victim: &Victim, reason: Reason) -> Result<(), rusqlite::Error> {
        if let Some(name) = &victim.name {
            let wall_us = victim.taken.wall_us;
            self.done.gaps.enter(name, reason, victim.seq, wall_us);
        }
        self.delete_rows(victim.row, victim.row).map(drop)
    }

    /// Takes out what leaves.
    pub(super) fn remove(&mut self, removals: &[Removal]) -> Result<(), rusqlite::Error> {
        let mut forwarded = Vec::new();
        for removal in removals {
            match removal {
                Removal::Row(row) => forwarded.push(*row),
                Removal::Bury(row, reason, now_us) => self.bury(*row, reason, *now_us)?,
                Removal::Arrival(packet_id) => {
                    self.transaction
                        .prepare_cached("DELETE FROM arrival WHERE packet_id = ?1")?
                        .execute([packet_id])?;
                }
                Removal::Doubt(arrival) => {
                    self.transaction
                        .prepare_cached(
                            "UPDATE arrival SET doubtful = 0 WHERE packet_id = ?1 AND digest = ?2",
                        )?
                        .execute(params![arrival.packet_id, arrival.digest])?;
                }
                Removal::Gap { id, count } => {
                    // One that has grown since it was sent stays, to be sent again as it is now.
                    self.transaction
                        .prepare_cached("DELETE FROM gap WHERE id = ?1 AND count = ?2")?
                        .execute(params![id, *count as i64])?;
                }
            }
        }
        // Neighbours leave by one statement: the file is walked once for all of them.
        forwarded.sort_unstable();
        for run in forwarded.chunk_by(|row, next| row + 1 == *next) {
            self.done.forwarded += self.delete_rows(run[0], run[run.len() - 1])?;
        }
        Ok(())
    }

    /// Remembers the time now and then, for the next start without a right clock.
    pub(super) fn raise_floor(&mut self, synced_us: Option<i64>) -> Result<(), rusqlite::Error> {
        match synced_us {
            Some(wall_us) if wall_us >= self.floor_us + FLOOR_STEP_US => {
                self.floor_us = wall_us;
                self.note(&[("clock", wall_us)])
            }
            _ => Ok(()),
        }
    }

    /// Writes marks down.
    pub(super) fn note(&self, marks: &[(&'static str, i64)]) -> Result<(), rusqlite::Error> {
        for (name, value) in marks {
            self.transaction
                .prepare_cached("INSERT OR REPLACE INTO mark VALUES (?1, ?2)")?
                .execute(params![name, value])?;
        }
        Ok(())
    }

    /// Remembers a message from upstream that is about to be handed on.
    pub(super) fn remember(&self, arrival: &Arrival) -> Result<(), rusqlite::Error> {
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO arrival (packet_id, digest, doubtful) VALUES (?1, ?2, 1)",
            )?
            .execute(params![arrival.packet_id, arrival.digest])?;
        self.transaction
            .prepare_cached("DELETE FROM arrival WHERE id <= (SELECT max(id) FROM arrival) - ?1")?
            .execute([MAX_ARRIVALS as i64])?;
        Ok(())
    }

    /// From the first row to the last.
    fn delete_rows(&mut self, first: i64, last: i64) -> Result<u64, rusqlite::Error> {
        let transaction = self.transaction;
        let mut costs = transaction.prepare_cached(&format!(
            "SELECT row, topic, {COST} FROM message WHERE row BETWEEN ?1 AND ?2"
        ))?;
        let mut found = costs.query([first, last])?;
        while let Some(row) = found.next()? {
            self.weigh(row.get(1)?, -row.get::<_, i64>(2)?);
            let waiting = &mut self.waiting[Rank::of_row(row.get(0)?).index()];
            *waiting = waiting.saturating_sub(1);
        }
        let gone = transaction
            .prepare_cached("DELETE FROM message WHERE row BETWEEN ?1 AND ?2")?
            .execute([first, last])?;
        Ok(gone as u64)
    }

    /// Rows of a topic came, or went.
    fn weigh(&mut self, topic: i64, bytes: i64) {
        *self.weights.entry(topic).or_default() += bytes;
        self.usage.add(topic, bytes);
    }

    /// The topic's numbering; `None` when there are too many topics of which rows wait.
    fn topic(&mut self, name: &TopicName) -> Result<Option<Topic>, rusqlite::Error> {
        let known = self.topics.get(name).or_else(|| {
            let known = self.store.topics.get(name);
            known.filter(|_| !self.forgotten.contains(name))
        });
        if let Some(topic) = known {
            return Ok(Some(*topic));
        }
        if self.named() >= self.store.limits.max_topics {
            self.forget_names()?;
            if self.named() >= self.store.limits.max_topics {
                return Ok(None);
            }
        }
        self.transaction
            .prepare_cached("INSERT INTO topic (name, last_seq, last_row) VALUES (?1, 0, 0)")?
            .execute([name.as_str()])?;
        let topic = Topic {
            id: self.transaction.last_insert_rowid(),
            last_seq: 0,
            last_row: 0,
            reserved: 0,
        };
        self.topics.insert(name.clone(), topic);
        self.usage.meet(name, topic.id);
        Ok(Some(topic))
    }

    /// Names with a numbering, counting twice those that this transaction has used.
    fn named(&self) -> usize {
        self.store.topics.len() + self.topics.len() - self.forgotten.len()
    }

    fn forget_names(&mut self) -> Result<(), rusqlite::Error> {
        self.write_weights()?;
        let unused: Vec<(i64, String)> = self
            .transaction
            .prepare_cached(
                "SELECT id, name FROM topic WHERE bytes = 0
                 AND reserved_seq = 0 AND NOT EXISTS (SELECT 1 FROM message WHERE row = topic.last_row)
                 ORDER BY last_row LIMIT ?1",
            )?
            .query_map([FORGOTTEN_AT_ONCE as i64], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        for (id, name) in unused {
            let Ok(name) = TopicName::parse(&name) else {
                continue;
            };
            // One that this transaction numbers has its row yet to come, or has just dropped it.
            if !self.topics.contains_key(&name) {
                self.transaction
                    .prepare_cached("DELETE FROM topic WHERE id = ?1")?
                    .execute([id])?;
                self.usage.forget(id);
                self.forgotten.insert(name);
            }
        }
        Ok(())
    }

    fn write_weights(&mut self) -> Result<(), rusqlite::Error> {
        for (topic, bytes) in self.weights.drain() {
            self.transaction
                .prepare_cached("UPDATE topic SET bytes = max(0, bytes + ?2) WHERE id = ?1")?
                .execute([topic, bytes])?;
        }
        Ok(())
    }

    pub(super) fn write_changes(&mut self) -> Result<(), rusqlite::Error> {
        self.write_weights()?;
        for topic in self.topics.values() {
            self.transaction
                .prepare_cached(
                    "UPDATE topic SET last_seq = ?2, last_row = ?3, reserved_seq = ?4 WHERE id = ?1",
                )?
                .execute(params![
                    topic.id,
                    topic.last_seq as i64,
                    topic.last_row,
                    topic.reserved as i64
                ])?;
        }
        for rank in Rank::all() {
            let rows = self.waiting[rank.index()];
            if rows != self.store.waiting[rank.index()] {
                self.transaction
                    .prepare_cached("UPDATE tally SET rows = ?2 WHERE rank = ?1")?
                    .execute(params![rank.index() as i64, rows as i64])?;
            }
        }
        for (topic, reason, span) in self.done.gaps.iter() {
            store::enter_gap(self.transaction, topic, reason, span)?;
        }
        Ok(())
    }
}

/// A row to be.
struct Insertion<'a> {
    row: i64,
    topic: i64,
    seq: u64,
    message: &'a Message,
    properties: Option<&'a [u8]>,
    stamp: RowStamp,
    /// In which the stamp was taken.
    boot: i64,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Into the file.
    Found,
    /// Into the gap book.
    LeftOut(Reason),
    /// Back to its publisher.
    Refused,
}

/// A row that may have to go.
struct Victim {
    row: i64,
    topic: i64,
    name: Option<TopicName>,
    seq: u64,
    taken: Taken,
    cost: i64,
}

fn read_victim(row: &rusqlite::Row<'_>) -> Result<Victim, rusqlite::Error> {
    let seq: i64 = row.get(2)?;
    let name: Option<String> = row.get(8)?;
    Ok(Victim {
        row: row.get(0)?,
        topic: row.get(1)?,
        name: name.and_then(|name| TopicName::parse(&name).ok()),
        seq: seq as u64,
        taken: Taken {
            wall_us: row.get(3)?,
            monotonic_ns: row.get(4)?,
            this_boot: row.get(5)?,
            synced: row.get(6)?,
        },
        cost: row.get(7)?,
    })
}
