//! The password file on disk: who may read it, and how it is replaced as a whole. Driver.
//!
//! Invariant: whoever reads the path finds the old content or the new one, never a part, and no
//! moment passes in which others may read it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use ring::rand::{SecureRandom, SystemRandom};

use super::{
    SALT_BYTES,
    file::{LineProblem, PasswordFile},
};

/// Ten thousand users with both kinds of verifier.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Permissions of others to read or write (CVE-2017-9868).
const OTHERS_MAY: u32 = 0o006;

/// A new file is its owner's alone; what is there keeps its group's right to read.
const OWNER_ONLY: u32 = 0o600;
const KEPT_OF_OLD: u32 = 0o640;

/// Why a password file cannot be used or replaced.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be read.
    #[error("cannot read password file {path} ({hint})", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What to look at.
        hint: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A new one cannot take its place.
    #[error("cannot write password file {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Other users of the machine may read or replace it.
    #[error(
        "password file {path} refused: every user may read or write it (mode {mode:03o}); \
         run chmod o-rw {path}", path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no file of text.
    #[error("password file {path} refused: {why}; is it the right file?", path = path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// Lines in it cannot be taken, so that none is.
    #[error("{}", list(path, problems))]
    Lines {
        /// The file.
        path: PathBuf,
        /// Each with its line.
        problems: Vec<LineProblem>,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a salt")]
    Random,
}

/// `FILE:LINE: what; remedy`, one per line.
fn list(path: &Path, problems: &[LineProblem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            let LineProblem { line, what, remedy } = problem;
            format!("{}:{line}: {what}; {remedy}", path.display())
        })
        .collect();
    lines.join("\n")
}

/// Reads a password file that only its owner and group may read.
pub fn read(path: &Path) -> Result<PasswordFile, PasswordFileError> {
    let unreadable = |source: io::Error| PasswordFileError::Read {
        path: path.to_owned(),
        hint: match source.kind() {
            io::ErrorKind::NotFound => "make it by `broker-lite passwd add`",
            io::ErrorKind::PermissionDenied => "may this user read it, and enter its directory?",
            _ => "is the disk in order?",
        },
        source,
    };
    // Asked before opening, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unfit(path, "it is not a regular file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & OTHERS_MAY != 0 {
        let path = path.to_owned();
        return Err(PasswordFileError::Exposed { path, mode });
    }
    let text = read_text(file).map_err(|error| match error {
        Unread::Io(source) => unreadable(source),
        Unread::Unfit(why) => unfit(path, why),
    })?;
    PasswordFile::parse(&text).map_err(|problems| PasswordFileError::Lines {
        path: path.to_owned(),
        problems,
    })
}

/// Reads another broker's password file, whoever may read it: it is replaced by ours.
pub fn read_foreign(path: &Path) -> Result<String, PasswordFileError> {
    let unreadable = |source| PasswordFileError::Read {
        path: path.to_owned(),
        hint: "is the path right, and may this user read it?",
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    read_text(file).map_err(|error| match error {
        Unread::Io(source) => unreadable(source),
        Unread::Unfit(why) => unfit(path, why),
    })
}

enum Unread {
    Io(io::Error),
    Unfit(&'static str),
}

fn read_text(file: File) -> Result<String, Unread> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(Unread::Io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Unread::Unfit("it is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| Unread::Unfit("it is not UTF-8 text"))
}

fn unfit(path: &Path, why: &'static str) -> PasswordFileError {
    let path = path.to_owned();
    PasswordFileError::Unfit { path, why }
}

/// Changes a password file, or makes it, while nobody else does: reads, has it changed, and puts
/// the new content in its place once that is on disk.
pub fn update<T>(
    path: &Path,
    change: impl FnOnce(&mut PasswordFile) -> T,
) -> Result<T, PasswordFileError> {
    let failed = |source| PasswordFileError::Write {
        path: path.to_owned(),
        source,
    };
    // A link stays a link: what it leads to is replaced.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let folder = File::open(&folder)
        .map(|handle| (folder, handle))
        .map_err(failed)?;
    folder.1.lock().map_err(failed)?;
    let mut content = match target.try_exists().map_err(failed)? {
        true => read(&target)?,
        false => PasswordFile::default(),
    };
    let before = content.clone();
    let answer = change(&mut content);
    if content != before || !target.exists() {
        replace(&target, &folder.0, &content.to_string()).map_err(failed)?;
        folder.1.sync_all().map_err(failed)?;
    }
    Ok(answer)
}

fn replace(target: &Path, folder: &Path, content: &str) -> io::Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.new"));
    // What an update left behind that was cut off; no other runs, for the folder is locked.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let written = write_new(&beside, target, content);
    let replaced = written.and_then(|()| fs::rename(&beside, target));
    if replaced.is_err() {
        // The first error counts; this one only leaves a file of mode 600 behind.
        let _left = fs::remove_file(&beside);
    }
    replaced
}

fn write_new(beside: &Path, target: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(beside)?;
    if let Ok(old) = fs::metadata(target) {
        // Only root may give files away. Another's file becomes ours then, and its group's
        // right to read would be our group's.
        if fchown(&file, Some(old.uid()), Some(old.gid())).is_ok() {
            let mode = OWNER_ONLY | old.mode() & KEPT_OF_OLD;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
    }
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// A salt that nobody can foresee.
pub fn fresh_salt() -> Result<[u8; SALT_BYTES], PasswordFileError> {
    let mut salt = [0; SALT_BYTES];
    let filled = SystemRandom::new().fill(&mut salt);
    filled.map_err(|_| PasswordFileError::Random)?;
    Ok(salt)
}
