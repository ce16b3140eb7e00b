//! Many seeds of clients, networks, keepers and crashes that fail at random, checked against what
//! MQTT promises. Tests only.
//!
//! ```text
//!  Dice ──▶ world: who does what next ──▶ party: a client as the specification wants it
//!                    │                        │ lines that lose what is on them
//!                    │                        ▼
//!                    │                      Sim: the core, its clock, its disk
//!                    ▼
//!                  model: what was sent and acknowledged ──▶ who must have got what, how often
//! ```
//!
//! A failure names its seed, and how to run that one alone. `SIMULATION_SEEDS=100000` runs more.

mod model;
mod pair;
mod party;
mod wills;
mod world;

use std::{
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

pub(crate) use pair::{Publisher, Subscriber};
use world::World;

/// In an ordinary run of the tests.
const SEEDS: u64 = 2_000;
/// What happens in one run before everything settles.
const STEPS: u32 = 600;

/// Xorshift; the same seed gives the same run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    pub(crate) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// What a run did: messages that arrived, crashes of the broker.
type Done = (usize, u32);

/// Plays one seed to its end.
fn play(seed: u64) -> Done {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.check();
    (world.delivered(), world.crashes())
}

/// The same, and names the seed if it fails.
fn play_by_name(seed: u64) -> Done {
    catch_unwind(AssertUnwindSafe(|| play(seed))).unwrap_or_else(|panic| {
        eprintln!(
            "seed {seed} failed; again: \
             SIMULATION_SEED={seed} cargo test -p broker-lite --lib simulation"
        );
        resume_unwind(panic)
    })
}

/// Plays the seeds on all of the machine's cores.
fn play_all(seeds: RangeInclusive<u64>) -> Vec<Done> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = |worker: usize| seeds.clone().skip(worker).step_by(workers);
    thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|worker| {
                let seeds = share(worker);
                scope.spawn(move || seeds.map(play_by_name).collect::<Vec<_>>())
            })
            .collect();
        let joined = running.into_iter().map(|one| one.join());
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

#[test]
fn whatever_fails_mqtt_keeps_its_promises() {
    let done = match number("SIMULATION_SEED") {
        Some(seed) => play_all(seed..=seed),
        None => play_all(1..=number("SIMULATION_SEEDS").unwrap_or(SEEDS)),
    };
    let delivered: usize = done.iter().map(|done| done.0).sum();
    let crashes = done.iter().map(|done| done.1 as usize).sum::<usize>();
    assert!(delivered > 50 * done.len(), "only {delivered} deliveries");
    assert!(
        done.len() < 10 || crashes > done.len(),
        "only {crashes} crashes"
    );
}
