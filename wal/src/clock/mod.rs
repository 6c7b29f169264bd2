//! Time: what a record carries of it, what can be proved about age, and whether the machine's clock is believed.
//!
//! Everything that reckons with time asks a [`Clock`]. The choices, and who asks for what, are in `docs/decisions/0020-time.md`.

mod kernel;
pub(crate) mod marks;
mod system;
#[cfg(test)]
mod tests;
mod trust;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use system::{ClockReport, CloudTime, SystemClock};
pub use trust::{Doubt, TrustSource};

/// Names one boot of the machine. Monotonic times compare only within a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub u128);

/// A moment, with everything that is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Wall clock, milliseconds since 1970, right or wrong.
    pub wall_ms: u64,
    /// The boot in which it was taken.
    pub boot: BootId,
    /// Milliseconds since that boot, sleep included.
    pub monotonic_ms: u64,
    /// Whether the wall clock was believed at that moment.
    pub trusted: bool,
}

impl Timestamp {
    /// How long before `now` this was, as far as it can be proved: monotonic within a boot; across boots the wall
    /// difference if both ends are trusted; otherwise `None`. Never negative.
    #[must_use]
    pub fn age(&self, now: &Self) -> Option<Duration> {
        if self.boot == now.boot {
            return Some(Duration::from_millis(now.monotonic_ms.saturating_sub(self.monotonic_ms)));
        }
        (self.trusted && now.trusted).then(|| Duration::from_millis(now.wall_ms.saturating_sub(self.wall_ms)))
    }
}

/// A time of another boot that is so much later than the present is wrong.
const FUTURE_MS: u64 = 60_000;

impl Timestamp {
    /// The moment that an age is counted from: this one, or `now` where `now` is trusted and this one can never prove an age, being of
    /// another boot whose clock was not trusted or was ahead. Without it what carries such a time would never grow old.
    #[must_use]
    pub fn or_since(self, now: &Self) -> Self {
        let proves_nothing = !self.trusted || self.wall_ms > now.wall_ms + FUTURE_MS;
        if self.boot != now.boot && now.trusted && proves_nothing {
            *now
        } else {
            self
        }
    }
}

/// Where time comes from; passed in, so that a test can own it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// The present moment if it may be written to disk as the last trusted time; it may be earlier than the one there.
    fn lasting(&self) -> Option<Timestamp> {
        Some(self.now()).filter(|now| now.trusted)
    }

    /// A commit has left this last trusted time on disk.
    fn kept(&self, _last_trusted: Option<Timestamp>) {}

    /// For how long the machine has been suspended since it booted. Timers stand still meanwhile, boot time does not.
    fn asleep(&self) -> Duration {
        Duration::ZERO
    }
}

/// The machine's wall clock, right or wrong: for what a person reads, and for commands that judge files. What acts by the time
/// asks a [`Clock`].
#[must_use]
pub fn wall_clock() -> SystemTime {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    SystemTime::now()
}

/// A random number; the time when the system has no randomness to give.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| wall_clock().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64))
}

/// The number of a new epoch. All have the same length in a row of the state, so that a simulation replays.
pub(crate) fn new_epoch() -> u64 {
    random_u64() | 1 << 63
}
