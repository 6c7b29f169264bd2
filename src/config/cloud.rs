//! Where the log is replayed to.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::gateway::GatewayId;
use super::listener::{Listener, is_host_name};
use super::schema::{Reading, Section};

/// AWS takes 128 bytes; eight stay for the suffix of further lanes.
const MAX_CLIENT_ID: usize = 120;
/// Unacked publishes per connection that AWS IoT Core takes.
const AWS_IN_FLIGHT: u64 = 100;
const MAKE_CLOUD: &str = "`forebay certs cloud` makes the key and says how the certificate is made";

/// `cloud`: the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cloud {
    /// Its limits and habits. Default `aws-iot`.
    pub(crate) profile: Profile,
    /// Host name or address.
    pub(crate) endpoint: String,
    /// Default 8883 with TLS, 1883 plain.
    pub(crate) port: u16,
    /// The MQTT version. Default 5.
    pub(crate) protocol: Protocol,
    /// With the placeholders filled. Default the gateway's id.
    pub(crate) client_id: String,
    /// TLS; `None` if plain.
    pub(crate) tls: Option<CloudTls>,
    /// Unacked publishes per lane. Default 32, at most 100 for `aws-iot`.
    pub(crate) in_flight: u16,
    /// Bytes per second; `None` if the profile's hold.
    pub(crate) max_bandwidth: Option<u64>,
    /// How often a message of our own goes the whole way; `None` if never. Default 5 min.
    pub(crate) canary: Option<Duration>,
}

/// The files of the cloud's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloudTls {
    /// The gateway's chain and key for the cloud. Default `certs/cloud.pem` and `certs/cloud.key` for `aws-iot`.
    pub(crate) identity: Option<ClientCertificate>,
    /// The cloud's CAs. Default Amazon's roots for `aws-iot`, the system's for `mqtt`.
    pub(crate) ca: Option<PathBuf>,
}

/// A client certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The chain, PEM.
    pub(crate) certificate: PathBuf,
    /// The key, PEM.
    pub(crate) key: PathBuf,
}

/// The kind of cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// AWS IoT Core.
    AwsIot,
    /// Any MQTT broker.
    Mqtt,
}

/// The MQTT version towards the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

/// What is sent to a listener of our own comes back as a publish, and goes round without end.
fn refuse_ourselves(section: &Section<'_>, cloud: &Cloud, listeners: &[Listener], reading: &mut Reading<'_>) {
    let leads_here = |listener: &&Listener| {
        let address = cloud.endpoint.parse::<IpAddr>();
        let bound = listener.bind.ip();
        let is_there = match address {
            Ok(address) => address == bound || (bound.is_unspecified() && address.is_loopback()),
            Err(_) => cloud.endpoint == "localhost" && (bound.is_unspecified() || bound.is_loopback()),
        };
        listener.bind.port() == cloud.port && (is_there || listener.names.contains(&cloud.endpoint))
    };
    if let Some(own) = listeners.iter().find(leads_here) {
        let reason = format!(
            "with port {} it leads to this gateway's own listener {}: each message would come back and be sent again, without end. Name the broker that is to have the messages, or leave `cloud` out for a local broker",
            cloud.port, own.bind
        );
        reading.faults.push(section.fault("endpoint", reason));
    }
}

pub(super) fn read(root: &Section<'_>, gateway: &GatewayId, listeners: &[Listener], reading: &mut Reading<'_>) -> Option<Cloud> {
    let section = root.section("cloud");
    if !section.present() {
        return None;
    }
    let profile = if section.text("profile").as_deref() == Some("mqtt") {
        Profile::Mqtt
    } else {
        Profile::AwsIot
    };
    let endpoint = read_endpoint(&section, reading);
    let tls = read_tls(&section, profile, endpoint.as_deref(), reading);
    let port = section
        .integer("port")
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(if tls.is_some() { 8883 } else { 1883 });
    let cloud = Cloud {
        profile,
        endpoint: endpoint.unwrap_or_default(),
        port,
        protocol: if section.text("protocol").as_deref() == Some("3.1.1") {
            Protocol::V311
        } else {
            Protocol::V5
        },
        client_id: read_client_id(&section, gateway, reading),
        tls,
        in_flight: read_in_flight(&section, profile, reading),
        max_bandwidth: section.bandwidth("max_bandwidth"),
        // `off` is no duration.
        canary: section.duration("canary"),
    };
    refuse_ourselves(&section, &cloud, listeners, reading);
    Some(cloud)
}

