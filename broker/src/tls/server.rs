//! One listener's side of mutual TLS.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SignatureAlgorithm};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};

use super::files::{self, TlsError};
use super::verifier::{Presented, RememberingVerifier};
use super::{CertificateClock, certificate_names, utc_text};

/// Where a listener's PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate first, then any intermediates.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
    /// The CAs whose devices are let in: several, and two during a rotation.
    pub client_ca: PathBuf,
    /// Revocation lists of those CAs; a CA without one has nothing revoked.
    pub crl: Option<PathBuf>,
}

/// 9999, where certificates end that have no end, in seconds since 1970.
const FAR: i64 = 253_402_300_799;

/// One listener's certificate, key, device CAs and revocation lists, ready to accept handshakes. Cheap to clone; build a new one to reload.
#[derive(Debug, Clone)]
pub struct ServerTls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    provider: Arc<CryptoProvider>,
    clock: CertificateClock,
    verifier: Arc<dyn ClientCertVerifier>,
    certificate: Arc<dyn ResolvesServerCert>,
    key_algorithm: SignatureAlgorithm,
    names: Arc<[String]>,
    judged: Vec<Judged>,
}

/// A certificate of ours, or a CA's, whose validity is watched.
#[derive(Debug)]
struct Judged {
    path: PathBuf,
    subject: String,
    not_before: i64,
    not_after: i64,
}

impl ServerTls {
    /// Reads and checks the files. `clock` gains our certificate's start, which has passed, and its end.
    ///
    /// A certificate that is past its end is *not* an error here: boards without a clock accept it, and a gateway that comes back
    /// from a power cut must still serve them and drain its log. Ask [`ServerTls::overdue`] and say so loudly.
    ///
    /// # Errors
    /// [`TlsError`], one per cause, with the path and what to do.
    pub fn load(files: &TlsFiles, clock: &CertificateClock) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = files::certificates("the certificate", &files.certificate)?;
        let names: Arc<[String]> = certificate_names(&chain[0]).into();
        let own = Judged::read("the certificate", &files.certificate, &chain[0])?;
        let key = certified_key(files, chain, &provider)?;

