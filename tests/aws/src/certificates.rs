//! Throwaway certificates, made in memory for one test run. Only behind the feature `testing`.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::{TlsConfig, TlsConfigError};

/// The name the server certificate is for, and clients must dial.
pub const ENDPOINT: &str = "localhost";

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// An authority that issues the server's and the clients' certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A throwaway certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate maker refuses.
    #[error("a throwaway certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// The result is not usable.
    #[error("a throwaway certificate is not usable")]
    Use(#[from] TlsConfigError),
    /// rustls refuses the result.
    #[error("rustls refuses a throwaway certificate")]
    Rustls(#[from] rustls::Error),
    /// The result is not PEM.
    #[error("a throwaway certificate is not PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

impl Authority {
    /// Makes an authority with a P-256 key.
    ///
    /// # Errors
    /// When the key or certificate cannot be made.
    pub fn new(name: &str) -> Result<Self, CertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    /// The authority's own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for [`ENDPOINT`].
    ///
    /// # Errors
    /// When the key or certificate cannot be made.
    pub fn server(&self) -> Result<Identity, CertificateError> {
        self.issue(ENDPOINT, vec![ENDPOINT.to_owned()], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate with this common name.
    ///
    /// # Errors
    /// When the key or certificate cannot be made.
    pub fn client(&self, name: &str) -> Result<Identity, CertificateError> {
        self.issue(name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The stand-in's side: a fresh server certificate, this authority for clients, SNI [`ENDPOINT`] demanded.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn server_tls(&self) -> Result<TlsConfig, CertificateError> {
        let server = self.server()?;
        let authority = self.pem();
        Ok(TlsConfig::from_pem(
            server.certificate.as_bytes(),
            server.key.as_bytes(),
            authority.as_bytes(),
            Some(ENDPOINT),
        )?)
    }

    /// A client's side that trusts this authority and shows `identity`, or nothing.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub fn client_tls(&self, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
            )?,
        };
        Ok(Arc::new(config))
    }

    fn issue(&self, name: &str, names: Vec<String>, usage: ExtendedKeyUsagePurpose) -> Result<Identity, CertificateError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
