//! The time by which certificates are judged.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_wal::Clock;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use x509_parser::prelude::{FromDer, X509Certificate};

type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// What is known of the present moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It is this.
    Proved(SystemTime),
    /// It is not known; `last_trusted` has passed if the disk is right.
    Unknown {
        /// The last trusted time on disk.
        last_trusted: Option<SystemTime>,
    },
}

/// The time by which certificates are judged: the wall clock where it is trusted, else the latest moment that is known to have passed.
///
/// A board without a battery boots in 1970, or at the date its image was built, and a clock that was set wrong may show 2099. Judged
/// by the one, a certificate made yesterday is not valid yet; judged by the other, all have expired. So a clock that is not trusted
/// does not count at all. What has passed is the build, the start of our own certificate, and the last trusted time on disk, unless
/// that lies beyond the end of our own certificate, which shows it to be wrong. It may rise while the process runs, so it is asked
/// at every handshake.
#[derive(Clone)]
pub struct CertificateClock {
    now: Source<Moment>,
    /// The build, and our certificate's start.
    past: SystemTime,
    /// Our certificate's end.
    end: Option<SystemTime>,
}

/// When a certificate is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    at: SystemTime,
    /// The present is not known: a certificate that begins after `at`, but no later than this, may be valid by now. Seconds since 1970.
    latest: Option<i64>,
}

impl CertificateClock {
    /// A clock that tells the present, or that it does not know it. No moment before `past` can be right.
    pub fn new(now: impl Fn() -> Moment + Send + Sync + 'static, past: SystemTime) -> Self {
        Self {
            now: Arc::new(now),
            past,
            end: None,
        }
    }

    /// A time that is not to be doubted.
    pub fn fixed(now: SystemTime) -> Self {
        Self::new(move || Moment::Proved(now), UNIX_EPOCH)
    }

    /// `clock`, and the last trusted time on disk.
    pub fn of(clock: Arc<dyn Clock>, past: SystemTime, last_trusted: impl Fn() -> Option<SystemTime> + Send + Sync + 'static) -> Self {
        let now = move || {
            let now = clock.now();
            if now.trusted {
                Moment::Proved(UNIX_EPOCH + Duration::from_millis(now.wall_ms))
            } else {
                Moment::Unknown {
                    last_trusted: last_trusted(),
                }
            }
        };
        Self::new(now, past)
    }

    /// The same clock beside a certificate of ours: its start has passed, and no time after its end is taken from the disk.
    pub fn beside(&self, start: SystemTime, end: SystemTime) -> Self {
        Self {
            now: Arc::clone(&self.now),
            past: self.past.max(start),
            end: Some(self.end.map_or(end, |known| known.min(end))),
        }
    }

    /// When a certificate is judged that is presented now.
    pub fn judgement(&self) -> Judgement {
        match (self.now)() {
            Moment::Proved(now) => Judgement {
                at: now.max(self.past),
                latest: None,
            },
            Moment::Unknown { last_trusted } => {
                let is_right = |at: &SystemTime| self.end.is_none_or(|end| *at <= end);
                Judgement {
                    at: last_trusted.filter(is_right).map_or(self.past, |at| at.max(self.past)),
                    latest: Some(self.end.map_or(i64::MAX, seconds)),
                }
            }
        }
    }

    /// The moment of [`CertificateClock::judgement`] in seconds since 1970, as certificates write it.
    pub fn judged_seconds(&self) -> i64 {
        seconds(self.judgement().at)
    }
}

impl Judgement {
    /// The latest moment that is known to have passed: the present, where that is known.
    pub const fn at(&self) -> SystemTime {
        self.at
    }

    /// The moment for a chain: where the present is not known, the first moment of which all of the chain may be valid. Without this
    /// a device whose certificate is newer than all we know would be refused until the clock is right.
    pub fn for_chain(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> UnixTime {
        let at = seconds(self.at);
        let begins = || std::iter::once(end_entity).chain(intermediates).filter_map(|der| start(der)).max();
        let latest = self.latest.and_then(|latest| begins().filter(|begins| *begins <= latest));
        unix(latest.map_or(at, |begins| at.max(begins)))
    }
}

impl TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.judged_seconds()))
    }
}

impl fmt::Debug for CertificateClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateClock").field("judgement", &self.judgement()).finish()
    }
}

/// When a certificate begins, in seconds since 1970.
pub fn start(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_before.timestamp())
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(year: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952)
    }

    fn unknown(last_trusted: Option<SystemTime>) -> CertificateClock {
        CertificateClock::new(move || Moment::Unknown { last_trusted }, year(2026)).beside(year(2025), year(2031))
    }

    #[test]
    fn a_trusted_clock_is_the_time_and_a_floor_that_lies_ahead_of_it_gives_way() {
        let proved = CertificateClock::new(|| Moment::Proved(year(2027)), year(2026)).beside(year(2025), year(2031));
        assert_eq!(proved.judgement().at, year(2027));
        // Even beyond our own certificate: devices are judged by the truth.
        assert_eq!(
            CertificateClock::fixed(year(2040)).beside(year(2025), year(2031)).judgement().at,
            year(2040)
        );
    }

    #[test]
    fn an_untrusted_clock_does_not_count() {
        assert_eq!(unknown(None).judgement().at, year(2026), "the build");
        assert_eq!(unknown(Some(year(2028))).judgement().at, year(2028), "the disk");
        assert_eq!(unknown(Some(year(2024))).judgement().at, year(2026));
        assert_eq!(unknown(Some(year(2099))).judgement().at, year(2026), "B2: the disk was wrong");
        assert_eq!(
            unknown(None).beside(year(2027), year(2031)).judgement().at,
            year(2027),
            "our certificate"
        );
    }
}
