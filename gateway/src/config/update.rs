//! The `[update]` table: where releases come from, into which slots they go, and when one may stay. Values.
//!
//! Invariant: without the table nothing is asked for, and nothing is installed.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::{Period, Size};

use super::drain::{Budget, Window};

/// The `[update]` table.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The repository, `https://HOST[:PORT]/PATH`: below it `metadata/` and `targets/`.
    #[schemars(extend("format" = "repository-url"))]
    pub repository: String,
    /// The release that this device follows: the name of a target in that repository.
    #[schemars(length(min = 1, max = 255))]
    pub target: String,
    /// What this device is, as releases name what they are made for.
    #[schemars(length(min = 1, max = 64))]
    pub hardware: String,
    /// The two places for a release.
    pub slots: Slots,
    /// Trust anchors for the repository's certificate, PEM.
    #[serde(default = "default_ca")]
    pub ca: PathBuf,
    /// The first root metadata that is trusted, as the device's maker shipped it.
    #[serde(default = "default_root")]
    pub root: PathBuf,
    /// The key that opens releases on a device without TPM, readable by root alone; made by `gateway release`.
    pub key: Option<PathBuf>,
    /// What the service keeps about releases: metadata, and how well the plant ran before.
    #[serde(default = "default_directory")]
    pub directory: PathBuf,
    /// What the updater remembers, for root alone.
    #[serde(default = "default_updater_directory")]
    pub updater_directory: PathBuf,
    /// Where the updater listens, for the service and `gateway update`.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Where a release waits between its download and its installation.
    #[serde(default)]
    pub staging: Staging,
    /// How often the repository is asked for something newer.
    #[serde(default = "default_check_every")]
    #[schemars(extend("x-minimum" = "1m", "x-maximum" = "30d"))]
    pub check_every: Period,
    /// Up to so much later, by chance, so that a fleet does not ask at once.
    #[serde(default = "default_check_jitter")]
    #[schemars(extend("x-maximum" = "30d"))]
    pub check_jitter: Period,
    /// When something newer is downloaded and written to the slot that does not run.
    #[serde(default)]
    pub install: When,
    /// When the machine then restarts into it.
    #[serde(default)]
    pub restart: When,
    /// Times of the day, UTC, for what waits for a window, such as `"01:00-05:00"`.
    #[serde(default)]
    #[schemars(length(max = 24))]
    pub windows: Vec<Window>,
    /// Most bytes per second of a download; by default as many as the network takes.
    #[schemars(extend("x-minimum" = "1KiB"))]
    pub bytes_per_second: Option<Size>,
    /// What downloads may cost; one that would cost more fails.
    #[serde(default)]
    pub budget: Budget,
    /// Starts that a new release gets to become healthy.
    #[serde(default = "default_tries")]
    #[schemars(range(min = 1, max = 9))]
    pub tries: u8,
    /// When a new release stays.
    #[serde(default)]
    pub health: Health,
}

/// `[update.slots]`: the two places for a release, and who starts one of them.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// The block device of slot A.
    pub a: PathBuf,
    /// The block device of slot B.
    pub b: PathBuf,
    /// The boot loader, and where it keeps what it starts.
    pub boot: BootLoader,
}

/// Who starts a slot.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootLoader {
    /// U-Boot: a file in the form of `/etc/fw_env.config`, which says where its environment is.
    Uboot(PathBuf),
    /// The Raspberry Pi's firmware.
    Tryboot(TrybootPlace),
    /// A directory, for tests and demonstrations: whoever plays the boot loader reads it.
    Files(PathBuf),
}

/// Where the Raspberry Pi's firmware looks.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrybootPlace {
    /// `autoboot.txt` of the partition that the firmware reads first.
    pub file: PathBuf,
    /// Number of the partition from which slot A is started, from 1.
    #[schemars(range(min = 1, max = 255))]
    pub a: u8,
    /// The same of slot B.
    #[schemars(range(min = 1, max = 255))]
    pub b: u8,
}

/// `[update.staging]`: where a release waits between its download and its installation.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Staging {
    /// The only directory from which the updater reads what the service has downloaded.
    pub directory: PathBuf,
    /// Most that may lie there.
    #[schemars(extend("x-minimum" = "1MiB"))]
    pub max_size: Size,
}

impl Default for Staging {
    fn default() -> Self {
        Staging {
            directory: "/var/lib/gateway/staging".into(),
            max_size: Size::from_gib(1),
        }
    }
}

/// When a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// As soon as it can be.
    Automatic,
    /// In the next window.
    Window,
    /// By `gateway update install` alone.
    #[default]
    ByHand,
}

/// `[update.health]`: when a new release stays.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// How long without a break everything must work as before the update.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub hold: Period,
    /// Time from the start in which that must have happened; else the release is rolled back.
    #[schemars(extend("x-minimum" = "2s", "x-maximum" = "7d"))]
    pub deadline: Period,
    /// Part of the good polls before the update that each device must reach again, percent.
    #[schemars(range(min = 1, max = 100))]
    pub polls: u8,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            hold: Period::from_secs(5 * 60),
            deadline: Period::from_secs(30 * 60),
            polls: 80,
        }
    }
}

fn default_ca() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}

fn default_root() -> PathBuf {
    "/usr/share/gateway/root.json".into()
}

fn default_directory() -> PathBuf {
    "/var/lib/gateway/update".into()
}

fn default_updater_directory() -> PathBuf {
    "/var/lib/gateway-updater".into()
}

fn default_socket() -> PathBuf {
    "/run/gateway-updater/updater.sock".into()
}

fn default_check_every() -> Period {
    Period::from_secs(6 * 3600)
}

fn default_check_jitter() -> Period {
    Period::from_secs(30 * 60)
}

fn default_tries() -> u8 {
    3
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn no_more_tries_are_asked_for_than_boot_loaders_count() {
        let with = |tries: u8| {
            format!(
                "[update]\nrepository = \"https://r.example\"\ntarget = \"t\"\nhardware = \"h\"\ntries = {tries}\n\
                 [update.slots]\na = \"/dev/a\"\nb = \"/dev/b\"\nboot = {{ uboot = \"/etc/fw_env.config\" }}\n"
            )
        };
        assert!(parse("gateway.toml", &with(update::slots::MAX_TRIES)).is_ok());
        assert!(parse("gateway.toml", &with(update::slots::MAX_TRIES + 1)).is_err());
    }
}
