//! What the log counts and reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::record::StreamId;

/// Counters since start; each rises only by what its name says.
#[derive(Debug, Default)]
pub struct Stats {
    /// Records committed to user streams.
    pub records_committed: AtomicU64,
    /// Commits.
    pub commits: AtomicU64,
    /// Commits that failed.
    pub commits_failed: AtomicU64,
    /// Encoded bytes of committed records.
    pub bytes_committed: AtomicU64,
    /// Records settled as delivered.
    pub delivered: AtomicU64,
    /// Records settled as expired.
    pub expired: AtomicU64,
    /// Records evicted by `drop_oldest`.
    pub evicted: AtomicU64,
    /// The same by bound.
    pub evicted_at: EvictedAt,
    /// Records that became dead letters.
    pub dead_lettered: AtomicU64,
    /// Records whose CRC was wrong or whose segment was lost.
    pub damaged: AtomicU64,
    /// Segments quarantined because they were damaged.
    pub quarantined: AtomicU64,
    /// Quarantined segments that were removed.
    pub removed_quarantined: RemovedQuarantined,
    /// Records that compaction copied from one segment to another: little waited in it, or it had failed.
    pub compacted: AtomicU64,
    /// Settlements of records that were settled already.
    pub late_settlements: AtomicU64,
    /// Payload bytes of records committed to user streams.
    pub payload_bytes: AtomicU64,
    /// Bytes written to segments, redb's own pages included; the file system's own writes are not in it.
    pub device_bytes: AtomicU64,
    /// Syncs of segments.
    pub device_syncs: AtomicU64,
    /// Calls to the disk that failed for another reason than that it is full.
    pub disk_errors: DiskErrors,
    /// Reads of a segment that were wrong and, past the page cache, right.
    pub reads_corrected: AtomicU64,
    /// Segments begun.
    pub rotations: AtomicU64,
    /// Closed segments that were opened as if they had not been closed properly, so that all of them had to be read.
    pub repairs: AtomicU64,
}

/// Records evicted by `drop_oldest`, by the bound that was reached.
#[derive(Debug, Default)]
pub struct EvictedAt {
    /// `max_bytes` of their stream.
    pub max_bytes: AtomicU64,
    /// `max_disk`.
    pub max_disk: AtomicU64,
    /// The file system had less than `keep_free`, or nothing.
    pub keep_free: AtomicU64,
}

/// Quarantined segments that were removed, by reason.
#[derive(Debug, Default)]
pub struct RemovedQuarantined {
    /// They were kept for 30 days.
    pub age: AtomicU64,
    /// All together took more than a quarter of `max_disk`.
    pub bound: AtomicU64,
    /// Their room was needed.
    pub room: AtomicU64,
}

/// A kind of call to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskCall {
    /// Opening or making a file, and locking it.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making what was written durable.
    Sync,
    /// Growing, cutting or reserving.
    SetLength,
    /// Renaming.
    Rename,
    /// Removing a file.
    Unlink,
    /// Making names durable.
    SyncDirectory,
    /// Listing the directory.
    List,
    /// Asking for sizes and times.
    Stat,
}

impl DiskCall {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::SetLength,
        Self::Rename,
        Self::Unlink,
        Self::SyncDirectory,
        Self::List,
        Self::Stat,
    ];

    /// A stable word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SetLength => "set_length",
            Self::Rename => "rename",
            Self::Unlink => "unlink",
            Self::SyncDirectory => "sync_directory",
            Self::List => "list",
            Self::Stat => "stat",
        }
    }
}

/// Calls to the disk that failed, by kind.
#[derive(Debug, Default)]
pub struct DiskErrors([AtomicU64; DiskCall::ALL.len()]);

impl DiskErrors {
    /// How many failed of a kind.
    #[must_use]
    pub fn of(&self, call: DiskCall) -> u64 {
        self.0[call as usize].load(Ordering::Relaxed)
    }

    /// Counts one; gives how many failed of its kind.
    pub(crate) fn count(&self, call: DiskCall) -> u64 {
        self.0[call as usize].fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What is kept for salvage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// How many segments.
    pub segments: u64,
    /// What they occupy.
    pub bytes: u64,
    /// When the oldest is removed for its age, seconds since 1970; `None` if the clock was not trusted yet. It goes earlier if its room is
    /// needed.
    pub until: Option<u64>,
}

/// Distributions, reported as they happen, from the writer thread; implementations must not block.
pub trait Observer: Send + Sync {
    /// A commit ended well.
    fn committed(&self, latency: Duration, records: u64, bytes: u64);

    /// The log is being opened: so many of its segments were looked at. Called from the thread that opens it.
    fn opening(&self, _segments: u64, _of: u64) {}
}

/// What was found when the log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReport {
    /// There was no log: a new one was made.
    pub new: bool,
    /// Whether the log had been closed properly.
    pub clean: bool,
    /// Records waiting in user streams.
    pub recovered: u64,
    /// Records found damaged.
    pub damaged: u64,
    /// Segments quarantined because they did not open.
    pub quarantined: u64,
    /// How long opening took.
    pub took: Duration,
}

/// The log at a glance.
#[derive(Clone, Debug)]
pub struct Status {
    /// User streams in order of priority.
    pub streams: Vec<StreamStatus>,
    /// Allocated bytes of the directory.
    pub disk_bytes: u64,
    /// Bytes free in the file system.
    pub free_bytes: u64,
    /// Damaged segments that are kept for salvage; they count in `disk_bytes`.
    pub quarantined: Quarantined,
    /// Why the log cannot write now; `None` if it can.
    pub unavailable: Option<String>,
    /// The newest trusted time on disk.
    pub last_trusted: Option<Timestamp>,
}

/// One stream at a glance.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// Its id.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// Records waiting.
    pub waiting: u64,
    /// Encoded bytes of the records waiting.
    pub waiting_bytes: u64,
    /// The stream's bound.
    pub max_bytes: u64,
    /// Provable age of the oldest waiting record.
    pub oldest: Option<Duration>,
}
