//! When a commit need not wait for more: a lone message on an idle log.
//!
//! `commit_wait` lets an ack wait because each commit writes some 40 KiB to a flash card however small it is. Where nothing
//! else came for as long as that wait, nothing else is likely to come in it, and waiting only makes the ack late. So a lone
//! record commits at once, on a budget: at most one in five seconds on average, after a minute's worth at once, is some
//! 0.6 GB a day to the card, whatever the devices do.

use std::time::{Duration, Instant};

/// The average distance of early commits.
const EVERY: Duration = Duration::from_secs(5);
/// What may be saved up.
const SAVED: Duration = Duration::from_secs(60);

/// The budget of early commits, and when the last commit of records was.
#[derive(Debug)]
pub(crate) struct IdleCommit {
    last_commit: Option<Instant>,
    /// The budget is used up to here; it may run [`SAVED`] ahead of the time.
    used_until: Option<Instant>,
}

impl IdleCommit {
    pub(crate) const fn new() -> Self {
        Self {
            last_commit: None,
            used_until: None,
        }
    }

    /// Records were committed.
    pub(crate) fn committed(&mut self, now: Instant) {
        self.last_commit = Some(now);
    }

    /// Takes one early commit from the budget; false = the log was not idle for `wait`, or nothing is left.
    pub(crate) fn take(&mut self, now: Instant, wait: Duration) -> bool {
        let is_idle = self.last_commit.is_none_or(|last| now.duration_since(last) >= wait);
        let used = self.used_until.map_or(now, |used| used.max(now));
        if !is_idle || used.duration_since(now) >= SAVED {
            return false;
        }
        self.used_until = Some(used + EVERY);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_log_waits_and_an_idle_one_has_a_budget() {
        let wait = Duration::from_millis(500);
        let start = Instant::now();
        let mut early = IdleCommit::new();
        assert!(early.take(start, wait));
        early.committed(start);
        assert!(!early.take(start + wait / 2, wait), "the log was not idle");
        assert!(early.take(start + wait, wait));
        // A device that sends each second for an hour.
        let mut taken = 0;
        for second in 1..=3600 {
            let now = start + Duration::from_secs(second);
            taken += u32::from(early.take(now, wait));
            early.committed(now);
        }
        assert!((720..=735).contains(&taken), "{taken}");
    }
}
