//! From the configuration's `cloud` and `routes` to the bridge's.

use std::sync::Arc;

use anyhow::Context as _;
use forebay_bridge::{CloudLimits, Mapping, Qos, RateLimit, Version};
use forebay_broker::tls::CertificateClock;
use forebay_broker::{Admission, Undeliverable};
use forebay_wal::SystemClock;

use super::cloud_files::CloudFiles;
use crate::config::{Cloud, Config, Profile, Protocol};
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
    files: &CloudFiles,
) -> forebay_bridge::Config {
    let gateway = config.gateway.id.as_str();
    let tls = cloud.tls.as_ref().map(|tls| files.source(cloud.profile, tls, clock, certificates));
    let profile = match (cloud.profile, &tls) {
        (Profile::AwsIot, Some(tls)) => forebay_bridge::Config::aws_iot(gateway, &cloud.endpoint, tls.clone()),
        (Profile::AwsIot, None) | (Profile::Mqtt, _) => forebay_bridge::Config::mqtt(gateway, &cloud.endpoint),
    };
    let bytes_per_second = cloud.max_bandwidth.or(profile.rate_limit.bytes_per_second);
    forebay_bridge::Config {
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
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e15_only_aws_on_port_443_is_offered_the_alpn_name_of_aws() {
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
