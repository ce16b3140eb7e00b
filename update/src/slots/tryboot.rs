//! Slots behind the Raspberry Pi's firmware: `autoboot.txt` and one start by `tryboot`. Driver.
//!
//! Invariant: the file's length never changes, so each write is that of one sector in place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    BootState, Counting, Slot, SlotBackend, SlotError,
    autoboot::{self, Partitions, SIZE},
    evidence::{self, Witness},
    place::{read_at, write_at},
    uboot::command_line,
};

/// Where the firmware says which partition it started.
pub const STARTED_PARTITION: &str = "/proc/device-tree/chosen/bootloader/partition";

/// The state in `autoboot.txt`.
#[derive(Debug)]
pub struct Tryboot {
    file: PathBuf,
    partitions: Partitions,
    started_partition: PathBuf,
    command_line: PathBuf,
}

impl Tryboot {
    /// With `autoboot.txt` of the partition that the firmware reads first.
    ///
    /// # Errors
    /// When the file cannot be read or does not have the length of a sector.
    pub fn open(
        file: &Path,
        partitions: Partitions,
        started_partition: &Path,
        command_line: &Path,
    ) -> Result<Tryboot, SlotError> {
        let found = read_at(file, 0, SIZE + 1)?.len();
        if found != SIZE {
            return Err(SlotError::Content {
                path: file.to_owned(),
                why: format!(
                    "it has {found} bytes instead of {SIZE}; only a file that keeps its length can be replaced by one write: fill it up with line feeds"
                ),
            });
        }
        Ok(Tryboot {
            file: file.to_owned(),
            partitions,
            started_partition: started_partition.to_owned(),
            command_line: command_line.to_owned(),
        })
    }

    /// What the firmware says it started; older firmware says nothing.
    fn firmware(&self) -> Witness {
        let bytes = fs::read(&self.started_partition).unwrap_or_default();
        let partition = <[u8; 4]>::try_from(bytes).map(u32::from_be_bytes);
        Witness {
            who: "the firmware",
            slot: partition
                .ok()
                .and_then(|partition| self.partitions.slot(partition)),
        }
    }
}

impl SlotBackend for Tryboot {
    fn load(&self) -> Result<BootState, SlotError> {
        let bytes = read_at(&self.file, 0, SIZE)?;
        autoboot::parse(&bytes, self.partitions).map_err(|why| SlotError::Content {
            path: self.file.clone(),
            why,
        })
    }

    fn store(&mut self, state: BootState) -> Result<(), SlotError> {
        write_at(&self.file, 0, &autoboot::render(state, self.partitions))
    }

    fn booted(&self) -> Result<Slot, SlotError> {
        let witnesses = [self.firmware(), command_line(&self.command_line)?];
        Ok(evidence::agree(&witnesses)?)
    }

    fn counting(&self) -> Counting {
        Counting::ByUs
    }

    fn restart_argument(&self, state: BootState) -> Option<&'static str> {
        state.on_trial().map(|_| "0 tryboot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(folder: &Path, partition: u32, line: &str) -> Tryboot {
        let partitions = Partitions { a: 2, b: 3 };
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let state = BootState::settled(Slot::A);
        let file = write("autoboot.txt", &autoboot::render(state, partitions));
        let started = write("partition", &partition.to_be_bytes());
        let line = write("cmdline", line.as_bytes());
        Tryboot::open(&file, partitions, &started, &line).unwrap()
    }

    #[test]
    fn what_is_stored_is_loaded_and_starts_by_tryboot() {
        let folder = tempfile::tempdir().unwrap();
        let mut backend = backend(folder.path(), 2, "gateway.slot=a");
        for state in [BootState::trying(Slot::A, 3), BootState::settled(Slot::B)] {
            backend.store(state).unwrap();
            assert_eq!(backend.load().unwrap(), state);
            assert_eq!(
                backend.restart_argument(state).is_some(),
                state.trial.is_some()
            );
        }
    }

    #[test]
    fn a_start_of_another_slot_than_the_kernel_believes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let agreeing = backend(folder.path(), 3, "root=/dev/mmcblk0p6 gateway.slot=b");
        assert_eq!(agreeing.booted().unwrap(), Slot::B);
        let disagreeing = backend(folder.path(), 3, "root=/dev/mmcblk0p5 gateway.slot=a");
        let error = disagreeing.booted().unwrap_err().to_string();
        assert!(error.contains("the firmware says slot b"), "{error}");
        let older_firmware = backend(folder.path(), 0, "gateway.slot=a");
        assert_eq!(older_firmware.booted().unwrap(), Slot::A);
    }

    #[test]
    fn a_file_of_another_length_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("autoboot.txt");
        fs::write(&file, "[all]\nboot_partition=2\n").unwrap();
        let partitions = Partitions { a: 2, b: 3 };
        let nothing = Path::new("/dev/null");
        let error = Tryboot::open(&file, partitions, nothing, nothing).unwrap_err();
        assert!(error.to_string().contains("instead of 512"), "{error}");
    }
}
