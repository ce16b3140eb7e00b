//! Slots behind U-Boot, whose environment holds two copies at fixed places. Driver.
//!
//! The places are those of `/etc/fw_env.config`, which `fw_printenv` and `fw_setenv` read as well:
//! one line a copy, `DEVICE OFFSET SIZE`.
//!
//! Invariant: only the older copy is ever written, and only while the newer one is valid.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    BootState, Counting, Slot, SlotBackend, SlotError,
    environment::{self, Environment, SIZES},
    evidence::{self, Witness},
    place::{read_at, write_at},
};

/// Where libubootenv looks for the places.
pub const CONFIGURATION: &str = "/etc/fw_env.config";
/// What the kernel was started with.
pub const COMMAND_LINE: &str = "/proc/cmdline";

/// Where one copy stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    device: PathBuf,
    offset: u64,
    size: usize,
}

/// The state in U-Boot's environment.
#[derive(Debug)]
pub struct UBoot {
    places: [Place; 2],
    command_line: PathBuf,
}

impl UBoot {
    /// With the places that a file in the form of `/etc/fw_env.config` names.
    ///
    /// # Errors
    /// When the file cannot be read, or does not name two places of the same size.
    pub fn open(configuration: &Path, command_line: &Path) -> Result<UBoot, SlotError> {
        let text = fs::read_to_string(configuration).map_err(|source| SlotError::File {
            what: "read",
            path: configuration.to_owned(),
            source,
        })?;
        let places = places(&text).map_err(|why| SlotError::Content {
            path: configuration.to_owned(),
            why,
        })?;
        Ok(UBoot {
            places,
            command_line: command_line.to_owned(),
        })
    }

    /// The environment that counts, and the place to write next.
    fn read(&self) -> Result<(Environment, &Place), SlotError> {
        let read = |place: &Place| read_at(&place.device, place.offset, place.size);
        let copies = [read(&self.places[0])?, read(&self.places[1])?];
        let (found, next) =
            environment::newer([&copies[0], &copies[1]]).map_err(|why| self.content(&why))?;
        Ok((found, &self.places[next]))
    }

    fn content(&self, why: &environment::EnvironmentError) -> SlotError {
        SlotError::Content {
            path: self.places[0].device.clone(),
            why: format!("U-Boot's environment: {why}"),
        }
    }
}

impl SlotBackend for UBoot {
    fn load(&self) -> Result<BootState, SlotError> {
        let (environment, _) = self.read()?;
        environment.boot_state().map_err(|why| self.content(&why))
    }

    fn store(&mut self, state: BootState) -> Result<(), SlotError> {
        let (environment, place) = self.read()?;
        let bytes = environment
            .with(state)
            .render(place.size)
            .map_err(|why| self.content(&why))?;
        write_at(&place.device, place.offset, &bytes)
    }

    fn booted(&self) -> Result<Slot, SlotError> {
        Ok(evidence::agree(&[command_line(&self.command_line)?])?)
    }

    fn counting(&self) -> Counting {
        Counting::ByBootLoader
    }

    fn restart_argument(&self, _: BootState) -> Option<&'static str> {
        None
    }
}

/// What the kernel's command line says.
pub(super) fn command_line(path: &Path) -> Result<Witness, SlotError> {
    let line = fs::read_to_string(path).map_err(|source| SlotError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(evidence::from_command_line(&line))
}

/// The two places that the file names.
fn places(text: &str) -> Result<[Place; 2], String> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let found: Vec<Place> = lines
        .map(|(number, line)| place(line).map_err(|why| format!("line {number}: {why}")))
        .collect::<Result<_, _>>()?;
    let [first, second] = <[Place; 2]>::try_from(found).map_err(|found| {
        format!(
            "it names {} places; an environment that survives a power cut has two",
            found.len()
        )
    })?;
    if first.size != second.size {
        return Err(format!(
            "its copies have {} and {} bytes; they must have the same size",
            first.size, second.size
        ));
    }
    let apart = first.offset.abs_diff(second.offset) >= first.size as u64;
    if first.device == second.device && !apart {
        return Err("its copies overlap".to_owned());
    }
    Ok([first, second])
}

