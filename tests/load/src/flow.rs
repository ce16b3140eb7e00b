//! Publishers and subscribers for a while: how fast, how late, at what cost, and whether all came through. Driver.
//!
//! Invariant: at most `window` messages are on their way to any subscriber, so that a broker which drops from a full
//! queue is never driven to it and each missing message is a loss. One thread, so that a core is enough.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use serde::Serialize;

use crate::{
    Target,
    gauge::{Gauge, own_cpu},
    histogram::Histogram,
    packets::{self, Frame, Version, kind},
    wire::{Scratch, Wire},
};

/// The payload begins with when it was sent, by whom, and its number.
const STAMP_BYTES: usize = 16;

/// Without any delivery for this long, what is missing counts as lost.
const GIVE_UP: Duration = Duration::from_secs(3);

/// The timer's place among the connections.
const TIMER: u64 = u64::MAX;

/// Connections looked after at once.
const EVENTS: usize = 256;

/// Who receives from whom.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Each subscriber from the publisher of its number
    Pairs,
    /// Every subscriber from all publishers
    All,
}

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    #[arg(long, value_enum, default_value = "pairs")]
    shape: Shape,
    #[arg(long, default_value_t = 0)]
    qos: u8,
    /// Bytes of a payload, 16 at least
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Messages published per second by all together; 0: as many as the broker takes
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// With a rate: look this often whether something is due
    #[arg(long, default_value_t = 100)]
    tick_us: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Messages on their way to a subscriber, at most
    #[arg(long, default_value_t = 500)]
    window: u64,
    /// Unacknowledged messages of a publisher, at most
    #[arg(long, default_value_t = 20)]
    in_flight: usize,
    /// Protocol level
    #[arg(long, value_enum, default_value = "4")]
    mqtt: Version,
    /// Subscribers' sessions outlive their connections
    #[arg(long)]
    durable: bool,
    /// Subscribers leave before the first message, which then wait for them in their sessions
    #[arg(long)]
    absent: bool,
}

#[derive(Serialize)]
pub(crate) struct Report {
    published: u64,
    delivered: u64,
    lost: u64,
    /// Twice, or not in the order of publication.
    misordered: u64,
    acknowledged: u64,
    refused: u64,
    /// Deliveries per second while measured; acknowledgements where subscribers are absent.
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// The broker's processor time for each of these.
    cpu_us: f64,
    broker_load: f64,
    own_load: f64,
    memory_kb: u64,
    /// How far publishing fell behind the wanted rate, at most.
    late_us: f64,
}

#[derive(Default)]
struct Publisher {
    topic: String,
    sequence: u32,
    packet_id: u16,
    in_flight: usize,
}

#[derive(Default)]
struct Subscriber {
    /// The next number from each publisher.
    expected: Vec<u32>,
    delivered: u64,
}

enum Role {
    Publisher(usize),
    Subscriber(usize),
}

struct Client {
    wire: Wire,
    role: Role,
    /// Whether epoll is asked for space to write.
    blocked: bool,
}

/// What is counted while it runs.
struct Tally {
    published: u64,
    delivered: u64,
    misordered: u64,
    acknowledged: u64,
    refused: u64,
    latency: Histogram,
    late: Duration,
    measuring: bool,
}

struct Flow<'p> {
    plan: &'p Plan,
    start: Instant,
    clients: Vec<Client>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    turn: usize,
    ticks: Option<TimerFd>,
    tally: Tally,
    payload: Vec<u8>,
}

/// The counts at one moment.
struct Mark {
    at: Instant,
    done: u64,
    broker: Duration,
    own: Duration,
}

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let gauge = Gauge::of(plan.target.pid)?;
    let mut flow = Flow::connect(plan)?;
    let epoll = flow.watch()?;
    flow.ticks = (plan.rate > 0).then(|| tick(plan, &epoll)).transpose()?;
    let warm = Duration::from_secs_f64(plan.warm_up);
    flow.start = Instant::now();
    flow.until(&epoll, warm, true)?;
    let before = flow.mark(&gauge)?;
    flow.tally.measuring = true;
    flow.until(&epoll, warm + Duration::from_secs_f64(plan.seconds), true)?;
    let after = flow.mark(&gauge)?;
    flow.tally.measuring = false;
    flow.drain(&epoll)?;
    flow.report(&before, &after, &gauge)
}

