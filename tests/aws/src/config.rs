//! How a stand-in is set up: address, TLS, the limits of the service and the switches for what AWS leaves open.

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{ledger::Ledger, policy::Policy};

/// Everything a [`Standin`](crate::Standin) is started with. The default is a plain listener on a free loopback port
/// with AWS's limits, no rate limits and a policy that allows everything.
#[derive(Clone, Debug)]
pub struct StandinConfig {
    /// Where to listen; port 0 takes a free one. Default `127.0.0.1:0`.
    pub address: SocketAddr,
    /// Mutual TLS; `None` is plain TCP.
    pub tls: Option<TlsConfig>,
    /// The sizes and counts AWS documents.
    pub limits: Limits,
    /// Quotas per second; off by default.
    pub rates: Rates,
    /// What clients may do; it can be swapped while running, see [`Faults::set_policy`](crate::Faults::set_policy).
    pub policy: Policy,
    /// Behaviour that cannot be known without an account.
    pub switches: Switches,
    /// A ledger to go on with, so that a restarted stand-in remembers; `None` starts an empty one.
    pub ledger: Option<Arc<Ledger>>,
}

impl Default for StandinConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            limits: Limits::default(),
            rates: Rates::default(),
            policy: Policy::default(),
            switches: Switches::default(),
            ledger: None,
        }
    }
}

/// The server's side of mutual TLS. A client certificate is always demanded.
#[derive(Debug)]
pub struct TlsConfig {
    /// The server's certificate, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// Certificates that client certificates must chain to.
    pub client_ca: Vec<CertificateDer<'static>>,
    /// The name a client must send as SNI. A client that sends another or none is refused. `None` accepts any.
    pub sni: Option<String>,
    /// Demand ALPN `x-amzn-mqtt-ca`, as port 443 does. It is always accepted when offered.
    pub require_alpn: bool,
}

impl Clone for TlsConfig {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            client_ca: self.client_ca.clone(),
            sni: self.sni.clone(),
            require_alpn: self.require_alpn,
        }
    }
}

impl TlsConfig {
    /// Reads a chain, a key and the client authority from PEM text. `sni` is the name clients must ask for.
    ///
    /// # Errors
    /// When a part holds no certificate or key, or is not PEM.
    pub fn from_pem(chain: &[u8], key: &[u8], client_ca: &[u8], sni: Option<&str>) -> Result<Self, TlsConfigError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsConfigError::Pem {
            part: "server key",
            source,
        })?;
        Ok(Self {
            chain: certificates("server certificate", chain)?,
            key,
            client_ca: certificates("client authority", client_ca)?,
            sni: sni.map(str::to_owned),
            require_alpn: false,
        })
    }
}

fn certificates(part: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsConfigError::Pem { part, source })?;
    if found.is_empty() {
        Err(TlsConfigError::Empty { part })
    } else {
        Ok(found)
    }
}

/// Why TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A part is not PEM.
    #[error("the {part} is not readable PEM; give a file that starts with -----BEGIN")]
    Pem {
        /// Which part.
        part: &'static str,
        /// What the reader says.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A part holds no certificate.
    #[error("the {part} holds no certificate; give a PEM file with at least one")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// rustls refuses the material.
    #[error("TLS cannot be set up with this chain, key and client authority; check that the key belongs to the first certificate")]
    Rustls(#[from] rustls::Error),
    /// The client authority cannot verify anyone.
    #[error("the client authority cannot be used to verify clients")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Sizes and counts as AWS documents them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of payload, 131,072.
    pub payload: usize,
    /// Bytes of a topic, 256; `$aws/rules/<rule>/` is not counted.
    pub topic: usize,
    /// Slashes in a topic, 7; same exemption.
    pub slashes: usize,
    /// QoS 1 publishes a client may have unacked, 100; advertised as Receive Maximum.
    pub receive_maximum: u16,
    /// Bytes of a whole packet, 149,504; advertised on MQTT 5.
    pub packet: usize,
    /// Topic aliases a client may use, 8.
    pub topic_aliases: u16,
    /// Filters in one SUBSCRIBE, 8.
    pub filters_per_subscribe: usize,
    /// Subscriptions of one connection, 50.
    pub subscriptions: usize,
    /// Bytes of a client id, 128.
    pub client_id: usize,
    /// Seconds of keep-alive granted, 30 to 1200; 0 is granted the largest.
    pub keep_alive: RangeInclusive<u16>,
    /// The longest a session outlives its connection; 1 h.
    pub session_expiry: Duration,
    /// The shortest time between two CONNECTs of one client id. `None`, the default, does not limit.
    pub connect_interval: Option<Duration>,
    /// How long a handshake and a CONNECT may take together; 10 s.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload: 131_072,
            topic: 256,
            slashes: 7,
            receive_maximum: 100,
            packet: 149_504,
            topic_aliases: 8,
            filters_per_subscribe: 8,
            subscriptions: 50,
            client_id: 128,
            keep_alive: 30..=1200,
            session_expiry: Duration::from_secs(3600),
            connect_interval: None,
            handshake: Duration::from_secs(10),
        }
    }
}

/// Quotas of one connection: token buckets that hold one second's worth and start full.
/// Going over a quota AWS documents (100/s, 524,288 B/s) is a violation too; a tighter one only has its outcome.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Publishes per second.
    pub publishes: Option<u32>,
    /// What happens to a publish over that.
    pub publishes_outcome: RateOutcome,
    /// Bytes of PUBLISH packets per second.
    pub bytes: Option<u32>,
    /// What happens to bytes over that; the default delays, as AWS does.
    pub bytes_outcome: RateOutcome,
}

/// What exceeding a rate leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateOutcome {
    /// As AWS does: publishes over quota are dropped silently on 3.1.1 and answered 0x97 on 5; bytes over quota wait.
    #[default]
    AsAws,
    /// Dropped without an answer.
    Silent,
    /// PUBACK 0x97 on 5; silence on 3.1.1, which has no code.
    Answer97,
    /// The connection ends, on 5 with DISCONNECT 0x97.
    Disconnect,
}

/// Behaviour of the service that is not documented or has changed; each is run in both settings where it matters.
#[derive(Clone, Debug)]
pub struct Switches {
    /// Oversized payloads and impossible topics on MQTT 5, QoS 1: answered with a PUBACK, or a DISCONNECT.
    pub undeliverable: Undeliverable,
    /// What QoS 2 earns.
    pub qos2: Qos2,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            undeliverable: Undeliverable::Puback,
            qos2: Qos2::Disconnect,
        }
    }
}

/// How MQTT 5 learns that a QoS 1 publish can never be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeliverable {
    /// PUBACK with the reason; the link stays.
    Puback,
    /// DISCONNECT with the reason; a naive client loops.
    Disconnect,
}

/// How QoS 2 is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos2 {
    /// The connection ends, on 5 with DISCONNECT 0x9B.
    Disconnect,
    /// No answer.
    Silence,
}
