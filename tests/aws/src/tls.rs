//! Mutual TLS as the service demands it: a client certificate, the right server name, no session tickets.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use crate::{
    config::{TlsConfig, TlsConfigError},
    violations::Violations,
};

const ALPN: &[u8] = b"x-amzn-mqtt-ca";

/// Builds the server side.
pub(crate) fn server_config(tls: &TlsConfig, violations: Arc<Violations>) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in &tls.client_ca {
        roots.add(certificate.clone())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let certified = Arc::new(CertifiedKey::from_der(tls.chain.clone(), tls.key.clone_key(), &provider)?);
    let resolver = ByName {
        sni: tls.sni.clone(),
        require_alpn: tls.require_alpn,
        certified,
        violations,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Gives the certificate only to a client that asks for the endpoint by name.
#[derive(Debug)]
struct ByName {
    sni: Option<String>,
    require_alpn: bool,
    certified: Arc<CertifiedKey>,
    violations: Arc<Violations>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(expected) = &self.sni
            && hello.server_name().is_none_or(|name| !name.eq_ignore_ascii_case(expected))
        {
            let sent = hello.server_name().unwrap_or("none");
            self.violations
                .add(format!("TLS: server name {sent:?} sent, the endpoint is {expected:?}"));
            return None;
        }
        let offers_alpn = hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ALPN));
        if self.require_alpn && !offers_alpn {
            self.violations.add("TLS: ALPN x-amzn-mqtt-ca not offered".to_owned());
            return None;
        }
        Some(Arc::clone(&self.certified))
    }
}
