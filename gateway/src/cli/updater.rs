//! `gateway updater`: the root process that installs, commits and rolls back. Shell.
//!
//! It has no network; the unit sees to that (`gateway-updater.service`), and nothing here would need one.
//!
//! Invariant: what it may touch is named by the configuration, which root alone can write.

use std::{
    fs, io,
    os::{
        fd::AsFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, anyhow};
use broker_lite::observe::manager;
use nix::{
    sys::{
        signal::{SigSet, Signal},
        signalfd::SignalFd,
        socket::{getsockopt, sockopt::AcceptConn},
    },
    unistd::User,
};
use update::{
    install::{
        job::{Kit, Places},
        verify::Taste,
    },
    journal::Release,
    machine::Machine,
    slots::{SlotBackend, autoboot::Partitions, files::Files, tryboot::Tryboot, uboot::UBoot},
    trust::Trust,
    updater::{
        Updater,
        serve::{Host, serve},
    },
};

use super::{ConfigPath, Exit, Failure, Logging, load};
use crate::{
    appliance::trusted,
    config::{self, BootLoader, Config},
    credentials::built_at,
    logging, name,
};

/// The gateway's user, who may ask.
const USER: &str = "gateway";
/// What the firmware says it started.
const STARTED_PARTITION: &str = "/proc/device-tree/chosen/bootloader/partition";
/// What the kernel was started with.
const COMMAND_LINE: &str = "/proc/cmdline";
/// Beyond the gateway's own deadline, so that its reason for a roll-back comes first.
const GRACE: Duration = Duration::from_secs(60);

/// Arguments of `updater`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigPath,
    #[command(flatten)]
    logging: Logging,
    /// Restart the machine by this program instead of systemctl; it gets reboot(2)'s argument where there is one
    #[arg(long, value_name = "PROGRAM", hide = true)]
    restart_by: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let loaded = load(&args.config)?;
    logging::init("gateway-updater", args.logging.format, &args.logging.level)?;
    let config = loaded.value;
    let table = config.update.as_ref().ok_or_else(|| {
        let path = args.config.path.display();
        Failure::new(
            Exit::Usage,
            anyhow!("{path} has no [update]: there are no slots"),
        )
    })?;
    // Before any thread is there, so that all of them leave the signals to us.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().context("cannot block signals")?;
    let signals = SignalFd::new(&signals).context("cannot wait for signals")?;
    let mut updater = updater(&config, table)?;
    let next = updater.start().context("cannot look at the slots")?;
    let listener = listener(&table.socket)?;
    let mut host = System {
        restart_by: args.restart_by.clone(),
    };
    manager::ready();
    let users = User::from_name(USER).ok().flatten();
    let users: Vec<u32> = users.map(|user| user.uid.as_raw()).into_iter().collect();
    let served = serve(&mut updater, &listener, &users, &signals, &mut host, next);
    manager::stopping();
    Ok(served.context("the updater's loop ended")?)
}

fn updater(config: &Config, table: &config::Update) -> Result<Updater, Failure> {
    let directory = &table.updater_directory;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let trust = trust(config, directory)?;
    tracing::info!("{}", trust.in_words());
    let flashed = Release {
        version: "flashed".to_owned(),
        epoch: trust.security_floor().unwrap_or(0),
        root: String::new(),
    };
    let backend = backend(&table.slots.boot).context("cannot find the boot loader's state")?;
    let machine = Machine::new(backend, directory.join("slots.json"), flashed);
    let kit = Kit {
        places: Places {
            slots: [table.slots.a.clone(), table.slots.b.clone()],
            staging: table.staging.directory.clone(),
            directory: directory.clone(),
        },
        taste: Taste {
            target: table.target.clone(),
            hardware: table.hardware.clone(),
            root: table.root.clone(),
            file_key: table.key.clone(),
        },
        trust,
        build: built_at(),
        machine: Arc::new(Mutex::new(machine)),
    };
    let runtime = table.socket.parent().unwrap_or(Path::new("/run"));
    fs::create_dir_all(runtime).with_context(|| format!("cannot make {}", runtime.display()))?;
    let patience = table.health.deadline.as_duration() + GRACE;
    let gateway = name::gateway_id(&config.gateway).to_string();
    Ok(Updater::new(
        kit,
        gateway,
        table.tries,
        runtime.to_owned(),
        patience,
    ))
}

/// A configured TPM has its say, and nothing is trusted without it.
fn trust(config: &Config, directory: &Path) -> Result<Trust, Failure> {
    let Some(table) = &config.tpm else {
        return Ok(Trust::without_tpm(directory));
    };
    let Some(key) = trusted::approval_key(table)? else {
        return Ok(Trust::without_tpm(directory));
    };
    let device = tpm::DeviceKey::start(trusted::address(table)?, table.directory.clone())
        .context("cannot start the TPM's thread")?;
    Ok(Trust::with_tpm(device, key, directory))
}

fn backend(boot: &BootLoader) -> anyhow::Result<Box<dyn SlotBackend + Send>> {
    Ok(match boot {
        BootLoader::Uboot(places) => Box::new(UBoot::open(places, Path::new(COMMAND_LINE))?),
        BootLoader::Tryboot(place) => Box::new(Tryboot::open(
            &place.file,
            Partitions {
                a: place.a,
                b: place.b,
            },
            Path::new(STARTED_PARTITION),
            Path::new(COMMAND_LINE),
        )?),
        BootLoader::Files(folder) if !folder.exists() => {
            fs::create_dir_all(folder)?;
            Box::new(Files::create(folder)?)
        }
        BootLoader::Files(folder) => Box::new(Files::open(folder)?),
    })
}

/// The service manager's socket, which it hands over as standard input, or one of our own.
fn listener(path: &Path) -> anyhow::Result<UnixListener> {
    let input = io::stdin();
    if getsockopt(&input, AcceptConn) == Ok(true) {
        let owned = input.as_fd().try_clone_to_owned();
        return Ok(UnixListener::from(
            owned.context("cannot take the socket over")?,
        ));
    }
    let failed = || format!("cannot listen at {}", path.display());
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path).with_context(failed)?;
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let listener = UnixListener::bind(path).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(failed)?;
    if let Ok(Some(user)) = User::from_name(USER) {
        let group = Some(user.gid.as_raw());
        std::os::unix::fs::chown(path, None, group).with_context(failed)?;
    }
    Ok(listener)
}

/// This machine and its service manager.
struct System {
    restart_by: Option<PathBuf>,
}

impl Host for System {
    fn alive(&mut self) {
        manager::alive();
    }

    fn restart(&mut self, argument: Option<&str>) -> io::Result<()> {
        let mut command = match &self.restart_by {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(argument);
                command
            }
            None => {
                let mut command = Command::new("systemctl");
                command.arg("reboot");
                command.args(argument.map(|argument| format!("--reboot-argument={argument}")));
                command
            }
        };
        match command.status()? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(format!("it ended with {status}"))),
        }
    }
}
