//! Gives the linker the memory of the slot this image is linked for.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=FOREBAY_SLOT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // The device believes no time before this one.
    let built = env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse::<u64>().ok());
    #[allow(clippy::disallowed_methods, reason = "a build is dated by the machine that makes it")]
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("cargo::rustc-env=FOREBAY_BUILT={}", built.unwrap_or_else(now));
    println!("cargo::rerun-if-changed=build.rs");
    // The slot and its header of 1 KiB; the vector table behind it is aligned by that.
    let origin = match env::var("FOREBAY_SLOT").as_deref() {
        Ok("a") => "0x08010400",
        Ok("b") => "0x08080400",
        _ => {
            println!("cargo::error=FOREBAY_SLOT must be `a` or `b`: the slot this image is linked for");
            return;
        }
    };
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    // The stack is at the very beginning of SRAM1: one that overflows runs out of memory and faults instead of overwriting something.
    let memory = format!(
        "MEMORY {{\n  FLASH : ORIGIN = {origin}, LENGTH = 447K\n  RAM : ORIGIN = 0x10000000, LENGTH = 32K\n  STACK : ORIGIN = 0x20000000, LENGTH = 52K\n  HEAP : ORIGIN = 0x2000d000, LENGTH = 44K\n}}\n\
        _stack_start = ORIGIN(STACK) + LENGTH(STACK);\n_stack_end = ORIGIN(STACK);\n_heap_start = ORIGIN(HEAP);\n_heap_end = ORIGIN(HEAP) + LENGTH(HEAP);\n"
    );
    fs::write(out.join("memory.x"), memory).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg=-Tlink.x");
    if env::var_os("CARGO_FEATURE_IOT01A").is_some() {
        // What no image for the real board may hold.
        println!("cargo::rustc-link-arg=-Tboard.x");
    }
}
