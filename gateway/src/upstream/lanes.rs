//! Where messages stand on their way to the link, and whose turn it is.
//!
//! ```text
//!  returned ─▶ live high ─▶ live normal ─▶ live low ─▶ gaps ─▶ backlog high ─▶ normal ─▶ low
//! ```
//!
//! Invariant: what stands in one lane leaves in the order in which it came in, and no lane that may
//! send starves. Layer: core.

use std::collections::{HashSet, VecDeque};

use super::outbound::{Key, Outbound};
use crate::buffer::retention::{RANKS, Rank};

/// How often a lane is passed over before it has its turn: each gets one message in ten at least.
pub(crate) const PASSED_OVER_MAX: u32 = 9;
/// How many lanes there are: new messages and the backlog by priority, and gap markers.
pub(crate) const LANES: usize = 2 * RANKS + 1;
const GAPS: usize = RANKS;

/// Why a message stands where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// It came while the link was up, and nothing of its topic waits before it.
    Live(Rank),
    /// It tells of messages that will never come.
    Gap,
    /// It waited for the link, or behind one that did.
    Backlog(Rank),
}

impl Lane {
    /// Position in sending order.
    pub(crate) fn index(self) -> usize {
        match self {
            Lane::Live(rank) => rank.index(),
            Lane::Gap => GAPS,
            Lane::Backlog(rank) => GAPS + 1 + rank.index(),
        }
    }

    /// Gap markers are as important as most messages are.
    pub(crate) fn rank(self) -> Rank {
        match self {
            Lane::Live(rank) | Lane::Backlog(rank) => rank,
            Lane::Gap => Rank::default(),
        }
    }

    /// Whether it waited.
    pub(crate) fn is_backlog(self) -> bool {
        matches!(self, Lane::Backlog(_))
    }

    /// All, in sending order.
    pub(crate) fn all() -> impl Iterator<Item = Lane> {
        let live = Rank::all().map(Lane::Live);
        live.chain([Lane::Gap])
            .chain(Rank::all().map(Lane::Backlog))
    }
}

/// Which lanes may send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    /// By [`Lane::index`].
    pub(crate) lanes: [bool; LANES],
    /// What was sent before and came back unanswered, by priority.
    pub(crate) returned: [bool; RANKS],
}

impl Open {
    /// Nothing holds anything back.
    pub(crate) const ALL: Open = Open {
        lanes: [true; LANES],
        returned: [true; RANKS],
    };
}

/// A message and the lane that it stood in.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) lane: Lane,
    pub(crate) message: Outbound,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Before all others: what came back with a lost link, and what stood in line when it was lost.
    returned: VecDeque<Queued>,
    queues: [VecDeque<Outbound>; LANES],
    passed_over: [u32; LANES],
    bytes: usize,
    /// Payload bytes of what was taken and has not arrived.
    under_way: usize,
    /// Rows that stand here or are under way, so that none is taken in twice.
    held: HashSet<i64>,
}

impl Lanes {
    /// At the end of its lane; a row that is held already is not taken.
    pub(crate) fn push(&mut self, lane: Lane, message: Outbound) {
        if let Key::Row(row) = message.key
            && !self.held.insert(row)
        {
            return;
        }
        self.bytes += message.payload.len();
        self.queues[lane.index()].push_back(message);
    }

    /// A gap as it is now, in the place of what was known of it.
    pub(crate) fn push_gap(&mut self, message: Outbound) {
        let Key::Gap { id, .. } = message.key else {
            return;
        };
        let older =
            |known: &Outbound| matches!(known.key, Key::Gap { id: known, .. } if known == id);
        match self.queues[GAPS].iter_mut().find(|known| older(known)) {
            Some(known) => *known = message,
            None => self.push(Lane::Gap, message),
        }
    }

    /// Back to the very front.
    pub(crate) fn give_back(&mut self, queued: Queued) {
        self.arrived(&queued.message);
        self.bytes += queued.message.payload.len();
        self.returned.push_front(queued);
    }

