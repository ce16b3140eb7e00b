//! Decides what is read from the buffer next, and what of it is new and what waits.
//!
//! ```text
//!   ── sent ──┤ backlog: read from here, oldest first ├── taken as it came ──┤ live: read from here
//! ```
//!
//! Two positions go through the rows of each priority. The live one stands at the end: what comes
//! behind it is sent at once, unless older messages of its topic wait; then it waits with them, for
//! the other position to come by. A survey finds out what waits whenever the live position moves to
//! the end by a leap: when the link comes up, and when new messages have long come faster than they
//! could be sent.
//!
//! Invariant: no row is taken twice, and none of a topic before an older one of it, unless its rule
//! lets new ones overtake. What is remembered grows with the topics, never with the rows. Core.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use broker_lite::topic::TopicName;

use super::{
    lanes::{Lane, Lanes},
    outbound::{Key, Outbound},
};
use crate::buffer::retention::{Cursor, RANKS, Rank, Stretch};
use crate::buffer::row::Survey;

/// New messages that wait for so long, since more came than could be sent, count as backlog.
pub(crate) const FALLEN_BEHIND: Duration = Duration::from_secs(5);
/// Pause before reading again what could not be read.
pub(crate) const READ_AGAIN: Duration = Duration::from_secs(1);
/// Messages of a lane below which more are read, for small windows.
const LEAST_AHEAD: usize = 256;
/// A reading brings so many times the messages below which it is due.
const READ_AHEAD: usize = 2;
/// Payload bytes in line and under way above which only a lane that is empty is filled, and of those
/// under way above which none is.
const MAX_AHEAD_BYTES: usize = 8 << 20;

/// What is to be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    /// What waits behind this position, by topic.
    Survey(Cursor),
    /// These rows; with new ones the gaps.
    Rows { stretch: Stretch, live: bool },
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Whether these are new rows.
    pub(crate) live: bool,
    /// Rows and gaps in sending order.
    pub(crate) messages: Vec<Outbound>,
    /// The last row looked at, per rank.
    pub(crate) reached: Cursor,
    /// Ranks in which nothing more was there.
    pub(crate) ended: [bool; RANKS],
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Intake {
    depth: usize,
    /// Up to here the backlog has been taken in.
    backlog: Cursor,
    /// Up to here there is a backlog.
    limit: Cursor,
    /// Up to here rows were taken as they came, or are known to wait.
    live: Cursor,
    /// Topics of which rows wait between `backlog` and `limit`, each with its last.
    waiting: HashMap<TopicName, i64>,
    /// Whether there may be rows behind `live`.
    more: [bool; RANKS],
    survey_due: bool,
    /// Since when a reading of new rows has not come to their end.
    behind_since: Option<Instant>,
    reading: Option<Ask>,
    read_again_at: Option<Instant>,
    live_was_last: bool,
    /// Rows settled since the reading under way began: it may find them still.
    settled: Vec<i64>,
}

impl Intake {
    /// Reads ahead of a window of so many messages.
    pub(crate) fn new(window: usize) -> Intake {
        Intake {
            depth: window.max(LEAST_AHEAD),
            backlog: Cursor::default(),
            limit: Cursor::default(),
            live: Cursor::default(),
            waiting: HashMap::new(),
            more: [true; RANKS],
            survey_due: true,
            behind_since: None,
            reading: None,
            read_again_at: None,
            live_was_last: false,
            settled: Vec::new(),
        }
    }

    /// What has come since the last link waits.
    pub(crate) fn link_up(&mut self) {
        self.survey_due = true;
        self.read_again_at = None;
    }

    /// There are new rows or gaps.
    pub(crate) fn appended(&mut self) {
        self.more = [true; RANKS];
        self.read_again_at = None;
    }

    /// What is to be read now; one thing at a time.
    pub(crate) fn next(&mut self, lanes: &Lanes, now: Instant) -> Option<Ask> {
        if self.reading.is_some() || self.read_again_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.is_caught_up(lanes) {
            self.waiting.clear();
        }
        let live = self.live(lanes);
        let backlog = self.backlog(lanes);
        let behind = |since| now.saturating_duration_since(since) >= FALLEN_BEHIND;
        let ask = if self.survey_due || live.is_some() && self.behind_since.is_some_and(behind) {
            Ask::Survey(self.live)
        } else if self.live_was_last {
            backlog.or(live)?
        } else {
            live.or(backlog)?
        };
        self.live_was_last = matches!(ask, Ask::Rows { live: true, .. });
        if let Ask::Rows {
            stretch,
            live: true,
        } = &ask
        {
            for rank in Rank::all().filter(|rank| stretch.rows[rank.index()] > 0) {
                self.more[rank.index()] = false;
            }
        }
        self.reading = Some(ask.clone());
        Some(ask)
    }

