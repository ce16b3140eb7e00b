//! The configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_lite::fuzzing::run("configuration", data));
