//! A release travels from a vendor's desk into the running slot, through the gateway's and the updater's own processes; and only
//! what changed travels the second time.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Gateway, PATIENCE, Plant, Process, Scene, gateway, promise, until};

const CHUNK: usize = 256 << 10;

/// A vendor's folder, and a web server that knows nothing of releases.
pub(crate) struct Vendor<'s> {
    scene: &'s Scene,
    port: u16,
    _server: Process,
}

impl<'s> Vendor<'s> {
    /// With keys of its own and nothing published.
    pub(crate) fn new(scene: &'s Scene) -> Result<Vendor<'s>> {
        let port = scene.free_port()?;
        fs::create_dir(scene.path("repository"))?;
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        command.arg(scene.path("repository")).arg(port.to_string());
        let server = Process::start("repository", &scene.log_path("repository"), command)?;
        let vendor = Vendor {
            scene,
            port,
            _server: server,
        };
        for line in [
            "keygen --out keys root-1 root-2 targets online",
            "keygen --out keys --kind file-key fleet",
            "draft root --root keys/root-1.pub keys/root-2.pub --threshold 2 --targets keys/targets.pub \
             --snapshot keys/online.pub --timestamp keys/online.pub --out root.json",
            "sign root.json --key keys/root-1.key",
            "sign root.json --key keys/root-2.key",
        ] {
            vendor.does(line)?;
        }
        Ok(vendor)
    }

    fn does(&self, line: &str) -> Result<()> {
        let mut command = Command::new(gateway::binary()?);
        command.arg("release").args(line.split_whitespace());
        let output = command.current_dir(self.scene.path("")).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "release {line}: {said}");
        Ok(())
    }

    /// A release of this security epoch that devices are offered from here on.
    pub(crate) fn publish(&self, version: &str, epoch: u64, image: &[u8]) -> Result<()> {
        fs::write(self.scene.path("image"), image)?;
        let folder = format!("release-{version}");
        self.does(&format!(
            "pack image --out {folder} --product p --version {version} --hardware board --epoch {epoch} \
             --recipient keys/fleet.key"
        ))?;
        self.does(&format!(
            "draft targets --repository repository --release {folder} --name board/stable --out targets.json"
        ))?;
        self.does("sign targets.json --key keys/targets.key")?;
        let root = match self.scene.path("repository/metadata").exists() {
            true => "",
            false => " --root root.json",
        };
        self.does(&format!(
            "publish --repository repository{root} --targets targets.json --release {folder} --key keys/online.key"
        ))
    }
}

/// A machine with two slots in files, and the plant around it.
pub(crate) struct Machine<'s> {
    scene: &'s Scene,
    /// Its devices.
    pub(crate) plant: Plant,
    /// The service.
    pub(crate) gateway: Gateway<'s>,
    updater: Process,
    /// What is root's alone may not lie below what is the service's.
    _own: TempDir,
}

impl<'s> Machine<'s> {
    /// Slot A runs, and slot B is empty.
    pub(crate) fn start(scene: &'s Scene, vendor: &Vendor<'_>) -> Result<Machine<'s>> {
        let plant = Plant::new(scene)?;
        for slot in ["slot-a", "slot-b"] {
            fs::write(scene.path(slot), "")?;
        }
        let own = TempDir::with_prefix("updater-")?;
        let folder = scene.path("");
        let folder = folder.display();
        let table = format!(
            r#"
[update]
repository = "http://127.0.0.1:{port}"
target = "board/stable"
hardware = "board"
root = "{folder}/root.json"
key = "{folder}/keys/fleet.key"
directory = "{folder}/update"
updater_directory = "{own}"
socket = "{folder}/run/updater.sock"
slots = {{ a = "{folder}/slot-a", b = "{folder}/slot-b", boot = {{ files = "{folder}/boot" }} }}
staging = {{ directory = "{folder}/staging" }}
health = {{ hold = "2s", deadline = "5m", polls = 50 }}
"#,
            own = own.path().display(),
            port = vendor.port,
        );
        let config = plant.base(scene) + &plant.tank_config("200ms") + &table;
        scene.write("gateway.toml", &config)?;
        let updater = updater(scene)?;
        let gateway = Gateway::start(scene, &config, plant.port)?;
        Ok(Machine {
            scene,
            plant,
            gateway,
            updater,
            _own: own,
        })
    }

    /// Kills both processes, as a power cut does, and starts what the boot loader then chooses; returns that slot.
    pub(crate) fn lose_power(&mut self) -> Result<String> {
        self.updater.kill()?;
        self.gateway.process.kill()?;
        let next = chosen(&fs::read(self.scene.path("boot/state"))?)?;
        self.starts(&next)?;
        Ok(next)
    }

    /// Ends both processes, does what a boot loader does, and starts what it chose.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let next = self.shut_down()?;
        self.starts(&next)
    }

    /// Ends both processes; returns the slot that a boot loader then starts.
    pub(crate) fn shut_down(&mut self) -> Result<String> {
        self.updater.signal(Signal::SIGTERM)?;
        self.updater.ended(PATIENCE)?;
        self.gateway.stop()?;
        chosen(&fs::read(self.scene.path("boot/state"))?)
    }

    /// Starts both processes in this slot.
    pub(crate) fn starts(&mut self, slot: &str) -> Result<()> {
        fs::write(self.scene.path("boot/started"), slot)?;
        // What a start of the machine clears away.
        fs::remove_dir_all(self.scene.path("run"))?;
        self.updater = updater(self.scene)?;
        self.gateway.restart()
    }
}

