//! Replaces a file of JSON as a whole. Driver.
//!
//! Invariant: whoever reads the path, after a power cut too, finds the old content or the new one, never a part.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

/// Writes beside the file, and puts it in its place once it is on the disk; its folder is there.
///
/// # Errors
/// The system refuses; the file is then as it was, or as it is to be.
pub(crate) fn replace(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let fresh = beside(path, ".new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(content)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The path with something appended to its file name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for content in ["old", "new"] {
            replace(&path, &content).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{content:?}"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        replace(&path, &"old").unwrap();
        fs::create_dir(beside(&path, ".new")).unwrap();
        replace(&path, &"new").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "\"old\"");
    }
}
