//! One connection's byte stream, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_lite::fuzzing::run("stream", data));
