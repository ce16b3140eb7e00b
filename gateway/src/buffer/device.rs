//! The block device that holds a file: how large it is, what was written to it, what it says of
//! itself. Driver.
//!
//! Invariant: only the kernel's own words are reported; where it has none, nothing is.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};

use super::wear::{self, OwnEstimate};

const BLOCK_DEVICES: &str = "/sys/dev/block";
/// The unit of the kernel's counts, whatever the device's own.
const SECTOR_BYTES: u64 = 512;
/// Layers (encryption, volumes) that are looked through for the device below.
const MAX_LAYERS: usize = 8;
/// Column of the sectors written, in Linux' Documentation/block/stat.rst.
const WRITTEN_COLUMN: usize = 6;

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    place: PathBuf,
    pub(super) name: String,
    pub(super) size: u64,
}

impl Device {
    /// The whole device under the file system that the directory is on; `None` where there is none,
    /// as below a memory file system.
    pub(super) fn below(directory: &Path) -> Option<Device> {
        let number = fs::metadata(directory).ok()?.dev();
        let link = format!("{}:{}", major(number), minor(number));
        Device::at(&Path::new(BLOCK_DEVICES).join(link))
    }

    /// The device that an entry of sysfs leads to.
    fn at(entry: &Path) -> Option<Device> {
        let mut place = fs::canonicalize(entry).ok()?;
        for _ in 0..MAX_LAYERS {
            if place.join("partition").exists() {
                place = place.parent()?.to_owned();
            }
            match only_entry(&place.join("slaves")) {
                Some(below) => place = fs::canonicalize(below).ok()?,
                None => break,
            }
        }
        let sectors: u64 = read(&place.join("size"))?.trim().parse().ok()?;
        Some(Device {
            name: place.file_name()?.to_str()?.to_owned(),
            size: sectors * SECTOR_BYTES,
            place,
        })
    }

    /// Bytes written to it since boot, by everybody.
    pub(super) fn written(&self) -> Option<u64> {
        let counts = read(&self.place.join("stat"))?;
        let sectors: u64 = counts
            .split_whitespace()
            .nth(WRITTEN_COLUMN)?
            .parse()
            .ok()?;
        Some(sectors * SECTOR_BYTES)
    }

    /// What it says of its own wear; eMMC does.
    pub(super) fn own_estimate(&self) -> Option<OwnEstimate> {
        let told = |name| read(&self.place.join("device").join(name));
        wear::own_estimate(
            &told("life_time")?,
            &told("pre_eol_info").unwrap_or_default(),
        )
    }
}

/// The one entry of a directory; `None` for an array of several devices, which is no single one's.
fn only_entry(directory: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?;
    let first = entries.next()?.ok()?;
    entries.next().is_none().then(|| first.path())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_partition_counts_as_the_whole_card_below_it() {
        let sys = tempfile::tempdir().unwrap();
        let card = sys.path().join("mmcblk0");
        let partition = card.join("mmcblk0p2");
        fs::create_dir_all(card.join("device")).unwrap();
        fs::create_dir_all(&partition).unwrap();
        for (name, content) in [
            ("size", "2000\n"),
            ("stat", "  1 2 3 4 5 6 700 8 9 10 11\n"),
            ("device/life_time", "0x02 0x01\n"),
            ("device/pre_eol_info", "0x01\n"),
            ("mmcblk0p2/partition", "2\n"),
            ("mmcblk0p2/size", "5\n"),
        ] {
            fs::write(card.join(name), content).unwrap();
        }
        let encrypted = sys.path().join("dm-0");
        fs::create_dir_all(encrypted.join("slaves")).unwrap();
        symlink(&partition, encrypted.join("slaves/mmcblk0p2")).unwrap();
        symlink(&encrypted, sys.path().join("253:0")).unwrap();

        let device = Device::at(&sys.path().join("253:0")).expect("it is found");
        assert_eq!((device.name.as_str(), device.size), ("mmcblk0", 2000 * 512));
        assert_eq!(device.written(), Some(700 * 512));
        assert_eq!(device.own_estimate().map(|own| own.used_percent), Some(20));
        assert_eq!(Device::at(&sys.path().join("0:42")), None);
    }
}
