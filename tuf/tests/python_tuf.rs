//! Promise: repositories made by python-tuf are followed by our program, and python-tuf follows ours. Layer: tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use jiff::Timestamp;
use tempfile::TempDir;
use tuf::metadata::TopRole;
use tuf::repository::{
    DelegationDraft, Edition, FileKey, PrivatePem, RootDraft, Scheme, Signer, SnapshotDraft,
    TargetDraft, TargetsDraft, TimestampDraft, Tree, merge, sign,
};
use tuf::time::days_after;

#[test]
fn a_repository_by_python_tuf_is_followed_through_a_change_of_keys() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    fs::create_dir(&repository).unwrap();
    vendor(&repository, "1");
    let server = Server::start(&repository);
    let device = Device::new(&repository.join("metadata/1.root.json"));
    assert_succeeded(&device.run(&server, "refresh", &[]));
    let names = ["top.bin", "team/x/app.bin", "binned.bin"];
    assert_succeeded(&device.run(&server, "download", &names));
    assert_eq!(device.target("top.bin"), b"top 1");
    assert_eq!(device.target("team%2Fx%2Fapp.bin"), b"team");
    assert_eq!(device.target("binned.bin"), b"binned");

    let old_timestamp = fs::read(repository.join("metadata/timestamp.json")).unwrap();
    vendor(&repository, "2");
    assert_succeeded(&device.run(&server, "download", &["top.bin"]));
    assert_eq!(device.target("top.bin"), b"top 2");
    let newest_root = fs::read(repository.join("metadata/2.root.json")).unwrap();
    assert_eq!(device.metadata("root"), newest_root);

    // The first edition's timestamp is put back, by whom the key was lost to.
    let kept = device.metadata("timestamp");
    fs::write(repository.join("metadata/timestamp.json"), old_timestamp).unwrap();
    let refused = device.run(&server, "refresh", &[]);
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("0 of the 1 signatures"), "{errors}");
    assert_eq!(device.metadata("timestamp"), kept);
}

#[test]
fn a_key_written_by_python_signs_under_the_id_that_python_tuf_gives_it() {
    let folder = tempfile::tempdir().unwrap();
    vendor(folder.path(), "1");
    let root = fs::read(folder.path().join("metadata/1.root.json")).unwrap();
    let root: serde_json::Value = serde_json::from_slice(&root).unwrap();
    for name in ["root-1", "root-2"] {
        let pem = fs::read_to_string(folder.path().join(format!("keys/{name}.pem"))).unwrap();
        let key = FileKey::from_pem(&PrivatePem(pem)).unwrap();
        let id = key.public_key().id();
        assert!(root["signed"]["keys"][&id].is_object(), "{name} is {id}");
    }
}

#[test]
fn python_tuf_follows_a_repository_of_ours_through_a_change_of_keys() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let mut ours = Ours::new();
    let now = Timestamp::now();
    ours.publish(&repository, now, b"image 1");
    fs::copy(
        repository.join("metadata/1.root.json"),
        state.join("root.json"),
    )
    .unwrap();
    let follow = || {
        let names = ["app/image 1.idx", "team/x"];
        let arguments = [&repository, &state].map(|path| path.as_os_str().to_owned());
        python("device.py")
            .args(arguments)
            .args(names)
            .output()
            .unwrap()
    };
    let first = follow();
    assert_succeeded(&first);
    assert_eq!(first.stdout, b"image 1team");

    // Every key changes; two of the old root keys agree.
    let old = std::mem::replace(&mut ours, Ours::new());
    ours.version = 2;
    ours.old_root = old.root;
    ours.publish(&repository, now, b"image 2");
    let second = follow();
    assert_succeeded(&second);
    assert_eq!(second.stdout, b"image 2team");
}

/// Our vendor's keys.
struct Ours {
    version: u64,
    root: Vec<FileKey>,
    old_root: Vec<FileKey>,
    keys: BTreeMap<TopRole, FileKey>,
    team: FileKey,
}

impl Ours {
    fn new() -> Self {
        let key = |scheme| FileKey::from_pem(&FileKey::generate(scheme).unwrap()).unwrap();
        Self {
            version: 1,
            root: [Scheme::P256, Scheme::Ed25519, Scheme::P256]
                .map(key)
                .into(),
            old_root: Vec::new(),
            keys: [
                (TopRole::Timestamp, key(Scheme::P256)),
                (TopRole::Snapshot, key(Scheme::Ed25519)),
                (TopRole::Targets, key(Scheme::P256)),
            ]
            .into(),
            team: key(Scheme::Ed25519),
        }
    }