/// A timer that ends the wait when something may be due.
fn tick(plan: &Plan, epoll: &Epoll) -> Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    let every = TimeSpec::from_duration(Duration::from_micros(plan.tick_us));
    timer.set(Expiration::Interval(every), TimerSetTimeFlags::empty())?;
    epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
    Ok(timer)
}

impl<'p> Flow<'p> {
    fn connect(plan: &'p Plan) -> Result<Flow<'p>> {
        let tls = plan.target.tls()?;
        let connect = |client: &str, clean| {
            Wire::connect(plan.target.port, tls.as_ref(), client, plan.mqtt, clean)
        };
        let mut clients = Vec::new();
        for index in 0..plan.subscribers {
            let mut wire = connect(&format!("sub-{index}"), !plan.durable)?;
            wire.subscribe(&[plan.filter(index)], plan.qos, plan.mqtt)?;
            if plan.absent {
                wire.leave()?;
                continue;
            }
            clients.push(Client::new(wire, Role::Subscriber(index)));
        }
        for index in 0..plan.publishers {
            let wire = connect(&format!("pub-{index}"), true)?;
            clients.push(Client::new(wire, Role::Publisher(index)));
        }
        let publisher = |index| Publisher {
            topic: topic(index),
            ..Publisher::default()
        };
        let subscriber = |_| Subscriber {
            expected: vec![0; plan.publishers],
            delivered: 0,
        };
        let there = if plan.absent { 0 } else { plan.subscribers };
        Ok(Flow {
            plan,
            start: Instant::now(),
            clients,
            publishers: (0..plan.publishers).map(publisher).collect(),
            subscribers: (0..there).map(subscriber).collect(),
            turn: 0,
            ticks: None,
            tally: Tally::new(),
            payload: vec![0x5a; plan.payload.max(STAMP_BYTES)],
        })
    }

    fn watch(&self) -> Result<Epoll> {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        for (index, client) in (0..).zip(&self.clients) {
            client.wire.stop_waiting()?;
            epoll.add(&client.wire, EpollEvent::new(EpollFlags::EPOLLIN, index))?;
        }
        Ok(epoll)
    }

    /// Goes on until this long after the start.
    fn until(&mut self, epoll: &Epoll, end: Duration, publish: bool) -> Result<()> {
        let mut scratch = Scratch::new();
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let now = self.start.elapsed();
            if now >= end {
                return Ok(());
            }
            if publish {
                self.publish_due(epoll, now)?;
            }
            let wait = u16::try_from((end - now).as_millis().min(50)).unwrap_or(50);
            let count = epoll.wait(&mut events, EpollTimeout::from(wait))?;
            for event in &events[..count] {
                match &self.ticks {
                    // It goes on once it is read.
                    Some(ticks) if event.data() == TIMER => ticks.wait()?,
                    _ => self.attend(epoll, event, &mut scratch)?,
                }
            }
        }
    }

