//! The queues of the log.

use std::time::Duration;

use super::schema::{Reading, Section};

const MAX_STREAMS: usize = 8;
const MAX_NAME: usize = 32;
/// Streams that the log keeps for itself.
const TAKEN: [&str; 2] = ["local", "dead"];

/// One item of `streams`, in order of priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Unique; a stream keeps its records by it.
    pub(crate) name: String,
    /// Bound on its waiting bytes. Default 1 GiB.
    pub(crate) max_bytes: u64,
    /// Older records expire; `None` if none does.
    pub(crate) max_age: Option<Duration>,
    /// What happens at the bound. Default `drop_oldest`.
    pub(crate) when_full: WhenFull,
}

/// What a stream does at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Holds devices back.
    Refuse,
    /// Drops the oldest, counted as evicted.
    DropOldest,
}

pub(super) fn read(root: &Section<'_>, reading: &mut Reading<'_>) -> Vec<Stream> {
    if !root.has("streams") {
        return vec![Stream {
            name: "default".to_owned(),
            max_bytes: 1 << 30,
            max_age: None,
            when_full: WhenFull::DropOldest,
        }];
    }
    let sections = root.list("streams").unwrap_or_default();
    if sections.len() > MAX_STREAMS || (sections.is_empty() && root.given("streams").is_some()) {
        let reason = format!(
            "must be 1 to {MAX_STREAMS} streams, not {}: a stream is for a kind of message, not for a device",
            sections.len()
        );
        reading.faults.push(root.fault("streams", reason));
    }
    let mut streams: Vec<Stream> = Vec::new();
    for section in sections {
        let Some(name) = section.text("name") else { continue };
        if let Some(reason) = name_problem(&name) {
            reading.faults.push(section.fault("name", reason));
        } else if streams.iter().any(|other| other.name == name) {
            reading
                .faults
                .push(section.fault("name", "another stream has this name; names are unique"));
        }
        streams.push(Stream {
            name,
            max_bytes: section.bytes("max_bytes").unwrap_or_default(),
            max_age: section.duration("max_age"),
            when_full: if section.text("when_full").as_deref() == Some("refuse") {
                WhenFull::Refuse
            } else {
                WhenFull::DropOldest
            },
        });
    }
    streams
}

fn name_problem(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.len() > MAX_NAME || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) {
        return Some(format!("must be 1 to {MAX_NAME} of a-z 0-9 _ -, beginning with a letter"));
    }
    TAKEN
        .contains(&name)
        .then(|| format!("`{name}` is a stream of the log's own; choose another name"))
}
