//! Certificates made on the spot, and one handshake between a client and the listener's side over memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::tls::{Accepted, CertificateClock, HandshakeFailure, Moment, ServerTls, TlsError, TlsFiles, accept};

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// 2026-06-01, the time most tests are judged at.
pub(super) const NOW: u64 = 1_780_272_000;

pub(super) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(super) pem: String,
}

#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) pem: String,
    pub(super) key: String,
}

pub(super) struct Plan {
    pub(super) cn: &'static str,
    pub(super) names: Vec<String>,
    pub(super) usage: ExtendedKeyUsagePurpose,
    pub(super) years: (i32, i32),
    pub(super) serial: u64,
}

impl Plan {
    pub(super) fn device(cn: &'static str) -> Self {
        Self {
            cn,
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            years: (2020, 2030),
            serial: 7,
        }
    }

    pub(super) fn server(names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            cn: "gateway",
            names,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            years: (2020, 2030),
            serial: 2,
        }
    }
}

impl Authority {
    pub(super) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// Whoever holds a device's key, playing a CA with it.
    pub(super) fn forged_by(name: &str, leaf: &Leaf) -> Self {
        let forger = Self::named(name);
        Self {
            key: KeyPair::from_pem(&leaf.key).unwrap(),
            pem: leaf.pem.clone(),
            ..forger
        }
    }

    pub(super) fn issue(&self, plan: &Plan) -> Leaf {
        let mut params = CertificateParams::new(plan.names.clone()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, plan.cn);
        params.extended_key_usages = vec![plan.usage.clone()];
        params.not_before = date_time_ymd(plan.years.0, 1, 1);
        params.not_after = date_time_ymd(plan.years.1, 1, 1);
        params.serial_number = Some(SerialNumber::from(plan.serial));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Leaf {
            pem: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A CA that this one has signed, valid in these years.
    pub(super) fn below(&self, name: &str, years: (i32, i32)) -> Self {
        let mut below = Self::named(name);
        below.params.not_before = date_time_ymd(years.0, 1, 1);
        below.params.not_after = date_time_ymd(years.1, 1, 1);
        below.pem = below.params.signed_by(&below.key, &self.issuer()).unwrap().pem();
        below
    }

    /// Its private key, in PEM.
    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A leaf of a CA that is so many CAs below this one; they are sent with it.
    pub(super) fn issue_behind(&self, levels: usize, plan: &Plan) -> Leaf {
        let Some(rest) = levels.checked_sub(1) else {
            return self.issue(plan);
        };
        let below = self.below(&format!("below {levels}"), (2020, 2030));
        let leaf = below.issue_behind(rest, plan);
        Leaf {
            pem: leaf.pem + &below.pem,
            key: leaf.key,
        }
    }

    pub(super) fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// A listener's files in a directory of their own, with all that a test may want to change beforehand.
pub(super) struct Listener {
    pub(super) folder: tempfile::TempDir,
    pub(super) files: TlsFiles,
    pub(super) ca: Authority,
    pub(super) now: u64,
    /// The present is not known; `now` is what stands on disk.
    pub(super) is_unknown: bool,
}

impl Listener {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Authority::named("devices");
        let own = ca.issue(&Plan::server(&["plant-7.local", "127.0.0.1"]));
        let path = |name: &str| folder.path().join(name);
        let files = TlsFiles {
            certificate: path("server.pem"),
            key: path("server.key"),
            client_ca: path("ca.pem"),
            crl: None,
        };
        let listener = Self {
            files,
            ca,
            now: NOW,
            is_unknown: false,
            folder,
        };
        listener.write("server.pem", &own.pem);
        listener.write("server.key", &own.key);
        listener.write("ca.pem", &listener.ca.pem);
        listener
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn load(&self) -> Result<ServerTls, TlsError> {
        let now = UNIX_EPOCH + Duration::from_secs(self.now);
        let clock = match self.is_unknown {
            false => CertificateClock::fixed(now),
            true => CertificateClock::new(move || Moment::Unknown { last_trusted: Some(now) }, UNIX_EPOCH),
        };
        ServerTls::load(&self.files, &clock)
    }
}

/// What a client brings to a handshake.
pub(super) struct Client<'a> {
    pub(super) version: &'static SupportedProtocolVersion,
    pub(super) leaf: Option<&'a Leaf>,
    pub(super) trusts: &'a str,
    pub(super) dials: &'static str,
}

impl Client<'_> {
    fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusts.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match self.leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.pem.as_bytes())
                    .collect::<Result<_, _>>()
                    .unwrap();
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                // Not by `with_client_auth_cert`, which refuses the mismatched pairs that a test wants to send.
                let pair = CertifiedKey::new(chain, ring::sign::any_supported_type(&key).unwrap());
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        })
    }
}

pub(super) type Outcome = Result<Accepted<DuplexStream>, HandshakeFailure>;

pub(super) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// One handshake; the client reads to the end so that it sees what TLS 1.3 reports only afterwards.
pub(super) async fn meet(tls: &ServerTls, client: &Client<'_>) -> (Outcome, std::io::Result<Vec<u8>>) {
    let (here, there) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(client.config());
    let name = ServerName::try_from(client.dials).unwrap();
    let dialling = async move {
        let mut stream = connector.connect(name, there).await?;
        let mut read = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut read).await?;
        Ok(read)
    };
    let accepting = async {
        let mut outcome = accept(here, tls, deadline()).await;
        if let Ok(accepted) = &mut outcome {
            tokio::io::AsyncWriteExt::write_all(&mut accepted.stream, b"hello").await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut accepted.stream).await.unwrap();
        }
        outcome
    };
    tokio::join!(accepting, dialling)
}
