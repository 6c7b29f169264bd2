//! What the operator decides about the log.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the log, validated by the caller's config.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's own directory (`<data_dir>/log`); created when missing.
    pub directory: PathBuf,
    /// Bound on the directory's allocated bytes.
    pub max_disk: u64,
    /// Bytes that the file system must keep free, whatever the streams allow.
    pub keep_free: u64,
    /// How long a commit waits for more records, from the first on. Zero commits as soon as the last commit returned. A
    /// lone record on a log that was idle for as long commits at once, on a budget of 720 such commits an hour.
    pub commit_wait: Duration,
    /// How many devices have ledger slots of their own; the rest share the slot `other`. At most 1,048,576 do.
    pub max_devices: u32,
    /// The streams in order of priority, at most 8.
    pub streams: Vec<StreamOptions>,
}

/// Settings of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Its name, unique; a stream keeps its id by its name.
    pub name: String,
    /// Bound on the encoded bytes of waiting records.
    pub max_bytes: u64,
    /// Records older than this expire; `None` if never.
    pub max_age: Option<Duration>,
    /// What happens at the bound.
    pub when_full: WhenFull,
}

/// The policy of a stream that has reached its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// New records are refused; what is stored stays.
    Refuse,
    /// The oldest block goes, counted as evicted.
    DropOldest,
}
