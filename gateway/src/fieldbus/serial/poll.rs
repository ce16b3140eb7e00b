//! When an instrument is asked what, and how long an answer is waited for. A core.
//!
//! ```text
//!            due                     answer
//!  Idle ───────────▶ Waiting ─────────────────▶ Fenced, for the line's pause
//!   ▲                   └──────── time-out ───▶ Fenced, for as long as a late answer may take
//!   └────────────────────────── silence ──────────┘
//! ```
//!
//! Invariant: one exchange is under way at a time, and none begins before the last one's answer
//! has either come or had twice its time.

use std::time::{Duration, Instant};

use crate::config::{SerialRequest, SerialSensor};

use super::line::GAP;

/// A line that never falls silent is asked all the same after this much more.
const BABBLE_MAX: Duration = Duration::from_secs(2);

/// How often a request is asked that is not answered while others are.
const SELDOM: Duration = Duration::from_secs(15);

/// Bits of a character on the line at most: start, eight, parity, two stops.
const CHARACTER_BITS: u32 = 12;

/// What an exchange is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The characters with this index that are sent after each opening.
    Init(usize),
    /// The request with this index.
    Request(usize),
    /// The command that waits first.
    Write,
}

/// An exchange without a good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimedOut {
    /// What it was about.
    pub(crate) asked: Asked,
    /// How long was waited.
    pub(crate) waited: Duration,
    /// Whether it is not repeated before its next turn.
    pub(crate) over: bool,
    /// Turns in a row in which this request was not answered.
    pub(crate) unanswered: u32,
    /// Turns in a row in which none was.
    pub(crate) silent_turns: u32,
}

/// The exchanges of one line.
#[derive(Debug)]
pub(crate) struct Poller {
    requests: Vec<Request>,
    init: usize,
    init_done: usize,
    pause: Duration,
    timeout: Duration,
    character: Duration,
    state: State,
    silent_turns: u32,
    offline_after: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// The port is not open.
    Closed,
    Idle,
    Waiting {
        asked: Asked,
        waited: Duration,
        until: Instant,
    },
    Fenced {
        until: Instant,
        /// Silence that is proof enough once something was heard.
        quiet: Duration,
        latest: Instant,
    },
}

#[derive(Debug)]
struct Request {
    interval: Duration,
    timeout: Duration,
    retries: u8,
    tries_left: u8,
    due: Instant,
    unanswered: u32,
    /// Whether its last turn was answered.
    answers: bool,
}

impl Poller {
    /// The exchanges of a line whose port is not open yet.
    pub(crate) fn new(sensor: &SerialSensor, now: Instant) -> Poller {
        let timeout = sensor.response_timeout.as_duration();
        let request = |request: &SerialRequest| Request {
            interval: request.interval.as_duration(),
            timeout: request
                .response_timeout
                .map_or(timeout, settings::Period::as_duration),
            retries: request.retries,
            tries_left: request.retries,
            due: now,
            unanswered: 0,
            answers: false,
        };
        Poller {
            requests: sensor.requests.iter().map(request).collect(),
            init: sensor.init.len(),
            init_done: 0,
            pause: sensor.pause.as_duration(),
            timeout,
            character: Duration::from_secs(CHARACTER_BITS.into()) / sensor.baud.max(1),
            state: State::Closed,
            silent_turns: 0,
            offline_after: sensor.offline_after,
        }
    }

