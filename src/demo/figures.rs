//! What the devices count while the story goes on.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Shared by all virtual devices.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) connected: AtomicUsize,
    pub(super) refused: AtomicU64,
    /// Ack latencies since the last look.
    latencies: Mutex<Vec<Duration>>,
}

impl Figures {
    pub(super) fn acked(&self, latency: Duration) {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Acks since the last look, and the latency that 99 of 100 of them stayed below.
    pub(super) fn look(&self) -> (usize, Option<Duration>) {
        let mut latencies = std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner));
        latencies.sort_unstable();
        let p99 = latencies.get((latencies.len() * 99).div_ceil(100).saturating_sub(1)).copied();
        (latencies.len(), p99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_is_the_latency_that_99_of_100_stay_below() {
        let figures = Figures::default();
        for number in 1..=100 {
            figures.acked(Duration::from_millis(number));
        }
        assert_eq!(figures.look(), (100, Some(Duration::from_millis(99))));
        assert_eq!(figures.look(), (0, None));
    }
}
