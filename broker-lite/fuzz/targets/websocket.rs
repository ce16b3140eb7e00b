//! A WebSocket's upgrade and frames, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_lite::fuzzing::run("websocket", data));
