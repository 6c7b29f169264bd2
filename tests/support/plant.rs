//! A plant's certificates, made by `forebay certs`: a CA, the gateway's certificate for `localhost`, devices.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use super::gateway::FOREBAY;

/// A folder of certificates.
pub struct Plant(TempDir);

impl Plant {
    /// Makes the CA, `server.pem` for `localhost`, and these devices.
    pub fn new(devices: &[&str]) -> Self {
        let plant = Self(tempfile::tempdir().unwrap());
        plant.certs(&["ca"]);
        plant.certs(&["server", "--name", "localhost"]);
        if !devices.is_empty() {
            plant.certs(&[&["device"], devices].concat());
        }
        plant
    }

    /// Runs `forebay certs` in the folder.
    pub fn certs(&self, arguments: &[&str]) {
        let output = Command::new(FOREBAY)
            .arg("certs")
            .arg("--dir")
            .arg(self.0.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "forebay certs {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// A file in it, as text for a configuration or a command line.
    pub fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    /// A listener's `tls` with these certificates.
    pub fn listener_tls(&self) -> String {
        let (certificate, key, ca) = (self.path("server.pem"), self.path("server.key"), self.path("devices-ca.pem"));
        format!("{{certificate: {certificate}, key: {key}, client_ca: {ca}}}")
    }

    /// TLS of a device that believes this plant's CA and shows `NAME.pem`.
    pub fn device(&self, name: &str) -> Arc<ClientConfig> {
        let folder = self.folder();
        client_tls(
            &folder.join("devices-ca.pem"),
            Some((folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")))),
        )
    }

    /// TLS of a device that believes this plant's CA and has no certificate.
    pub fn stranger(&self) -> Arc<ClientConfig> {
        client_tls(&self.folder().join("devices-ca.pem"), None)
    }
}

/// TLS of a client that believes `ca` and shows a certificate, or none.
pub fn client_tls(ca: &Path, identity: Option<(PathBuf, PathBuf)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate)
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
                .unwrap()
        }
    };
    Arc::new(config)
}
