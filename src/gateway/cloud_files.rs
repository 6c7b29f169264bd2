//! The files of `cloud.tls`. They are read at each connect, so a renewed certificate is used from the next connection on. While they
//! cannot be used (not there yet, half renewed), the last ones that could are, and that is told.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use forebay_bridge::TlsSource;
use forebay_broker::tls::{CertificateClock, pem_fault};
use forebay_wal::SystemClock;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::time::CloudVerifier;
use crate::config::{ClientCertificate, CloudTls, Profile};

/// What became of the files. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CloudFiles(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The last ones that could be used.
    good: Option<Arc<ClientConfig>>,
    /// Why those on disk cannot be, although earlier ones could.
    fault: Option<String>,
}

impl CloudFiles {
    /// Why the files on disk were not used at the last connect; `None` if they were. Earlier ones are used meanwhile.
    pub(crate) fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    /// Reads them at each connect.
    pub(super) fn source(&self, profile: Profile, tls: &CloudTls, clock: &Arc<SystemClock>, certificates: &CertificateClock) -> TlsSource {
        let (files, tls, clock, certificates) = (self.clone(), tls.clone(), Arc::clone(clock), certificates.clone());
        TlsSource::new(move || {
            let verifier = |roots| CloudVerifier::new(roots, Arc::clone(&clock), certificates.clone());
            let read = roots(profile, &tls)
                .and_then(verifier)
                .and_then(|verifier| client_config(verifier, tls.identity.as_ref()));
            files.take(read.map(Arc::new).map_err(|error| format!("{error:#}")))
        })
    }

    /// What is used after a read with this outcome.
    fn take(&self, read: Result<Arc<ClientConfig>, String>) -> Result<Arc<ClientConfig>, String> {
        let mut state = self.lock();
        match (read, &state.good) {
            (Ok(good), _) => {
                (state.good, state.fault) = (Some(Arc::clone(&good)), None);
                Ok(good)
            }
            (Err(fault), Some(good)) => {
                let good = Arc::clone(good);
                if state.fault.as_ref() != Some(&fault) {
                    tracing::warn!("the files of cloud.tls cannot be used: {fault}; the connection uses them as they were before");
                }
                state.fault = Some(fault);
                Ok(good)
            }
            (Err(fault), None) => Err(fault),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client_config(verifier: CloudVerifier, identity: Option<&ClientCertificate>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // Named so because a verifier of one's own may let anybody pass; this one adds the time to rustls's.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| unusable(&identity.key, "private key", &error))?;
    builder
        .with_client_auth_cert(certificates(&identity.certificate)?, key)
        .with_context(|| {
            format!(
                "{} and {} do not belong together; if they are being renewed, the second file is still to come",
                identity.certificate.display(),
                identity.key.display()
            )
        })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, "certificate", &error))?;
    if found.is_empty() {
        return Err(unusable(path, "certificate", &pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// Why a file gives no key or certificate.
fn unusable(path: &Path, what: &str, error: &pem::Error) -> anyhow::Error {
    let shown = path.display();
    match error {
        pem::Error::Io(error) => anyhow!("{shown} cannot be read ({error})"),
        pem::Error::NoItemsFound if is_der(path) => {
            anyhow!(
                "{shown} is DER and not PEM; convert it: `openssl {} -inform der -in {shown} -out NEW`",
                tool(what)
            )
        }
        error => anyhow!("{shown} has no {what} in PEM: {}", pem_fault(error)),
    }
}

fn tool(what: &str) -> &'static str {
    if what == "certificate" { "x509" } else { "pkey" }
}

/// DER begins with a sequence; text does not.
fn is_der(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(&[0x30, 0x82]) || bytes.starts_with(&[0x30, 0x81]))
}

fn roots_from(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("{} has a certificate that cannot be a CA", path.display()))?;
    }
    Ok(roots)
}

fn roots(profile: Profile, tls: &CloudTls) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match (&tls.ca, profile) {
        (Some(path), _) => roots = roots_from(path)?,
        (None, Profile::AwsIot) => {
            let is_amazon = |subject: &[u8]| {
                [&b"Amazon Root CA"[..], b"Starfield"]
                    .iter()
                    .any(|name| subject.windows(name.len()).any(|part| part == *name))
            };
            roots.extend(
                webpki_roots::TLS_SERVER_ROOTS
                    .iter()
                    .filter(|root| is_amazon(&root.subject))
                    .cloned(),
            );
        }
        (None, Profile::Mqtt) => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        bail!(
            "no CA is known for the cloud's certificate; name one with cloud.tls.ca, or install the system's CAs (package ca-certificates)"
        );
    }
    Ok(roots)
}
