//! How long to wait before the next try: never not at all, and never together with the others.

use core::time::Duration;

/// Randomness that needs no secrecy: jitter.
pub trait Random {
    /// Any 32 bits.
    fn draw(&mut self) -> u32;
}

/// A wait before a try to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Failures since a connection last proved stable, the one before this wait included.
    pub failures: u32,
    /// How long it is.
    pub wait: Duration,
}

/// Waits with full jitter: any time between nothing and a ceiling that doubles with each failure up to `longest`.
///
/// There is no limit of tries. A thousand devices whose gateway returns do not dial in one second: each draws for itself.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of up to `first` after the first failure, and never above `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The most that the next wait can be.
    pub fn ceiling(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }

    /// Counts a failure and draws the wait before the next try, to the millisecond.
    pub fn next(&mut self, random: &mut impl Random) -> Retry {
        let ceiling = u64::try_from(self.ceiling().as_millis()).unwrap_or(u64::MAX);
        self.failures = self.failures.saturating_add(1);
        // The top 32 bits of a product are a fair share of it; the ceiling is far below 2^32 ms.
        let share = (u64::from(random.draw()) * ceiling.saturating_add(1)) >> 32;
        Retry {
            failures: self.failures,
            wait: Duration::from_millis(share),
        }
    }

    /// Begins anew: the connection proved stable.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u32);

    impl Random for Fixed {
        fn draw(&mut self) -> u32 {
            self.0
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_never_stop() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut last = Duration::ZERO;
        for failure in 0..100_000_u32 {
            let expected = if failure < 6 { 1 << failure } else { 60 };
            assert_eq!(backoff.ceiling(), Duration::from_secs(expected));
            last = backoff.next(&mut Fixed(u32::MAX)).wait;
            assert!(last <= Duration::from_secs(expected));
        }
        assert_eq!(last, Duration::from_secs(60));
        backoff.reset();
        assert_eq!(backoff.ceiling(), Duration::from_secs(1));
    }

    #[test]
    fn jitter_is_full_from_nothing_to_the_ceiling() {
        let wait = |draw| {
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60))
                .next(&mut Fixed(draw))
                .wait
        };
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(u32::MAX / 2), Duration::from_millis(500));
        assert_eq!(wait(u32::MAX), Duration::from_secs(1));
    }
}
