//! The machine's clock as an operator sees it. `docs/status.md` describes the fields.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_wal::{ClockReport, Doubt, Timestamp};
use serde::{Deserialize, Serialize};

use super::wall;

/// What the clock is like, and what the log knows of the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockLine {
    /// The wall clock.
    pub(crate) now: String,
    /// Whether it is trusted.
    pub(crate) trusted: bool,
    /// Why, or why not: one word.
    pub(crate) reason: String,
    /// The same for a person.
    pub(crate) detail: String,
    /// The last trusted time on disk.
    pub(crate) last_trusted: Option<String>,
    /// How far that is ahead of the wall clock; negative = it has passed.
    pub(crate) last_trusted_ahead_seconds: Option<i64>,
    /// Steps of the wall clock that the running gateway has noticed.
    pub(crate) jumps: u64,
    /// For how long the machine has been suspended since it booted.
    pub(crate) suspended_seconds: u64,
}

/// Puts it together.
pub(crate) fn clock(report: &ClockReport, last_trusted: Option<Timestamp>) -> ClockLine {
    let (reason, detail) = match report.trust {
        Ok(source) => (source.label(), source.to_string()),
        Err(doubt) => (doubt.label(), doubt.to_string()),
    };
    ClockLine {
        now: wall(report.now.wall_ms),
        trusted: report.trust.is_ok(),
        reason: reason.to_owned(),
        detail,
        last_trusted: last_trusted.map(|time| wall(time.wall_ms)),
        last_trusted_ahead_seconds: last_trusted.map(|time| ahead_seconds(&time, &report.now)),
        jumps: report.jumps,
        suspended_seconds: report.asleep.as_secs(),
    }
}

/// By when a person is warned of what expires: `judged`, or the wall clock where that is later and not known to be wrong. A warning
/// that comes too early harms less than none.
pub(crate) fn warned_at(report: &ClockReport, judged: SystemTime) -> SystemTime {
    let is_wrong = report.trust.is_err_and(Doubt::is_wrong);
    let wall = UNIX_EPOCH + Duration::from_millis(report.now.wall_ms);
    if is_wrong { judged } else { judged.max(wall) }
}

/// How far a time on disk is ahead of the wall clock.
pub(crate) fn ahead_seconds(time: &Timestamp, now: &Timestamp) -> i64 {
    (time.wall_ms.cast_signed() - now.wall_ms.cast_signed()) / 1000
}
