//! Certificates of every kind, a gateway on the host's `ring` provider, and a line between it and the device.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part"
)]

pub mod relay;

use std::sync::Arc;
use std::time::Duration;

use forebay_device_core::{Lost, Secure as _, Socket, Uptime, WallTime};
use forebay_device_tls::{Client, GetRandomFailed, Identity, SecureRandom, provider};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

pub const NAME: &str = "gateway.local";
/// 2026-06-01, within every certificate here that is not wrong on purpose.
pub const NOW: u64 = 1_780_272_000;

#[derive(Debug)]
struct HostRandom;

impl SecureRandom for HostRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        rustls::crypto::ring::default_provider().secure_random.fill(buffer)
    }
}

/// A CA and whom it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
}

/// A certificate with what leads to its CA, and its key.
pub struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

impl Credentials {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// A leaf's certificate, right in everything that a test does not change.
pub fn leaf(sans: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(sans.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

pub fn server_leaf() -> CertificateParams {
    leaf(&[NAME, "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub fn sign(&self, params: CertificateParams) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        Credentials { chain, key }
    }

    /// What a device that holds these credentials would sign, as if it were a CA; its chain leads over the device's leaf.
    pub fn sign_with(&self, params: CertificateParams, device: CertificateParams, by: &Credentials) -> Credentials {
        let by_key = KeyPair::try_from(by.key.serialize_der()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &Issuer::new(device, by_key)).unwrap().der().clone();
        Credentials {
            chain: vec![leaf, by.chain[0].clone()],
            key,
        }
    }
}

/// A gateway that demands certificates of `devices`.
pub fn server(credentials: &Credentials, devices: &Authority) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(devices.certificate.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key())
        .unwrap()
}

/// A device that believes `ca`, shows `credentials`, and dials `name`.
pub fn client(ca: &Authority, credentials: &Credentials, name: &str) -> Client {
    let identity = Identity {
        ca: ca.certificate.clone(),
        chain: credentials.chain.clone(),
        key: credentials.key(),
        gateway: name.to_owned(),
    };
    Client::new(Arc::new(provider(&HostRandom)), identity).unwrap()
}

/// One end of a line in memory, with deadlines by tokio's clock.
pub struct Line {
    pub stream: DuplexStream,
    pub began: Instant,
}

impl Line {
    pub fn new(stream: DuplexStream) -> Self {
        Self {
            stream,
            began: Instant::now(),
        }
    }
}

impl Socket for Line {
    async fn read(&mut self, buffer: &mut [u8], until: Uptime) -> Result<usize, Lost> {
        let deadline = self.began + Duration::from_millis(until.as_millis());
        match tokio::time::timeout_at(deadline, self.stream.read(buffer)).await {
            Err(_) => Ok(0),
            Ok(Ok(0) | Err(_)) => Err(Lost::Closed),
            Ok(Ok(count)) => Ok(count),
        }
    }

    async fn write_all(&mut self, bytes: &[u8], _until: Uptime) -> Result<(), Lost> {
        self.stream.write_all(bytes).await.map_err(|_| Lost::Closed)
    }

    async fn close(&mut self, _until: Uptime) {
        self.stream.shutdown().await.ok();
    }
}

pub const SOON: Uptime = Uptime::from_millis(20_000);

/// What a client knows of the time.
pub fn told(seconds: u64) -> WallTime {
    WallTime { seconds, is_told: true }
}

/// Shakes hands with a server of this configuration, then has one message echoed. What the server saw comes second.
pub async fn handshake(client: &mut Client, server: ServerConfig, now: WallTime) -> (Result<(), Lost>, Result<(), String>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let gateway = tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let mut stream = acceptor.accept(theirs).await.map_err(|error| error.to_string())?;
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).await.map_err(|error| error.to_string())?;
        stream.write_all(&buffer).await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())
    });
    let result = async {
        let mut stream = client.secure(Line::new(ours), now, SOON).await?;
        stream.write_all(b"ping", SOON).await?;
        let mut answer = [0; 4];
        let mut have = 0;
        while have < answer.len() {
            have += match stream.read(&mut answer[have..], SOON).await? {
                0 => return Err(Lost::TimedOut),
                count => count,
            };
        }
        assert_eq!(&answer, b"ping");
        stream.close(SOON).await;
        Ok(())
    }
    .await;
    (result, gateway.await.unwrap())
}
