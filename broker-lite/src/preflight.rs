//! What a start would read beside the configuration: certificates, keys, revocations, passwords, and
//! where the store is. Driver.
//!
//! Invariant: nothing is listened on and nothing is written; every problem stands at the key that
//! names the file, and bears the file's own line where it has one.

#![expect(
    clippy::disallowed_methods,
    reason = "driver: certificates expire by the wall clock"
)]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use settings::{Document, Problem};
use x509_parser::pem::Pem;

use crate::{
    config::{Config, Listener},
    entry::tls,
    login::password::{
        disk::{self, PasswordFileError},
        file::PasswordFile,
    },
    start::TlsError,
};

/// Certificates that end sooner are worth a warning.
const EXPIRY_WARNING_DAYS: i64 = 30;
/// Seconds of a day.
const DAY: i64 = 86_400;

/// What this machine lacks of what `config` needs, which stands at `prefix` (`broker.`, or nothing)
/// in `document`.
pub fn check(config: &Config, document: &Document, prefix: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let path = format!("{prefix}listener[{index}].tls");
        problems.extend(about_listener(listener, document, &path));
    }
    let passwords = about_passwords(config, document, prefix, &mut problems);
    about_users(config, passwords.as_ref(), document, prefix, &mut problems);
    problems.extend(about_store(config, document, prefix));
    problems
}

fn about_listener(listener: &Listener, document: &Document, path: &str) -> Vec<Problem> {
    let Some(tls) = &listener.tls else {
        return Vec::new();
    };
    let faults = tls::faults(listener, tls);
    let mut problems: Vec<Problem> = faults
        .iter()
        .map(|(key, fault)| document.error(&format!("{path}.{key}"), told(fault), remedy(fault)))
        .collect();
    let is_read = |key: &str| !faults.iter().any(|(faulty, _)| faulty == key);
    if is_read("certificate") {
        let path = format!("{path}.certificate");
        problems.extend(certificate(&tls.certificate, &path, document));
    }
    if is_read("key") {
        problems.extend(key(&tls.key, &format!("{path}.key"), document));
    }
    if let Some(file) = tls.client_ca.as_deref().filter(|_| is_read("client_ca")) {
        problems.extend(certificate(file, &format!("{path}.client_ca"), document));
    }
    problems
}

/// An error with its cause.
fn told(fault: &TlsError) -> String {
    match std::error::Error::source(fault) {
        Some(cause) => format!("{fault}: {cause}"),
        None => fault.to_string(),
    }
}

fn remedy(fault: &TlsError) -> &'static str {
    match fault {
        TlsError::File { .. } => "name a PEM file that the broker's user may read",
        TlsError::Pair { .. } => "name the key that the certificate was made for",
        TlsError::Anchors { .. } | TlsError::NoAnchors => "name the authority's own certificate",
        TlsError::Tickets(_) => "try again",
    }
}

fn about_passwords(
    config: &Config,
    document: &Document,
    prefix: &str,
    problems: &mut Vec<Problem>,
) -> Option<PasswordFile> {
    let file = config.password_file.as_deref()?;
    let path = format!("{prefix}password_file");
    let error = match disk::read(file) {
        Ok(read) => return Some(read),
        Err(error) => error,
    };
    match &error {
        PasswordFileError::Lines {
            path: file,
            problems: lines,
        } => {
            problems.extend(lines.iter().map(|line| {
                let what = format!("{}:{}: {}", file.display(), line.line, line.what);
                document.error(&path, what, line.remedy)
            }));
        }
        PasswordFileError::Exposed { path: file, mode } => {
            let file = file.display();
            let what =
                format!("every user may read or write password file {file} (mode {mode:03o})");
            problems.push(document.error(&path, what, format!("run chmod o-rw {file}")));
        }
        PasswordFileError::Read {
            path: file,
            hint,
            source,
        } => {
            let what = format!(
                "cannot read password file {}: {}",
                file.display(),
                plain(source)
            );
            problems.push(document.error(&path, what, *hint));
        }
        PasswordFileError::Unfit { .. }
        | PasswordFileError::Write { .. }
        | PasswordFileError::Random => {
            problems.push(document.error(&path, error.to_string(), ""));
        }
    }
    None
}

fn about_users(
    config: &Config,
    passwords: Option<&PasswordFile>,
    document: &Document,
    prefix: &str,
    problems: &mut Vec<Problem>,
) {
    for (index, user) in config.users.iter().enumerate() {
        let path = format!("{prefix}user[{index}]");
        if let Err(error) = user.password.read() {
            let what = format!("cannot take the password of user {:?}: {error}", user.name);
            problems.push(document.error(&format!("{path}.password"), what, ""));
        }
        if passwords.is_some_and(|file| file.has(&user.name)) {
            let what = format!("user {:?} stands in the password file, too", user.name);
            problems.push(document.error(
                &format!("{path}.name"),
                what,
                "remove it from one of them",
            ));
        }
    }
}

fn about_store(config: &Config, document: &Document, prefix: &str) -> Option<Problem> {
    let file = &config.persistence.as_ref()?.path;
    let opened = match fs::OpenOptions::new().read(true).write(true).open(file) {
        // It is made at the start, in a folder that must be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => fs::read_dir(folder).map(drop),
            _ => Ok(()),
        },
        opened => opened.map(drop),
    };
    let error = opened.err()?;
    Some(document.error(
        &format!("{prefix}persistence.path"),
        format!(
            "cannot keep sessions in {}: {}",
            file.display(),
            plain(&error)
        ),
        "does its folder exist, and may the broker's user write there?",
    ))
}

/// What is wrong with the certificate in a PEM file that the key at `path` names, above all its end.
pub fn certificate(file: &Path, path: &str, document: &Document) -> Option<Problem> {
    let subject = format!("certificate {}", file.display());
    let expiry = match expiry(file) {
        Err(reason) => return Some(document.error(path, format!("{subject}: {reason}"), "")),
        Ok(expiry) => expiry,
    };
    let (now, renew) = (now(), "renew it");
    let left = (expiry - now) / DAY;
    if expiry <= now {
        Some(document.error(path, format!("{subject} expired {} days ago", -left), renew))
    } else if left < EXPIRY_WARNING_DAYS {
        Some(document.warning(path, format!("{subject} expires in {left} days"), renew))
    } else {
        None
    }
}

/// When the first certificate in a PEM file ends, in seconds since 1970.
fn expiry(file: &Path) -> Result<i64, String> {
    let bytes = fs::read(file).map_err(|error| plain(&error))?;
    let pem = Pem::iter_from_buffer(&bytes)
        .next()
        .ok_or("it holds no PEM block")?
        .map_err(|error| format!("it is no PEM file ({error})"))?;
    let certificate = pem
        .parse_x509()
        .map_err(|error| format!("it holds no certificate ({error})"))?;
    Ok(certificate.validity().not_after.timestamp())
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// What is wrong with the private key in a file that the key at `path` names: who may read it.
pub fn key(file: &Path, path: &str, document: &Document) -> Option<Problem> {
    let key = format!("key {}", file.display());
    match fs::metadata(file) {
        Err(error) => Some(document.error(path, format!("{key}: {}", plain(&error)), "")),
        Ok(metadata) if metadata.permissions().mode() & 0o007 != 0 => {
            let what = format!("{key} can be read by everyone on this machine");
            Some(document.error(path, what, format!("chmod 640 {}", file.display())))
        }
        Ok(_) => None,
    }
}

/// The system's word without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