    /// The port is open: everything is due.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.state = State::Idle;
        self.init_done = 0;
        self.silent_turns = 0;
        for request in &mut self.requests {
            request.due = now;
            request.tries_left = request.retries;
            request.unanswered = 0;
            request.answers = false;
        }
    }

    /// The port is gone, and with it what was under way.
    pub(crate) fn closed(&mut self) -> Option<Asked> {
        let asked = self.waiting();
        self.state = State::Closed;
        asked
    }

    /// Asks this request no later than `at`, if the line is free.
    pub(crate) fn hasten(&mut self, index: usize, at: Instant) {
        if let Some(request) = self.requests.get_mut(index) {
            request.due = request.due.min(at);
        }
    }

    /// What an answer is awaited for.
    pub(crate) fn waiting(&self) -> Option<Asked> {
        match self.state {
            State::Waiting { asked, .. } => Some(asked),
            _ => None,
        }
    }

    /// What is to be sent now, if anything; the driver's clock decides when it is asked.
    pub(crate) fn next(&mut self, write_waits: bool, now: Instant) -> Option<Asked> {
        if let State::Fenced { until, .. } = self.state
            && until <= now
        {
            self.state = State::Idle;
        }
        if self.state != State::Idle {
            return None;
        }
        if self.init_done < self.init {
            return Some(Asked::Init(self.init_done));
        }
        if write_waits {
            return Some(Asked::Write);
        }
        let requests = self.requests.iter().enumerate();
        let due = requests.filter(|(_, request)| request.due <= now);
        let nearest = due.min_by_key(|(_, request)| request.due + request.interval);
        nearest.map(|(index, _)| Asked::Request(index))
    }

    /// So many characters were sent, and are to be answered.
    pub(crate) fn sent(&mut self, asked: Asked, length: usize, now: Instant) {
        let waited = match asked {
            Asked::Request(index) => self.requests[index].timeout,
            Asked::Init(_) | Asked::Write => self.timeout,
        };
        let until = now + self.on_the_line(length) + waited;
        self.state = State::Waiting {
            asked,
            waited,
            until,
        };
    }

    /// So many characters were sent, and nothing is known of an answer.
    pub(crate) fn sent_unanswered(&mut self, length: usize, now: Instant) {
        let quiet = self.pause.max(GAP);
        self.fence(self.on_the_line(length) + quiet, quiet, now);
    }

    /// Something came; whoever waits for silence waits on.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let State::Fenced {
            until,
            quiet,
            latest,
        } = &mut self.state
        {
            *until = (now + *quiet).min(*latest);
        }
    }

    /// The good answer came.
    pub(crate) fn answered(&mut self, now: Instant) {
        match self.waiting() {
            None => return,
            Some(Asked::Write) => {}
            Some(Asked::Init(index)) => self.init_done = index + 1,
            Some(Asked::Request(index)) => {
                self.silent_turns = 0;
                let request = &mut self.requests[index];
                request.unanswered = 0;
                request.answers = true;
                request.turn_over(request.interval, now);
            }
        }
        self.fence(self.pause, self.pause, now);
    }

    /// The exchange whose time is over, if it is.
    pub(crate) fn timed_out(&mut self, now: Instant) -> Option<TimedOut> {
        let State::Waiting {
            asked,
            waited,
            until,
        } = self.state
        else {
            return None;
        };
        if until > now {
            return None;
        }
        // What is late may be as late again, but not mixed with the next answer.
        self.fence(waited, self.pause.max(GAP), now);
        let (over, unanswered) = match asked {
            Asked::Write => (true, 0),
            Asked::Init(index) => {
                self.init_done = index + 1;
                (true, 0)
            }
            Asked::Request(index) => self.unanswered(index, now),
        };
        Some(TimedOut {
            asked,
            waited,
            over,
            unanswered,
            silent_turns: self.silent_turns,
        })
    }

    /// When something is to be done.
    pub(crate) fn wake(&self, write_waits: bool) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Waiting { until, .. } | State::Fenced { until, .. } => Some(until),
            State::Idle if write_waits => None,
            State::Idle => self.requests.iter().map(|request| request.due).min(),
        }
    }

    /// Whether that was the last try of its turn, and how many turns it has missed.
    fn unanswered(&mut self, index: usize, now: Instant) -> (bool, u32) {
        let mut others = self.requests.iter().enumerate();
        let others_answer = others.any(|(other, request)| other != index && request.answers);
        let request = &mut self.requests[index];
        if request.tries_left > 0 {
            request.tries_left -= 1;
            return (false, request.unanswered);
        }
        request.unanswered = request.unanswered.saturating_add(1);
        request.answers = false;
        let seldom = others_answer && request.unanswered >= self.offline_after;
        let interval = if seldom {
            request.interval.max(SELDOM)
        } else {
            request.interval
        };
        request.turn_over(interval, now);
        self.silent_turns = self.silent_turns.saturating_add(1);
        (true, request.unanswered)
    }

    fn fence(&mut self, silence: Duration, quiet: Duration, now: Instant) {
        self.state = State::Fenced {
            until: now + silence,
            quiet,
            latest: now + silence + BABBLE_MAX,
        };
    }

    fn on_the_line(&self, length: usize) -> Duration {
        self.character * u32::try_from(length).unwrap_or(u32::MAX)
    }
}

