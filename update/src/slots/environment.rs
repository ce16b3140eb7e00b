//! U-Boot's environment as it stands on a medium: two copies, the newer valid one counts. A core.
//!
//! ```text
//!  copy: CRC-32 of the data (little-endian) | counter, one byte | name=value NUL … NUL | padding
//! ```
//! As U-Boot's `env/common.c` and libubootenv keep it for block devices: a copy is written with the
//! counter one higher, wrapping around at 255, over the older copy.
//!
//! Invariant: variables that are not ours are written back as they were read.

use std::collections::BTreeMap;

use crc::{CRC_32_ISO_HDLC, Crc};

use super::{BootState, MAX_REFUNDS, MAX_TRIES, Slot, Trial};

/// Bytes before the variables: CRC and counter.
const HEADER: usize = 5;
/// Smallest and largest size of a copy that is believed.
pub const SIZES: std::ops::RangeInclusive<usize> = 64..=1 << 20;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const SLOT: &str = "gateway_slot";
const TRIAL: &str = "gateway_trial";
const LEFT: &str = "gateway_left";
const REFUNDS: &str = "gateway_refunds";

/// One valid copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    counter: u8,
    /// Names and values as bytes: nobody promises text.
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Why a copy does not count, or says nothing about slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// Not all of it is there.
    #[error("the copy has {0} bytes, which is too short")]
    Short(usize),
    /// A torn write, or never written.
    #[error("the copy's CRC is wrong")]
    Crc,
    /// Its data is not a list of variables.
    #[error("the copy's data has no end, or an entry without \"=\"")]
    Form,
    /// No copy counts.
    #[error("neither copy is valid: write the environment anew with fw_setenv or from U-Boot")]
    NoneValid,
    /// A variable of ours is missing or wrong.
    #[error("variable {name} is {value:?}: it must be {must}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it holds.
        value: Option<String>,
        /// What it may hold.
        must: String,
    },
    /// The variables do not fit into a copy.
    #[error("the variables take {needed} of {size} bytes")]
    Full {
        /// Bytes they take.
        needed: usize,
        /// Bytes of a copy.
        size: usize,
    },
}

impl Environment {
    /// Reads one copy.
    ///
    /// # Errors
    /// When it is torn or no environment at all.
    pub fn parse(bytes: &[u8]) -> Result<Environment, EnvironmentError> {
        if bytes.len() <= HEADER + 1 {
            return Err(EnvironmentError::Short(bytes.len()));
        }
        let (header, data) = bytes.split_at(HEADER);
        let crc = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if CRC.checksum(data) != crc {
            return Err(EnvironmentError::Crc);
        }
        let mut variables = BTreeMap::new();
        let mut rest = data;
        loop {
            let end = rest.iter().position(|byte| *byte == 0);
            let end = end.ok_or(EnvironmentError::Form)?;
            let entry = &rest[..end];
            if entry.is_empty() {
                break;
            }
            let equals = entry.iter().position(|byte| *byte == b'=');
            let equals = equals.ok_or(EnvironmentError::Form)?;
            variables.insert(entry[..equals].to_vec(), entry[equals + 1..].to_vec());
            rest = &rest[end + 1..];
        }
        Ok(Environment {
            counter: header[4],
            variables,
        })
    }

