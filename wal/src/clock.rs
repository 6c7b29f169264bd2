//! Time as records carry it: what can be proved about age (design section 8).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Where time comes from; passed in, so that a test can own it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock. The wall clock is trusted from `trusted_after_ms` on: the latest of the build's date and the
/// newest trusted time that the log has on disk.
#[derive(Debug)]
pub struct SystemClock {
    boot: BootId,
    trusted_after_ms: u64,
}

impl SystemClock {
    /// The machine's clock, believed when it shows `trusted_after_ms` (milliseconds since 1970) or later.
    #[must_use]
    pub fn new(trusted_after_ms: u64) -> Self {
        Self {
            boot: boot_id(),
            trusted_after_ms,
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let wall_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let monotonic_ms = since_boot.tv_sec.unsigned_abs() * 1000 + since_boot.tv_nsec.unsigned_abs() / 1_000_000;
        Timestamp {
            wall_ms,
            boot: self.boot,
            monotonic_ms,
            trusted: wall_ms >= self.trusted_after_ms,
        }
    }
}

/// The kernel's name for this boot; without one, a random name, which proves no age beyond this process.
fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    BootId(u128::from_str_radix(&digits, 16).unwrap_or_else(|_| u128::from(random_u64()) << 64 | u128::from(random_u64())))
}

/// A random number; the time when the system has no randomness to give.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64)
    })
}