    /// Lets what is on its way arrive.
    fn drain(&mut self, epoll: &Epoll) -> Result<()> {
        let mut last = (self.tally.delivered, self.tally.acknowledged);
        let mut moved = Instant::now();
        while !self.is_complete() && moved.elapsed() < GIVE_UP {
            self.until(
                epoll,
                self.start.elapsed() + Duration::from_millis(20),
                false,
            )?;
            let present = (self.tally.delivered, self.tally.acknowledged);
            if present != last {
                (last, moved) = (present, Instant::now());
            }
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        let acknowledged = self.plan.qos == 0 || self.tally.acknowledged == self.tally.published;
        acknowledged && self.tally.delivered == self.expected()
    }

    fn expected(&self) -> u64 {
        match self.plan.shape {
            _ if self.plan.absent => 0,
            Shape::Pairs => self.tally.published,
            Shape::All => self.tally.published * self.plan.subscribers as u64,
        }
    }

    /// Publishes what the rate asks for, or else all that the windows allow.
    fn publish_due(&mut self, epoll: &Epoll, now: Duration) -> Result<()> {
        let due = match self.plan.rate {
            0 => u64::MAX,
            rate => (now.as_secs_f64() * rate as f64) as u64,
        };
        let mut passed = 0;
        let mut room = self.room();
        let first = self.plan.subscribers_here();
        while self.tally.published < due && passed < self.publishers.len() && room > 0 {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.publishers.len();
            if !self.may_publish(index) {
                passed += 1;
                continue;
            }
            passed = 0;
            if self.plan.shape == Shape::All {
                room -= 1;
            }
            self.publish(first + index, index, now);
        }
        if self.plan.rate > 0 && self.tally.measuring {
            let behind = (due - self.tally.published.min(due)) as f64 / self.plan.rate as f64;
            self.tally.late = self.tally.late.max(Duration::from_secs_f64(behind));
        }
        for index in first..self.clients.len() {
            if !self.clients[index].wire.output.is_empty() {
                self.flush(epoll, index)?;
            }
        }
        Ok(())
    }

    /// Messages that every subscriber of all publishers has room for.
    fn room(&self) -> u64 {
        let slowest = self
            .subscribers
            .iter()
            .map(|subscriber| subscriber.delivered)
            .min();
        match (self.plan.shape, slowest) {
            (Shape::All, Some(slowest)) => {
                (slowest + self.plan.window).saturating_sub(self.tally.published)
            }
            _ => u64::MAX,
        }
    }

    fn may_publish(&self, index: usize) -> bool {
        let publisher = &self.publishers[index];
        let has_room = match (self.plan.shape, self.subscribers.get(index)) {
            (Shape::Pairs, Some(subscriber)) => {
                u64::from(publisher.sequence) < subscriber.delivered + self.plan.window
            }
            _ => true,
        };
        has_room && (self.plan.qos == 0 || publisher.in_flight < self.plan.in_flight)
    }

    fn publish(&mut self, client: usize, index: usize, now: Duration) {
        let publisher = &mut self.publishers[index];
        self.payload[..8].copy_from_slice(&(now.as_nanos() as u64).to_be_bytes());
        self.payload[8..12].copy_from_slice(&(index as u32).to_be_bytes());
        self.payload[12..16].copy_from_slice(&publisher.sequence.to_be_bytes());
        publisher.sequence += 1;
        publisher.packet_id = publisher.packet_id.checked_add(1).unwrap_or(1);
        publisher.in_flight += usize::from(self.plan.qos > 0);
        self.tally.published += 1;
        packets::publish(
            &mut self.clients[client].wire.output,
            &publisher.topic,
            (self.plan.qos, publisher.packet_id),
            self.plan.mqtt,
            &self.payload,
        );
    }

    fn attend(&mut self, epoll: &Epoll, event: &EpollEvent, scratch: &mut Scratch) -> Result<()> {
        let index = event.data() as usize;
        if event
            .events()
            .intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP)
        {
            let Flow {
                plan,
                start,
                clients,
                publishers,
                subscribers,
                tally,
                ..
            } = self;
            let client = &mut clients[index];
            let now = start.elapsed();
            let read = match client.role {
                Role::Publisher(number) => client.wire.read(scratch, |frame, output| {
                    publishers[number].take(&frame, output, tally);
                }),
                Role::Subscriber(number) => client.wire.read(scratch, |frame, output| {
                    subscribers[number].take(&frame, output, plan.mqtt, now, tally);
                }),
            };
            read.context("the broker closed a connection")?;
        }
        self.flush(epoll, index)
    }

