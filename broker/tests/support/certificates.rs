//! A CA of its own, the front's certificate, and as many devices as a test asks for.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_broker::codec::Version;
use forebay_broker::tls::{CertificateClock, ServerTls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{Bench, Client};

pub struct Certificates {
    files: TlsFiles,
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    pub fn made_in(folder: &Path) -> Self {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "CA");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        let server = leaf(&issuer, "gateway", ExtendedKeyUsagePurpose::ServerAuth);
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = TlsFiles {
            certificate: write("server.pem", &server.0),
            key: write("server.key", &server.1),
            client_ca: write("ca.pem", &ca),
            crl: None,
        };
        Self { files, ca, issuer }
    }

    /// The front's side, at a time at which all of them are valid.
    pub fn server(&self) -> Arc<ServerTls> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_272_000);
        Arc::new(ServerTls::load(&self.files, &CertificateClock::fixed(now)).unwrap())
    }

    /// A client with a new certificate in this name, past its handshake.
    pub async fn client(&self, name: &str, bench: &Bench, version: Version) -> Client {
        let device = leaf(&self.issuer, name, ExtendedKeyUsagePurpose::ClientAuth);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(device.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(device.1.as_bytes()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let stream = tokio::net::TcpStream::connect(bench.address()).await.unwrap();
        let localhost = ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(localhost, stream)
            .await
            .unwrap();
        Client::over(stream, version)
    }
}

/// A certificate and its key, PEM.
fn leaf(issuer: &Issuer<'_, KeyPair>, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}
