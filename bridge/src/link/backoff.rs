//! When to connect again: exponential with full jitter, unlimited, reset only by a connection that proved stable.
//! Time and randomness are passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::Backoff;

/// Doublings of the delay while files are missing.
const FAILURES_WITHOUT_FILES: u32 = 3;
/// A takeover is followed by at least this many doublings: two gateways with one client id must not disconnect each other in turn.
const FAILURES_AFTER_TAKEOVER: u32 = 4;
/// Doublings of the delay while a poison message is looked for, also where each try ends as a takeover.
const FAILURES_OF_A_SEARCH: u32 = 4;

#[derive(Debug)]
pub(crate) struct Retries {
    config: Backoff,
    failures: u32,
    last_connect: Option<Instant>,
}

impl Retries {
    pub(crate) const fn new(config: Backoff) -> Self {
        Self {
            config,
            failures: 0,
            last_connect: None,
        }
    }

    /// How long to wait before the next CONNECT; `jitter` is a random number from 0 to 1.
    pub(crate) fn delay(&self, now: Instant, jitter: f64) -> Duration {
        let backoff = self.bound().mul_f64(jitter.clamp(0.0, 1.0));
        let spacing = self
            .last_connect
            .map_or(Duration::ZERO, |at| (at + self.config.connect_spacing).duration_since(now));
        backoff.max(spacing)
    }

    pub(crate) const fn connecting(&mut self, now: Instant) {
        self.last_connect = Some(now);
    }

    /// A try or a connection ended; `lived` is how long it had been accepted, `None` if it never was.
    pub(crate) fn ended(&mut self, lived: Option<Duration>, taken_over: bool) {
        if lived.is_some_and(|lived| lived >= self.config.stable_after) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        if taken_over {
            self.failures = self.failures.max(FAILURES_AFTER_TAKEOVER);
        }
    }

    /// Files of this machine were missing and nothing was dialled: no peer has to be spared, so they are looked for every few seconds.
    pub(crate) const fn waits_for_files(&mut self) {
        self.failures = FAILURES_WITHOUT_FILES;
    }

    /// The link is good, and a message is about to be found that makes the peer close: all others wait for that.
    pub(crate) fn searches(&mut self) {
        self.failures = self.failures.min(FAILURES_OF_A_SEARCH);
    }

    /// The message that made the peer close is found: the link is as good as before it.
    pub(crate) const fn found_poison(&mut self) {
        self.failures = 0;
    }

    fn bound(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => self
                .config
                .initial
                .saturating_mul(1 << (failures - 1).min(20))
                .min(self.config.ceiling),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(retries: &mut Retries, ends: usize, lived: Option<Duration>) -> Vec<u64> {
        let far = Instant::now() + Duration::from_secs(1000);
        (0..ends)
            .map(|_| {
                retries.ended(lived, false);
                retries.delay(far, 1.0).as_secs()
            })
            .collect()
    }

    #[test]
    fn k26_delays_double_to_the_ceiling_and_connections_under_a_minute_do_not_reset_them() {
        let mut retries = Retries::new(Backoff::default());
        assert_eq!(retries.delay(Instant::now(), 1.0), Duration::ZERO, "the first try is at once");
        assert_eq!(bounds(&mut retries, 4, None), [1, 2, 4, 8]);
        assert_eq!(bounds(&mut retries, 5, Some(Duration::from_secs(59))), [16, 32, 64, 120, 120]);
        assert_eq!(bounds(&mut retries, 2, Some(Duration::from_secs(60))), [1, 1]);
    }

    #[test]
    fn jitter_spreads_over_the_whole_delay_but_connects_stay_apart() {
        let mut retries = Retries::new(Backoff::default());
        let now = Instant::now();
        retries.connecting(now);
        retries.ended(None, false);
        assert_eq!(retries.delay(now, 0.0), Duration::from_secs(1), "AWS takes one CONNECT a second");
        assert_eq!(retries.delay(now + Duration::from_secs(5), 0.0), Duration::ZERO);
    }

    #[test]
    fn e8_files_that_are_missing_for_hours_do_not_delay_the_try_after_they_came() {
        let mut retries = Retries::new(Backoff::default());
        for _ in 0..10_000 {
            retries.waits_for_files();
        }
        assert_eq!(retries.delay(Instant::now(), 1.0), Duration::from_secs(4));
    }

    #[test]
    fn a_takeover_starts_higher() {
        let mut retries = Retries::new(Backoff::default());
        retries.ended(Some(Duration::from_secs(3600)), true);
        assert_eq!(retries.delay(Instant::now(), 1.0), Duration::from_secs(8));
    }

    #[test]
    fn a_poison_message_that_is_found_does_not_slow_down_the_search_for_the_next() {
        let mut retries = Retries::new(Backoff::default());
        assert_eq!(bounds(&mut retries, 5, Some(Duration::from_secs(2))), [1, 2, 4, 8, 16]);
        retries.found_poison();
        assert_eq!(bounds(&mut retries, 5, Some(Duration::from_secs(2))), [1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_year_of_failures_does_not_overflow() {
        let mut retries = Retries::new(Backoff {
            initial: Duration::from_secs(u64::MAX / 2),
            ..Backoff::default()
        });
        (0..100_000).for_each(|_| retries.ended(None, false));
        assert_eq!(retries.delay(Instant::now(), 1.0), Duration::from_secs(120));
    }
}
