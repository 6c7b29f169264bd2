//! Errors, one enum per operation, sorted by who can act.

use std::path::PathBuf;

use crate::record::StreamId;

/// Why [`crate::Log::open`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error("the log's directory {path} cannot be used: {hint}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the operator should do.
        hint: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process holds the lock file.
    #[error("another Forebay is using {path}; stop it first, or give this one another data_dir")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The log holds records of a stream that the configuration no longer names.
    #[error(
        "stream `{name}` holds records that wait ({waiting}) but is gone from the configuration; put it back, or add it with `retire: true` to drain it"
    )]
    OrphanStream {
        /// The stream's name.
        name: String,
        /// How many records wait in it.
        waiting: u64,
    },
    /// Another version of Forebay wrote the log. Nothing in the directory was changed.
    #[error("the log in {path} has format {found}, this version knows {known}; start the Forebay that wrote it again")]
    Version {
        /// The newest segment.
        path: PathBuf,
        /// Its format.
        found: u8,
        /// What this version reads and writes.
        known: u8,
    },
    /// redb or the file system failed.
    #[error("the log in {path} could not be opened")]
    Storage {
        /// The segment.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why [`crate::Producer::append`] took nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The stream is at `max_bytes` and its policy is `refuse`.
    #[error("stream {} is at its max_bytes and refuses more until the cloud has taken some", stream.0)]
    StreamFull {
        /// The stream.
        stream: StreamId,
    },
    /// The directory is at `max_disk`, or the file system at `keep_free`, and nothing may be evicted.
    #[error("the file system is full, or the log is at gateway.max_disk: the log's status says which")]
    DiskFull,
    /// The checkpoint of sessions and retained messages is too far behind the log.
    #[error("{limit} bytes of session state wait for their checkpoint, which cannot keep up; check the disk's health and free space")]
    LocalFull {
        /// The limit.
        limit: u64,
    },
    /// The last commit failed and the log has not recovered yet.
    #[error("the log cannot write at the moment: {reason}")]
    Unavailable {
        /// The failure, in words.
        reason: String,
    },
    /// A record larger than the log's largest block.
    #[error("a record of {bytes} bytes is over the log's limit of {limit}")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A stream that the configuration does not name, or one that takes no appends.
    #[error("stream {} takes no appends: it is not in the configuration", stream.0)]
    UnknownStream {
        /// The stream.
        stream: StreamId,
    },
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
}

/// Why a batch was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch was not committed: {reason}")]
pub struct CommitError {
    /// The failure, in words.
    pub reason: String,
}

/// Why a read failed. Damage inside a readable segment is not an error: it is skipped, counted and kept for salvage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A segment could not be read.
    #[error("segment {path} could not be read")]
    Storage {
        /// The segment.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A segment is damaged and what can still be read of it is being copied to another.
    #[error("segment {path} is damaged; its readable records are being copied to another segment: try again in a moment")]
    Rescued {
        /// The segment.
        path: PathBuf,
    },
}
