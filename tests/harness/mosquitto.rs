//! The upstream: Debian's Mosquitto, which serves nobody without a certificate of its authority.
//!
//! Each client may use the topics below its own common name; `observer` sees everything. Sessions
//! survive a stop, so that the observer misses nothing.

use std::{net::TcpStream, process::Command};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::{Client, Identity, PATIENCE, Pki, Process, Scene, until};

const PROGRAM: &str = "/usr/sbin/mosquitto";

/// An upstream broker on a port that stays the same over stops and starts.
pub(crate) struct Mosquitto<'a> {
    scene: &'a Scene,
    /// Its port on loopback.
    pub(crate) port: u16,
    /// The process; ended while the upstream is stopped.
    pub(crate) process: Process,
}

impl<'a> Mosquitto<'a> {
    /// Starts a broker that trusts the clients of `pki`, with a certificate for loopback.
    pub(crate) fn start(scene: &'a Scene, pki: &Pki) -> Result<Mosquitto<'a>> {
        Self::start_as(scene, pki, &pki.server(scene)?)
    }

    /// The same with another certificate.
    pub(crate) fn start_as(
        scene: &'a Scene,
        pki: &Pki,
        server: &Identity,
    ) -> Result<Mosquitto<'a>> {
        let port = scene.free_port()?;
        scene.write(
            "mosquitto.acl",
            "user observer\ntopic readwrite #\npattern readwrite %u/#\n",
        )?;
        let config = configuration(scene, port) + &mutual_tls(scene, pki, server);
        Self::start_with(scene, port, &config)
    }

    /// A broker that serves everybody on loopback without TLS, and says little.
    pub(crate) fn start_plain(scene: &'a Scene) -> Result<Mosquitto<'a>> {
        let port = scene.free_port()?;
        let config = configuration(scene, port).replace("log_type all", "log_type error");
        Self::start_with(scene, port, &(config + "allow_anonymous true\n"))
    }

    fn start_with(scene: &'a Scene, port: u16, config: &str) -> Result<Mosquitto<'a>> {
        scene.write("mosquitto.conf", config)?;
        let process = spawn(scene)?;
        let mut mosquitto = Mosquitto {
            scene,
            port,
            process,
        };
        mosquitto.wait_ready()?;
        Ok(mosquitto)
    }

    /// Stops the broker in good order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.ended(PATIENCE)?;
        Ok(())
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) -> Result<()> {
        ensure!(!self.process.is_running()?, "mosquitto still runs");
        self.process = spawn(self.scene)?;
        self.wait_ready()
    }

    /// A client with a persistent session that receives everything.
    pub(crate) fn observer(&self, pki: &Pki) -> Result<Client> {
        let identity = pki.client(self.scene, "observer")?;
        let mut client = Client::new("observer", self.port).over_tls(&pki.ca, &identity);
        client.persistent = true;
        client.start(self.scene)?.subscribed(&["#"])
    }

    fn wait_ready(&mut self) -> Result<()> {
        let port = self.port;
        until("mosquitto accepts connections", PATIENCE, || {
            ensure!(self.process.is_running()?, "mosquitto ended at start");
            Ok(TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        Ok(())
    }
}

fn spawn(scene: &Scene) -> Result<Process> {
    let mut command = Command::new(PROGRAM);
    command.arg("-c").arg(scene.path("mosquitto.conf"));
    Process::start("mosquitto", &scene.log_path("mosquitto"), command)
}

fn configuration(scene: &Scene, port: u16) -> String {
    // Mosquitto gives up root by itself, and could then not read this user's files.
    format!(
        "user root\n\
         persistence true\npersistence_location {directory}/\n\
         max_queued_messages 0\nlog_dest stdout\nlog_type all\nconnection_messages true\n\
         listener {port} 127.0.0.1\n",
        directory = scene.path("").display(),
    )
}

fn mutual_tls(scene: &Scene, pki: &Pki, server: &Identity) -> String {
    format!(
        "cafile {ca}\ncertfile {certificate}\nkeyfile {key}\n\
         require_certificate true\nuse_identity_as_username true\n\
         acl_file {acl}\n",
        ca = pki.ca.display(),
        certificate = server.certificate.display(),
        key = server.key.display(),
        acl = scene.path("mosquitto.acl").display(),
    )
}