fn place(line: &str) -> Result<Place, String> {
    let mut words = line.split_whitespace();
    let (Some(device), Some(offset), Some(size)) = (words.next(), words.next(), words.next())
    else {
        return Err("it must be DEVICE OFFSET SIZE".to_owned());
    };
    let number = |word: &str| {
        let parsed = match word.strip_prefix("0x").or(word.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => word.parse(),
        };
        parsed.map_err(|_| format!("{word:?} is no number of bytes"))
    };
    let size = number(size)?;
    let size = usize::try_from(size)
        .ok()
        .filter(|size| SIZES.contains(size))
        .ok_or_else(|| {
            let (least, most) = (SIZES.start(), SIZES.end());
            format!("a copy of {size} bytes; it must have {least} to {most}")
        })?;
    Ok(Place {
        device: device.into(),
        offset: number(offset)?,
        size,
    })
}

#[cfg(test)]
mod tests {
    use powercut::{Scene, Stage};

    use super::{super::files::Files, *};

    const PROGRAM: &str = "slots::uboot::tests::stores_states_for_the_test_that_cuts_the_power";

    /// The child process: one state after the other, told before it is stored.
    #[test]
    #[ignore = "a process for the test beside it"]
    fn stores_states_for_the_test_that_cuts_the_power() {
        let stage = Stage::open();
        let mut slots = Files::create(&stage.disk).unwrap();
        for number in 0..stage.amount {
            stage.tell(&format!("storing {number}"));
            slots.store(state(number)).unwrap();
            stage.tell(&format!("stored {number}"));
        }
    }

    /// Each differs from the one before.
    fn state(number: usize) -> BootState {
        let default = [Slot::A, Slot::B][number % 2];
        match number % 3 {
            0 => BootState::settled(default),
            _ => BootState::trying(default, (number % 9) as u8),
        }
    }

    #[derive(Debug, Clone, Default)]
    struct Ledger {
        storing: Option<usize>,
        stored: Option<usize>,
    }

    impl powercut::Ledger for Ledger {
        fn enter(&mut self, line: &str) {
            let (what, number) = line.split_once(' ').expect("a word and a number");
            let number = Some(number.parse().expect("a number"));
            match what {
                "storing" => self.storing = number,
                _ => self.stored = number,
            }
        }
    }

    #[test]
    fn a_power_cut_leaves_the_state_before_or_the_one_to_be() {
        let scene = Scene::new(PROGRAM);
        let calls = scene.record(120);
        let found = powercut::cut(&scene, &calls, |folder, ledger: &Ledger| {
            let Some(stored) = ledger.stored else {
                return Ok(0);
            };
            // The folder has moved; its places name the old one.
            let places = fs::read_to_string(folder.join("places")).map_err(|e| e.to_string())?;
            let old = places.split("/state ").next().unwrap_or_default();
            let moved = places.replace(old, &folder.display().to_string());
            fs::write(folder.join("places"), moved).map_err(|e| e.to_string())?;
            let found = Files::open(folder)
                .and_then(|slots| slots.load())
                .map_err(|error| error.to_string())?;
            let storing = ledger.storing.unwrap_or(stored);
            if found != state(stored) && found != state(storing) {
                return Err(format!("after {stored}, while {storing}: {found:?}"));
            }
            Ok(1)
        });
        assert!(
            found.iter().sum::<u32>() > 1000,
            "no cut came after a write"
        );
    }

    #[test]
    fn places_are_read_as_libubootenv_reads_them() {
        let text =
            "# a comment\n\n/dev/mmcblk0 0x3E0000 0x2000\n /dev/mmcblk0\t0x3F0000 8192 # more\n";
        let [first, second] = places(text).unwrap();
        assert_eq!((first.offset, first.size), (0x3E_0000, 0x2000));
        assert_eq!((second.offset, second.size), (0x3F_0000, 0x2000));
    }

    #[test]
    fn what_would_not_survive_a_power_cut_is_refused() {
        for (text, why) in [
            ("", "it names 0 places"),
            ("/dev/x 0 0x2000", "it names 1 places"),
            ("/dev/x 0 0x2000\n/dev/x 0x1000 0x2000", "overlap"),
            ("/dev/x 0 0x2000\n/dev/y 0 0x1000", "same size"),
            ("/dev/x 0", "line 1: it must be DEVICE OFFSET SIZE"),
            ("/dev/x zero 0x2000", "\"zero\" is no number"),
            ("/dev/x 0 0xFFFFFFFF", "a copy of"),
        ] {
            let error = places(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
