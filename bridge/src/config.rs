//! What the operator decides about the link to the cloud, validated by the caller's configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_wal::PartitionSet;

/// Settings of one lane. [`Config::aws_iot`] and [`Config::mqtt`] fill in a profile's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gateway's id: the first part of every `forebay-id`.
    pub gateway: String,
    /// Name or address of the cloud's endpoint. Dial a name where TLS is used: no SNI is sent for an IP address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The MQTT client id; the cloud's policy must allow it, and no other client may use it.
    pub client_id: String,
    /// The version of MQTT to speak. Default 5.
    pub version: Version,
    /// Gives each connection its client certificate and trusted roots; `None` is plain TCP. The ALPN names are those of [`Self::alpn`].
    pub tls: Option<TlsSource>,
    /// The ALPN name to offer in the TLS handshake; `None` offers none. AWS wants `x-amzn-mqtt-ca` on port 443. Default none.
    pub alpn: Option<String>,
    /// How many publishes may wait for the cloud's ack at once, the request channel included; never above the cloud's
    /// Receive Maximum. At least 1.
    pub in_flight: u16,
    /// How long the cloud may keep silent about the oldest publish in flight before the connection is given up. Each KiB of it above
    /// 8 KiB gives it a second more. Default 20 s.
    pub ack_timeout: Duration,
    /// Interval of pings. Default 60 s, at least 5 s (AWS raises anything below 30 s to 30 s).
    pub keep_alive: Duration,
    /// Bound on resolving, TCP, TLS and CONNACK together; the first three get at most a third of it each. Default 30 s.
    pub connect_timeout: Duration,
    /// What the cloud, or the operator, allows per second.
    pub rate_limit: RateLimit,
    /// When to try again after a lost connection.
    pub backoff: Backoff,
    /// How often a suspended pair of route and device is tried with its oldest record. Default 60 s.
    pub probe_interval: Duration,
    /// What must be acked on a connection before its close counts against a record; `None` if a quiet moment must do. Default `None`.
    pub canary: Option<Canary>,
    /// How long after a connect a record is sent alone, to see whether the peer closes at it, where no canary proves the
    /// connection. Default 1 s.
    pub quiet_before_alone: Duration,
    /// How long outstanding acks are waited for at shutdown. Default 5 s.
    pub shutdown_grace: Duration,
    /// Bytes read ahead of what is sent, over all streams. Default 1 MiB.
    pub read_ahead: usize,
    /// The partitions this lane owns. Default all.
    pub partitions: PartitionSet,
}

/// Gives each connection its TLS settings, so that renewed files are used from the next connection on. Cheap to clone.
#[derive(Clone)]
pub struct TlsSource(Arc<LoadTls>);

type LoadTls = dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync;

impl TlsSource {
    /// From what `load` finds at each connect; it may block on the disk. Its error says what is wrong and what to do.
    pub fn new(load: impl Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }

    /// The settings as they are now. Blocks on the disk.
    pub(crate) fn load(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        (self.0)()
    }
}

impl From<Arc<rustls::ClientConfig>> for TlsSource {
    fn from(tls: Arc<rustls::ClientConfig>) -> Self {
        Self::new(move || Ok(Arc::clone(&tls)))
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource")
    }
}

/// A small publish that does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Its topic in the cloud; the policy must allow it.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
}

/// Versions of MQTT that the bridge speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// MQTT 5: the cloud says why it refuses.
    #[default]
    V5,
    /// MQTT 3.1.1: silence and closed sockets.
    V311,
}

/// Quotas. The lane runs at nine tenths of each and passes it in no window of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Publishes per second, at least 1; `None` if there is no limit.
    pub messages_per_second: Option<u32>,
    /// Bytes of PUBLISH packets per second, at least 1; `None` if there is no limit. A single larger packet still goes, alone in its second.
    pub bytes_per_second: Option<u64>,
}

/// Exponential backoff with full jitter and unlimited tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Bound on the first delay. Default 1 s.
    pub initial: Duration,
    /// Bound on every delay. Default 2 min.
    pub ceiling: Duration,
    /// Least time between two CONNECTs. Default 1 s, which is AWS's limit per client id.
    pub connect_spacing: Duration,
    /// How long a connection must have lasted before the next delay starts from `initial` again. Default 1 min.
    pub stable_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            ceiling: Duration::from_secs(120),
            connect_spacing: Duration::from_secs(1),
            stable_after: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// The profile `aws-iot`: 32 in flight, AWS's quotas per connection.
    #[must_use]
    pub fn aws_iot(gateway: &str, host: &str, tls: TlsSource) -> Self {
        Self {
            port: 8883,
            tls: Some(tls),
            rate_limit: RateLimit {
                messages_per_second: Some(100),
                bytes_per_second: Some(512 * 1024),
            },
            ..Self::mqtt(gateway, host)
        }
    }

    /// The profile `mqtt`: any broker, plain TCP on port 1883 until told otherwise, 32 in flight, no quota.
    #[must_use]
    pub fn mqtt(gateway: &str, host: &str) -> Self {
        Self {
            gateway: gateway.to_owned(),
            host: host.to_owned(),
            port: 1883,
            client_id: gateway.to_owned(),
            version: Version::default(),
            tls: None,
            alpn: None,
            in_flight: 32,
            ack_timeout: Duration::from_secs(20),
            keep_alive: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            rate_limit: RateLimit::default(),
            backoff: Backoff::default(),
            probe_interval: Duration::from_secs(60),
            canary: None,
            quiet_before_alone: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(5),
            read_ahead: 1024 * 1024,
            partitions: PartitionSet::ALL,
        }
    }
}
