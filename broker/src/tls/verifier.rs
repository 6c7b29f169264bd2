//! The certificate check of one handshake, remembering what it saw.

use std::sync::{Arc, OnceLock};

use super::Judgement;
use forebay_chain::{MAX_BYTES, Unbounded, bounded};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

/// What a peer presented, and whether its certificate was found good.
#[derive(Debug)]
pub(super) struct Presented {
    /// Empty if it is larger than what is looked at.
    pub(super) der: Vec<u8>,
    /// What was looked at besides.
    pub(super) intermediates: Vec<Vec<u8>>,
    pub(super) trusted: bool,
}

/// Passes every decision to the shared verifier and keeps the certificate. The verifier is given only as much of a chain as it can
/// judge in a short time.
///
/// rustls forgets a certificate that it refuses, and a refusal that cannot name the device is of little use to an operator. It also
/// reports a bad signature in the certificate and a peer that does not hold its key by the same error; `trusted` tells them apart.
#[derive(Debug)]
pub(super) struct RememberingVerifier {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) presented: Arc<OnceLock<Presented>>,
    pub(super) judgement: Judgement,
}

impl ClientCertVerifier for RememberingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = bounded(end_entity, intermediates);
        let verdict = match &chain {
            Ok(chain) => {
                let now = self.judgement.for_chain(end_entity, chain);
                self.inner.verify_client_cert(end_entity, chain, now)
            }
            Err(unbounded) => Err(refusal(*unbounded)),
        };
        self.presented.get_or_init(|| Presented {
            intermediates: chain.iter().flatten().map(|certificate| certificate.to_vec()).collect(),
            der: if end_entity.len() > MAX_BYTES {
                Vec::new()
            } else {
                end_entity.to_vec()
            },
            trusted: verdict.is_ok(),
        });
        verdict
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

/// The refusal of a chain in rustls's terms; [`unbounded`] finds it there again.
fn refusal(chain: Unbounded) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(chain))))
}

/// The limit that a chain exceeded, if that is why it was refused.
pub(super) fn unbounded(cause: &CertificateError) -> Option<Unbounded> {
    match cause {
        CertificateError::Other(OtherError(error)) => error.downcast_ref().copied(),
        _ => None,
    }
}
