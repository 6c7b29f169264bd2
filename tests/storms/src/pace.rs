//! How fast a storm goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What a storm that was held up may catch up with at once.
const SLACK: Duration = Duration::from_millis(20);

/// The rate of a storm, which can be changed while it goes on, and what it has done so far.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// Nanoseconds between two events; 0 = as fast as it can.
    interval: AtomicU64,
    /// When the next event is due, in nanoseconds since the beginning.
    next: AtomicU64,
    done: AtomicU64,
}

impl Pace {
    /// So many events per second.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        let pace = Self::unlimited();
        pace.set(per_second);
        pace
    }

    /// As fast as one task can.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            began: Instant::now(),
            interval: AtomicU64::new(0),
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// From now on so many events per second.
    pub fn set(&self, per_second: f64) {
        self.interval.store((1e9 / per_second) as u64, Ordering::Relaxed);
    }

    /// Events so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until the next event is due.
    pub(crate) async fn tick(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 {
            return tokio::task::consume_budget().await;
        }
        let now = self.began.elapsed().as_nanos() as u64;
        let due = self.next.load(Ordering::Relaxed).max(now.saturating_sub(SLACK.as_nanos() as u64));
        self.next.store(due + interval, Ordering::Relaxed);
        // A timer has milliseconds: what is due within one goes together.
        if due > now + 1_000_000 {
            tokio::time::sleep_until(self.began + Duration::from_nanos(due)).await;
        }
    }
}