        let authorities = files::certificates("the device CA file", &files.client_ca)?;
        let mut judged = Vec::new();
        for authority in &authorities {
            judged.push(Judged::read_authority(&files.client_ca, authority)?);
        }
        let lists = match &files.crl {
            Some(path) => own_lists(path, &authorities)?,
            None => Vec::new(),
        };
        let verifier = verifier(files, &authorities, lists, provider.clone())?;

        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.clamp(0, FAR).unsigned_abs());
        let clock = clock.beside(at(own.not_before), at(own.not_after));
        judged.insert(0, own);
        let key_algorithm = key.key.algorithm();
        let certificate = Arc::new(SingleCertAndKey::from(key));
        let shared = Shared {
            provider,
            clock,
            verifier,
            certificate,
            key_algorithm,
            names,
            judged,
        };
        let tls = Self { shared: Arc::new(shared) };
        tls.handshake(Arc::default()).map_err(|error| TlsError::Setup {
            path: files.certificate.clone(),
            detail: error.to_string(),
        })?;
        Ok(tls)
    }

    /// The DNS names and addresses our certificate is for.
    pub fn names(&self) -> &Arc<[String]> {
        &self.shared.names
    }

    /// The end of our certificate's validity, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.shared.judged[0].not_after
    }

    /// When our certificate ended, if it has by the judged time; in seconds since 1970.
    pub(super) fn ended(&self) -> Option<i64> {
        Some(self.not_after()).filter(|end| *end < self.shared.clock.judged_seconds())
    }

    /// The kind of our key.
    pub(super) fn key_algorithm(&self) -> SignatureAlgorithm {
        self.shared.key_algorithm
    }

    /// The clock its handshakes are judged by.
    pub fn clock(&self) -> &CertificateClock {
        &self.shared.clock
    }

    /// Our certificate and the device CAs that are expired or not yet valid by the judged time, for a loud line at start and each hour.
    pub fn overdue(&self) -> Vec<TlsError> {
        let now = self.shared.clock.judged_seconds();
        self.shared.judged.iter().filter_map(|certificate| certificate.fault(now)).collect()
    }

    /// The configuration of a single handshake; what the peer presents is left in `presented`.
    pub(super) fn handshake(&self, presented: Arc<OnceLock<Presented>>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let Shared {
            provider,
            clock,
            verifier,
            certificate,
            ..
        } = &*self.shared;
        let verifier = RememberingVerifier {
            inner: verifier.clone(),
            presented,
            judgement: clock.judgement(),
        };
        let mut config = ServerConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(certificate.clone());
        // A resumed session skips the certificate check, and with it expiry and revocation.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl Judged {
    fn read(role: &'static str, path: &std::path::Path, der: &[u8]) -> Result<Self, TlsError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| files::malformed(role, path, &error.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            subject: certificate.subject().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    /// rustls takes any certificate as a trust anchor without asking whether it is a CA's.
    fn read_authority(path: &std::path::Path, der: &[u8]) -> Result<Self, TlsError> {
        let read = Self::read("the device CA file", path, der)?;
        let is_ca = X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.is_ca());
        if is_ca {
            Ok(read)
        } else {
            Err(TlsError::NotACa {
                path: path.to_owned(),
                subject: read.subject,
            })
        }
    }

    fn fault(&self, now: i64) -> Option<TlsError> {
        let (path, subject) = (self.path.clone(), self.subject.clone());
        if now > self.not_after {
            return Some(TlsError::Expired {
                path,
                subject,
                not_after: utc_text(self.not_after),
            });
        }
        (now < self.not_before).then(|| TlsError::NotYetValid {
            path,
            subject,
            not_before: utc_text(self.not_before),
        })
    }
}

fn certified_key(files: &TlsFiles, chain: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let key = files::private_key(&files.key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        },
        rustls::Error::InvalidCertificate(cause) => files::malformed("the certificate", &files.certificate, &format!("{cause:?}")),
        other => TlsError::KeyUnsupported {
            path: files.key.clone(),
            detail: other.to_string(),
        },
    })
}

fn verifier(
    files: &TlsFiles,
    authorities: &[CertificateDer<'static>],
    lists: Vec<CertificateRevocationListDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    // Only a revocation list can be refused here after its CA was taken.
    let setup = |path: &std::path::Path, detail: String| TlsError::Setup {
        path: path.to_owned(),
        detail,
    };
    let listed = files.crl.as_ref().filter(|_| !lists.is_empty()).unwrap_or(&files.client_ca);
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.clone())
            .map_err(|error| setup(&files.client_ca, error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        // Clients that find none of their certificates among the named CAs present nothing at all, and the fault would hide.
        .clear_root_hint_subjects()
        .with_crls(lists)
        // During a rotation only one of two CAs may have a list; a list past its date still revokes what it names.
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| setup(listed, error.to_string()))
}

/// The lists in `path`, each signed by one of `authorities`.
fn own_lists(
    path: &std::path::Path,
    authorities: &[CertificateDer<'static>],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = files::revocation_lists(path)?;
    for list in &lists {
        let (_, parsed) =
            CertificateRevocationList::from_der(list).map_err(|error| files::malformed("the revocation list", path, &error.to_string()))?;
        if parsed.version() != Some(X509Version(1)) {
            return Err(TlsError::OldCrl { path: path.to_owned() });
        }
        let known = authorities.iter().any(|authority| {
            X509Certificate::from_der(authority)
                .is_ok_and(|(_, ca)| ca.subject() == parsed.issuer() && parsed.verify_signature(ca.public_key()).is_ok())
        });
        if !known {
            return Err(TlsError::ForeignCrl {
                path: path.to_owned(),
                issuer: parsed.issuer().to_string(),
            });
        }
    }
    Ok(lists)
}
