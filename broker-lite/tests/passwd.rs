//! Promise: `broker-lite passwd` makes files that only their owner reads, replaces them as a whole,
//! and takes over Mosquitto's; the broker takes no file that others may read.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use broker_lite::{
    config::Config,
    login::password::disk::{self, PasswordFileError},
    server::{Broker, StartError},
};
use tempfile::TempDir;

/// By mosquitto_passwd 2.0 for "secret".
const MOSQUITTO: &str = "carl:$7$101$2gkUhtCLoon0kUJg$2yhL224SMUE2mHxNW2PRnQFZF9d/QYM0upWOpKDeLsH+GzpbxXymdFabUEUpXgRG20hBI645N5BstD+FNj7WpQ==\n";

/// Runs `broker-lite passwd` with this on standard input.
fn passwd(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_broker-lite"))
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that asks for nothing may have ended already.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn done(arguments: &[&str], input: &str) -> String {
    let output = passwd(arguments, input);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code, and what was said about it.
fn refused(arguments: &[&str], input: &str) -> (i32, String) {
    let output = passwd(arguments, input);
    let code = output.status.code().unwrap();
    (code, String::from_utf8(output.stderr).unwrap())
}

fn scene() -> (TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passwords");
    let text = path.display().to_string();
    (folder, path, text)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_user_is_added_checked_listed_and_removed_and_no_password_is_in_the_file() {
    let (_folder, path, file) = scene();
    done(&["add", &file, "ann"], "secret\n");
    assert_eq!(mode(&path), 0o600);
    done(&["check", &file, "ann"], "secret\n");
    let (code, said) = refused(&["check", &file, "ann"], "Secret\n");
    assert_eq!((code, said.trim()), (1, "the password of ann is another"));
    done(&["add", &file, "ann", "--scram"], "another\n");
    done(&["check", &file, "ann"], "another\n");
    let listed = done(&["list", &file], "");
    assert!(
        listed.contains("argon2id") && listed.contains("SCRAM-SHA-256"),
        "{listed}"
    );
    let content = fs::read_to_string(&path).unwrap();
    assert!(
        !content.contains("secret") && !content.contains("another"),
        "{content}"
    );
    done(&["remove", &file, "ann"], "");
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    assert_eq!(refused(&["remove", &file, "ann"], "").0, 1);
}

#[test]
fn what_cannot_be_a_password_or_a_name_changes_nothing() {
    let (_folder, path, file) = scene();
    for (name, input) in [
        ("ann", "\n"),
        ("ann", ""),
        ("a:b", "secret\n"),
        ("", "secret\n"),
    ] {
        assert_eq!(
            refused(&["add", &file, name], input).0,
            1,
            "{name:?} {input:?}"
        );
    }
    let (_, said) = refused(&["add", &file, "ann", "--scram"], "p\u{e4}ss\n");
    assert!(said.contains("printable ASCII"), "{said}");
    assert!(!path.exists());
}

#[test]
fn a_change_keeps_the_groups_right_to_read_and_follows_a_link() {
    let (folder, path, file) = scene();
    done(&["add", &file, "ann"], "secret\n");
    set_mode(&path, 0o640);
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    done(&["add", &link.display().to_string(), "bob"], "geheim\n");
    assert!(link.is_symlink());
    assert_eq!(mode(&path), 0o640);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn an_update_that_was_cut_off_is_done_again() {
    let (folder, path, file) = scene();
    let stale = folder.path().join(".passwords.new");
    fs::write(&stale, "half a li").unwrap();
    done(&["add", &file, "ann"], "secret\n");
    assert!(path.exists() && !stale.exists());
}

#[test]
fn mosquittos_users_are_taken_over_and_each_line_reported() {
    let (folder, _, file) = scene();
    let theirs = folder.path().join("theirs");
    fs::write(&theirs, format!("{MOSQUITTO}plain:secret\n")).unwrap();
    let output = passwd(&["import", &file, &theirs.display().to_string()], "");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "one line is left out");
    assert!(said.contains("theirs:1: user carl"), "{said}");
    assert!(said.contains("theirs:2: left out: "), "{said}");
    assert!(!said.contains("secret"), "{said}");
    done(&["check", &file, "carl"], "secret\n");
    assert!(done(&["check", &file], "").contains("1 weak"));
}

#[test]
fn a_malformed_file_is_refused_line_by_line_and_left_alone() {
    let (_folder, path, file) = scene();
    let content = format!("{MOSQUITTO}bob:\n");
    fs::write(&path, &content).unwrap();
    set_mode(&path, 0o600);
    let (code, said) = refused(&["add", &file, "ann"], "secret\n");
    assert_eq!(code, 2);
    assert!(
        said.contains("passwords:2: user \"bob\": there is no password hash"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
}

#[tokio::test]
async fn no_broker_starts_or_reloads_with_a_file_that_is_malformed_or_open_to_others() {
    let (_folder, path, file) = scene();
    fs::write(&path, MOSQUITTO).unwrap();
    set_mode(&path, 0o644);
    let (code, said) = refused(&["list", &file], "");
    assert_eq!(code, 3);
    assert!(said.contains(&format!("run chmod o-rw {file}")), "{said}");
    let config = Config {
        password_file: Some(path.clone()),
        ..Config::default()
    };
    let exposed = Broker::start(&config, None).await.map(drop);
    assert!(matches!(
        exposed,
        Err(StartError::PasswordFile(PasswordFileError::Exposed {
            mode: 0o644,
            ..
        }))
    ));
    set_mode(&path, 0o600);
    let broker = Broker::start(&config, None).await.unwrap();
    fs::write(&path, "carl:\n").unwrap();
    let malformed = broker.reload(&config).await;
    let Err(StartError::PasswordFile(error)) = malformed else {
        panic!("taken: {malformed:?}");
    };
    assert!(error.to_string().contains("passwords:1: "), "{error}");
    broker.shutdown().await;
}

#[test]
fn updates_at_once_lose_none() {
    let (_folder, path, _) = scene();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || {
                let line = MOSQUITTO.trim().split_once(':').unwrap().1;
                let verifier = broker_lite::login::password::Verifier::parse(line).unwrap();
                let credentials = broker_lite::login::password::file::Credentials {
                    password: Some(verifier),
                    scram: None,
                };
                disk::update(path, |file| file.set(&format!("user{n}"), credentials)).unwrap();
            });
        }
    });
    assert_eq!(disk::read(&path).unwrap().users().len(), 8);
}
