//! The device's own clock.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// A moment of this boot, in milliseconds since it began. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(u64);

impl Uptime {
    /// The moment this many milliseconds after the boot.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the boot.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; nothing if it is still to come.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Uptime {
    type Output = Self;

    /// Stops at the end of time rather than wrapping.
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}

/// Time as the device knows it: passed in, so that a test owns it.
#[expect(async_fn_in_trait, reason = "the device's futures stay on one thread")]
pub trait Clock {
    /// Now.
    fn now(&self) -> Uptime;

    /// Returns at `moment`, at once if that has passed.
    async fn wait_until(&self, moment: Uptime);
}

impl<C: Clock> Clock for &C {
    fn now(&self) -> Uptime {
        (*self).now()
    }

    async fn wait_until(&self, moment: Uptime) {
        (*self).wait_until(moment).await;
    }
}