    /// What is in line as live has to leave before whatever comes behind it from the backlog.
    pub(crate) fn close_live(&mut self) {
        for lane in Rank::all().map(Lane::Live) {
            let queue = std::mem::take(&mut self.queues[lane.index()]);
            let queued = queue.into_iter().map(|message| Queued { lane, message });
            self.returned.extend(queued);
        }
    }

    /// The message has been settled; its row may not be read again for now, see [`Self::forget`].
    pub(crate) fn forget(&mut self, row: i64) {
        self.held.remove(&row);
    }

    /// Messages of a lane.
    pub(crate) fn len(&self, lane: Lane) -> usize {
        self.queues[lane.index()].len()
    }

    /// Payload bytes that stand here.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Payload bytes of what was taken and has not arrived.
    pub(crate) fn bytes_under_way(&self) -> usize {
        self.under_way
    }

    /// A message goes that has not stood here.
    pub(crate) fn launch(&mut self, message: &Outbound) {
        self.under_way += message.payload.len();
    }

    /// What was taken is on its way no more.
    pub(crate) fn arrived(&mut self, message: &Outbound) {
        self.under_way -= message.payload.len();
    }

    /// Messages that stand here.
    pub(crate) fn total(&self) -> usize {
        self.returned.len() + self.queues.iter().map(VecDeque::len).sum::<usize>()
    }

    /// The first of a lane.
    pub(crate) fn front(&self, lane: Lane) -> Option<&Outbound> {
        self.queues[lane.index()].front()
    }

    /// Whose turn it is, without taking it.
    pub(crate) fn peek(&self, open: &Open) -> Option<&Outbound> {
        self.at(&self.turn(open)?)
    }

    /// Takes the message whose turn it is.
    pub(crate) fn pop(&mut self, open: &Open) -> Option<Queued> {
        let turn = self.turn(open)?;
        self.take(turn, open)
    }

    /// Takes the first that is `wanted` beside the message of this key. No other of its topic stands
    /// before it.
    pub(crate) fn pop_beside(
        &mut self,
        key: Key,
        open: &Open,
        wanted: impl Fn(&Outbound) -> bool,
    ) -> Option<Queued> {
        let mut passed = HashSet::new();
        let mut may_go = |message: &Outbound, is_open: bool| {
            message.key != key
                && !passed.contains(&message.source)
                && (is_open && wanted(message) || {
                    passed.insert(message.source.clone());
                    false
                })
        };
        let is_open = |queued: &Queued| open.returned[queued.lane.rank().index()];
        let mut returned = self.returned.iter();
        let found = returned.position(|queued| may_go(&queued.message, is_open(queued)));
        if let Some(index) = found {
            return self.take(Turn::Returned(index), open);
        }
        let (lane, index) = Lane::all().find_map(|lane| {
            let mut queue = self.queues[lane.index()].iter();
            let found = queue.position(|message| may_go(message, open.lanes[lane.index()]));
            found.map(|index| (lane, index))
        })?;
        self.take(Turn::Lane(lane, index), open)
    }

    /// One that was tried in the place of another goes back behind it.
    pub(crate) fn put_behind(&mut self, key: Key) {
        if self
            .returned
            .get(1)
            .is_some_and(|queued| queued.message.key == key)
        {
            self.returned.swap(0, 1);
        }
    }

    /// Takes a message out, wherever it stands.
    pub(crate) fn remove(&mut self, key: Key) {
        self.returned.retain(|queued| queued.message.key != key);
        for queue in &mut self.queues {
            queue.retain(|message| message.key != key);
        }
        self.bytes = self
            .returned
            .iter()
            .map(|queued| queued.message.payload.len())
            .sum::<usize>()
            + self
                .queues
                .iter()
                .flatten()
                .map(|message| message.payload.len())
                .sum::<usize>();
        if let Key::Row(row) = key {
            self.held.remove(&row);
        }
    }

