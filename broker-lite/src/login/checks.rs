//! Whose password is checked next: each check takes a processor and memory for a while, so few
//! run at once, and whoever floods the broker with logins waits longest. A core.
//!
//! Invariant: no more run at once and wait than allowed, and each source of logins gets its turn
//! after one check of every other.

use std::{collections::VecDeque, net::IpAddr};

use crate::ids::ConnectionId;

/// Connections whose passwords wait to be checked, in a line for each source.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    running: u32,
    /// Never an empty line.
    lines: VecDeque<Line>,
    waiting: usize,
}

#[derive(Debug)]
struct Line {
    /// None: this machine's own sockets.
    source: Option<IpAddr>,
    waiting: VecDeque<ConnectionId>,
}

impl Checks {
    /// Takes a connection in; returns the one that has to go when more than `maximum` wait: the
    /// last of the longest line.
    pub(crate) fn join(
        &mut self,
        source: Option<IpAddr>,
        connection: ConnectionId,
        maximum: u32,
    ) -> Option<ConnectionId> {
        match self.lines.iter_mut().find(|line| line.source == source) {
            Some(line) => line.waiting.push_back(connection),
            None => self.lines.push_back(Line {
                source,
                waiting: VecDeque::from([connection]),
            }),
        }
        self.waiting += 1;
        if self.waiting <= maximum as usize {
            return None;
        }
        let longest = self.lines.iter().max_by_key(|line| line.waiting.len())?;
        let (source, last) = (longest.source, *longest.waiting.back()?);
        self.leave(source, last);
        Some(last)
    }

    /// Takes a connection out that waits no longer.
    pub(crate) fn leave(&mut self, source: Option<IpAddr>, connection: ConnectionId) {
        let Some(at) = self.lines.iter().position(|line| line.source == source) else {
            return;
        };
        let line = &mut self.lines[at].waiting;
        let before = line.len();
        line.retain(|waiting| *waiting != connection);
        self.waiting -= before - line.len();
        if line.is_empty() {
            self.lines.remove(at);
        }
    }

    /// The connection whose password is to be checked now, if fewer than `at_once` checks run.
    pub(crate) fn begin(&mut self, at_once: u32) -> Option<ConnectionId> {
        if self.running >= at_once {
            return None;
        }
        let mut line = self.lines.pop_front()?;
        let next = line.waiting.pop_front();
        if !line.waiting.is_empty() {
            self.lines.push_back(line);
        }
        self.waiting -= usize::from(next.is_some());
        self.running += u32::from(next.is_some());
        next
    }

    /// A check is over.
    pub(crate) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    fn connections() -> Vec<ConnectionId> {
        let mut arena = Arena::new();
        (0..10).map(|_| ConnectionId(arena.insert(()))).collect()
    }

    fn source(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_flood_from_one_address_delays_another_by_one_check() {
        let (ids, mut checks) = (connections(), Checks::default());
        for id in &ids[..5] {
            assert_eq!(checks.join(source(1), *id, 9), None);
        }
        assert_eq!(checks.join(source(2), ids[9], 9), None);
        assert_eq!(checks.begin(1), Some(ids[0]));
        assert_eq!(checks.begin(1), None, "one at once");
        checks.end();
        assert_eq!(checks.begin(1), Some(ids[9]));
        checks.end();
        assert_eq!(checks.begin(2), Some(ids[1]));
        assert_eq!(checks.begin(2), Some(ids[2]));
        assert_eq!(checks.begin(2), None);
    }

    #[test]
    fn when_too_many_wait_the_last_of_the_longest_line_goes() {
        let (ids, mut checks) = (connections(), Checks::default());
        for id in &ids[..3] {
            assert_eq!(checks.join(source(1), *id, 3), None);
        }
        assert_eq!(checks.join(source(2), ids[3], 3), Some(ids[2]));
        assert_eq!(checks.join(source(1), ids[4], 3), Some(ids[4]));
        checks.leave(source(2), ids[3]);
        checks.leave(source(1), ids[0]);
        assert_eq!(checks.begin(1), Some(ids[1]));
        checks.end();
        assert_eq!(checks.begin(1), None, "nobody waits");
        assert_eq!(checks.waiting, 0);
    }
}
