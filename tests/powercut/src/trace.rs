//! What a process told the kernel to do with its files, from strace, call by call. Driver.
//!
//! Invariant: the calls stand in the order in which they may reach the disk: a write where it
//! began, a sync where it had returned.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::disk::Call;

/// Calls that change files or make changes last.
const WATCHED: &str =
    "trace=openat,pwrite64,write,ftruncate,fdatasync,fsync,unlink,rename,fallocate";
/// Longer than any single write of SQLite's.
const LONGEST_WRITE: &str = "1048576";

/// Strace before a command; whatever it is told to inject goes into `with`.
pub(crate) fn watched(log: &Path, with: &[String], command: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-y", "-xx", "-s", LONGEST_WRITE]);
    strace.arg("-o").arg(log).args(["-e", WATCHED]);
    for expression in with {
        strace.args(["-e", expression]);
    }
    strace.arg("--").args(command);
    strace
}

/// The calls on files below `directory`, and the lines written to `told`.
pub(crate) fn read(log: &Path, directory: &Path, told: &Path) -> Vec<Call> {
    let text = fs::read_to_string(log).expect("strace left its log");
    let mut calls = Vec::new();
    // What each thread was about to sync.
    let mut syncing: HashMap<&str, PathBuf> = HashMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.starts_with("<... fdatasync resumed>") || call.starts_with("<... fsync resumed>") {
            let path = syncing.remove(thread).expect("a sync returns once");
            calls.extend(call.ends_with("= 0").then_some(Call::Sync(path)));
            continue;
        }
        let Some((name, arguments)) = call.split_once('(') else {
            continue;
        };
        match name {
            "fdatasync" | "fsync" if call.ends_with("<unfinished ...>") => {
                syncing.insert(thread, descriptor(arguments));
            }
            "fdatasync" | "fsync" if call.ends_with("= 0") => {
                calls.push(Call::Sync(descriptor(arguments)));
            }
            "openat" if arguments.contains("O_TRUNC") => {
                let path = path(quoted(arguments));
                calls.extend([Call::Create(path.clone()), Call::Truncate(path, 0)]);
            }
            _ => calls.extend(parse(name, arguments, told)),
        }
    }
    calls.retain(|call| call.path().is_none_or(|path| path.starts_with(directory)));
    calls
}

fn parse(name: &str, arguments: &str, told: &Path) -> Option<Call> {
    let number = |index: usize| -> usize {
        let number = arguments.split(", ").nth(index).expect("an argument");
        let end = number.find(|c: char| !c.is_ascii_digit());
        number[..end.unwrap_or(number.len())]
            .parse()
            .expect("a number")
    };
    Some(match name {
        "openat" if arguments.contains("O_CREAT") => Call::Create(path(quoted(arguments))),
        "pwrite64" => Call::Write(descriptor(arguments), number(3), quoted(arguments)),
        "write" if descriptor(arguments) == told => {
            let line = String::from_utf8(quoted(arguments)).expect("a line of text");
            Call::Told(line)
        }
        "write" => Call::Append(descriptor(arguments), quoted(arguments)),
        "ftruncate" => Call::Truncate(descriptor(arguments), number(1)),
        "unlink" => Call::Unlink(path(quoted(arguments))),
        "rename" => Call::Rename(path(quoted(arguments)), path(quoted_second(arguments))),
        "fallocate" => panic!("{name} is not modelled"),
        _ => return None,
    })
}

/// The path between angle brackets after a file descriptor.
fn descriptor(arguments: &str) -> PathBuf {
    let (_, rest) = arguments.split_once('<').expect("strace -y names files");
    let (name, _) = rest.split_once('>').expect("the name ends");
    path(unescape(name))
}

fn quoted(arguments: &str) -> Vec<u8> {
    unescape(arguments.split('"').nth(1).expect("a quoted argument"))
}

fn quoted_second(arguments: &str) -> Vec<u8> {
    let second = arguments.split('"').nth(3);
    unescape(second.expect("a second quoted argument"))
}

fn path(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8(bytes).expect("paths of the tests").into()
}

/// `\x41\x42` is "AB": strace -xx writes every byte so.
fn unescape(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        _ => byte - b'a' + 10,
    };
    text.as_bytes()
        .chunks_exact(4)
        .map(|escape| digit(escape[2]) << 4 | digit(escape[3]))
        .collect()
}
