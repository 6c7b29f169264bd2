//! The admin API of a running gateway, as the commands ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONNECTION};
use hyper::{Method, Request};

use crate::admin::CHANGE;
use crate::config::{self, Secret};
use crate::http::{self, Answer, HttpError};

/// A gateway by its address, without its configuration.
#[derive(Debug, clap::Args)]
pub(super) struct UrlArgs {
    /// Ask the gateway at this address instead of the configuration's: http://gateway:9464
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The file with the admin API's token; the configuration's by default
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Where a gateway's admin API is, and the token for it.
pub(super) struct AdminApi {
    address: String,
    token: Option<Secret>,
}

impl UrlArgs {
    /// The API at `--url`; `None` if there is no `--url`.
    ///
    /// # Errors
    /// An address or a token that cannot be used.
    pub(super) fn api(&self) -> anyhow::Result<Option<AdminApi>> {
        let Some(url) = &self.url else { return Ok(None) };
        Ok(Some(AdminApi {
            address: address(url)?,
            token: self.token()?,
        }))
    }

    /// The API of this configuration, with the token of `--token-file` if there is one.
    ///
    /// # Errors
    /// A token that cannot be used.
    pub(super) fn api_of(&self, admin: &config::Admin) -> anyhow::Result<AdminApi> {
        Ok(AdminApi {
            address: reachable(admin.bind).to_string(),
            token: self.token()?.or_else(|| admin.token.clone()),
        })
    }

    fn token(&self) -> anyhow::Result<Option<Secret>> {
        self.token_file.as_deref().map(token).transpose()
    }
}

impl AdminApi {
    /// `HOST:PORT`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request; a POST says that it changes something.
    ///
    /// # Errors
    /// When no answer begins.
    pub(super) async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, HttpError> {
        let mut request = Request::builder().uri(path).header(CONNECTION, "close");
        if method == Method::POST {
            request = request.header(CHANGE, "yes");
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.method(method).body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| HttpError::Address(format!("{}{path} ({error})", self.address)))?;
        http::send(&self.address, request).await
    }
}

/// The host and port of an URL.
fn address(url: &str) -> anyhow::Result<String> {
    ensure!(
        !url.starts_with("https://"),
        "--url {url}: the admin API uses plain HTTP; write http://HOST:PORT, and use a network that you trust"
    );
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let host = rest.split('/').next().unwrap_or_default();
    ensure!(
        host.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
        "--url {url}: must be http://HOST:PORT, the address of admin.bind"
    );
    Ok(host.to_owned())
}

/// Where a server that listens on every address is reached.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

fn token(path: &Path) -> anyhow::Result<Secret> {
    let token = config::read_token(path).with_context(|| format!("{} cannot be read", path.display()))?;
    token.map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_url_is_a_host_and_a_port() {
        assert_eq!(address("http://gateway:9464").unwrap(), "gateway:9464");
        assert_eq!(address("http://[::1]:9464/status").unwrap(), "[::1]:9464");
        assert_eq!(address("10.0.0.1:9464").unwrap(), "10.0.0.1:9464");
        for bad in ["https://gateway:9464", "http://gateway", "http://:9464", "gateway:port", ""] {
            address(bad).unwrap_err();
        }
    }
}
