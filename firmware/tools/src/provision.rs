//! What makes one device this device, from the files of `forebay certs`.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use forebay_identity::{Content, write};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// One device and its files.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// The common name in its certificate.
    pub name: &'a str,
    /// `host:port`.
    pub gateway: &'a str,
    /// The name in the gateway's certificate; left out, the gateway's host.
    pub server_name: Option<&'a str>,
    /// The CA that signs gateways, PEM.
    pub ca: &'a Path,
    /// Its certificate, and what leads to its CA, PEM.
    pub certificate: &'a Path,
    /// Its key, PKCS#8 PEM.
    pub key: &'a Path,
    /// Network and pass phrase.
    pub wifi: Option<(&'a str, &'a str)>,
}

/// The identity as it lies in flash.
///
/// # Errors
/// If a file is missing or holds something else, or the gateway is not `host:port`.
pub fn identity(device: &Device<'_>) -> Result<Vec<u8>> {
    let (host, port) = device.gateway.rsplit_once(':').unwrap_or_default();
    if host.is_empty() || port.parse::<u16>().is_err() {
        bail!("`{}` is no gateway: host and port, like 192.168.10.2:8883", device.gateway);
    }
    // Without the library's reason: it shows the line that it stumbled over, and that may be the key.
    let wrong = |path: &Path, what: &str| format!("{} is no {what} in PEM, or its line breaks are missing", path.display());
    let ca = CertificateDer::from_pem_file(device.ca).map_err(|_| anyhow!(wrong(device.ca, "certificate")))?;
    let chain: Vec<Vec<u8>> = CertificateDer::pem_file_iter(device.certificate)
        .and_then(|chain| chain.map(|one| one.map(|one| one.to_vec())).collect())
        .map_err(|_| anyhow!(wrong(device.certificate, "certificate")))?;
    if chain.is_empty() {
        bail!(wrong(device.certificate, "certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(device.key).map_err(|_| anyhow!(wrong(device.key, "key")))?;
    let PrivateKeyDer::Pkcs8(key) = key else {
        bail!(wrong(device.key, "PKCS#8 key"));
    };
    let content = Content {
        name: device.name,
        gateway: device.gateway,
        server_name: device.server_name.unwrap_or(host),
        ca: &ca,
        chain: &chain,
        key: key.secret_pkcs8_der(),
        wifi: device.wifi,
    };
    write(&content).context("certificates and names are too long for the device's 16 KiB")
}
