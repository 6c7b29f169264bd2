//! See `fuzz/src/codec.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::target("codec")(data));
