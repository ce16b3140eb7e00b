//! A machine with systemd as PID 1 and a service of ours installed as a package would: the host's `/usr`, below our own files
//! and an `/etc` of its own, in systemd-nspawn. It boots in about a second and needs root. A driver.
//!
//! Invariant: nothing of the host is written, and no test passes because the machine could not be booted.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longest wait for anything that a machine does; a loaded one with two cores needs a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// Two machines would share one control group where the host itself runs no systemd.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A service that a machine is booted with.
#[derive(Clone, Copy)]
pub(crate) enum Service {
    Gateway,
    BrokerLite,
}

impl Service {
    /// The program's name, and that of its unit and its configuration.
    fn name(self) -> &'static str {
        match self {
            Service::Gateway => "gateway",
            Service::BrokerLite => "broker-lite",
        }
    }

    fn unit(self) -> String {
        format!("{}.service", self.name())
    }

    /// Built beside the gateway.
    fn program(self) -> Result<PathBuf> {
        let gateway = std::env::var_os("GATEWAY_BIN")
            .context("GATEWAY_BIN is not set: run `cargo xtask test promises`")?;
        Ok(Path::new(&gateway).with_file_name(self.name()))
    }
}

/// A booted machine; ends when dropped.
pub(crate) struct Machine {
    service: Service,
    nspawn: Child,
    leader: u32,
    folder: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Machine {
    /// Boots with `configuration` as `/etc/gateway/gateway.toml` and the service enabled.
    pub(crate) fn boot(configuration: &str) -> Result<Machine> {
        Machine::boot_with(Service::Gateway, configuration)
    }

    /// Boots with this service alone enabled, and `configuration` as its file.
    pub(crate) fn boot_with(service: Service, configuration: &str) -> Result<Machine> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new()
            .prefix("gateway-machine-")
            .tempdir()?;
        install(folder.path(), service, configuration)?;
        let nspawn = start(folder.path())?;
        let mut machine = Machine {
            service,
            nspawn,
            leader: 0,
            folder: folder.keep(),
            _turn: turn,
        };
        machine.leader = machine.wait_for_leader()?;
        machine.wait_for("systemd to answer", |machine| {
            machine
                .run(&["systemctl", "show", "--property=Version"])
                .is_ok()
        })?;
        Ok(machine)
    }

    /// What a command inside prints; an error bears what it said.
    pub(crate) fn run(&self, command: &[&str]) -> Result<String> {
        let output = self
            .enter(command)
            .output()
            .context("cannot start nsenter")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{command:?} ended with {}: {said}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Replaces a file inside.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut tee = self
            .enter(&["tee", path])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        tee.stdin
            .take()
            .context("tee has an input")?
            .write_all(text.as_bytes())?;
        ensure!(tee.wait()?.success(), "cannot write {path} in the machine");
        Ok(())
    }

    /// A property of the service, as `systemctl show` prints it.
    pub(crate) fn property(&self, name: &str) -> Result<String> {
        let value = self.run(&[
            "systemctl",
            "show",
            &self.service.unit(),
            "--value",
            "--property",
            name,
        ])?;
        Ok(value.trim().to_owned())
    }

    /// The service's journal entries, each with all of its fields.
    pub(crate) fn journal(&self) -> Result<Vec<serde_json::Value>> {
        let lines = self.run(&[
            "journalctl",
            &format!("--unit={}", self.service.unit()),
            "--output=json",
            "--no-pager",
        ])?;
        lines
            .lines()
            .map(|line| serde_json::from_str(line).context("journalctl prints JSON"))
            .collect()
    }

