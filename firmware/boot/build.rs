//! Gives the linker the bootloader's memory.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    // The stack is at the very beginning of SRAM1: one that overflows runs out of memory and faults instead of overwriting something.
    let memory = "MEMORY {\n  FLASH : ORIGIN = 0x08000000, LENGTH = 32K\n  RAM : ORIGIN = 0x10000000, LENGTH = 32K\n  STACK : ORIGIN = 0x20000000, LENGTH = 52K\n}\n\
        _stack_start = ORIGIN(STACK) + LENGTH(STACK);\n_stack_end = ORIGIN(STACK);\n";
    fs::write(out.join("memory.x"), memory).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg=-Tlink.x");
    if env::var_os("CARGO_FEATURE_IOT01A").is_some() {
        // What no image for the real board may hold.
        println!("cargo::rustc-link-arg=-Tboard.x");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
