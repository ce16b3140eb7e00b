//! Tells the program when it was built: no right clock shows an earlier time. Driver.
#![expect(clippy::disallowed_methods, reason = "driver: the clock of the build")]

use std::{env, time::SystemTime};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // Set by whoever wants the same bytes from the same source (reproducible-builds.org).
    let built = env::var("SOURCE_DATE_EPOCH").ok();
    let built = built.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs()).to_string()
    });
    println!("cargo::rustc-env=BUILT_AT_S={built}");
}
