//! Promise: `broker-lite` as a program checks its configuration and what that names, shows what it
//! does, and does nothing when there is nothing to do.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests watch a real process by the real clock"
)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long a condition may take that comes true within a second: slack for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the broker is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(3);

const BINARY: &str = env!("CARGO_BIN_EXE_broker-lite");

/// A folder with a configuration file, in which `@` stands for the folder.
fn scene(config: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.toml");
    let config = config.replace('@', &folder.path().display().to_string());
    fs::write(&file, config).unwrap();
    (folder, file)
}

/// Runs a command; its exit code, and what it said there and here.
fn run(arguments: &[&str], file: &Path) -> (i32, String, String) {
    let output = Command::new(BINARY)
        .args(arguments)
        .arg("--config")
        .arg(file)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A broker that serves; killed when dropped.
struct Served(Child);

impl Served {
    fn start(file: &Path) -> Served {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(file).stderr(Stdio::null());
        Served(command.spawn().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn status(file: &Path) -> Option<Value> {
    let (code, said, _) = run(&["status", "--json"], file);
    (code == 0).then(|| serde_json::from_str(&said).unwrap())
}

/// An MQTT 3.1.1 client with keep alive 0, connected.
fn client(port: &str, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(port).unwrap();
    let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4];
    packet.extend(b"MQTT\x04\x02\x00\x00\x00");
    packet.push(id.len() as u8);
    packet.extend(id.as_bytes());
    stream.write_all(&packet).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
    stream
}

const SERVING: &str = r##"
control = "@/control.sock"
[[listener]]
address = "127.0.0.1:0"
[[access]]
publish = ["#"]
subscribe = ["#"]
"##;

#[test]
fn status_shows_a_running_broker_and_says_when_there_is_none() {
    let (_folder, file) = scene(SERVING);
    let (code, _, said) = run(&["status"], &file);
    assert_eq!(code, 4);
    assert!(
        said.contains("control.sock") && said.contains("does it run"),
        "{said}"
    );

    let _served = Served::start(&file);
    let status = until("the broker answers", || status(&file));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["clients"], serde_json::json!([]));
    let port = status["listeners"][0].as_str().unwrap();
    let _client = client(port, "press-3");
    let (code, said, _) = run(&["status"], &file);
    assert_eq!(code, 0);
    assert!(said.contains(&format!("on {port}")), "{said}");
    let line = said.lines().find(|line| line.starts_with("press-3"));
    let line = line.unwrap_or_else(|| panic!("no line for the client: {said}"));
    assert!(
        line.contains("anonymous") && line.contains("3.1.1"),
        "{line}"
    );
}

#[test]
fn the_schema_describes_every_table() {
    let output = Command::new(BINARY).arg("schema").output().unwrap();
    assert!(output.status.success());
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["listener", "access", "limits", "metrics", "log", "control"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn check_finds_every_problem_of_the_file_at_once() {
    let (_folder, file) = scene("contrl = \"x\"\n[[listener]]\naddress = \"nowhere\"\n");
    let (code, _, said) = run(&["check"], &file);
    assert_eq!(code, 2);
    assert!(
        said.contains("broker.toml:1:1: ") && said.contains("did you mean \"control\""),
        "{said}"
    );
    assert!(said.contains("broker.toml:3:11: "), "{said}");
    let (_folder, file) = scene(SERVING);
    let (code, said, _) = run(&["check"], &file);
    assert_eq!(code, 0);
    assert!(
        said.contains("errors: 0; listeners: 1, access rules: 1, users: 0"),
        "{said}"
    );
}

#[test]
fn check_opens_what_a_start_would_open() {
    let (folder, file) = scene(
        r#"password_file = "@/passwords"
[[user]]
name = "bob"
password = { file = "@/none" }
[[listener]]
address = "127.0.0.1:0"
[listener.tls]
certificate = "@/server.pem"
key = "@/server.key"
client_ca = "@/passwords"
crl = ["@/old.crl"]
[persistence]
path = "@/none/broker.db"
"#,
    );
    let passwords = folder.path().join("passwords");
    fs::write(&passwords, "# ours\nann:secret\n").unwrap();
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, said, _) = run(&["check"], &file);
    assert_eq!(code, 2);
    for words in [
        &[
            "broker.toml:1:17: ",
            "passwords:2: user \"ann\"",
            "broker-lite passwd add",
        ][..],
        &["broker.toml:4:12: ", "user \"bob\"", "none"],
        &["broker.toml:8:15: ", "a certificate from", "server.pem"],
        &["broker.toml:9:7: ", "a private key from", "server.key"],
        &["broker.toml:10:13: ", "a trust anchor from", "passwords"],
        &["broker.toml:11:", "revocation list from", "old.crl"],
        &[
            "broker.toml:13:8: ",
            "none/broker.db",
            "does its folder exist",
        ],
    ] {
        let fits = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(said.lines().any(fits), "no line with {words:?}: {said}");
    }
    assert!(said.contains(": errors: 7;"), "{said}");

    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o644)).unwrap();
    let (_, said, _) = run(&["check"], &file);
    assert!(said.contains("(mode 644); run chmod o-rw"), "{said}");
    let (code, said, _) = run(&["check", "--file-only"], &file);
    assert_eq!(code, 0, "{said}");
    assert!(
        !folder.path().join("none").exists(),
        "the check made a folder"
    );
}

/// Voluntary context switches of all threads: how often something waited, and was woken.
fn waits(pid: u32) -> u64 {
    let count = |path: PathBuf| {
        let status = fs::read_to_string(path.join("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| count(task.unwrap().path())).sum()
}

#[test]
fn a_broker_with_idle_clients_wakes_for_nothing() {
    let (_folder, file) = scene(&format!(
        "{SERVING}[persistence]\npath = \"@/broker.db\"\n[metrics]\naddress = \"127.0.0.1:0\"\n"
    ));
    let served = Served::start(&file);
    let status = until("the broker answers", || status(&file));
    let port = status["listeners"][0].as_str().unwrap();
    let clients: Vec<TcpStream> = (0..20)
        .map(|n| client(port, &format!("idle-{n}")))
        .collect();
    let pid = served.0.id();
    // What connecting has left to do ends by itself, the control connection's time-out last.
    let quiet = Duration::from_millis(500);
    until("the broker comes to rest", || {
        let before = waits(pid);
        std::thread::sleep(quiet);
        (waits(pid) == before).then_some(())
    });
    let before = waits(pid);
    std::thread::sleep(IDLE);
    assert_eq!(waits(pid) - before, 0, "wake-ups in {IDLE:?}");
    drop(clients);
}
