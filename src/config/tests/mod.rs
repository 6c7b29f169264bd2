//! The promises of the configuration.

mod faults;
mod good;
mod names;
mod overriding;
mod pages;
mod values;

use std::path::Path;

use super::{Config, ConfigError, Overrides, parse};

/// The shortest configuration.
const MINIMAL: &str = "gateway: {id: plant-7}\nlisteners: [{bind: \"127.0.0.1:1883\"}]\ncloud: {endpoint: cloud.example}\n";

/// Reads without looking for files.
fn read(text: &str) -> Result<Config, ConfigError> {
    parse(
        text,
        Path::new("/etc/forebay"),
        &Overrides {
            skip_files: true,
            ..Overrides::default()
        },
    )
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The one fault of a text, as shown.
#[track_caller]
fn the_fault(text: &str) -> String {
    let error = read(text).expect_err("a fault was expected");
    assert_eq!(error.faults.len(), 1, "one fault was expected: {error}");
    error.faults[0].to_string()
}

/// The minimal configuration with more lines; its own are 1 to 3.
fn minimal_and(more: &str) -> String {
    format!("{MINIMAL}{more}")
}
