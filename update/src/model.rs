//! A machine with two slots, a boot loader of either kind and power that fails before any write:
//! what installation, trial, commit and roll-back promise. A core, for tests.

use super::{
    journal::{Content, Journal, Release},
    slots::{BootState, Counting, MAX_REFUNDS, Slot, Trial},
    trial::{self, Plan, Then, Trouble, View, Write},
};

/// Starts that a release gets here.
const TRIES: u8 = 3;
/// Why a release is rolled back here.
const WHY: &str = "the buses poll no longer";
/// More starts than any run needs.
const MANY: usize = 60;

/// How a release behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Healthy,
    /// It starts, and its health is not what it was before.
    Unhealthy,
    /// The kernel does not come up; the watchdog resets the board.
    NeverStarts,
    /// It starts, and hangs until the watchdog resets the board.
    Hangs,
}

const KINDS: [Kind; 4] = [
    Kind::Healthy,
    Kind::Unhealthy,
    Kind::NeverStarts,
    Kind::Hangs,
];

/// What is in a slot, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    Nothing,
    Part,
    Whole(Kind),
}

struct PowerCut;

#[derive(Debug)]
struct Machine {
    images: [Image; 2],
    journal: Journal,
    boot: BootState,
    booted: Slot,
    counting: Counting,
    /// The firmware tries the other slot at the next start, once.
    tryboot: bool,
    /// Writes so far, and those before which the power fails.
    writes: usize,
    cuts: Vec<usize>,
    starts: usize,
    floor: u64,
    /// Restarts that somebody asks for during the trial.
    restarts: usize,
}

fn release(epoch: u64) -> Release {
    Release {
        version: format!("{epoch}.0"),
        epoch,
        root: format!("{epoch:064x}"),
    }
}

impl Machine {
    fn new(counting: Counting, cuts: &[usize]) -> Machine {
        Machine {
            images: [Image::Whole(Kind::Healthy), Image::Nothing],
            journal: Journal::default().with(
                Slot::A,
                Content::Good {
                    release: release(1),
                },
            ),
            boot: BootState::settled(Slot::A),
            booted: Slot::A,
            counting,
            tryboot: false,
            writes: 0,
            cuts: cuts.to_vec(),
            starts: 0,
            floor: 1,
            restarts: 0,
        }
    }

    fn view<'v>(&'v self, running: &'v Release) -> View<'v> {
        View {
            journal: &self.journal,
            boot: self.boot,
            booted: self.booted,
            counting: self.counting,
            running,
        }
    }

    fn running(&self) -> Release {
        release(if self.booted == Slot::A { 1 } else { 2 })
    }

    fn image(&mut self, slot: Slot) -> &mut Image {
        &mut self.images[usize::from(slot == Slot::B)]
    }

    /// Power may fail before anything that changes what is stored.
    fn step(&mut self) -> Result<(), PowerCut> {
        self.writes += 1;
        match self.cuts.contains(&self.writes) {
            true => Err(PowerCut),
            false => Ok(()),
        }
    }

    /// The boot loader.
    fn start(&mut self) {
        loop {
            self.starts += 1;
            assert!(self.starts < MANY, "it restarts for ever: {self:?}");
            let tried = self.boot.default.other();
            let tries = match (self.counting, self.boot.trial) {
                (Counting::ByBootLoader, Some(trial)) if trial.left > 0 => {
                    if self.step().is_err() {
                        continue;
                    }
                    let left = trial.left - 1;
                    self.boot.trial = Some(Trial { left, ..trial });
                    true
                }
                (Counting::ByUs, _) => std::mem::take(&mut self.tryboot),
                _ => false,
            };
            let slot = if tries { tried } else { self.boot.default };
            let image = *self.image(slot);
            let Image::Whole(kind) = image else {
                panic!("slot {slot} with {image:?} was started: {self:?}");
            };
            if kind != Kind::NeverStarts {
                self.booted = slot;
                return;
            }
            assert!(tries, "the default slot never starts: {self:?}");
        }
    }

    fn carry_out(&mut self, plan: Plan) -> Result<Then, PowerCut> {
        for write in plan.writes {
            self.step()?;
            match write {
                Write::Journal(journal) => self.journal = journal,
                Write::Boot(boot) => self.boot = boot,
            }
        }
        if let Then::Settled { epoch } = plan.then {
            assert!(epoch >= self.floor, "it settled below the floor: {self:?}");
            self.floor = epoch;
        }
        Ok(plan.then)
    }

