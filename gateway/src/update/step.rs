//! Decides what is done about a release that the repository offers. A core.
//!
//! Invariant: nothing is downloaded while a release is on trial, and one that was rolled back comes back only by hand.

use update::{
    journal::{Content, Release},
    protocol::Status,
};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// It runs.
    Nothing,
    /// Not now.
    Wait(String),
    /// It was rolled back here.
    Leave(String),
    /// To be downloaded and installed.
    Install,
    /// It is installed, and can be started.
    Activate,
}

/// What comes next for `offered`. `by_hand`: somebody asks for it.
pub(crate) fn next_step(status: &Status, offered: &Release, by_hand: bool) -> Step {
    if let Some(trouble) = status.trouble.as_ref().filter(|_| status.booted.is_none()) {
        return Step::Wait(trouble.clone());
    }
    if let Some(trial) = &status.trial {
        return Step::Wait(format!("slot {} is on trial", trial.slot));
    }
    if status.running() == Some(offered) {
        return Step::Nothing;
    }
    match status.other() {
        Some(Content::Written { release } | Content::Good { release }) if release == offered => {
            Step::Activate
        }
        Some(Content::Bad { release, reason }) if release == offered && !by_hand => {
            Step::Leave(reason.clone())
        }
        _ => Step::Install,
    }
}

#[cfg(test)]
mod tests {
    use update::{
        journal::Journal,
        protocol::{TrialStatus, Work},
        slots::Slot,
    };

    use super::*;

    fn release(version: &str) -> Release {
        Release {
            version: version.to_owned(),
            epoch: 1,
            root: version.repeat(4),
        }
    }

    /// Runs release 1 in slot A.
    fn status(other: Content) -> Status {
        let slots = Journal::default()
            .with(
                Slot::A,
                Content::Good {
                    release: release("1"),
                },
            )
            .with(Slot::B, other);
        Status {
            booted: Some(Slot::A),
            default: Some(Slot::A),
            trial: None,
            slots,
            floor: Some(1),
            work: Work::Idle {},
            trouble: None,
        }
    }

    #[test]
    fn each_state_of_the_slots_has_its_next_step() {
        let reason = "bus hall-2 stopped polling".to_owned();
        let bad = |version| Content::Bad {
            release: release(version),
            reason: reason.clone(),
        };
        let written = |version| Content::Written {
            release: release(version),
        };
        for (other, offered, by_hand, step) in [
            (Content::Empty, "1", false, Step::Nothing),
            (Content::Empty, "2", false, Step::Install),
            (written("2"), "2", false, Step::Activate),
            (written("2"), "3", false, Step::Install),
            (bad("2"), "2", false, Step::Leave(reason.clone())),
            (bad("2"), "2", true, Step::Install),
            (bad("2"), "3", false, Step::Install),
            (
                Content::Good {
                    release: release("2"),
                },
                "2",
                false,
                Step::Activate,
            ),
        ] {
            let status = status(other.clone());
            assert_eq!(
                next_step(&status, &release(offered), by_hand),
                step,
                "{other:?} {offered}"
            );
        }
    }

    #[test]
    fn nothing_is_begun_while_a_release_is_on_trial() {
        let mut status = status(Content::Trying {
            release: release("2"),
        });
        status.trial = Some(TrialStatus {
            slot: Slot::B,
            left: 2,
            seconds_left: None,
        });
        assert!(matches!(
            next_step(&status, &release("3"), true),
            Step::Wait(_)
        ));
    }
}
