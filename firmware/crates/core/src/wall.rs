//! What the device knows of the date.
//!
//! It has no battery. At boot it knows one moment that has certainly passed: the build of its image, or the last time it
//! noted in flash. From then on it counts. The gateway tells the time in each CONNACK, over a connection that it proved its
//! name on; that may set the clock forward or back, but
//! - never before the build, and
//! - never past the end of the certificate that the gateway has just shown.
//!
//! The second bound is what keeps a wrong gateway from locking a device out: whatever it says, the device can still judge
//! that very certificate as valid, and be told better next time.

use core::time::Duration;

use crate::clock::Uptime;

/// A moment, and how far it can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Whether a gateway told it in this boot. If not, it is the least that the time can be.
    pub is_told: bool,
}

/// Counts on from the last moment known.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    build: Duration,
    known: Duration,
    known_at: Uptime,
    is_told: bool,
}

/// What became of a time that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The clock is set.
    Set,
    /// It lies before the build or past the certificate: it is not believed.
    Refused,
}

impl WallClock {
    /// At boot: the build's time, and the last time noted in flash, if there is one. Both since 1970.
    pub fn new(build: Duration, noted: Option<Duration>, now: Uptime) -> Self {
        Self {
            build,
            known: noted.map_or(build, |noted| noted.max(build)),
            known_at: now,
            is_told: false,
        }
    }

    /// Takes the time that the gateway told, if it lies between the build and the end of the gateway's certificate.
    pub fn tell(&mut self, time: Duration, valid_until: Option<Duration>, now: Uptime) -> Told {
        if time < self.build || valid_until.is_some_and(|end| time > end) {
            return Told::Refused;
        }
        self.known = time;
        self.known_at = now;
        self.is_told = true;
        Told::Set
    }

    /// Since 1970, as far as is known.
    pub fn at(&self, moment: Uptime) -> Duration {
        let since = if moment >= self.known_at {
            self.known.saturating_add(moment.since(self.known_at))
        } else {
            self.known.saturating_sub(self.known_at.since(moment))
        };
        since.max(self.build)
    }

    /// Since 1970, if a gateway told it in this boot.
    pub fn told_at(&self, moment: Uptime) -> Option<Duration> {
        self.is_told.then(|| self.at(moment))
    }

    /// The time for judging certificates.
    pub fn wall_time(&self, now: Uptime) -> WallTime {
        WallTime {
            seconds: self.at(now).as_secs(),
            is_told: self.is_told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: Duration = Duration::from_secs(1_790_000_000);

    fn at(seconds: u64) -> Uptime {
        Uptime::from_millis(seconds * 1000)
    }

    #[test]
    fn the_clock_begins_at_the_later_of_build_and_note() {
        let hour = Duration::from_secs(3600);
        assert_eq!(WallClock::new(BUILD, None, at(0)).at(at(5)), BUILD + Duration::from_secs(5));
        assert_eq!(WallClock::new(BUILD, Some(BUILD - hour), at(0)).at(at(0)), BUILD);
        assert_eq!(WallClock::new(BUILD, Some(BUILD + hour), at(0)).at(at(0)), BUILD + hour);
    }

    #[test]
    fn the_gateway_sets_it_forward_and_back_but_never_before_the_build() {
        let day = Duration::from_secs(86_400);
        let mut clock = WallClock::new(BUILD, Some(BUILD + day), at(0));
        assert_eq!(clock.told_at(at(1)), None);
        assert_eq!(clock.tell(BUILD + 3 * day, None, at(10)), Told::Set);
        assert_eq!(clock.at(at(20)), BUILD + 3 * day + Duration::from_secs(10));
        assert_eq!(clock.tell(BUILD + day / 2, None, at(30)), Told::Set);
        assert_eq!(clock.told_at(at(30)), Some(BUILD + day / 2));
        assert_eq!(clock.tell(BUILD - Duration::from_secs(1), None, at(30)), Told::Refused);
        assert_eq!(clock.told_at(at(30)), Some(BUILD + day / 2));
        assert_eq!(
            clock.at(at(0)),
            BUILD + day / 2 - Duration::from_secs(30),
            "an older sample's time follows"
        );
    }

    #[test]
    fn no_time_past_the_gateways_own_certificate_is_believed() {
        let end = BUILD + Duration::from_secs(1000);
        let mut clock = WallClock::new(BUILD, None, at(0));
        assert_eq!(clock.tell(end + Duration::from_secs(1), Some(end), at(0)), Told::Refused);
        assert_eq!(clock.tell(end, Some(end), at(0)), Told::Set);
    }
}
