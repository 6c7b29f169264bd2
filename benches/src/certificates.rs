//! The certificates of a benchmark: one authority, one server, one client that all share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::generator::TlsFiles;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority, for both sides.
    pub ca: PathBuf,
    /// The server's certificate, for `localhost` and `127.0.0.1`.
    pub server: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// What clients use.
    pub client: TlsFiles,
}

/// Makes P-256 certificates in `directory`.
///
/// # Errors
///
/// The directory cannot be written.
pub fn make(directory: &Path) -> anyhow::Result<Certificates> {
    let ca_key = KeyPair::generate()?;
    let mut ca = params("Benchmark CA", &[])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        anyhow::Ok(path)
    };
    let signed = |name: &str, names: &[&str], usage| {
        let key = KeyPair::generate()?;
        let mut params = params(name, names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer)?;
        anyhow::Ok((
            write(&format!("{name}.pem"), &certificate.pem())?,
            write(&format!("{name}.key"), &key.serialize_pem())?,
        ))
    };
    let (server, server_key) = signed("server", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)?;
    let (certificate, key) = signed("client", &[], ExtendedKeyUsagePurpose::ClientAuth)?;
    let ca = write("ca.pem", &ca_pem)?;
    Ok(Certificates {
        ca: ca.clone(),
        server,
        server_key,
        client: TlsFiles { ca, certificate, key },
    })
}

fn params(name: &str, names: &[&str]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