    /// Looks until the condition holds; the error shows the service's state and the machine's console.
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn(&Machine) -> bool) -> Result<()> {
        let give_up_at = Instant::now() + PATIENCE;
        while !holds(self) {
            if Instant::now() > give_up_at {
                bail!("waited {PATIENCE:?} in vain for {what}\n{}", self.state());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until systemd says `active`, which takes the READY of the process.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        self.wait_for("the service to be ready", |machine| {
            machine
                .property("ActiveState")
                .is_ok_and(|state| state == "active")
                && machine
                    .property("SubState")
                    .is_ok_and(|state| state == "running")
        })
    }

    fn enter(&self, command: &[&str]) -> Command {
        let mut nsenter = as_root("nsenter");
        nsenter
            .args(["--target", &self.leader.to_string(), "--all", "--"])
            .args(command);
        nsenter
    }

    fn wait_for_leader(&mut self) -> Result<u32> {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = first_of_a_namespace_below(self.nspawn.id()) {
                return Ok(leader);
            }
            if let Some(status) = self.nspawn.try_wait()? {
                bail!(
                    "systemd-nspawn ended with {status}; it needs root and control groups:\n{}",
                    self.console()
                );
            }
            ensure!(
                Instant::now() < give_up_at,
                "systemd-nspawn started no machine:\n{}",
                self.console()
            );
            std::thread::sleep(LOOK);
        }
    }

    fn state(&self) -> String {
        let show = |command: &[&str]| self.run(command).unwrap_or_else(|error| error.to_string());
        let status = show(&[
            "systemctl",
            "show",
            &self.service.unit(),
            "--property=ActiveState,SubState,Result,StatusText",
        ]);
        let journal = show(&[
            "journalctl",
            &format!("--unit={}", self.service.unit()),
            "--no-pager",
            "--lines=40",
        ]);
        format!("{status}\n{journal}\nconsole:\n{}", self.console())
    }

    fn console(&self) -> String {
        fs::read_to_string(self.folder.join("console.log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    /// Nothing in the machine is worth an orderly end: systemd takes SIGRTMIN+14 as "power off at once".
    fn drop(&mut self) {
        if self.leader != 0 {
            let _ = as_root("kill")
                .args(["-s", "RTMIN+14", &self.leader.to_string()])
                .status();
        } else {
            let _ = as_root("kill").arg(self.nspawn.id().to_string()).status();
        }
        let _ = self.nspawn.wait();
        let _ = as_root("rm")
            .args(["-rf", "--one-file-system"])
            .arg(&self.folder)
            .status();
    }
}

/// The machine's own files: `root/` is everything but `/usr`, `usr/` is laid over the host's.
fn install(folder: &Path, service: Service, configuration: &str) -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (name, unit, program) = (service.name(), service.unit(), service.program()?);
    let (root, usr) = (folder.join("root"), folder.join("usr"));
    for name in ["usr", "var", "tmp", "proc", "sys", "dev", "run"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    place(&root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    place(&root.join("etc/os-release"), "ID=gateway-machine\n")?;
    // A machine that has an id is not booted for the first time, so the host's presets enable nothing in it.
    place(
        &root.join("etc/machine-id"),
        "5ec0de5ec0de5ec0de5ec0de5ec0de00\n",
    )?;
    place(&root.join(format!("etc/{name}/{name}.toml")), configuration)?;
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    symlink(format!("/usr/lib/systemd/system/{unit}"), wants.join(&unit))?;

    for (from, to) in [
        (
            "systemd/gateway.service",
            "lib/systemd/system/gateway.service",
        ),
        (
            "systemd/gateway-updater.service",
            "lib/systemd/system/gateway-updater.service",
        ),
        (
            "systemd/gateway-updater.socket",
            "lib/systemd/system/gateway-updater.socket",
        ),
        (
            "systemd/gateway-restart.service",
            "lib/systemd/system/gateway-restart.service",
        ),
        (
            "systemd/broker-lite.service",
            "lib/systemd/system/broker-lite.service",
        ),
        (
            "systemd/gateway.sysusers.conf",
            "lib/sysusers.d/gateway.conf",
        ),
        (
            "systemd/gateway.tmpfiles.conf",
            "lib/tmpfiles.d/gateway.conf",
        ),
        (
            "systemd/gateway.modules.conf",
            "lib/modules-load.d/gateway.conf",
        ),
        (
            "systemd/gateway.udev.rules",
            "lib/udev/rules.d/60-gateway.rules",
        ),
        (
            "systemd/gateway.catalog",
            "lib/systemd/catalog/gateway.catalog",
        ),
        (
            "systemd/broker-lite.catalog",
            "lib/systemd/catalog/broker-lite.catalog",
        ),
    ] {
        place(
            &usr.join(to),
            &fs::read_to_string(repository.join(from))
                .with_context(|| format!("cannot read {from}"))?,
        )?;
    }
    fs::create_dir_all(usr.join("bin"))?;
    fs::copy(&program, usr.join("bin").join(name))
        .with_context(|| format!("cannot copy {}", program.display()))?;

    for readable in [folder, &root, &usr] {
        fs::set_permissions(readable, fs::Permissions::from_mode(0o755))?;
    }
    let mut chown = as_root("chown");
    chown.args(["-R", "0:0"]).args([&root, &usr]);
    let owned = chown.status().is_ok_and(|status| status.success());
    ensure!(
        owned,
        "cannot give the machine's files to root: this test needs root, or sudo without a question"
    );
    Ok(())
}

fn place(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().context("a file has a folder")?;
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn start(folder: &Path) -> Result<Child> {
    let console = fs::File::create(folder.join("console.log"))?;
    let name = folder
        .file_name()
        .context("the folder has a name")?
        .to_string_lossy();
    let mut nspawn = as_root("env");
    nspawn.args([
        "UNIFIED_CGROUP_HIERARCHY=yes",
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--private-network",
    ]);
    if !Path::new("/run/systemd/system").is_dir() {
        // No systemd on the host that could give the machine a scope: it lives below our own control group.
        nspawn.arg("--keep-unit");
    }
    nspawn.arg(format!(
        "--machine={}",
        name.trim_start_matches('.').replace('_', "-")
    ));
    nspawn.arg("--directory").arg(folder.join("root"));
    nspawn.arg(format!(
        "--overlay-ro=/usr:{}:/usr",
        folder.join("usr").display()
    ));
    nspawn.args(["--console=pipe", "--boot"]);
    nspawn
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    nspawn.spawn().context("cannot start systemd-nspawn")
}

/// The descendant that is process 1 of a namespace of its own.
fn first_of_a_namespace_below(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?
        .split_whitespace();
    if ids.clone().count() > 1 && ids.last() == Some("1") {
        return Some(pid);
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .find_map(first_of_a_namespace_below)
}

/// The program, through sudo where we are not root; `cargo xtask test` has asked for the password before.
fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}