    fn turn(&self, open: &Open) -> Option<Turn> {
        let may_return = |queued: &Queued| open.returned[queued.lane.rank().index()];
        if let Some(index) = self.returned.iter().position(may_return) {
            return Some(Turn::Returned(index));
        }
        let ready = || {
            let waits = |lane: &Lane| !self.queues[lane.index()].is_empty();
            Lane::all().filter(move |lane| waits(lane) && open.lanes[lane.index()])
        };
        let overdue = |lane: &Lane| self.passed_over[lane.index()] >= PASSED_OVER_MAX;
        let lane = ready().find(overdue).or_else(|| ready().next())?;
        Some(Turn::Lane(lane, 0))
    }

    fn at(&self, turn: &Turn) -> Option<&Outbound> {
        match turn {
            Turn::Returned(index) => self.returned.get(*index).map(|queued| &queued.message),
            Turn::Lane(lane, index) => self.queues[lane.index()].get(*index),
        }
    }

    fn take(&mut self, turn: Turn, open: &Open) -> Option<Queued> {
        let queued = match turn {
            Turn::Returned(index) => self.returned.remove(index)?,
            Turn::Lane(lane, index) => {
                let message = self.queues[lane.index()].remove(index)?;
                self.count_turn(lane, open);
                Queued { lane, message }
            }
        };
        self.bytes -= queued.message.payload.len();
        self.launch(&queued.message);
        Some(queued)
    }

    fn count_turn(&mut self, taken: Lane, open: &Open) {
        self.passed_over[taken.index()] = 0;
        for lane in Lane::all() {
            let index = lane.index();
            let waits = open.lanes[index] && !self.queues[index].is_empty();
            if lane != taken && waits {
                self.passed_over[index] = self.passed_over[index].saturating_add(1);
            }
        }
    }
}

/// Where the next message stands.
enum Turn {
    Returned(usize),
    /// So far behind the front of its lane.
    Lane(Lane, usize),
}

#[cfg(test)]
mod tests {
    use broker_lite::topic::TopicName;

    use super::*;
    use crate::config::Priority;

    #[test]
    fn high_leaves_before_normal_before_low_and_none_starves() {
        let mut lanes = Lanes::default();
        let mut number = 0;
        let mut sent = [0; LANES];
        for _ in 0..1000 {
            for lane in Lane::all() {
                while lanes.len(lane) < 3 {
                    number += 1;
                    lanes.push(lane, message(lane, number));
                }
            }
            sent[lanes.pop(&Open::ALL).unwrap().lane.index()] += 1;
        }
        // Six of seven lanes get their one in ten, the first has what is left.
        assert!(sent[0] >= 390, "{sent:?}");
        for others in &sent[1..] {
            assert!((90..=110).contains(others), "{sent:?}");
        }
    }

    #[test]
    fn an_empty_or_closed_lane_costs_the_others_nothing() {
        let mut lanes = Lanes::default();
        let low = Lane::Backlog(Rank::of(Priority::Low));
        let high = Lane::Live(Rank::of(Priority::High));
        for number in 0..50 {
            lanes.push(low, message(low, number));
            lanes.push(high, message(high, 100 + number));
        }
        let mut open = Open::ALL;
        open.lanes[low.index()] = false;
        for _ in 0..50 {
            assert_eq!(lanes.pop(&open).unwrap().lane, high);
        }
        assert!(lanes.pop(&open).is_none());
        assert_eq!(lanes.pop(&Open::ALL).unwrap().lane, low);
    }

    #[test]
    fn a_row_is_taken_in_once_until_it_is_settled() {
        let mut lanes = Lanes::default();
        let lane = Lane::Live(Rank::default());
        lanes.push(lane, message(lane, 1));
        lanes.push(lane, message(lane, 1));
        assert_eq!(lanes.total(), 1);
        let queued = lanes.pop(&Open::ALL).unwrap();
        lanes.push(lane, message(lane, 1));
        assert_eq!((lanes.total(), lanes.bytes()), (0, 0));
        lanes.give_back(queued);
        assert_eq!(lanes.total(), 1);
    }

    fn message(lane: Lane, number: i64) -> Outbound {
        let key = match lane {
            Lane::Gap => Key::Gap {
                id: number,
                count: 1,
            },
            lane => Key::Row(lane.rank().row(number)),
        };
        Outbound::new(key, TopicName::parse("a").unwrap(), "1234")
    }
}
