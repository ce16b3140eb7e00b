//! Files beside the TPM: which keys were provisioned, and sealed values. Driver.
//!
//! Invariant: a file is replaced as a whole, is on disk before the call returns, and is for its owner alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    entity::Name,
    error::{Error, Result},
    hex,
    keys::Blob,
};

/// The largest file of ours that is read.
const FILE_MAX: u64 = 16 * 1024;
const FILE: &str = "provisioned.json";

/// Names of the keys as they were first seen, so that an exchange shows before any of them is used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notes {
    storage: Option<String>,
    signing: Option<String>,
    payload: Option<String>,
    attestation: Option<String>,
}

/// A key that we keep in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Storage,
    Signing,
    Payload,
    Attestation,
}

impl Notes {
    pub(crate) fn read(directory: &Path) -> Result<Notes> {
        Ok(read_json(&directory.join(FILE))?.unwrap_or_default())
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(FILE), self)
    }

    pub(crate) fn name(&self, key: Key) -> Option<Name> {
        let text = match key {
            Key::Storage => &self.storage,
            Key::Signing => &self.signing,
            Key::Payload => &self.payload,
            Key::Attestation => &self.attestation,
        };
        hex::decode(text.as_deref()?)
    }

    pub(crate) fn set(&mut self, key: Key, name: &[u8]) {
        let text = Some(hex::encode(name));
        match key {
            Key::Storage => self.storage = text,
            Key::Signing => self.signing = text,
            Key::Payload => self.payload = text,
            Key::Attestation => self.attestation = text,
        }
    }
}

/// Where the notes are.
pub(crate) fn notes_path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    public: String,
    private: String,
}

impl From<&Blob> for SealedFile {
    fn from(blob: &Blob) -> SealedFile {
        SealedFile {
            public: hex::encode(&blob.public),
            private: hex::encode(&blob.private),
        }
    }
}

impl SealedFile {
    fn blob(&self) -> Option<Blob> {
        Some(Blob {
            public: hex::decode(&self.public)?,
            private: hex::decode(&self.private)?,
        })
    }
}

impl Blob {
    /// As a file's text: of use to this TPM alone.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&SealedFile::from(self)).unwrap_or_default() + "\n"
    }

    /// Reads a file's text; nothing when it is no such text.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Blob> {
        serde_json::from_str::<SealedFile>(text).ok()?.blob()
    }
}

/// Keeps what the TPM sealed.
pub(crate) fn write_sealed(path: &Path, blob: &Blob) -> Result<()> {
    write_json(path, &SealedFile::from(blob))
}

/// What the TPM sealed, or nothing when there is no such file.
///
/// # Errors
/// It cannot be read, or does not hold what it should.
pub fn read_sealed(path: &Path) -> Result<Option<Blob>> {
    let Some(file) = read_json::<SealedFile>(path)? else {
        return Ok(None);
    };
    file.blob().map(Some).ok_or_else(|| Error::Content {
        path: path.to_owned(),
        what: "not hexadecimal digits".to_owned(),
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::File {
                verb: "read",
                path: path.to_owned(),
                source,
            });
        }
    }
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::Content {
            path: path.to_owned(),
            what: error.to_string(),
        })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let fail = |source| Error::File {
        verb: "write",
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_string_pretty(value).map_err(|error| fail(error.into()))? + "\n";
    replace(path, text.as_bytes()).map_err(fail)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}
