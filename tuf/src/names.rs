//! The names of files: in the repository's addresses and in directories.
//!
//! Invariant: a role's name or a target's path becomes a single file name, without `/`, whatever it holds. A value.

use crate::metadata::{Root, Target};

/// The file of a role in the metadata directory.
pub(crate) fn local(role: &str) -> String {
    format!("{}.json", encode(role))
}

/// The file of a version of a role in the repository: with the version where snapshots are consistent (6.2).
pub(crate) fn remote(role: &str, version: u64, root: &Root) -> String {
    if root.consistent_snapshot {
        versioned(role, version)
    } else {
        local(role)
    }
}

/// `42.root.json`; roots always bear their version (5.3.3).
pub(crate) fn versioned(role: &str, version: u64) -> String {
    format!("{version}.{}", local(role))
}

/// `42.root.approval.json`, beside the root that it approves.
pub(crate) fn approval(version: u64) -> String {
    format!("{version}.root.approval.json")
}

/// A target's place below the targets' address: its last part bears the digest where snapshots are consistent (5.7.3).
pub(crate) fn target(target: &Target, consistent_snapshot: bool) -> String {
    let (folder, name) = match target.path.rsplit_once('/') {
        Some((folder, name)) => (Some(folder), name),
        None => (None, target.path.as_str()),
    };
    let name = if consistent_snapshot {
        format!("{}.{name}", target.hashes.in_name())
    } else {
        name.to_owned()
    };
    match folder {
        Some(folder) => format!("{}/{}", encode_path(folder), encode_path(&name)),
        None => encode_path(&name),
    }
}

/// Percent-encodes all but what RFC 3986 (2.3) leaves alone.
pub(crate) fn encode(text: &str) -> String {
    percent(text, |byte| {
        byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
    })
}

/// As [`encode`], for paths: leaves `/`, and `%` in paths that are encoded already, and what else a path may hold.
fn encode_path(path: &str) -> String {
    percent(path, |byte| {
        byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte)
    })
}

fn percent(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_name_never_leaves_the_folder() {
        assert_eq!(local("../delegated"), "..%2Fdelegated.json");
        assert_eq!(local("/etc/passwd"), "%2Fetc%2Fpasswd.json");
        assert_eq!(local("."), "..json");
        assert_eq!(versioned("?#é", 7), "7.%3F%23%C3%A9.json");
    }

    #[test]
    fn a_targets_path_keeps_its_folders_and_nothing_that_an_address_would_end_at() {
        assert_eq!(encode_path("a b/c?d#e"), "a%20b/c%3Fd%23e");
        assert_eq!(encode_path("v1.0/x+y.tgz"), "v1.0/x+y.tgz");
    }
}