    /// When [`Self::next`] is to be asked again though nothing has happened.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.read_again_at.filter(|_| self.reading.is_none())
    }

    /// Whether anything waits that is not in the lanes.
    pub(crate) fn is_behind(&self) -> bool {
        Rank::all().any(|rank| self.backlog.is_behind(rank, &self.limit))
    }

    /// What was asked for could not be read.
    pub(crate) fn unread(&mut self, lanes: &mut Lanes, now: Instant) {
        if let Some(Ask::Rows { live: true, .. }) = self.reading.take() {
            self.more = [true; RANKS];
        }
        self.read_again_at = Some(now + READ_AGAIN);
        self.forget_settled(lanes);
    }

    /// The answer to [`Ask::Survey`].
    pub(crate) fn surveyed(&mut self, survey: Survey, lanes: &mut Lanes) {
        self.reading = None;
        // What is in line was there before all that waits behind it.
        lanes.close_live();
        for rank in Rank::all() {
            if !self.backlog.is_behind(rank, &self.limit) {
                self.backlog.advance_in(rank, &self.live);
            }
        }
        self.live.advance(&survey.until);
        self.limit.advance(&survey.until);
        self.waiting.extend(survey.waiting);
        self.more = [true; RANKS];
        self.survey_due = false;
        self.behind_since = None;
        self.forget_settled(lanes);
    }

    /// The answer to [`Ask::Rows`].
    pub(crate) fn fetched(&mut self, fetched: Fetched, lanes: &mut Lanes, now: Instant) {
        let live = fetched.live;
        let Some(Ask::Rows { stretch, .. }) = self.reading.take() else {
            return;
        };
        if live {
            self.live.advance(&fetched.reached);
            self.note_end(&stretch, &fetched, now);
        } else {
            self.backlog.advance(&fetched.reached);
            for rank in Rank::all().filter(|rank| fetched.ended[rank.index()]) {
                let until = stretch.until.unwrap_or_default();
                self.backlog.advance_in(rank, &until);
            }
        }
        for message in fetched.messages {
            if let Key::Row(row) = message.key {
                self.take(row, message, live, lanes);
            }
        }
        self.forget_settled(lanes);
    }

    /// The upstream has this row, or will never take it.
    pub(crate) fn settle(&mut self, row: i64, lanes: &mut Lanes) {
        if self.reading.is_some() {
            self.settled.push(row);
        } else {
            lanes.forget(row);
        }
    }

    fn note_end(&mut self, stretch: &Stretch, fetched: &Fetched, now: Instant) {
        let mut all = true;
        for index in 0..RANKS {
            if stretch.rows[index] > 0 && !fetched.ended[index] {
                self.more[index] = true;
                all = false;
            }
        }
        if all {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert(now);
        }
    }

    fn take(&mut self, row: i64, message: Outbound, live: bool, lanes: &mut Lanes) {
        let rank = Rank::of_row(row);
        if !live {
            lanes.push(Lane::Backlog(rank), message);
        } else if !message.overtakes && self.waits(&message.source, lanes) {
            self.waiting.insert(message.source, row);
            self.limit.pass(row);
        } else {
            lanes.push(Lane::Live(rank), message);
        }
    }

    /// Whether rows of this topic wait that have not left for the link.
    fn waits(&self, topic: &TopicName, lanes: &Lanes) -> bool {
        self.waiting.get(topic).is_some_and(|last| {
            let rank = Rank::of_row(*last);
            let taken = match lanes.front(Lane::Backlog(rank)).map(|first| first.key) {
                Some(Key::Row(first)) => first - 1,
                _ => self.backlog.position(rank),
            };
            *last > taken
        })
    }

    fn is_caught_up(&self, lanes: &Lanes) -> bool {
        !self.is_behind() && Rank::all().all(|rank| lanes.len(Lane::Backlog(rank)) == 0)
    }

    fn live(&self, lanes: &Lanes) -> Option<Ask> {
        let rows = self.rows(lanes, Lane::Live, |rank| self.more[rank.index()])?;
        let stretch = Stretch {
            after: self.live,
            until: None,
            rows,
        };
        Some(Ask::Rows {
            stretch,
            live: true,
        })
    }

    fn backlog(&self, lanes: &Lanes) -> Option<Ask> {
        let rows = self.rows(lanes, Lane::Backlog, |rank| {
            self.backlog.is_behind(rank, &self.limit)
        })?;
        let stretch = Stretch {
            after: self.backlog,
            until: Some(self.limit),
            rows,
        };
        Some(Ask::Rows {
            stretch,
            live: false,
        })
    }

    /// How many rows of each rank its lane has room for; `None`: none.
    fn rows(
        &self,
        lanes: &Lanes,
        lane: fn(Rank) -> Lane,
        wanted: impl Fn(Rank) -> bool,
    ) -> Option<[usize; RANKS]> {
        let mut rows = [0; RANKS];
        for rank in Rank::all().filter(|rank| wanted(*rank)) {
            let waiting = lanes.len(lane(rank));
            let under_way = lanes.bytes_under_way();
            let room = lanes.bytes() + under_way < MAX_AHEAD_BYTES
                || waiting == 0 && under_way < MAX_AHEAD_BYTES;
            if waiting < self.depth && room {
                rows[rank.index()] = self.depth * READ_AHEAD - waiting;
            }
        }
        rows.iter().any(|rows| *rows > 0).then_some(rows)
    }

    fn forget_settled(&mut self, lanes: &mut Lanes) {
        for row in self.settled.drain(..) {
            lanes.forget(row);
        }
    }
}
