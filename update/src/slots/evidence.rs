//! Which slot the running system was started from, from what several witnesses say. A core.
//!
//! Invariant: no slot is believed to run while two witnesses disagree.

use super::Slot;

/// The kernel parameter with which each slot's boot command names itself.
pub const PARAMETER: &str = "gateway.slot";

/// What a witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Who, as an operator would name it.
    pub who: &'static str,
    /// What it says; `None`: it knows neither slot.
    pub slot: Option<Slot>,
}

/// It is not known which slot runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEvidence {
    /// Nobody knows.
    #[error(
        "nothing tells which slot this system was started from: {PARAMETER}= is missing on the kernel command line"
    )]
    None,
    /// Two say different things.
    #[error(
        "{first} says slot {first_slot}, {second} says slot {second_slot}: nothing is installed, committed or rolled back until that is resolved"
    )]
    Disagreement {
        /// A witness.
        first: &'static str,
        /// What it says.
        first_slot: Slot,
        /// Another.
        second: &'static str,
        /// What that says.
        second_slot: Slot,
    },
}

/// What all witnesses that know anything agree on.
///
/// # Errors
/// When none knows, or two disagree.
pub fn agree(witnesses: &[Witness]) -> Result<Slot, NoEvidence> {
    let mut known = witnesses
        .iter()
        .filter_map(|witness| Some((witness.who, witness.slot?)));
    let (first, first_slot) = known.next().ok_or(NoEvidence::None)?;
    match known.find(|(_, slot)| *slot != first_slot) {
        None => Ok(first_slot),
        Some((second, second_slot)) => Err(NoEvidence::Disagreement {
            first,
            first_slot,
            second,
            second_slot,
        }),
    }
}

/// What the kernel's command line says: the last `gateway.slot=`, as with every kernel parameter.
pub fn from_command_line(line: &str) -> Witness {
    let value = line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(PARAMETER)?.strip_prefix('='))
        .next_back();
    Witness {
        who: "the kernel command line",
        slot: value.and_then(|value| value.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(who: &'static str, slot: Option<Slot>) -> Witness {
        Witness { who, slot }
    }

    #[test]
    fn witnesses_that_know_nothing_are_not_heard() {
        let all = [says("one", None), says("two", Some(Slot::B))];
        assert_eq!(agree(&all), Ok(Slot::B));
        assert_eq!(agree(&all[..1]), Err(NoEvidence::None));
    }

    #[test]
    fn a_wrong_slot_is_told_by_name() {
        let error = agree(&[says("one", Some(Slot::A)), says("two", Some(Slot::B))]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("one says slot a") && text.contains("two says slot b"),
            "{text}"
        );
    }

    #[test]
    fn the_last_parameter_of_the_command_line_counts() {
        let line = "root=/dev/mmcblk0p3 gateway.slot=a quiet gateway.slot=b";
        assert_eq!(from_command_line(line).slot, Some(Slot::B));
        for nothing in ["", "gateway.slot=", "gateway.slot=c", "xgateway.slot=a"] {
            assert_eq!(from_command_line(nothing).slot, None, "{nothing:?}");
        }
    }
}
