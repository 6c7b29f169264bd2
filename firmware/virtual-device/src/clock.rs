//! tokio's clock as the device's.

use std::time::Duration;

use forebay_device_core::{Clock, Uptime};
use tokio::time::{Instant, sleep_until};

/// Time since the device's start. Under tokio's paused time it is a test's clock.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    began: Instant,
}

impl HostClock {
    /// The device starts now.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn instant(self, moment: Uptime) -> Instant {
        self.began + Duration::from_millis(moment.as_millis())
    }
}

impl Clock for HostClock {
    fn now(&self) -> Uptime {
        Uptime::from_millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn wait_until(&self, moment: Uptime) {
        sleep_until(self.instant(moment)).await;
    }
}