impl Request {
    /// The next turn stands on the grid of the first: turns missed are left out, none drifts.
    fn turn_over(&mut self, interval: Duration, now: Instant) {
        self.tries_left = self.retries;
        let late = now.saturating_duration_since(self.due).as_nanos();
        let turns = late / interval.as_nanos().max(1) + 1;
        self.due += interval * u32::try_from(turns).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn poller(rest: serde_json::Value) -> (Poller, Instant) {
        let mut sensor = serde_json::json!({
            "name": "scale", "port": "/dev/null", "baud": 1_000_000, "response_timeout": "100ms",
        });
        for (key, value) in rest.as_object().expect("keys") {
            sensor[key] = value.clone();
        }
        let now = Instant::now();
        let sensor = serde_json::from_value(sensor).expect("a sensor");
        let mut poller = Poller::new(&sensor, now);
        poller.opened(now);
        (poller, now)
    }

    fn request(interval: &str) -> serde_json::Value {
        serde_json::json!({ "send": "W\r\n", "interval": interval })
    }

    /// Runs the line for so long; `delay` is how long the instrument takes for a request, `None`
    /// for ever. The moments at which each request was sent, in milliseconds.
    fn run(
        poller: &mut Poller,
        start: Instant,
        length: Duration,
        delay: impl Fn(usize) -> Option<Duration>,
    ) -> Vec<Vec<u128>> {
        let mut sent = vec![Vec::new(); poller.requests.len()];
        let mut now = start;
        let mut answer = None;
        while now < start + length {
            if answer.is_some_and(|at| at <= now) {
                poller.answered(now);
                answer = None;
            }
            poller.timed_out(now);
            if let Some(Asked::Request(index)) = poller.next(false, now) {
                poller.sent(Asked::Request(index), 0, now);
                answer = delay(index).map(|delay| now + delay);
                sent[index].push((now - start).as_millis());
            }
            now += MS;
        }
        sent
    }

    #[test]
    fn requests_keep_their_own_intervals_without_drift() {
        let requests = serde_json::json!([request("100ms"), request("1s")]);
        let (mut poller, start) = poller(serde_json::json!({ "request": requests }));
        let sent = run(&mut poller, start, Duration::from_secs(10), |_| {
            Some(5 * MS)
        });
        assert_eq!(sent[0].len(), 100);
        assert_eq!(sent[1].len(), 10);
        let late = |times: &[u128], interval: u128| {
            let late = times.iter().enumerate();
            late.map(|(turn, at)| at - interval * turn as u128).max()
        };
        assert!(late(&sent[0], 100) <= Some(26), "{:?}", sent[0]);
        assert!(late(&sent[1], 1_000) <= Some(26), "{:?}", sent[1]);
    }

    #[test]
    fn an_overloaded_line_serves_every_request() {
        let requests = serde_json::json!([request("10ms"), request("1s"), request("1s")]);
        let keys = serde_json::json!({ "request": requests, "pause": "0s" });
        let (mut poller, start) = poller(keys);
        let sent = run(&mut poller, start, Duration::from_secs(20), |_| {
            Some(50 * MS)
        });
        assert!(sent[1].len() >= 18 && sent[2].len() >= 18, "{sent:?}");
        assert!(sent[0].len() > 300);
    }

    #[test]
    fn a_request_that_is_never_answered_leaves_the_line_to_the_others() {
        let requests = serde_json::json!([request("500ms"), request("500ms")]);
        let (mut poller, start) = poller(serde_json::json!({ "request": requests }));
        let sent = run(&mut poller, start, Duration::from_secs(60), |index| {
            (index == 0).then_some(5 * MS)
        });
        assert_eq!(sent[0].len(), 120);
        assert!((4..10).contains(&sent[1].len()), "{:?}", sent[1]);
    }

    #[test]
    fn nothing_is_sent_before_a_late_answer_had_twice_its_time() {
        let keys = serde_json::json!({ "request": [request("10ms")] });
        let (mut poller, start) = poller(keys);
        assert_eq!(poller.next(false, start), Some(Asked::Request(0)));
        poller.sent(Asked::Request(0), 0, start);
        assert_eq!(poller.timed_out(start + 99 * MS), None);
        let timed_out = poller.timed_out(start + 100 * MS).expect("a time-out");
        assert_eq!((timed_out.over, timed_out.unanswered), (true, 1));
        assert_eq!(poller.next(true, start + 199 * MS), None);
        assert_eq!(
            poller.next(false, start + 200 * MS),
            Some(Asked::Request(0))
        );
    }

    #[test]
    fn a_late_answer_ends_the_fence_once_the_line_is_silent() {
        let keys = serde_json::json!({ "request": [request("10ms")], "response_timeout": "10s" });
        let (mut poller, start) = poller(keys);
        poller.sent(Asked::Request(0), 0, start);
        let late = start + Duration::from_secs(10);
        assert!(poller.timed_out(late).is_some());
        poller.heard(late + 100 * MS);
        poller.heard(late + 110 * MS);
        assert_eq!(poller.next(false, late + 110 * MS + GAP - MS), None);
        assert!(poller.next(false, late + 110 * MS + GAP).is_some());
    }

    #[test]
    fn a_line_that_never_falls_silent_is_asked_all_the_same() {
        let (mut poller, start) = poller(serde_json::json!({ "request": [request("10ms")] }));
        poller.sent(Asked::Request(0), 0, start);
        poller.answered(start);
        let mut now = start;
        while poller.next(false, now).is_none() {
            poller.heard(now);
            now += MS;
            assert!(now < start + 2 * BABBLE_MAX);
        }
    }

    #[test]
    fn retries_are_bounded_and_within_one_turn() {
        let mut asked = request("10s");
        asked["retries"] = 2.into();
        let (mut poller, start) = poller(serde_json::json!({ "request": [asked] }));
        let sent = run(&mut poller, start, Duration::from_secs(19), |_| None);
        assert_eq!(sent[0], [0, 200, 400, 10_000, 10_200, 10_400]);
    }

    #[test]
    fn what_opens_a_session_goes_first_and_commands_go_before_requests() {
        let keys = serde_json::json!({ "init": ["A", "B"], "request": [request("1s")] });
        let (mut poller, start) = poller(keys);
        assert_eq!(poller.next(true, start), Some(Asked::Init(0)));
        poller.sent(Asked::Init(0), 1, start);
        poller.answered(start);
        let next = start + 20 * MS;
        assert_eq!(poller.next(true, next), Some(Asked::Init(1)));
        poller.sent(Asked::Init(1), 1, next);
        let over = next + 101 * MS;
        assert!(poller.timed_out(over).is_some(), "an answer is not needed");
        assert_eq!(poller.next(true, over + 100 * MS), Some(Asked::Write));
        assert_eq!(poller.next(false, over + 100 * MS), Some(Asked::Request(0)));
    }

    #[test]
    fn a_slow_line_has_time_to_carry_what_is_sent() {
        let keys = serde_json::json!({ "request": [request("1s")], "baud": 300 });
        let (mut poller, start) = poller(keys);
        poller.sent(Asked::Request(0), 30, start);
        assert_eq!(poller.timed_out(start + 1_299 * MS), None);
        assert!(poller.timed_out(start + 1_301 * MS).is_some());
    }
}
