//! The writer's way past the disk: messages of memory-first rules are numbered and held in memory,
//! and written when they have to be.
//!
//! Invariant: a message is numbered within what the file has reserved, so that a crash never makes
//! a number be used twice; what shares its topic with a message on its way to disk goes there, too.
//! Layer: driver.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use broker_lite::{keeper::Kept, message::Message};
use jiff::Timestamp;
use tracing::info;

use super::{
    Row, Shared,
    clock::{self, RowStamp},
    inbox::{Batch, Entry, MAX_BATCH, MAX_BATCH_BYTES, Removal},
    reader, schema,
    stage::{ROW_OVERHEAD, Stage},
    writer::Writer,
};

/// For so long after a power-fail signal everything goes to disk at once: supplies that outlast
/// their own signal by more have got their power back.
const POWER_FAIL_HOLD: Duration = Duration::from_secs(60);

/// A row that waits in memory.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) message: Message,
    pub(super) properties: Option<Vec<u8>>,
    pub(super) stamp: RowStamp,
    pub(super) seq: u64,
}

impl Staged {
    /// As the upstream is to get it.
    pub(super) fn row(&self, id: i64, now: RowStamp) -> Row {
        let stamp = self.stamp.corrected(now);
        Row {
            id,
            topic: self.message.topic.clone(),
            seq: self.seq,
            qos: self.message.qos,
            retain: self.message.retain,
            received: reader::timestamp(stamp.wall_us),
            clock: stamp.clock,
            properties: self.message.properties.as_deref().cloned(),
            payload: self.message.payload.clone(),
        }
    }

    /// When the broker took it.
    pub(super) fn received(&self) -> Timestamp {
        reader::timestamp(self.stamp.wall_us)
    }
}

/// The memory that the writer fills and the readers read.
pub(super) type Rows = Stage<Arc<Staged>>;

impl Shared {
    pub(super) fn stage(&self) -> MutexGuard<'_, Rows> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, for a while, nothing waits in memory.
    pub(super) fn power_fails(&self) {
        let until = clock::now() + POWER_FAIL_HOLD;
        *self
            .on_disk_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.inbox.spill();
    }

    fn writes_through(&self) -> bool {
        let until = *self
            .on_disk_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| clock::now() < until)
    }
}

impl Writer {
    /// Holds in memory what may wait there, and lets go of what the upstream has of it; gives what
    /// is left for the disk.
    pub(super) fn stage(&mut self, mut batch: Batch) -> Batch {
        let shared = Arc::clone(&self.shared);
        let buries_staged = {
            let mut stage = shared.stage();
            let mut gone = Vec::new();
            batch.removals.retain(|removal| match removal {
                Removal::Row(row) if stage.forward(*row) => {
                    gone.push(*row);
                    false
                }
                _ => true,
            });
            shared.update(|status| status.forwarded += gone.len() as u64);
            shared.leaving().commit(gone);
            let is_staged = |removal: &Removal| matches!(removal, Removal::Bury(row, ..) if stage.contains(*row));
            batch.removals.iter().any(is_staged)
        };
        let rules = shared.rules();
        let follows = self
            .store
            .as_ref()
            .is_some_and(|store| store.usage.follows(&rules));
        // Dead letters lie on disk; and by one that waits again, or by other rules, a topic may change its rank.
        if buries_staged || !batch.errands.is_empty() || !follows {
            self.spill();
        }
        if shared.writes_through() {
            // No number is to be reserved either.
            let entries = batch.entries.iter_mut();
            entries.for_each(|entry| entry.memory = false);
        } else if batch.entries.iter().any(|entry| entry.memory) {
            batch.entries = self.hold(batch.entries);
        }
        batch
    }

    fn hold(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let Some(store) = &mut self.store else {
            return entries;
        };
        let now = clock::now();
        let mut stage = self.shared.stage();
        let mut for_disk = Vec::new();
        let mut on_disk = HashSet::new();
        let (mut receipts, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            let topic = &entry.message.topic;
            let cost = entry.cost() + topic.as_str().len() + ROW_OVERHEAD;
            let may_wait = entry.memory && !on_disk.contains(topic) && stage.has_room(cost);
            let numbered = may_wait.then(|| store.number_in_memory(&entry)).flatten();
            let Some((row, seq)) = numbered else {
                on_disk.insert(topic.clone());
                for_disk.push(entry);
                continue;
            };
            bytes += entry.message.payload.len() as u64;
            receipts.push(entry.receipt);
            let staged = Staged {
                message: entry.message,
                properties: entry.properties,
                stamp: entry.stamp,
                seq,
            };
            stage.put(row, Arc::new(staged), cost, now);
        }
        self.last_order = self.last_order.max(store.last_order());
        stage.set_horizon(store.last_order() + 1);
        drop(stage);
        self.shared.medium.kept(bytes);
        let held = receipts.len() as u64;
        if held > 0 {
            self.shared.update(|status| status.appended += held);
            self.shared.announce_rows();
        }
        for receipt in receipts {
            receipt.answer(Kept::Committed);
        }
        for_disk
    }

    /// When memory has to be written to disk, if anything waits there.
    pub(super) fn spill_due(&self) -> Option<Instant> {
        let due = self.shared.stage().due(self.shared.link_is_up())?;
        Some(self.spill_again.map_or(due, |again| due.max(again)))
    }

    /// Writes to disk what waits in memory; what cannot be written stays, and is tried again.
    pub(super) fn spill(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.spill_again = None;
        while let Some(store) = &mut self.store {
            let rows = shared.stage().land(MAX_BATCH, MAX_BATCH_BYTES);
            if rows.is_empty() {
                return;
            }
            let landed = store.land(&rows);
            shared.stage().landed(landed.is_ok());
            match landed {
                Ok(done) => {
                    self.committed();
                    self.publish(&done);
                }
                Err(error) => {
                    let count = rows.len();
                    self.failed(&format!(
                        "cannot write {count} messages from memory: {error}"
                    ));
                    if schema::is_damage(&error) {
                        self.salvage(&error.to_string());
                    }
                    break;
                }
            }
        }
        self.spill_again = Some(clock::now() + self.retry);
    }

    /// The same because the power fails; a crash that follows has then lost nothing.
    pub(super) fn spill_now(&mut self) {
        self.spill();
        let left = self.shared.stage().waiting().iter().sum::<u64>();
        if left == 0
            && let Some(store) = &mut self.store
            && let Err(error) = store.give_numbers_back()
        {
            self.failed(&format!("cannot give reserved numbers back: {error}"));
        }
        info!(left, "what waited in memory is written to disk");
    }
}
