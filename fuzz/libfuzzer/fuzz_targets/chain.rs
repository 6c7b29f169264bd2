//! See `fuzz/src/chain.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::target("chain")(data));