    /// From a start until nothing more is to be done, restarts included.
    fn live(&mut self) -> Result<Then, PowerCut> {
        loop {
            let running = self.running();
            let then = self.carry_out(trial::settle(self.view(&running)))?;
            let again = trial::settle(self.view(&running));
            assert!(
                again.writes.is_empty() || then == Then::Restart,
                "{again:?}"
            );
            match then {
                Then::Restart => {
                    self.tryboot = self.boot.trial.is_some();
                    self.start();
                }
                Then::Watch => {
                    if let Some(then) = self.watch(&running)? {
                        return Ok(then);
                    }
                }
                then => return Ok(then),
            }
        }
    }

    /// The running release on trial; `None` when the machine has restarted.
    fn watch(&mut self, running: &Release) -> Result<Option<Then>, PowerCut> {
        if self.restarts > 0 {
            self.restarts -= 1;
            if let Some(write) = trial::before_restart(self.view(running)) {
                let plan = Plan {
                    writes: vec![write],
                    then: Then::Restart,
                };
                self.carry_out(plan)?;
            }
            self.start();
            return Ok(None);
        }
        let plan = match *self.image(self.booted) {
            Image::Whole(Kind::Healthy) => trial::commit(self.view(running)),
            Image::Whole(Kind::Unhealthy) => trial::roll_back(self.view(running), WHY),
            Image::Whole(Kind::Hangs) => {
                self.start();
                return Ok(None);
            }
            image => panic!("{image:?} runs"),
        };
        match self.carry_out(plan.unwrap())? {
            Then::Restart => {
                self.start();
                Ok(None)
            }
            then => Ok(Some(then)),
        }
    }

    /// Installs release 2 from wherever an earlier attempt has come to.
    fn install(&mut self, kind: Kind) -> Result<(), PowerCut> {
        let running = self.running();
        if !matches!(self.journal.of(Slot::B), Content::Written { .. }) {
            let plan = trial::begin(self.view(&running), release(2)).unwrap();
            self.carry_out(plan)?;
            self.step()?;
            *self.image(Slot::B) = Image::Part;
            self.step()?;
            *self.image(Slot::B) = Image::Whole(kind);
            let plan = trial::written(self.view(&running)).unwrap();
            self.carry_out(plan)?;
        }
        let plan = trial::activate(self.view(&running), TRIES).unwrap();
        let then = self.carry_out(plan)?;
        assert_eq!(then, Then::Restart);
        self.tryboot = true;
        self.start();
        self.live().map(drop)
    }

    /// Installs, and comes back after each power cut, until the release has had its trial.
    fn run(&mut self, kind: Kind) {
        let mut done = self.install(kind);
        while done.is_err() {
            self.tryboot = false;
            self.start();
            done = self.live().map(drop);
            let had_its_trial = !matches!(
                self.journal.of(Slot::B),
                Content::Empty | Content::Writing { .. } | Content::Written { .. }
            );
            if done.is_ok() && !had_its_trial {
                done = self.install(kind);
            }
        }
    }
}

/// What every run must come to.
fn check(machine: &Machine, kind: Kind) {
    assert_eq!(machine.boot.trial, None, "{machine:?}");
    assert_eq!(machine.booted, machine.boot.default, "{machine:?}");
    let (slot, floor) = match kind {
        Kind::Healthy => (Slot::B, 2),
        _ => (Slot::A, 1),
    };
    assert_eq!(machine.booted, slot, "{machine:?}");
    assert_eq!(machine.floor, floor, "{machine:?}");
    let is_told = match machine.journal.of(Slot::B) {
        Content::Good { .. } => kind == Kind::Healthy,
        Content::Bad { reason, .. } => match kind {
            Kind::Healthy => false,
            Kind::Unhealthy => reason == WHY || reason.contains("none of its starts"),
            Kind::NeverStarts | Kind::Hangs => reason.contains("none of its starts"),
        },
        _ => false,
    };
    assert!(is_told, "{machine:?}");
}

fn each(mut of: impl FnMut(Counting, Kind)) {
    for counting in [Counting::ByBootLoader, Counting::ByUs] {
        for kind in KINDS {
            of(counting, kind);
        }
    }
}

#[test]
fn a_healthy_release_stays_and_any_other_goes() {
    each(|counting, kind| {
        let mut machine = Machine::new(counting, &[]);
        machine.run(kind);
        check(&machine, kind);
    });
}

