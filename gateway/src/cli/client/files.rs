//! A client's certificate, its key and the authority's certificates, where they are handed over.
//! Driver: writes files.
//!
//! Invariant: a key is readable by its owner alone, and files are replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::clients::{Certified, ClientName};

/// Where they are.
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) ca: PathBuf,
}

impl Files {
    pub(super) fn new(directory: &Path, name: &ClientName) -> Files {
        let file = |end: &str| match directory {
            here if here == Path::new(".") => PathBuf::from(format!("{name}.{end}")),
            there => there.join(format!("{name}.{end}")),
        };
        Files {
            certificate: file("pem"),
            key: file("key"),
            ca: file("ca.pem"),
        }
    }

    /// Refuses to overwrite what is another client's, or an earlier one's of that name.
    pub(super) fn are_free(&self, with_key: bool) -> anyhow::Result<()> {
        let key = with_key.then_some(&self.key);
        for path in [&self.certificate].into_iter().chain(key) {
            if path.exists() {
                bail!(
                    "{} is there already; move it away, or choose another place with --out",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// Writes all that a client with a certificate needs.
    pub(super) fn write(&self, certified: &Certified, key: Option<&str>) -> anyhow::Result<()> {
        if let Some(key) = key {
            replace(&self.key, key, 0o600)?;
        }
        replace(&self.certificate, &certified.certificate, 0o644)?;
        self.write_ca(&certified.ca)
    }

    /// Writes what the client knows the broker by.
    pub(super) fn write_ca(&self, ca: &str) -> anyhow::Result<()> {
        replace(&self.ca, ca, 0o644)
    }
}

fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    let write = || -> io::Result<()> {
        // What an attempt left behind that was cut off.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| {
        format!(
            "the client is known now, but {} cannot be written; `gateway client rotate` makes another one",
            path.display()
        )
    })
}
