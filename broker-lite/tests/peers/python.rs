//! Where the tests find paho.

use std::{env, path::PathBuf};

/// The Python that has paho: `TEST_PYTHON`, or `venv` in the target directory.
pub(crate) fn python() -> PathBuf {
    let in_target = || {
        let test = env::current_exe().unwrap();
        test.ancestors().nth(3).unwrap().join("venv/bin/python")
    };
    env::var_os("TEST_PYTHON").map_or_else(in_target, PathBuf::from)
}