    /// The copy as it is to stand on the medium.
    ///
    /// # Errors
    /// When the variables do not fit.
    pub fn render(&self, size: usize) -> Result<Vec<u8>, EnvironmentError> {
        let mut bytes = vec![0; HEADER];
        for (name, value) in &self.variables {
            bytes.extend_from_slice(name);
            bytes.push(b'=');
            bytes.extend_from_slice(value);
            bytes.push(0);
        }
        bytes.push(0);
        let needed = bytes.len();
        if needed > size {
            return Err(EnvironmentError::Full { needed, size });
        }
        bytes.resize(size, 0);
        let crc = CRC.checksum(&bytes[HEADER..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes[4] = self.counter;
        Ok(bytes)
    }

    /// The copy that follows this one, with this state.
    #[must_use]
    pub fn with(&self, state: BootState) -> Environment {
        let mut next = self.clone();
        next.counter = self.counter.wrapping_add(1);
        let mut set = |name: &str, value: Option<String>| match value {
            Some(value) => drop(
                next.variables
                    .insert(name.as_bytes().to_vec(), value.into_bytes()),
            ),
            None => drop(next.variables.remove(name.as_bytes())),
        };
        set(SLOT, Some(state.default.to_string()));
        set(TRIAL, state.on_trial().map(|slot| slot.to_string()));
        set(LEFT, state.trial.map(|trial| trial.left.to_string()));
        set(REFUNDS, state.trial.map(|trial| trial.refunds.to_string()));
        next
    }

    /// What it says about slots.
    ///
    /// # Errors
    /// When a variable of ours is missing or has a value that nobody writes.
    pub fn boot_state(&self) -> Result<BootState, EnvironmentError> {
        let default = self.slot(SLOT)?.ok_or_else(|| EnvironmentError::Variable {
            name: SLOT,
            value: None,
            must: "a or b".to_owned(),
        })?;
        let Some(tried) = self.slot(TRIAL)? else {
            return Ok(BootState::settled(default));
        };
        if tried == default {
            return Err(EnvironmentError::Variable {
                name: TRIAL,
                value: Some(tried.to_string()),
                must: format!("the slot beside {SLOT}"),
            });
        }
        let trial = Trial {
            left: self.number(LEFT, MAX_TRIES)?,
            refunds: self.number(REFUNDS, MAX_REFUNDS)?,
        };
        Ok(BootState {
            default,
            trial: Some(trial),
        })
    }

    /// An empty value is how U-Boot's scripts unset a variable.
    fn text(&self, name: &str) -> Option<String> {
        let value = self.variables.get(name.as_bytes())?;
        let text = String::from_utf8_lossy(value).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn slot(&self, name: &'static str) -> Result<Option<Slot>, EnvironmentError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| EnvironmentError::Variable {
                name,
                value: Some(text),
                must: "a or b".to_owned(),
            })
    }

    fn number(&self, name: &'static str, most: u8) -> Result<u8, EnvironmentError> {
        let text = self.text(name);
        let number = text.as_deref().and_then(|text| text.parse().ok());
        number
            .filter(|number| *number <= most)
            .ok_or(EnvironmentError::Variable {
                name,
                value: text,
                must: format!("a number up to {most}"),
            })
    }
}

/// The copy that counts, and the place of the other, which is written next.
///
/// # Errors
/// When neither is valid.
pub fn newer(copies: [&[u8]; 2]) -> Result<(Environment, usize), EnvironmentError> {
    match copies.map(Environment::parse) {
        [Ok(first), Ok(second)] => {
            // As U-Boot decides, which must come to the same: the larger counts, but 0 follows 255;
            // of equal ones the first.
            let second_is_newer = match (first.counter, second.counter) {
                (255, 0) => true,
                (0, 255) => false,
                (first, second) => second > first,
            };
            Ok(if second_is_newer {
                (second, 0)
            } else {
                (first, 1)
            })
        }
        [Ok(first), Err(_)] => Ok((first, 1)),
        [Err(_), Ok(second)] => Ok((second, 0)),
        [Err(_), Err(_)] => Err(EnvironmentError::NoneValid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 512;

    fn environment(counter: u8, variables: &[(&str, &str)]) -> Environment {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Environment {
            counter,
            variables: variables.collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_back_with_what_is_not_ours() {
        let before = environment(7, &[("bootcmd", "run a=b; boot"), (SLOT, "a")]);
        for state in [BootState::settled(Slot::B), BootState::trying(Slot::A, 3)] {
            let after = before.with(state);
            let read = Environment::parse(&after.render(SIZE).unwrap()).unwrap();
            assert_eq!(read, after);
            assert_eq!(read.boot_state(), Ok(state));
            assert_eq!(read.text("bootcmd").as_deref(), Some("run a=b; boot"));
            assert_eq!(read.counter, 8);
        }
    }

    #[test]
    fn the_counter_wraps_around() {
        for (first, second, place) in [
            (0, 1, 0),
            (1, 0, 1),
            (255, 0, 0),
            (0, 255, 1),
            (5, 5, 1),
            (254, 255, 0),
            (3, 200, 0),
        ] {
            let copies = [first, second]
                .map(|counter| environment(counter, &[(SLOT, "a")]).render(SIZE).unwrap());
            let (read, next) = newer([&copies[0], &copies[1]]).unwrap();
            assert_eq!(next, place, "{first} and {second}");
            assert_eq!(read.counter, [first, second][1 - place]);
        }
    }

    #[test]
    fn a_torn_copy_leaves_the_other() {
        let old = environment(1, &[(SLOT, "a")]).render(SIZE).unwrap();
        let new = environment(2, &[(SLOT, "b")]).render(SIZE).unwrap();
        for cut in 0..SIZE {
            let mut torn = vec![0xFF; SIZE];
            torn[..cut].copy_from_slice(&new[..cut]);
            let (read, _) = newer([&old, &torn]).unwrap();
            let slot = read.boot_state().unwrap().default;
            assert_eq!(slot, Slot::A, "cut at {cut}");
        }
        let garbage = [0xFF; SIZE];
        assert_eq!(
            newer([&garbage, &garbage]),
            Err(EnvironmentError::NoneValid)
        );
    }

    #[test]
    fn values_that_nobody_writes_are_refused_by_name() {
        for (variables, culprit) in [
            (&[][..], SLOT),
            (&[(SLOT, "c")], SLOT),
            (&[(SLOT, "a"), (TRIAL, "a"), (LEFT, "1")], TRIAL),
            (&[(SLOT, "a"), (TRIAL, "b")], LEFT),
            (&[(SLOT, "a"), (TRIAL, "b"), (LEFT, "99")], LEFT),
            (
                &[(SLOT, "a"), (TRIAL, "b"), (LEFT, "3"), (REFUNDS, "-1")],
                REFUNDS,
            ),
        ] {
            let error = environment(0, variables).boot_state().unwrap_err();
            assert!(
                matches!(&error, EnvironmentError::Variable { name, .. } if *name == culprit),
                "{variables:?}: {error}"
            );
        }
    }

    #[test]
    fn variables_that_do_not_fit_are_not_written() {
        let long = "x".repeat(SIZE);
        let full = environment(0, &[("bootcmd", &long), (SLOT, "a")]);
        assert!(matches!(
            full.render(SIZE),
            Err(EnvironmentError::Full { size: SIZE, .. })
        ));
    }

    proptest::proptest! {
        #[test]
        fn bytes_of_a_medium_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _refused = Environment::parse(&bytes);
            // With a right CRC the data itself is looked at.
            let mut data = vec![0; 4];
            data.extend_from_slice(&bytes);
            if data.len() > HEADER {
                let crc = CRC.checksum(&data[HEADER..]);
                data[..4].copy_from_slice(&crc.to_le_bytes());
                if let Ok(read) = Environment::parse(&data) {
                    let _refused = read.boot_state();
                    proptest::prop_assert!(read.render(1024).is_ok());
                }
            }
        }
    }
}
