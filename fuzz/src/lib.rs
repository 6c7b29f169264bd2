//! What reads bytes that somebody else wrote, as functions to fuzz.
//!
//! A target takes any bytes and panics when a property does not hold. `tests/mutants.rs` runs each on stable over its corpus
//! and over mutants of it; `libfuzzer/` has the same for `cargo fuzz`. See README.md.
#![forbid(unsafe_code)]

// A test build of this library would build the configuration's own tests, which belong to the binary.
#[cfg(not(test))]
mod chain;
#[cfg(not(test))]
mod codec;
/// The binary's own module by its path: a program cannot be linked.
#[cfg(not(test))]
#[path = "../../src/config/mod.rs"]
#[allow(dead_code, unused_imports, reason = "only parsing is wanted")]
mod config;
#[cfg(not(test))]
mod configuration;
#[cfg(not(test))]
mod log;
pub mod mutation;
#[cfg(not(test))]
mod topic;

/// A function to fuzz: it panics when a property does not hold.
pub type Target = fn(&[u8]);

/// All targets by name, which is also the folder of its corpus.
#[cfg(not(test))]
pub const TARGETS: [(&str, Target); 5] = [
    ("chain", chain::target),
    ("codec", codec::target),
    ("configuration", configuration::target),
    ("log", log::target),
    ("topic", topic::target),
];

/// The target of this name.
///
/// # Panics
/// If there is none.
#[cfg(not(test))]
#[must_use]
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no target is named `{name}`")).1
}