    fn flush(&mut self, epoll: &Epoll, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let blocked = client
            .wire
            .flush()
            .context("the broker closed a connection")?;
        if blocked != client.blocked {
            client.blocked = blocked;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, blocked);
            epoll.modify(&client.wire, &mut EpollEvent::new(flags, index as u64))?;
        }
        Ok(())
    }

    fn mark(&self, gauge: &Gauge) -> Result<Mark> {
        Ok(Mark {
            at: Instant::now(),
            done: if self.plan.absent {
                self.tally.acknowledged
            } else {
                self.tally.delivered
            },
            broker: gauge.cpu()?,
            own: own_cpu()?,
        })
    }

    fn report(&self, before: &Mark, after: &Mark, gauge: &Gauge) -> Result<Report> {
        let tally = &self.tally;
        let seconds = (after.at - before.at).as_secs_f64();
        let done = (after.done - before.done) as f64;
        let broker = (after.broker - before.broker).as_secs_f64();
        Ok(Report {
            published: tally.published,
            delivered: tally.delivered,
            lost: self.expected().saturating_sub(tally.delivered),
            misordered: tally.misordered,
            acknowledged: tally.acknowledged,
            refused: tally.refused,
            rate: done / seconds,
            p50_us: tally.latency.quantile_us(0.5),
            p99_us: tally.latency.quantile_us(0.99),
            p999_us: tally.latency.quantile_us(0.999),
            cpu_us: broker * 1e6 / done.max(1.0),
            broker_load: broker / seconds,
            own_load: (after.own - before.own).as_secs_f64() / seconds,
            memory_kb: gauge.memory_kb()?,
            late_us: tally.late.as_secs_f64() * 1e6,
        })
    }
}

impl Plan {
    fn filter(&self, subscriber: usize) -> String {
        match self.shape {
            Shape::Pairs => topic(subscriber),
            Shape::All if self.publishers == 1 => topic(0),
            Shape::All => "load/+".to_owned(),
        }
    }

    fn subscribers_here(&self) -> usize {
        if self.absent { 0 } else { self.subscribers }
    }
}

fn topic(publisher: usize) -> String {
    format!("load/{publisher}")
}

impl Client {
    fn new(wire: Wire, role: Role) -> Client {
        Client {
            wire,
            role,
            blocked: false,
        }
    }
}

impl Tally {
    fn new() -> Tally {
        Tally {
            published: 0,
            delivered: 0,
            misordered: 0,
            acknowledged: 0,
            refused: 0,
            latency: Histogram::new(),
            late: Duration::ZERO,
            measuring: false,
        }
    }
}

impl Publisher {
    /// An acknowledgement.
    fn take(&mut self, frame: &Frame, output: &mut Vec<u8>, tally: &mut Tally) {
        tally.refused += u64::from(frame.is_refusal());
        match frame.kind() {
            kind::PUBREC => packets::acknowledge(output, kind::PUBREL, frame.packet_id()),
            kind::PUBACK | kind::PUBCOMP => {
                self.in_flight = self.in_flight.saturating_sub(1);
                tally.acknowledged += 1;
            }
            _ => {}
        }
    }
}

impl Subscriber {
    /// A message, or the end of one at QoS 2.
    fn take(
        &mut self,
        frame: &Frame,
        output: &mut Vec<u8>,
        version: Version,
        now: Duration,
        tally: &mut Tally,
    ) {
        if frame.kind() == kind::PUBREL {
            return packets::acknowledge(output, kind::PUBCOMP, frame.packet_id());
        }
        let Some(received) = frame.publish(version) else {
            return;
        };
        match received.qos {
            1 => packets::acknowledge(output, kind::PUBACK, received.packet_id),
            2 => packets::acknowledge(output, kind::PUBREC, received.packet_id),
            _ => {}
        }
        let Some((sent_ns, publisher, sequence)) = stamp(received.payload) else {
            return;
        };
        self.delivered += 1;
        tally.delivered += 1;
        if let Some(expected) = self.expected.get_mut(publisher) {
            tally.misordered += u64::from(sequence != *expected);
            *expected = sequence + 1;
        }
        if tally.measuring {
            tally
                .latency
                .add((now.as_nanos() as u64).saturating_sub(sent_ns));
        }
    }
}

fn stamp(payload: &[u8]) -> Option<(u64, usize, u32)> {
    let (sent, rest) = payload.split_first_chunk()?;
    let (publisher, rest) = rest.split_first_chunk()?;
    let (sequence, _) = rest.split_first_chunk()?;
    Some((
        u64::from_be_bytes(*sent),
        u32::from_be_bytes(*publisher) as usize,
        u32::from_be_bytes(*sequence),
    ))
}
