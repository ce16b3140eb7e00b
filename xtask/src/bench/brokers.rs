//! The brokers that are compared: their configuration, start, and end. Driver.
//!
//! Invariant: each is configured to accept the same clients on the same kind of listeners, and otherwise left as it
//! is shipped; where a limit would stop the load it is raised, and that stands in the configurations below.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::workloads::Storing;
use crate::command::output;

/// A broker that does not listen after this many looks never will.
const LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(50);

/// A kind of broker.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Its key in the results.
    pub(crate) name: &'static str,
    /// How the document calls it.
    pub(crate) title: &'static str,
    program: PathBuf,
    /// The options before the configuration file.
    options: &'static [&'static str],
    version_option: &'static str,
    configuration: fn(&Setting) -> String,
}

/// What goes into a configuration.
struct Setting<'s> {
    plain: u16,
    tls: u16,
    /// Certificates, and what is stored.
    folder: &'s Path,
    storing: Storing,
}

impl Peer {
    pub(crate) fn ours(program: PathBuf) -> Peer {
        Peer {
            name: "ours",
            title: "broker-lite",
            program,
            options: &["--config"],
            version_option: "--version",
            configuration: ours,
        }
    }

    pub(crate) fn mosquitto() -> Peer {
        Peer {
            name: "mosquitto",
            title: "Mosquitto",
            program: "/usr/sbin/mosquitto".into(),
            options: &["-c"],
            version_option: "-h",
            configuration: mosquitto,
        }
    }

    pub(crate) fn rumqttd(program: PathBuf) -> Peer {
        Peer {
            name: "rumqttd",
            title: "rumqttd",
            program,
            options: &["-q", "-c"],
            version_option: "--version",
            configuration: rumqttd,
        }
    }

