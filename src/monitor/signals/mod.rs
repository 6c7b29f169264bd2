//! Signals: what is noticed of the devices' publishes and connections (decision 0008).
//!
//! Each connection looks at its own publishes as the front accepts them ([`witness`], [`engine`]): nothing is handed over,
//! so nothing is missed. A thread ([`worker`]) looks at the time each second and keeps what is known across restarts
//! ([`checkpoint`]). Nothing is altered, nobody waits for a disk or for another device.
//!
//! # Limits
//!
//! 20,000 series and 10,000 devices, and 1,000 series of one publisher; one more is not followed, counted. A payload over
//! 64 KiB is seen but not read. A hundred series of each signal are listed, the worst first; the others are counted. A
//! connection keeps eight of its topics at hand.

mod checkpoint;
mod connections;
mod drift;
mod engine;
mod field;
mod pointers;
mod report;
mod sequence;
mod series;
mod witness;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub(crate) use connections::Moment;
pub(crate) use report::{Counters, Report, SIGNALS, Signal, Trouble, named};
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

/// A thread that panicked in between has left nothing half done that another could not go on with.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
