//! The directory of local clients: the registry, and beside it what the broker reads. Driver.
//!
//! ```text
//!  registry.json   the only truth, replaced as a whole      ca-N.key, ca-N.tpm   the authority's keys
//!  ca.pem crl.pem passwords server.pem   written from it    server.key           the listeners' key
//! ```
//!
//! Invariant: a change counts once `registry.json` is in its place, and what is written from it is
//! written again where a power cut came between.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::registry::Registry;

/// Longest file that is read here: a registry with all that it may hold.
const FILE_MAX: u64 = 16 << 20;
/// For the gateway's user alone.
const SECRET: u32 = 0o600;
/// For whoever gets that far.
const PUBLIC: u32 = 0o644;

const REGISTRY: &str = "registry.json";
/// The authority's certificates.
pub(crate) const ANCHORS: &str = "ca.pem";
/// The lists of revoked certificates.
pub(crate) const LISTS: &str = "crl.pem";
/// The clients' passwords, hashed.
pub(crate) const PASSWORDS: &str = "passwords";
/// The certificate of the broker's listeners.
pub(crate) const SERVER: &str = "server.pem";
/// Its key.
pub(crate) const SERVER_KEY: &str = "server.key";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// See the module's description; it need not exist yet.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

/// As long as it lives, nobody else changes the directory.
pub(crate) struct Lock(#[expect(dead_code, reason = "held until it is dropped")] File);

impl Directory {
    pub(crate) fn new(path: &Path) -> Directory {
        Directory(path.to_owned())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits until nobody else changes the directory, which is made when there is none.
    pub(crate) fn lock(&self) -> Result<Lock, FileError> {
        self.make()
            .map_err(|error| self.failed("create", "", error))?;
        let locked = File::open(&self.0).and_then(|handle| handle.lock().map(|()| handle));
        locked
            .map(Lock)
            .map_err(|error| self.failed("lock", "", error))
    }

    /// What is known of clients; nothing where there is no file.
    pub(crate) fn registry(&self) -> Result<Option<Registry>, FileError> {
        let Some(text) = self.read(REGISTRY)? else {
            return Ok(None);
        };
        let unfit = |why: io::Error| self.failed("use", REGISTRY, why);
        let registry: Registry =
            serde_json::from_str(&text).map_err(|error| unfit(io::Error::other(error)))?;
        let registry = registry.check();
        registry
            .map(Some)
            .map_err(|error| unfit(io::Error::other(error)))
    }

    /// Makes `registry` the one that counts, and writes what the broker reads.
    pub(crate) fn put(&self, registry: &Registry, _: &Lock) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(registry)
            .map_err(|error| self.failed("write", REGISTRY, io::Error::other(error)))?;
        self.replace(REGISTRY, &text, SECRET)?;
        self.write_out(registry)
    }

    /// Writes what the broker reads, where it is not what `registry` says.
    pub(crate) fn write_out(&self, registry: &Registry) -> Result<(), FileError> {
        let server = registry.server.as_ref();
        let files = [
            (ANCHORS, Some(registry.anchors()), PUBLIC),
            (LISTS, Some(registry.lists()), PUBLIC),
            (PASSWORDS, Some(registry.passwords()), SECRET),
            (
                SERVER,
                server.map(|server| server.certificate.clone()),
                PUBLIC,
            ),
        ];
        for (name, wanted, mode) in files {
            let Some(wanted) = wanted else { continue };
            if self.read(name)?.as_ref() != Some(&wanted) {
                self.replace(name, wanted.as_bytes(), mode)?;
            }
        }
        Ok(())
    }

    /// A file's text, where there is one.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, FileError> {
        let mut text = String::new();
        let read = File::open(self.file(name))
            .and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", name, error)),
        }
    }

    /// Puts a secret where there is none, or in the place of another.
    pub(crate) fn put_secret(&self, name: &str, text: &str, _: &Lock) -> Result<(), FileError> {
        self.replace(name, text.as_bytes(), SECRET)
    }

    /// Takes a file away that nobody needs any more.
    pub(crate) fn remove(&self, name: &str, _: &Lock) -> Result<(), FileError> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", name, error))
            }
            _ => Ok(()),
        }
    }

    fn make(&self) -> io::Result<()> {
        if self.0.exists() {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.0)?;
        own_as_above(&self.0)
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), FileError> {
        let fresh = self.file(&format!("{name}.new"));
        let written = || {
            // What a power cut left.
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&fresh)?;
            file.write_all(bytes)?;
            own_as_above(&fresh)?;
            file.sync_all()?;
            fs::rename(&fresh, self.file(name))?;
            File::open(&self.0)?.sync_all()
        };
        written().map_err(|error| self.failed("write", name, error))
    }

    fn failed(&self, what: &'static str, name: &str, source: io::Error) -> FileError {
        let path = match name {
            "" => self.0.clone(),
            name => self.file(name),
        };
        FileError { what, path, source }
    }
}

/// What root writes here belongs to whom the directory above belongs: the service's user.
fn own_as_above(path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let above = path.parent().map(fs::metadata).transpose()?;
    above.map_or(Ok(()), |above| {
        chown(path, Some(above.uid()), Some(above.gid()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_registry_comes_back_as_it_was_put_and_secrets_are_their_owners_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(&place.path().join("clients"));
        assert!(directory.registry().unwrap().is_none());
        let lock = directory.lock().unwrap();
        let mut registry = Registry::default();
        registry.list_number = 7;
        directory.put(&registry, &lock).unwrap();
        assert_eq!(directory.registry().unwrap(), Some(registry));
        for name in [REGISTRY, PASSWORDS] {
            let mode = fs::metadata(directory.file(name)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn what_the_broker_reads_is_written_again_after_a_power_cut_before_it() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path());
        let registry = Registry::default();
        directory
            .put(&registry, &directory.lock().unwrap())
            .unwrap();
        fs::write(directory.file(PASSWORDS), "old").unwrap();
        directory.write_out(&registry).unwrap();
        assert_eq!(
            directory.read(PASSWORDS).unwrap(),
            Some(registry.passwords())
        );
    }
}
