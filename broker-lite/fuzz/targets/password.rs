//! The password file, and SCRAM's messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_lite::fuzzing::run("password", data));
