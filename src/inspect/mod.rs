//! The log as an operator sees it: what the commands print and the admin API sends, over a running log and a stopped one
//! alike. `docs/log.md` describes every field.

mod change;
mod clock;
mod line;
mod read;
mod selection;
mod stat;

pub(crate) use change::{Change, Changed, MAX_AT_ONCE, Numbers, change};
pub(crate) use clock::{ClockLine, ahead_seconds, clock, warned_at};
pub(crate) use line::{AuditLine, Line, PartLine, Printable, RecordLine, SegmentLine, State, salvaged, wall};
pub(crate) use read::{audit, follow, letters, records, segments, tail, verify};
pub(crate) use selection::{Selection, moment};
pub(crate) use stat::{About, Live, Stat, stat};
