//! Signals: what is noticed of the devices' publishes and connections (decision 0007).
//!
//! The front hands over what it accepts ([`handoff`]); a thread of its own ([`worker`]) looks at it ([`engine`]) and keeps
//! what it knows across restarts ([`checkpoint`]). Nothing is altered, nobody waits.
//!
//! # Limits
//!
//! 8,192 publishes and 16 MiB wait; what comes then is not looked at, counted, and no gap is told over it. 20,000 series and
//! 10,000 devices; one more is not followed, counted. A payload over 64 KiB is seen but not read. A hundred series of each
//! signal are listed, the worst first; the others are counted.

mod checkpoint;
mod connections;
mod drift;
mod engine;
mod field;
mod handoff;
mod report;
mod sequence;
mod series;
mod worker;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(crate) use connections::Moment;
pub(crate) use report::{Report, SIGNALS, Signal, Trouble};
pub(crate) use series::rough;
pub(crate) use worker::{Watch, start};

/// Milliseconds on the watch's own clock: since boot, negative for what was before.
type Ms = i64;

/// Events of the last five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    count: u64,
    since: Ms,
    last: Ms,
}
