//! The time by which certificates are judged.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

type Source = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The system clock, but never earlier than a floor.
///
/// A board without a battery boots in 1970, or at the date its image was built. Judged by that clock a certificate made yesterday is
/// not valid yet. The floor is the latest moment that is known to have passed: the last trusted time on disk, the build, the start of
/// our newest certificate. It may rise while the process runs, so it is asked at every handshake.
#[derive(Clone)]
pub struct CertificateClock {
    now: Source,
    floor: Source,
}

impl CertificateClock {
    /// The system clock over `floor`.
    pub fn system(floor: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self::new(SystemTime::now, floor)
    }

    /// Any clock over any floor.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static, floor: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            now: Arc::new(now),
            floor: Arc::new(floor),
        }
    }

    /// The same clock with a floor that is at least `moment`.
    pub fn at_least(&self, moment: SystemTime) -> Self {
        let floor = self.floor.clone();
        Self {
            now: self.now.clone(),
            floor: Arc::new(move || floor().max(moment)),
        }
    }

    /// The later of clock and floor.
    pub fn judged(&self) -> SystemTime {
        (self.now)().max((self.floor)())
    }

    /// The same in seconds since 1970, as certificates write it.
    pub fn judged_seconds(&self) -> i64 {
        let since = self.judged().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

impl TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            self.judged_seconds().unsigned_abs(),
        )))
    }
}

impl fmt::Debug for CertificateClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateClock").field("judged", &self.judged_seconds()).finish()
    }
}
