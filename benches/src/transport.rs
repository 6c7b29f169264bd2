//! TCP or mutual TLS, and the MQTT handshake.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use forebay_broker::codec::{self, Connect, ConnectProperties, Packet, Role, Version};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The largest packet a server may send us.
pub(crate) const MAX_PACKET: usize = 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE_SECONDS: u16 = 300;

/// Where the three files of a mutual TLS client are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority that signed the server.
    pub ca: PathBuf,
    /// The certificate that all clients share.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Opens connections to one server.
#[derive(Clone)]
pub(crate) struct Dialler {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    version: Version,
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialler {
    pub(crate) fn new(address: SocketAddr, name: &str, tls: Option<&TlsFiles>, version: Version) -> anyhow::Result<Dialler> {
        let tls = match tls {
            None => None,
            Some(files) => {
                let name =
                    ServerName::try_from(name.to_owned()).with_context(|| format!("`{name}` is not a name a certificate can have"))?;
                Some((TlsConnector::from(Arc::new(client_config(files)?)), name))
            }
        };
        Ok(Dialler { address, tls, version })
    }

    /// A connection that has been accepted, with whatever arrived behind the CONNACK.
    pub(crate) async fn connect(&self, client_id: &str) -> anyhow::Result<(Stream, BytesMut)> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.open(client_id))
            .await
            .context("connecting took more than 30 s")?
    }

    async fn open(&self, client_id: &str) -> anyhow::Result<(Stream, BytesMut)> {
        let tcp = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("connecting to {}", self.address))?;
        tcp.set_nodelay(true)?;
        let mut stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some((connector, name)) => Stream::Tls(Box::new(connector.connect(name.clone(), tcp).await.context("TLS handshake")?)),
        };
        let connect = Connect {
            version: self.version,
            clean_start: true,
            keep_alive: KEEP_ALIVE_SECONDS,
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        let mut buffer = BytesMut::new();
        codec::encode(&Packet::Connect(Box::new(connect)), self.version, &mut buffer)?;
        stream.write_all(&buffer).await?;
        stream.flush().await?;
        buffer.clear();
        loop {
            match codec::decode(&mut buffer, self.version, Role::Client, MAX_PACKET)? {
                Some(Packet::ConnAck(connack)) if !connack.code.is_error() => return Ok((stream, buffer)),
                Some(Packet::ConnAck(connack)) => bail!("connection refused: {}", connack.code),
                Some(other) => bail!("{} instead of CONNACK", other.packet_type()),
                None if stream.read_buf(&mut buffer).await? == 0 => bail!("closed before CONNACK"),
                None => {}
            }
        }
    }
}

fn client_config(files: &TlsFiles) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots
            .add(certificate)
            .with_context(|| format!("{} is not an authority", files.ca.display()))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(|| format!("reading the key {}", files.key.display()))?;
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .context("certificate and key do not go together")
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("reading certificates from {}", path.display()))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
