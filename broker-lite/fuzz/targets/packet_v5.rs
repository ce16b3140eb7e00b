//! The decoder of MQTT 5.0, and how much memory it takes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    broker_lite_fuzz::within_bound(data, || broker_lite::fuzzing::run("packet_v5", data));
});
