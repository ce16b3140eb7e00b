//! `autoboot.txt` of the Raspberry Pi's firmware, in one sector. A core.
//!
//! ```text
//!  [all]                    what starts by default
//!  tryboot_a_b=1
//!  boot_partition=2
//!  [tryboot]                what starts once after `reboot "0 tryboot"`
//!  boot_partition=3
//!  # gateway: left=2 refunds=0        a trial, for us; the firmware skips comments
//! ```
//! The file keeps its length, so replacing it is one write of one sector and the file system's own
//! tables stay as they are.
//!
//! Invariant: what is rendered reads back as what it was made from.

use super::{BootState, MAX_REFUNDS, MAX_TRIES, Slot, Trial};

/// Bytes of the file: a sector, the firmware's own limit.
pub const SIZE: usize = 512;

const NOTE: &str = "# gateway:";

/// The partitions that the firmware starts, by its own numbering from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    /// Of slot A.
    pub a: u8,
    /// Of slot B.
    pub b: u8,
}

impl Partitions {
    fn of(self, slot: Slot) -> u8 {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    /// The slot of a partition.
    pub fn slot(self, partition: u32) -> Option<Slot> {
        [Slot::A, Slot::B]
            .into_iter()
            .find(|slot| u32::from(self.of(*slot)) == partition)
    }
}

/// The file for a state.
pub fn render(state: BootState, partitions: Partitions) -> [u8; SIZE] {
    let (first, second) = (
        partitions.of(state.default),
        partitions.of(state.default.other()),
    );
    let mut text = format!(
        "[all]\ntryboot_a_b=1\nboot_partition={first}\n[tryboot]\nboot_partition={second}\n"
    );
    if let Some(Trial { left, refunds }) = state.trial {
        text.push_str(&format!("{NOTE} left={left} refunds={refunds}\n"));
    }
    let mut bytes = [b'\n'; SIZE];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// The state in a file.
///
/// # Errors
/// Says what is missing or wrong: written by other hands, it is not overwritten.
pub fn parse(bytes: &[u8], partitions: Partitions) -> Result<BootState, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let (mut section, mut default, mut tried, mut trial) = ("all", None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(note) = line.strip_prefix(NOTE) {
            trial = Some(parse_trial(note)?);
        } else if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
        } else if let Some(value) = line.strip_prefix("boot_partition=") {
            let slot = value
                .trim()
                .parse()
                .ok()
                .and_then(|number| partitions.slot(number))
                .ok_or_else(|| format!("[{section}] boot_partition={value} is no slot's"))?;
            match section {
                "all" => default = Some(slot),
                "tryboot" => tried = Some(slot),
                _ => {}
            }
        }
    }
    let default = default.ok_or("[all] has no boot_partition")?;
    if tried != Some(default.other()) {
        return Err("[tryboot] does not start the other slot".to_owned());
    }
    Ok(BootState { default, trial })
}

fn parse_trial(note: &str) -> Result<Trial, String> {
    let number = |name: &str, most: u8| {
        let mut words = note.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value
            .and_then(|value| value.parse().ok())
            .filter(|number| *number <= most)
            .ok_or_else(|| format!("its note has no {name} from 0 to {most}"))
    };
    Ok(Trial {
        left: number("left", MAX_TRIES)?,
        refunds: number("refunds", MAX_REFUNDS)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITIONS: Partitions = Partitions { a: 2, b: 3 };

    fn states() -> Vec<BootState> {
        let trials =
            [None].into_iter().chain((0..=MAX_TRIES).flat_map(|left| {
                (0..=MAX_REFUNDS).map(move |refunds| Some(Trial { left, refunds }))
            }));
        trials
            .flat_map(|trial| [Slot::A, Slot::B].map(|default| BootState { default, trial }))
            .collect()
    }

    #[test]
    fn every_state_reads_back() {
        for state in states() {
            let bytes = render(state, PARTITIONS);
            assert_eq!(parse(&bytes, PARTITIONS), Ok(state));
        }
    }

    #[test]
    fn the_firmware_finds_what_it_documents() {
        let text = render(BootState::trying(Slot::B, 3), PARTITIONS);
        let text = str::from_utf8(&text).unwrap();
        assert!(text.starts_with(
            "[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n# gateway: left=3 refunds=0\n\n"
        ));
    }

    #[test]
    fn a_file_by_other_hands_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("", "[all] has no boot_partition"),
            ("[all]\nboot_partition=7\n", "boot_partition=7 is no slot's"),
            ("[all]\nboot_partition=2\n", "[tryboot]"),
            (
                "boot_partition=2\n[tryboot]\nboot_partition=2\n",
                "[tryboot]",
            ),
            (
                "boot_partition=2\n[tryboot]\nboot_partition=3\n# gateway: left=77 refunds=0\n",
                "no left from 0 to 9",
            ),
        ] {
            let error = parse(text.as_bytes(), PARTITIONS).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert!(parse(&[0xFF; SIZE], PARTITIONS).is_err());
    }
}
