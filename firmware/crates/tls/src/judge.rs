//! Whether a certificate is the gateway's, judged by a clock that may only know the least that the time can be.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;

use forebay_chain::{MAX_INTERMEDIATES, bounded};
use forebay_device_core::WallTime;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::validity::validity;

/// Certificates of one chain whose start may lie ahead of us: all that are looked at, and the CA.
const CHAIN: usize = MAX_INTERMEDIATES + 2;

/// rustls's verifier, with one question of its own: can our clock know that a certificate is *not valid yet*?
///
/// Before the gateway has told the time in this boot, the device knows only a moment that has certainly passed (the build,
/// or the last time it noted). An expiry before that moment is certain and refused. A start after it is not: the device
/// may have lain in a drawer while the gateway's certificate was renewed. The chain is then judged at that start, which is
/// the earliest moment at which the CA says it could be shown. Once the time is told, both ends are enforced.
///
/// A chain of more or larger certificates than `forebay_chain` lets through is refused unread.
#[derive(Debug)]
pub(crate) struct Judge {
    inner: Arc<WebPkiServerVerifier>,
    clock: Arc<HandshakeClock>,
}

/// The time of the handshake that is going on, and what it found. Seconds since 1970 fit 32 bits until 2106, and the
/// Cortex-M4 has no wider atomics.
#[derive(Debug, Default)]
pub(crate) struct HandshakeClock {
    now: AtomicU32,
    is_told: AtomicBool,
    valid_until: AtomicU32,
}

impl HandshakeClock {
    /// Sets the time for the handshake to come.
    pub(crate) fn set(&self, now: WallTime) {
        self.now.store(saturate(now.seconds), Ordering::Relaxed);
        self.is_told.store(now.is_told, Ordering::Relaxed);
        self.valid_until.store(0, Ordering::Relaxed);
    }

    /// The end of the leaf that was found good.
    pub(crate) fn valid_until(&self) -> Option<u64> {
        match self.valid_until.load(Ordering::Relaxed) {
            0 => None,
            seconds => Some(seconds.into()),
        }
    }
}

impl TimeProvider for HandshakeClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.now.load(Ordering::Relaxed).into()))
    }
}

impl Judge {
    pub(crate) fn new(inner: Arc<WebPkiServerVerifier>, clock: Arc<HandshakeClock>) -> Self {
        Self { inner, clock }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = bounded(leaf, intermediates).map_err(|limit| Error::General(format!("not verified: {limit}")))?;
        let mut now = now;
        let mut starts_ahead = 0;
        loop {
            match self.inner.verify_server_cert(leaf, &chain, name, ocsp, now) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if !self.clock.is_told.load(Ordering::Relaxed) && not_before > now && starts_ahead < CHAIN =>
                {
                    now = not_before;
                    starts_ahead += 1;
                }
                Err(error) => return Err(error),
                Ok(verified) => {
                    let until = validity(leaf).map_or(0, |found| found.not_after);
                    self.clock.valid_until.store(saturate(until), Ordering::Relaxed);
                    return Ok(verified);
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> alloc::vec::Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn unix(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn saturate(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
