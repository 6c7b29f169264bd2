//! From the configuration's `cloud` and `routes` to the bridge's.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use forebay_bridge::{CloudLimits, Mapping, Qos, RateLimit, Version};
use forebay_broker::tls::{CertificateClock, pem_fault};
use forebay_broker::{Admission, Undeliverable};
use forebay_wal::SystemClock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::time::CloudVerifier;
use crate::config::{ClientCertificate, Cloud, CloudTls, Config, Profile, Protocol};
use crate::monitor::canary;

/// AWS wants this ALPN name on port 443, where it serves other protocols too.
const AWS_ALPN: &str = "x-amzn-mqtt-ca";
const HTTPS: u16 = 443;

/// The lane's settings.
pub(super) fn bridge(
    config: &Config,
    cloud: &Cloud,
    clock: &Arc<SystemClock>,
    certificates: &CertificateClock,
) -> anyhow::Result<forebay_bridge::Config> {
    let gateway = config.gateway.id.as_str();
    let verifier = |roots| CloudVerifier::new(roots, Arc::clone(clock), certificates.clone());
    let tls = cloud
        .tls
        .as_ref()
        .map(|tls| client_tls(cloud, tls, verifier))
        .transpose()?
        .map(Arc::new);
    let profile = match (cloud.profile, &tls) {
        (Profile::AwsIot, Some(tls)) => forebay_bridge::Config::aws_iot(gateway, &cloud.endpoint, Arc::clone(tls)),
        (Profile::AwsIot, None) | (Profile::Mqtt, _) => forebay_bridge::Config::mqtt(gateway, &cloud.endpoint),
    };
    let bytes_per_second = cloud.max_bandwidth.or(profile.rate_limit.bytes_per_second);
    Ok(forebay_bridge::Config {
        port: cloud.port,
        client_id: cloud.client_id.clone(),
        version: match cloud.protocol {
            Protocol::V5 => Version::V5,
            Protocol::V311 => Version::V311,
        },
        tls,
        alpn: alpn(cloud.profile, cloud.port).map(str::to_owned),
        in_flight: cloud.in_flight,
        canary: cloud.canary.map(|_| canary::of_the_bridge(gateway)),
        rate_limit: RateLimit {
            bytes_per_second,
            ..profile.rate_limit
        },
        ..profile
    })
}

/// The routes to the cloud.
pub(super) fn mapping(config: &Config) -> anyhow::Result<Mapping> {
    let limits = match config.cloud.as_ref().map(|cloud| cloud.profile) {
        Some(Profile::AwsIot) => CloudLimits::aws_iot(),
        Some(Profile::Mqtt) | None => CloudLimits::mqtt(),
    };
    let routes = config.routes.iter().filter_map(|route| {
        let cloud = route.cloud()?;
        Some(forebay_bridge::Route {
            name: route.name().to_owned(),
            from: route.from.clone(),
            to: cloud.topic.clone(),
            qos: if cloud.qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
            keep_retain: cloud.retain,
        })
    });
    // Last, so that it takes nothing from the others.
    let routes = routes
        .map(Ok)
        .chain([canary::route(config.gateway.id.as_str())])
        .collect::<anyhow::Result<_>>()?;
    Mapping::new(config.gateway.id.as_str(), routes, limits).context("the routes cannot be used")
}

/// Asks the mapping before a publish is acked.
pub(super) struct MappedAdmission(pub(super) Arc<Mapping>);

impl Admission for MappedAdmission {
    fn admit(&self, route: &str, identity: &str, topic: &str, payload_bytes: usize) -> Result<(), Undeliverable> {
        let admitted = self.0.admit(route, identity, topic, payload_bytes);
        admitted.map(drop).map_err(|error| Undeliverable {
            reason: error.reason,
            detail: error.detail,
        })
    }
}

/// Another broker knows nothing of AWS's name and may refuse it.
fn alpn(profile: Profile, port: u16) -> Option<&'static str> {
    (profile == Profile::AwsIot && port == HTTPS).then_some(AWS_ALPN)
}

fn client_tls(
    cloud: &Cloud,
    tls: &CloudTls,
    verifier: impl FnOnce(RootCertStore) -> anyhow::Result<CloudVerifier>,
) -> anyhow::Result<ClientConfig> {
    client_config(verifier(roots(cloud, tls)?)?, tls.identity.as_ref())
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
    let key = PrivateKeyDer::from_pem_file(&identity.key)
        .map_err(|error| anyhow!("{} is not a private key in PEM: {}", identity.key.display(), pem_fault(&error)))?;
    builder
        .with_client_auth_cert(certificates(&identity.certificate)?, key)
        .with_context(|| {
            format!(
                "{} and {} do not belong together",
                identity.certificate.display(),
                identity.key.display()
            )
        })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| anyhow!("{} is not a certificate in PEM: {}", path.display(), pem_fault(&error)))
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

fn roots(cloud: &Cloud, tls: &CloudTls) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match (&tls.ca, cloud.profile) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aws_on_port_443_is_offered_the_alpn_name_of_aws() {
        assert_eq!(alpn(Profile::AwsIot, 443), Some("x-amzn-mqtt-ca"));
        assert_eq!(alpn(Profile::AwsIot, 8883), None);
        assert_eq!(alpn(Profile::Mqtt, 443), None);
    }

    #[test]
    fn amazons_roots_are_built_in() {
        let named = |name: &str| {
            webpki_roots::TLS_SERVER_ROOTS
                .iter()
                .any(|root| root.subject.windows(name.len()).any(|part| part == name.as_bytes()))
        };
        for number in 1..=4 {
            assert!(named(&format!("Amazon Root CA {number}")));
        }
    }
}
