//! What each package says of itself, and the compiler that builds them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::tree::{read, root};

/// What cargo knows of the packages of a workspace.
pub(crate) fn packages(manifest: &str) -> Vec<Value> {
    let said = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--locked",
            "--offline",
            "--manifest-path",
        ])
        .arg(root().join(manifest))
        .output()
        .unwrap();
    assert!(said.status.success(), "{manifest}: {}", String::from_utf8_lossy(&said.stderr));
    let metadata: Value = serde_json::from_slice(&said.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn each_package_says_what_it_is() {
    for package in ["Cargo.toml", "firmware/Cargo.toml", "fuzz/libfuzzer/Cargo.toml"]
        .into_iter()
        .flat_map(packages)
    {
        let name = package["name"].as_str().unwrap();
        for field in ["description", "license", "readme"] {
            let value = package[field].as_str().unwrap_or_default();
            assert!(!value.is_empty(), "{name} has no {field}");
        }
        for field in ["keywords", "categories"] {
            let count = package[field].as_array().map_or(0, Vec::len);
            assert!((1..=5).contains(&count), "{name} has {count} {field}; a registry takes one to five");
        }
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let readme = manifest.with_file_name(package["readme"].as_str().unwrap());
        assert!(readme.is_file(), "{name}: {} does not exist", readme.display());
    }
}

#[test]
fn the_compiler_that_builds_is_the_oldest_that_is_promised() {
    let toolchain = read("rust-toolchain.toml");
    let settings: Vec<_> = toolchain
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    // Components or targets would be fetched by every machine that builds anything here.
    let [table, channel] = settings[..] else {
        panic!("rust-toolchain.toml has more than a channel: {settings:?}");
    };
    assert_eq!(table, "[toolchain]");
    let manifest = read("Cargo.toml");
    let oldest = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let oldest = oldest.trim_matches('"');
    assert!(
        channel.starts_with(&format!("channel = \"{oldest}.")),
        "{channel}, but rust-version is {oldest}"
    );
}