fn read_endpoint(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<String> {
    let written = section.text("endpoint")?;
    if written.parse::<IpAddr>().is_ok() || (is_host_name(&written) && !written.starts_with('*')) {
        return Some(written);
    }
    let reason = "must be a host name or an address, without scheme, path and port (`cloud.port` has the port)";
    reading.faults.push(section.fault("endpoint", reason));
    None
}

fn read_tls(section: &Section<'_>, profile: Profile, endpoint: Option<&str>, reading: &mut Reading<'_>) -> Option<CloudTls> {
    let insecure = section.flag("insecure");
    if !section.has("tls") {
        if insecure || endpoint.is_none_or(is_loopback) {
            return None;
        }
        if profile == Profile::Mqtt {
            let reason = "left out, and the cloud is beyond loopback: add `tls: {}` (with `ca`, `certificate` and `key` as the broker requires), \
                          or set `insecure: true` if any host on the way may read and write everything";
            reading.faults.push(section.fault("tls", reason));
            return None;
        }
    } else if insecure {
        reading
            .faults
            .push(section.fault("insecure", "given together with `tls`: keep one of the two"));
    }
    let tls = section.section("tls");
    let convention = |default| (profile == Profile::AwsIot).then_some(default);
    let certificate = tls.file("certificate", convention("certs/cloud.pem"), MAKE_CLOUD, reading);
    let key = tls.file("key", convention("certs/cloud.key"), MAKE_CLOUD, reading);
    let ca = tls.file("ca", None, "Leave the key out for the usual roots", reading);
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            reading.faults.push(tls.fault("key", "missing, and `certificate` needs it"));
            None
        }
        (None, Some(_)) => {
            reading.faults.push(tls.fault("certificate", "missing, and `key` needs it"));
            None
        }
    };
    Some(CloudTls { identity, ca })
}

fn is_loopback(endpoint: &str) -> bool {
    endpoint == "localhost" || endpoint.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_client_id(section: &Section<'_>, gateway: &GatewayId, reading: &mut Reading<'_>) -> String {
    let written = section.text("client_id").unwrap_or_default();
    let filled = written.replace("{gateway}", gateway.as_str());
    let problem = if filled.contains(['{', '}']) {
        Some("the only placeholder of a client id is {gateway}".to_owned())
    } else if written.is_empty() || filled.len() > MAX_CLIENT_ID {
        Some(format!("must be 1 to {MAX_CLIENT_ID} bytes, not {} (as {filled})", filled.len()))
    } else if filled.starts_with('$') || filled.contains(['+', '#']) || filled.chars().any(char::is_control) {
        Some(
            "must not begin with $ or contain + # or control characters: the cloud would refuse it, or publish no connection events for it"
                .to_owned(),
        )
    } else {
        None
    };
    if let Some(reason) = problem {
        reading.faults.push(section.fault("client_id", reason));
    }
    filled
}

fn read_in_flight(section: &Section<'_>, profile: Profile, reading: &mut Reading<'_>) -> u16 {
    let value = section.integer("in_flight").unwrap_or_default();
    if profile == Profile::AwsIot && value > AWS_IN_FLIGHT {
        let reason = format!("AWS IoT Core accepts at most {AWS_IN_FLIGHT} unacked publishes per connection; 32 is a good value");
        reading.faults.push(section.fault("in_flight", reason));
    }
    u16::try_from(value).unwrap_or_default()
}
