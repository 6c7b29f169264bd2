//! Reads the public keys this build trusts.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=FOREBAY_KEYS");
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(path) = env::var("FOREBAY_KEYS") else {
        println!("cargo::error=FOREBAY_KEYS must name the file with the trusted public keys: lines of `id hex`, as `fw keys` writes them");
        return;
    };
    println!("cargo::rerun-if-changed={path}");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            println!("cargo::error=cannot read {path}: {error}");
            return;
        }
    };
    let mut source = String::from("&[");
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let key = line
            .split_once(' ')
            .and_then(|(id, hex)| Some((id.parse::<u32>().ok()?, bytes(hex.trim())?)));
        let Some((id, public)) = key else {
            println!("cargo::error={path}: `{line}` is no `id hex` with 64 hexadecimal digits");
            return;
        };
        let _ = write!(source, "Key {{ id: {id}, public: {public:?} }}, ");
    }
    source.push(']');
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("keys.rs"), source).expect("OUT_DIR is writable");
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    (hex.len() == 64).then_some(())?;
    (0..32)
        .map(|index| u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok())
        .collect()
}
