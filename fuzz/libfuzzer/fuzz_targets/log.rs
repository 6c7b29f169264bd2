//! See `fuzz/src/log.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::target("log")(data));
