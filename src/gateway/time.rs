//! The time that the parts go by: what is trusted, and by when certificates are judged.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_broker::tls::{CertificateClock, start};
use forebay_chain::bounded;
use forebay_wal::{Clock, Log, SystemClock};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// No wall clock before this release can be right: 2026-11-01, in milliseconds since 1970.
const RELEASED_MS: u64 = 1_793_491_200_000;

/// The machine's clock. What the log has on disk must still be told to it: [`SystemClock::remember`].
pub(crate) fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::new(RELEASED_MS))
}

/// The time by which certificates are judged: the clock where it is trusted, else what has passed by the release and the log.
pub(super) fn certificates(clock: &Arc<SystemClock>, log: Log) -> CertificateClock {
    let on_disk = move || log.status().last_trusted.map(|time| at(time.wall_ms));
    CertificateClock::of(Arc::clone(clock) as Arc<dyn Clock>, at(RELEASED_MS), on_disk)
}

/// No time past the end of a certificate of ours is written to disk; `certificates` has the ends in seconds since 1970.
pub(super) fn end_with(clock: &SystemClock, certificates: &[(String, i64)]) {
    if let Some(first) = certificates.iter().map(|(_, end)| end.max(&0).unsigned_abs()).min() {
        clock.end_at(first * 1000);
    }
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// Verifies the cloud as rustls does, but by the time that can be known: a wall clock that is not trusted would refuse every cloud. A
/// verified certificate has begun, so that time has passed; it says nothing of the present. Of the chain it looks at no more than
/// `forebay_chain` lets through: who stands in the way to the cloud needs no certificate to make a gateway search for one.
#[derive(Debug)]
pub(super) struct CloudVerifier {
    inner: Arc<WebPkiServerVerifier>,
    clock: Arc<SystemClock>,
    certificates: CertificateClock,
}

impl CloudVerifier {
    pub(super) fn new(roots: RootCertStore, clock: Arc<SystemClock>, certificates: CertificateClock) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self {
            inner: WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?,
            clock,
            certificates,
        })
    }
}

impl ServerCertVerifier for CloudVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = bounded(end_entity, intermediates).map_err(|limit| Error::General(format!("not verified: {limit}")))?;
        let now = self.certificates.judgement().for_chain(end_entity, &chain);
        let verified = self.inner.verify_server_cert(end_entity, &chain, server_name, ocsp_response, now)?;
        if let Some(began) = start(end_entity).and_then(|seconds| u64::try_from(seconds).ok()) {
            self.clock.not_before(began * 1000);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    #[test]
    fn a7_a_cloud_that_sends_look_alikes_is_refused_before_they_are_searched() {
        let ca = |at: usize| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, format!("CA {}", at % 2));
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let keys: Vec<_> = (0..21).map(|_| KeyPair::generate().unwrap()).collect();
        let issued = |params: CertificateParams, key: usize, by: usize| {
            let issuer = ca(by);
            let issuer = Issuer::from_params(&issuer, &keys[by]);
            params.signed_by(&keys[key], &issuer).unwrap().der().clone()
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca(1).self_signed(&keys[19]).unwrap().der().clone()).unwrap();
        let verifier = CloudVerifier::new(roots, clock(), CertificateClock::fixed(at(RELEASED_MS))).unwrap();
        let leaf = issued(CertificateParams::new(["cloud.test".to_owned()]).unwrap(), 20, 0);
        let others: Vec<_> = (0..20).map(|at| issued(ca(at), at, (at + 1) % 20)).collect();
        for count in 0..=others.len() {
            let name = ServerName::try_from("cloud.test").unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_millis(RELEASED_MS));
            let refused = verifier.verify_server_cert(&leaf, &others[..count], &name, &[], now).unwrap_err();
            let text = refused.to_string();
            assert_eq!(text.contains("more than 3 certificates"), count > 3, "{count}: {text}");
        }
    }
}
