//! Each target over its corpus, and over mutants of it that a seed decides.
//!
//! ```sh
//! FOREBAY_FUZZ=1000000 cargo test -p forebay-fuzz       # more mutants
//! FOREBAY_FIRST_SEED=7 cargo test -p forebay-fuzz       # other mutants; a failure says which
//! ```
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use forebay_fuzz::mutation::{Random, mutant};
use forebay_fuzz::{TARGETS, Target, target};

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The names in a folder, without their endings.
fn names(of: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder(of)).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

/// The corpus of a target in the order of its names, which the mutants depend on.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder("corpus").join(name)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no corpus");
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Runs one input; a panic names it.
fn holds(target: Target, bytes: &[u8], what: &str) {
    if catch_unwind(|| target(bytes)).is_err() {
        panic!("{what} fails; as text: \"{}\"", bytes.escape_ascii());
    }
}

fn survives(name: &str, mutants: u64) {
    let target = target(name);
    let corpus = corpus(name);
    for (path, bytes) in &corpus {
        holds(target, bytes, &path.display().to_string());
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let seed = number("FOREBAY_FIRST_SEED", 20_261_130);
    let mut random = Random::new(seed);
    for nth in 0..number("FOREBAY_FUZZ", mutants) {
        let bytes = mutant(&inputs, &mut random);
        holds(target, &bytes, &format!("FOREBAY_FIRST_SEED={seed}, mutant {nth} of {name}"));
    }
}

#[test]
fn mutants_of_chains_hold_every_property_of_what_is_verified() {
    survives("chain", 40_000);
}

#[test]
fn mutants_of_packets_hold_every_property_of_the_codec() {
    survives("codec", 40_000);
}

#[test]
fn mutants_of_what_the_log_writes_hold_every_property_of_its_decoders() {
    survives("log", 40_000);
}

#[test]
fn mutants_of_topics_hold_every_property_of_filters_and_templates() {
    survives("topic", 100_000);
}

#[test]
fn mutants_of_configurations_are_read_or_refused_with_words() {
    survives("configuration", 5_000);
}

#[test]
fn each_target_has_a_corpus_and_a_wrapper_for_libfuzzer() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("libfuzzer/fuzz_targets"), targets);
}