    /// What it calls itself, for example `mosquitto version 2.0.11`.
    pub(crate) fn version(&self) -> Result<String> {
        // Mosquitto says so in its help, and calls that an error.
        let shown = Command::new(&self.program)
            .arg(self.version_option)
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// A running broker. Ended with its owner.
pub(crate) struct Broker {
    process: Child,
    cores: String,
    peer: Peer,
    file: PathBuf,
    plain: u16,
    tls: u16,
}

impl Broker {
    /// Starts with nothing stored, and waits until it listens.
    pub(crate) fn start(
        peer: &Peer,
        storing: Storing,
        folder: &Path,
        cores: &str,
    ) -> Result<Broker> {
        let (plain, tls) = (free_port()?, free_port()?);
        let stored = folder.join("stored");
        if stored.exists() {
            fs::remove_dir_all(&stored)
                .with_context(|| format!("cannot empty {}", stored.display()))?;
        }
        fs::create_dir(&stored).with_context(|| format!("cannot make {}", stored.display()))?;
        let setting = Setting {
            plain,
            tls,
            folder,
            storing,
        };
        let file = folder.join(format!("{}.toml", peer.name));
        fs::write(&file, (peer.configuration)(&setting))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut broker = Broker {
            process: spawn(peer, &file, cores)?,
            cores: cores.to_owned(),
            peer: peer.clone(),
            file,
            plain,
            tls,
        };
        broker.wait_ready()?;
        Ok(broker)
    }

    /// Starts again after its process was killed, with what is stored.
    pub(crate) fn restart(mut self) -> Result<Broker> {
        self.process.wait()?;
        self.process = spawn(&self.peer, &self.file, &self.cores)?;
        self.wait_ready()?;
        Ok(self)
    }

    pub(crate) fn port(&self, tls: bool) -> u16 {
        if tls { self.tls } else { self.plain }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn wait_ready(&mut self) -> Result<()> {
        for _ in 0..LOOKS {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended at its start with {status}", self.peer.title);
            }
            let listens = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            if listens(self.plain) && listens(self.tls) {
                return Ok(());
            }
            sleep(LOOK);
        }
        bail!("{} does not listen", self.peer.title)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have been killed by the load, which is what we want.
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

fn spawn(peer: &Peer, file: &Path, cores: &str) -> Result<Child> {
    Command::new("taskset")
        .args(["--cpu-list", cores])
        .arg(&peer.program)
        .args(peer.options)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", peer.program.display()))
}

/// A port of loopback that nobody has.
pub(crate) fn free_port() -> Result<u16> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(socket.local_addr()?.port())
}

fn ours(setting: &Setting) -> String {
    let Setting {
        plain, tls, folder, ..
    } = setting;
    let folder = folder.display();
    let persistence = match setting.storing {
        Storing::Nothing => String::new(),
        Storing::AsUsual | Storing::AtOnce => {
            format!("[persistence]\npath = \"{folder}/stored/broker.db\"\n")
        }
    };
    format!(
        "[[listener]]\naddress = \"127.0.0.1:{plain}\"\n\
         [[listener]]\naddress = \"127.0.0.1:{tls}\"\n\
         tls = {{ certificate = \"{folder}/server.pem\", key = \"{folder}/server.key\", \
         client_ca = \"{folder}/ca.pem\" }}\n\
         [[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
         [limits]\nmemory = \"1GiB\"\nsessions = 20000\n\
         connections = 20000\nconnections_per_address = 20000\n\
         queued_messages = 1000000\nqueued_bytes = \"256MiB\"\n\
         {persistence}"
    )
}

fn mosquitto(setting: &Setting) -> String {
    let Setting {
        plain, tls, folder, ..
    } = setting;
    let folder = folder.display();
    let stores = "persistence true\npersistence_location";
    let persistence = match setting.storing {
        Storing::Nothing => String::new(),
        Storing::AsUsual => format!("{stores} {folder}/stored/\n"),
        Storing::AtOnce => {
            format!("{stores} {folder}/stored/\nautosave_on_changes true\nautosave_interval 1\n")
        }
    };
    // Mosquitto gives up root by itself, and could then not read this user's files. Without TCP_NODELAY most of what
    // would be measured over TLS is the delayed acknowledgement of the other end.
    format!(
        "user root\nlog_dest none\nmax_queued_messages 0\nset_tcp_nodelay true\n\
         listener {plain} 127.0.0.1\nallow_anonymous true\n\
         listener {tls} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\n\
         cafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n\
         {persistence}"
    )
}

fn rumqttd(setting: &Setting) -> String {
    let Setting {
        plain, tls, folder, ..
    } = setting;
    let folder = folder.display();
    let connections = "connection_timeout_ms = 60000\nmax_payload_size = 20480\n\
                       max_inflight_count = 100\ndynamic_filters = true\n";
    format!(
        "id = 0\n\
         [router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n\
         [v4.1]\nname = \"plain\"\nlisten = \"127.0.0.1:{plain}\"\nnext_connection_delay_ms = 1\n\
         [v4.1.connections]\n{connections}\
         [v4.2]\nname = \"tls\"\nlisten = \"127.0.0.1:{tls}\"\nnext_connection_delay_ms = 1\n\
         [v4.2.tls]\ncapath = \"{folder}/ca.pem\"\ncertpath = \"{folder}/server.pem\"\n\
         keypath = \"{folder}/server.key\"\n\
         [v4.2.connections]\n{connections}"
    )
}

/// Processor, memory, kernel and system, as the document names them.
pub(crate) fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kb = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1));
    let gib = kb.and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) as f64 / 1_048_576.0;
    let kernel = output(Command::new("uname").arg("-srm"))?;
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("an unknown system");
    let virtual_machine = if cpus.contains(" hypervisor") {
        ", a virtual machine"
    } else {
        ""
    };
    Ok(format!(
        "{model}, {cores} cores, {gib:.0} GiB{virtual_machine}; {}; {}",
        system.trim_matches('"'),
        kernel.trim()
    ))
}
