//! For tests of what stands on the log.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{BootId, Clock, Timestamp};
use crate::stats::Observer;
use crate::sync::lock;

/// A clock that a test moves.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>, AtomicU64);

impl ManualClock {
    /// Stands still at `at`.
    #[must_use]
    pub const fn new(at: Timestamp) -> Self {
        Self(Mutex::new(at), AtomicU64::new(0))
    }

    /// A trusted moment in 2023, a minute after boot 1.
    #[must_use]
    pub const fn trusted() -> Self {
        Self::new(Timestamp {
            wall_ms: 1_700_000_000_000,
            boot: BootId(1),
            monotonic_ms: 60_000,
            trusted: true,
        })
    }

    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut at = lock(&self.0);
        at.wall_ms += by.as_millis() as u64;
        at.monotonic_ms += by.as_millis() as u64;
    }

    /// The machine is suspended: both clocks go on, timers stand still.
    pub fn suspend(&self, by: Duration) {
        self.advance(by);
        self.1.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// The clock is set, or the machine booted.
    pub fn set(&self, at: Timestamp) {
        *lock(&self.0) = at;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *lock(&self.0)
    }

    fn asleep(&self) -> Duration {
        Duration::from_millis(self.1.load(Ordering::Relaxed))
    }
}

/// An observer that looks away.
#[derive(Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn committed(&self, _latency: Duration, _records: u64, _bytes: u64) {}
}
