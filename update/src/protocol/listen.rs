//! Where the updater listens: at the socket that systemd hands over as standard input, else at one of its own.
//! Driver.
//!
//! `StandardInput=socket` in the unit is what makes the hand-over possible without unsafe code.
//!
//! Invariant: a file that is no socket is never removed.

use std::{
    fs, io,
    os::{
        fd::AsFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::Path,
};

use nix::sys::socket::{getsockopt, sockopt::AcceptConn};

/// Who may ask at a socket of our own: its owner and its group.
const MODE: u32 = 0o660;

/// The listening socket that is standard input; `None` when that is something else.
///
/// # Errors
/// It cannot be duplicated.
pub fn handed_over() -> io::Result<Option<UnixListener>> {
    let input = io::stdin();
    match getsockopt(&input, AcceptConn) {
        Ok(true) => {
            let listener = UnixListener::from(input.as_fd().try_clone_to_owned()?);
            listener.set_nonblocking(false)?;
            Ok(Some(listener))
        }
        _ => Ok(None),
    }
}

/// A socket of our own at `path`, in the place of one that an earlier process left.
///
/// # Errors
/// Its directory is missing, something else stands there, or the system refuses.
pub fn own(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_left_behind_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("updater.sock");
        drop(own(&path).unwrap());
        let _listener = own(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert!(own(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_standard_input_that_listens_to_nobody_is_none() {
        assert!(handed_over().unwrap().is_none());
    }
}