/// The slot that a boot loader starts, by the newer of the two copies in `update/src/slots/environment.rs`' format.
fn chosen(state: &[u8]) -> Result<String> {
    let (first, second) = state.split_at(state.len() / 2);
    let variable = |copy: &[u8], name: &str| {
        let text = String::from_utf8_lossy(copy.get(5..)?).into_owned();
        let mut entries = text.split('\0').filter_map(|entry| entry.split_once('='));
        entries.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
    };
    let is_newer = second[4].wrapping_sub(first[4]) == 1;
    let copy = if is_newer { second } else { first };
    let slot = variable(copy, "gateway_trial").or_else(|| variable(copy, "gateway_slot"));
    slot.context("the boot loader's state names no slot")
}

fn updater(scene: &Scene) -> Result<Process> {
    let mut command = Command::new(gateway::binary()?);
    command.args(["updater", "--restart-by", "true", "--config"]);
    command.arg(scene.path("gateway.toml"));
    let process = Process::start("updater", &scene.log_path("updater"), command)?;
    until("the updater answers", PATIENCE, || Ok(status(scene).ok()))?;
    Ok(process)
}

/// One message to the updater, as `update/src/protocol.rs` describes it.
fn ask(scene: &Scene, what: Value) -> Result<Value> {
    let mut stream = UnixStream::connect(scene.path("run/updater.sock"))?;
    let body = serde_json::to_vec(&json!({"version": 1, "ask": what}))?;
    stream.write_all(&u32::try_from(body.len())?.to_be_bytes())?;
    stream.write_all(&body)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    stream.read_exact(&mut answer)?;
    let answer: Value = serde_json::from_slice(&answer)?;
    Ok(answer["reply"].clone())
}

/// What the updater says of itself and its slots.
pub(crate) fn status(scene: &Scene) -> Result<Value> {
    Ok(ask(scene, json!({"status": {}}))?["status"].clone())
}

/// What `gateway update` says, and its exit code.
pub(crate) fn update(scene: &Scene, words: &[&str]) -> Result<(Option<i32>, String)> {
    let config = scene.path("gateway.toml").display().to_string();
    let output = gateway::run(&[&["update"], words, &["--config", &config]].concat())?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

fn committed(scene: &Scene, slot: &str) -> Result<()> {
    until("the release on trial stays", PATIENCE, || {
        // The service says it, too, once all works as before.
        ask(scene, json!({"commit": {}}))?;
        let status = status(scene)?;
        let stays = status["default"] == slot && status["trial"].is_null();
        Ok(stays.then_some(()))
    })
}

/// Bytes that a download needs, as `gateway update install` tells.
fn cost(said: &str) -> Option<usize> {
    let (_, rest) = said.split_once(" of ")?;
    rest.split(' ').next()?.parse().ok()
}

/// Noise, so that nothing of it compresses.
pub(crate) fn image(salts: &[u8]) -> Vec<u8> {
    let chunks = salts.iter().flat_map(|salt| {
        let mut state = u64::from(*salt) + 1;
        let noise = std::iter::repeat_with(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        });
        noise.take(CHUNK)
    });
    chunks.collect()
}

#[test]
fn a_release_is_downloaded_installed_tried_and_committed_and_the_next_costs_only_what_changed() {
    promise(|scene| {
        let vendor = Vendor::new(scene)?;
        let first = image(&[1, 2, 3, 4, 5, 6]);
        vendor.publish("1.0", 1, &first)?;
        let mut machine = Machine::start(scene, &vendor)?;
        let (code, said) = update(scene, &["check"])?;
        ensure!(
            code == Some(0) && said.contains("release 1.0 is offered"),
            "{said}"
        );
        let (code, said) = update(scene, &["install", "--restart"])?;
        ensure!(
            code == Some(0) && said.contains("restarts into it"),
            "{said}"
        );
        ensure!(fs::read(scene.path("slot-b"))? == first, "other bytes");
        machine.restart()?;
        committed(scene, "b")?;

        let second = image(&[1, 2, 9, 3, 4, 5, 6]);
        vendor.publish("1.1", 1, &second)?;
        let (code, said) = update(scene, &["install", "--restart"])?;
        ensure!(code == Some(0), "{said}");
        ensure!(
            cost(&said).is_some_and(|bytes| (CHUNK..CHUNK + 256).contains(&bytes)),
            "other than one chunk came: {said}"
        );
        ensure!(fs::read(scene.path("slot-a"))? == second, "other bytes");
        machine.restart()?;
        committed(scene, "a")?;
        let (_, said) = update(scene, &["check"])?;
        ensure!(said.contains("release 1.1 runs"), "{said}");
        Ok(())
    });
}

#[test]
fn a_vendors_tree_that_was_tampered_with_gets_nothing_into_a_slot() {
    promise(|scene| {
        let vendor = Vendor::new(scene)?;
        vendor.publish("1.0", 1, &image(&[1, 2]))?;
        let _machine = Machine::start(scene, &vendor)?;
        let chunks = scene.path("repository/chunks");
        for entry in fs::read_dir(&chunks)? {
            let path = entry?.path();
            let mut bytes = fs::read(&path)?;
            bytes[100] ^= 1;
            fs::write(&path, bytes)?;
        }
        let (code, said) = update(scene, &["install"])?;
        ensure!(
            code == Some(1) && said.contains("other bytes for chunk"),
            "{said}"
        );
        fs::write(scene.path("repository/metadata/timestamp.json"), "{}")?;
        let (code, said) = update(scene, &["install"])?;
        ensure!(code == Some(3) && said.contains("refused"), "{said}");
        ensure!(
            fs::read(scene.path("slot-b"))?.is_empty(),
            "something was written"
        );
        ensure!(status(scene)?["slots"]["b"]["state"] == "empty");
        Ok(())
    });
}
