//! The product's binary, started, killed and stopped as an operator or a power cut would.

use std::{
    env, fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{PATIENCE, Process, Scene, until};

/// A gateway that runs with a configuration file in the scene.
pub(crate) struct Gateway<'a> {
    scene: &'a Scene,
    config: PathBuf,
    port: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The running process.
    pub(crate) process: Process,
}

impl<'a> Gateway<'a> {
    /// Starts the gateway and waits until it accepts connections on `port`.
    pub(crate) fn start(scene: &'a Scene, config: &str, port: u16) -> Result<Gateway<'a>> {
        Self::start_with(scene, config, port, &[], &[])
    }

    /// The same with more arguments and environment variables.
    pub(crate) fn start_with(
        scene: &'a Scene,
        config: &str,
        port: u16,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Result<Gateway<'a>> {
        let config = scene.write("gateway.toml", config)?;
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let mut command = run_command(&config, &arguments)?;
        command.envs(environment.iter().cloned());
        let process = Process::start("gateway", &scene.log_path("gateway"), command)?;
        let gateway = Gateway {
            scene,
            config,
            port,
            arguments,
            environment,
            process,
        };
        gateway.ready()
    }

    /// The same with a disk of one mebibyte at `directory`, which only the gateway sees; no
    /// privilege of the tester is needed.
    pub(crate) fn start_on_small_disk(
        scene: &'a Scene,
        config: &str,
        port: u16,
        directory: &Path,
    ) -> Result<Gateway<'a>> {
        let config = scene.write("gateway.toml", config)?;
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg(r#"mount -t tmpfs -o size=1M none "$1" && shift && exec "$@""#)
            .arg("sh")
            .arg(directory)
            .arg(binary()?)
            .arg("run")
            .arg("--config")
            .arg(&config);
        let process = Process::start("gateway", &scene.log_path("gateway"), command)?;
        let gateway = Gateway {
            scene,
            config,
            port,
            arguments: Vec::new(),
            environment: Vec::new(),
            process,
        };
        gateway.ready()
    }

    fn ready(mut self) -> Result<Gateway<'a>> {
        self.wait_ready()?;
        Ok(self)
    }

    /// Where this test finds a directory as the gateway sees it.
    pub(crate) fn sees(&self, directory: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.process.id());
        Path::new(&root).join(directory.strip_prefix("/").unwrap_or(directory))
    }

    /// Starts it again with the same files after it has ended.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.begin()?;
        self.wait_ready()
    }

    /// The same, and kills it after so long, whatever it does then.
    pub(crate) fn start_and_kill(&mut self, life: Duration) -> Result<()> {
        self.begin()?;
        thread::sleep(life);
        self.process.kill()
    }

    fn begin(&mut self) -> Result<()> {
        ensure!(!self.process.is_running()?, "the gateway still runs");
        let mut command = run_command(&self.config, &self.arguments)?;
        command.envs(self.environment.iter().cloned());
        self.process = Process::start("gateway", &self.scene.log_path("gateway"), command)?;
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let port = self.port;
        until("the gateway's broker accepts connections", PATIENCE, || {
            ensure!(self.process.is_running()?, "the gateway ended at start");
            Ok(TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        Ok(())
    }

    /// Stops it as systemd does (SIGTERM); tells how long that took.
    pub(crate) fn stop(&mut self) -> Result<(ExitStatus, Duration)> {
        let begun = Instant::now();
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.ended(PATIENCE)?;
        Ok((status, begun.elapsed()))
    }

    /// Replaces the configuration file and sends SIGHUP.
    pub(crate) fn reload(&self, config: &str) -> Result<()> {
        self.scene.write("gateway.toml", config)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// Waits for a line in the log that contains each of the words, whatever their case.
    pub(crate) fn says(&self, words: &[&str]) -> Result<String> {
        self.says_since(0, words)
    }

    /// The same, looking only at what was logged after the first `skip` bytes.
    pub(crate) fn says_since(&self, skip: usize, words: &[&str]) -> Result<String> {
        until(
            &format!("the gateway logs a line with {words:?}"),
            PATIENCE,
            || {
                let log = self.process.log()?;
                let fits = |line: &&str| {
                    let line = line.to_lowercase();
                    words.iter().all(|word| line.contains(&word.to_lowercase()))
                };
                Ok(log
                    .get(skip..)
                    .unwrap_or_default()
                    .lines()
                    .find(fits)
                    .map(str::to_owned))
            },
        )
    }
}

/// Runs a short command of the gateway to its end.
pub(crate) fn run(arguments: &[&str]) -> Result<Output> {
    let output = Command::new(binary()?).args(arguments).output()?;
    Ok(output)
}

/// What a command prints with `--json` and the scene's configuration.
pub(crate) fn ask(scene: &Scene, words: &[&str]) -> Result<Value> {
    let config = scene.path("gateway.toml").display().to_string();
    let output = run(&[words, &["--json", "--config", &config]].concat())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {said}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("{words:?} prints no JSON"))
}

/// Runs the gateway in the expectation that it ends by itself; its exit code and what it wrote.
pub(crate) fn refusal(scene: &Scene, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    let mut process = Process::start("gateway", &scene.log_path("refused"), command)?;
    let status = process.ended(PATIENCE)?;
    Ok((status.code(), process.log()?))
}

/// The binary under test: `GATEWAY_BIN`, or the one that cargo built beside this test.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("GATEWAY_BIN") {
        return Ok(path.into());
    }
    let path = build_directory()?.join("gateway");
    ensure!(
        path.is_file(),
        "no gateway at {}: build it with `cargo build --package gateway`, or set GATEWAY_BIN",
        path.display()
    );
    Ok(path)
}

/// `target/debug` or `target/release`, wherever this test was built.
pub(super) fn build_directory() -> Result<PathBuf> {
    let this = fs::canonicalize(env::current_exe()?)?;
    let directory = this
        .ancestors()
        .nth(2)
        .context("this test lies in no build directory")?;
    Ok(directory.to_owned())
}

fn run_command(config: &Path, arguments: &[String]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command
        .arg("run")
        .arg("--config")
        .arg(config)
        .args(arguments);
    Ok(command)
}
