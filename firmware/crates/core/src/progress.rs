//! The watchdog is fed by progress only.
//!
//! Two things must go on: measuring, and the business of connecting and sending. Each says so when a step of it has come to
//! an end, well or not: a gateway that is away for a week is no reason to restart, a loop that stands still is.

use core::time::Duration;

use crate::clock::Uptime;
use crate::notes::Cause;

/// The longest that a single step of connecting may take: a join's deadline, with room.
pub const CONNECTING_LIMIT: Duration = Duration::from_secs(60);

/// When each of the two last got on.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    measured: Uptime,
    connected: Uptime,
    measuring_limit: Duration,
}

impl Progress {
    /// At boot; measuring must get on within `measuring_limit`.
    pub fn new(now: Uptime, measuring_limit: Duration) -> Self {
        Self {
            measured: now,
            connected: now,
            measuring_limit,
        }
    }

    /// A measurement came to an end.
    pub fn measuring(&mut self, now: Uptime) {
        self.measured = now;
    }

    /// A step of connecting or sending came to an end.
    pub fn connecting(&mut self, now: Uptime) {
        self.connected = now;
    }

    /// What stands still, if anything does.
    pub fn stalled(&self, now: Uptime) -> Option<Cause> {
        if now.since(self.measured) > self.measuring_limit {
            Some(Cause::MeasuringStalled)
        } else if now.since(self.connected) > CONNECTING_LIMIT {
            Some(Cause::ConnectingStalled)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_must_get_on_by_itself() {
        let at = |seconds: u64| Uptime::from_millis(seconds * 1000);
        let mut progress = Progress::new(at(0), Duration::from_secs(30));
        assert_eq!(progress.stalled(at(30)), None);
        assert_eq!(progress.stalled(at(31)), Some(Cause::MeasuringStalled));
        for second in 1..200 {
            progress.measuring(at(second));
        }
        assert_eq!(progress.stalled(at(200)), Some(Cause::ConnectingStalled));
        progress.connecting(at(199));
        assert_eq!(progress.stalled(at(200)), None);
    }
}
