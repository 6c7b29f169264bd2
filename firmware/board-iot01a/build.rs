//! Gives the linker what no image for this board may hold.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let script = "ASSERT(!DEFINED(FOREBAY_FIXED_SEED), \"an image for the real board holds random numbers from a fixed seed\");\n";
    fs::write(out.join("board.x"), script).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rerun-if-changed=build.rs");
}
