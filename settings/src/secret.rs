//! Passwords and keys, which a configuration file names but never holds.
//!
//! Invariant: a secret's text is in no message, log or schema, and a file that every user of the
//! machine may read or write is refused. Layer: a value and its driver, [`Secret::read`].

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest secret read; the largest that are in use are RSA keys of 16,384 bits, about 13 KiB.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Permissions of others to read or write.
const OTHERS_MAY: u32 = 0o006;

/// Where systemd says that it put a service's credentials (systemd.exec(5), Credentials).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a secret is kept: `{ file = "/path" }`, or `{ credential = "name" }` for one that systemd
/// hands to the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(
    inline,
    extend("x-remedy" = "a secret is never written into the configuration: keep it in a file of \
                         its own and write { file = \"/path\" }, or { credential = \"name\" } for \
                         a systemd credential")
)]
pub enum Secret {
    /// A file that holds the secret and nothing else, but for a line end.
    File(PathBuf),
    /// A systemd credential, looked up in `$CREDENTIALS_DIRECTORY`.
    Credential(#[schemars(regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}$"))] String),
}

/// A secret's text; prints as `<redacted>`.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    /// The text itself. For protocols, not for messages.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be opened or read.
    #[error("cannot read secret {path}: {source} ({hint})")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operator may look at.
        hint: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The path leads to a directory, device or pipe.
    #[error("cannot read secret {0}: it is not a regular file")]
    NotAFile(PathBuf),
    /// Every user of the machine may read or replace it.
    #[error(
        "secret {path} refused: every user may read or write it (mode {mode:03o}); \
         run chmod o-rw {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than any secret.
    #[error("secret {0} refused: it is larger than {limit} KiB; is it the right file?", limit = MAX_SECRET_BYTES / 1024)]
    TooLarge(PathBuf),
    /// It holds bytes that are not UTF-8.
    #[error("secret {0} refused: it is not UTF-8 text; is it the right file?")]
    NotText(PathBuf),
    /// It holds nothing.
    #[error("secret {0} refused: it is empty")]
    Empty(PathBuf),
    /// A credential was named, but systemd handed none to this process.
    #[error(
        "cannot find credential {0:?}: $CREDENTIALS_DIRECTORY is not set; the service needs \
         LoadCredential={0}:/path in its unit, or write {{ file = … }}"
    )]
    NoCredentials(String),
    /// The name would lead out of the credentials' directory.
    #[error("credential {0:?} refused: a credential's name has no slash and no leading dot")]
    BadName(String),
}

impl Secret {
    /// Reads the secret; one line end after it is left off.
    pub fn read(&self) -> Result<SecretText, SecretError> {
        let directory = std::env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from);
        self.read_beside(directory.as_deref())
    }

    fn read_beside(&self, credentials: Option<&Path>) -> Result<SecretText, SecretError> {
        match self {
            Self::File(path) => read(path, "is the path right?"),
            Self::Credential(name) if name.starts_with('.') || name.contains('/') => {
                Err(SecretError::BadName(name.clone()))
            }
            Self::Credential(name) => {
                let directory =
                    credentials.ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                let hint = "does the service's unit have LoadCredential= for it?";
                read(&directory.join(name), hint)
            }
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

fn read(path: &Path, when_missing: &'static str) -> Result<SecretText, SecretError> {
    let failed = |source: io::Error| SecretError::Read {
        path: path.to_owned(),
        hint: match source.kind() {
            io::ErrorKind::NotFound => when_missing,
            io::ErrorKind::PermissionDenied => "may this user read it, and enter its directory?",
            _ => "is the disk in order?",
        },
        source,
    };
    // Asked before opening, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & OTHERS_MAY != 0 {
        let path = path.to_owned();
        return Err(SecretError::Exposed { path, mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    text(path, bytes)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<SecretText, SecretError> {
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| SecretError::NotText(path.to_owned()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(SecretError::Empty(path.to_owned()));
    }
    Ok(SecretText(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with one file `password` of this content and mode.
    fn kept(content: &[u8], mode: u32) -> (tempfile::TempDir, Secret) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, Secret::File(path))
    }

    /// The message with the directory's own name taken out.
    fn refusal(directory: &tempfile::TempDir, secret: &Secret) -> String {
        let error = secret.read_beside(Some(directory.path())).unwrap_err();
        error
            .to_string()
            .replace(directory.path().to_str().unwrap(), "/d")
    }

    #[test]
    fn a_secret_is_read_without_its_line_end() {
        let (_directory, secret) = kept(b"hunter2\r\n", 0o600);
        assert_eq!(secret.read().unwrap().expose(), "hunter2");
    }

    #[test]
    fn a_secret_prints_as_redacted() {
        let secret = SecretText::from("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "<redacted> <redacted>");
    }

    #[test]
    fn a_secret_that_everybody_may_read_is_refused_with_the_command_that_helps() {
        let (directory, secret) = kept(b"hunter2", 0o644);
        assert_eq!(
            refusal(&directory, &secret),
            "secret /d/password refused: every user may read or write it (mode 644); \
             run chmod o-rw /d/password"
        );
    }

    #[test]
    fn a_missing_secret_names_path_and_reason() {
        let (directory, _) = kept(b"", 0o600);
        let secret = Secret::File(directory.path().join("other"));
        assert_eq!(
            refusal(&directory, &secret),
            "cannot read secret /d/other: No such file or directory (os error 2) \
             (is the path right?)"
        );
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        let (directory, empty) = kept(b"\n", 0o600);
        assert_eq!(
            refusal(&directory, &empty),
            "secret /d/password refused: it is empty"
        );
        let (directory, binary) = kept(&[0xff, 0xfe], 0o600);
        assert!(refusal(&directory, &binary).contains("is not UTF-8 text"));
        let (directory, large) = kept(&[b'x'; 64 * 1024 + 1], 0o600);
        assert!(refusal(&directory, &large).contains("is larger than 64 KiB"));
        let itself = Secret::File(directory.path().to_owned());
        assert!(refusal(&directory, &itself).contains("not a regular file"));
    }

    #[test]
    fn a_credential_is_looked_up_where_systemd_put_it() {
        let (directory, _) = kept(b"hunter2", 0o400);
        let secret = Secret::Credential("password".to_owned());
        assert_eq!(
            secret.read_beside(Some(directory.path())).unwrap().expose(),
            "hunter2"
        );
    }

    #[test]
    fn a_credential_outside_a_service_says_what_the_unit_needs() {
        let error = Secret::Credential("cloud".to_owned())
            .read_beside(None)
            .unwrap_err();
        assert!(error.to_string().contains("LoadCredential=cloud:/path"));
    }

    #[test]
    fn a_credential_cannot_lead_out_of_its_directory() {
        let (directory, _) = kept(b"", 0o600);
        for name in ["../shadow", "..", "a/b"] {
            let refused = refusal(&directory, &Secret::Credential(name.to_owned()));
            assert!(
                refused.contains("has no slash and no leading dot"),
                "{refused}"
            );
        }
    }
}