/// Starts cost the release on trial when power fails, so no more cuts than it has starts to spare.
#[test]
fn power_cuts_before_any_two_writes_change_nothing() {
    let mut runs = 0;
    each(|counting, kind| {
        let mut calm = Machine::new(counting, &[]);
        calm.run(kind);
        // A cut makes for more writes, which may be cut as well.
        let last = calm.writes + 2 * usize::from(TRIES);
        for first in 1..=last {
            for second in first..=last {
                let mut machine = Machine::new(counting, &[first, second]);
                machine.run(kind);
                check(&machine, kind);
                runs += 1;
            }
        }
    });
    assert!(runs > 1000, "only {runs} runs");
}

#[test]
fn restarts_that_are_asked_for_cost_no_try_until_there_are_too_many() {
    for counting in [Counting::ByBootLoader, Counting::ByUs] {
        for (restarts, kind) in [
            (usize::from(MAX_REFUNDS), Kind::Healthy),
            (usize::from(MAX_REFUNDS + TRIES), Kind::Unhealthy),
        ] {
            let mut machine = Machine::new(counting, &[]);
            machine.restarts = restarts;
            // However healthy: nobody waits for it for ever.
            machine.run(Kind::Healthy);
            check(&machine, kind);
        }
    }
}

#[test]
fn a_release_that_was_rolled_back_can_be_installed_again() {
    each(|counting, kind| {
        let mut machine = Machine::new(counting, &[]);
        machine.run(Kind::Unhealthy);
        assert!(machine.install(kind).is_ok());
        check(&machine, kind);
    });
}

#[test]
fn the_release_before_can_be_tried_again_after_a_commit() {
    let mut machine = Machine::new(Counting::ByBootLoader, &[]);
    machine.run(Kind::Healthy);
    let running = machine.running();
    let plan = trial::activate(machine.view(&running), TRIES).unwrap();
    assert!(machine.carry_out(plan).is_ok());
    assert_eq!(machine.boot, BootState::trying(Slot::B, TRIES));
}

#[test]
fn a_wrong_slot_stops_everything_until_somebody_looks() {
    let mut machine = Machine::new(Counting::ByBootLoader, &[]);
    machine.booted = Slot::B;
    let running = machine.running();
    let plan = trial::settle(machine.view(&running));
    let wrong = Trouble::WrongSlot {
        booted: Slot::B,
        expected: Slot::A,
    };
    assert_eq!(plan.then, Then::Trouble(wrong));
    assert!(plan.writes.is_empty());
    let view = machine.view(&running);
    assert!(trial::begin(view, release(3)).is_err());
    assert!(trial::activate(view, TRIES).is_err());
    assert!(trial::commit(view).is_err());
    assert!(trial::roll_back(view, "no reason").is_err());
}

#[test]
fn a_boot_loader_set_by_other_hands_makes_nothing_good_and_starts_nothing_unverified() {
    let (one, two) = (release(1), release(2));
    let part = Journal::default()
        .with(
            Slot::A,
            Content::Good {
                release: one.clone(),
            },
        )
        .with(Slot::B, Content::Writing { release: two });
    let view = |boot, booted| View {
        journal: &part,
        boot,
        booted,
        counting: Counting::ByBootLoader,
        running: &one,
    };
    let by_default = trial::settle(view(BootState::settled(Slot::B), Slot::B));
    assert_eq!(
        by_default.then,
        Then::Trouble(Trouble::NeverHealthy(Slot::B))
    );
    let on_trial = trial::settle(view(BootState::trying(Slot::A, 3), Slot::A));
    let Some(Write::Boot(boot)) = on_trial.writes.last() else {
        panic!("the trial goes on: {on_trial:?}");
    };
    assert_eq!(*boot, BootState::settled(Slot::A));
}

#[test]
fn only_what_was_verified_is_put_on_trial() {
    let machine = Machine::new(Counting::ByBootLoader, &[]);
    let running = machine.running();
    for content in [
        Content::Empty,
        Content::Writing {
            release: release(2),
        },
        Content::Bad {
            release: release(2),
            reason: "hung".to_owned(),
        },
    ] {
        let journal = machine.journal.with(Slot::B, content);
        let view = View {
            journal: &journal,
            ..machine.view(&running)
        };
        assert!(trial::activate(view, TRIES).is_err(), "{journal:?}");
    }
}