    fn publish(&self, repository: &Path, now: Timestamp, image: &[u8]) {
        let tree = Tree::new(repository);
        let expires = days_after(now, 30);
        let targets = self.targets(&tree, expires, image);
        let snapshot = SnapshotDraft {
            version: self.version,
            expires,
            roles: targets.clone(),
        };
        let snapshot = self.sign(TopRole::Snapshot, &snapshot.to_file().unwrap());
        let timestamp = TimestampDraft {
            version: self.version,
            expires,
            snapshot: snapshot.clone(),
        };
        let edition = Edition {
            roots: [(self.version, self.root_file(expires))].into(),
            timestamp: self.sign(TopRole::Timestamp, &timestamp.to_file().unwrap()),
            snapshot,
            targets,
        };
        tree.publish(&edition, now).unwrap();
    }

    /// Each signer works on a copy of its own.
    fn root_file(&self, expires: Timestamp) -> Vec<u8> {
        let public = |key: &FileKey| key.public_key().clone();
        let mut roles: BTreeMap<_, _> = self
            .keys
            .iter()
            .map(|(role, key)| (*role, (vec![public(key)], 1)))
            .collect();
        let root_keys = self.root.iter().map(public).collect();
        roles.insert(TopRole::Root, (root_keys, 2));
        let draft = RootDraft {
            version: self.version,
            expires,
            roles,
        };
        let draft = draft.to_file().unwrap();
        let signers = self.root[..2].iter().chain(self.old_root.iter().take(2));
        signers.fold(draft.clone(), |file, key| {
            merge(&file, &sign(&draft, key).unwrap()).unwrap()
        })
    }

    fn targets(&self, tree: &Tree, expires: Timestamp, image: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let team = TargetsDraft {
            version: self.version,
            expires,
            targets: vec![added(tree, "team/x", b"team")],
            delegations: Vec::new(),
        };
        let top = TargetsDraft {
            version: self.version,
            expires,
            targets: vec![added(tree, "app/image 1.idx", image)],
            delegations: vec![DelegationDraft {
                name: "team".into(),
                keys: vec![self.team.public_key().clone()],
                threshold: 1,
                paths: vec!["team/*".into()],
                terminating: true,
            }],
        };
        let team = sign(&team.to_file().unwrap(), &self.team).unwrap();
        let top = self.sign(TopRole::Targets, &top.to_file().unwrap());
        [("team".to_owned(), team), ("targets".to_owned(), top)].into()
    }

    fn sign(&self, role: TopRole, file: &[u8]) -> Vec<u8> {
        sign(file, &self.keys[&role]).unwrap()
    }
}

fn added(tree: &Tree, path: &str, bytes: &[u8]) -> TargetDraft {
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), bytes).unwrap();
    tree.add_target(path, source.path()).unwrap()
}

/// `tuf-client` with a directory of its own.
struct Device(TempDir);

impl Device {
    fn new(root: &Path) -> Self {
        let device = Self(tempfile::tempdir().unwrap());
        fs::create_dir(device.0.path().join("targets")).unwrap();
        let initialised = device.command().arg("init").arg(root).output().unwrap();
        assert_succeeded(&initialised);
        device
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuf-client"));
        command
            .arg("--metadata-dir")
            .arg(self.0.path().join("metadata"));
        command
    }

    fn run(&self, server: &Server, what: &str, names: &[&str]) -> Output {
        let mut command = self.command();
        command
            .arg("--metadata-url")
            .arg(server.address("metadata"));
        command
            .arg("--target-base-url")
            .arg(server.address("targets"));
        command
            .arg("--target-dir")
            .arg(self.0.path().join("targets"));
        for name in names {
            command.args(["--target-name", name]);
        }
        command.arg(what).output().unwrap()
    }

    fn target(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join("targets").join(name)).unwrap()
    }

    fn metadata(&self, role: &str) -> Vec<u8> {
        let name = format!("{role}.json");
        fs::read(self.0.path().join("metadata").join(name)).unwrap()
    }
}

/// Python's own web server over a folder.
struct Server {
    process: Child,
    port: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(python_binary())
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // Serving HTTP on 127.0.0.1 port 40001 (http://127.0.0.1:40001/) ...
        let port = line.split_whitespace().nth(5).unwrap().to_owned();
        Self { process, port }
    }

    fn address(&self, folder: &str) -> String {
        format!("http://127.0.0.1:{}/{folder}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn vendor(folder: &Path, edition: &str) {
    let made = python("vendor.py").arg(folder).arg(edition).output();
    assert_succeeded(&made.unwrap());
}

fn python(script: &str) -> Command {
    let mut command = Command::new(python_binary());
    command.arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/python_tuf")
            .join(script),
    );
    command
}

/// The Python that has python-tuf: `TEST_PYTHON`, or `venv` in the target directory.
fn python_binary() -> PathBuf {
    let in_target = || {
        let test = env::current_exe().unwrap();
        test.ancestors().nth(3).unwrap().join("venv/bin/python")
    };
    env::var_os("TEST_PYTHON").map_or_else(in_target, PathBuf::from)
}

fn assert_succeeded(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}
