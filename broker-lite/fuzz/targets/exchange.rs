//! Several clients, the disk and the clock against the broker's core.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_lite::fuzzing::run("exchange", data));
