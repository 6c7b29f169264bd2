//! A raw MQTT device on the product's codec: it sees every packet, and answers nothing by itself.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use forebay_broker::codec::{
    self, Ack, Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, ReasonCode, Role, Text, Version,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::DEADLINE;

const MAX_PACKET: usize = 1 << 20;

/// Bytes both ways: TCP, or TLS over it.
pub trait Line: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Line for S {}

/// One connection.
pub struct Device {
    stream: Box<dyn Line>,
    buffer: BytesMut,
    version: Version,
    pub session_present: bool,
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// Nobody listens, or TLS failed.
    Unreachable(String),
    /// The line ended before a CONNACK came.
    Closed,
    /// CONNACK said no.
    Refused(ReasonCode),
}

impl Device {
    /// Connects and waits for CONNACK; none if the gateway is not there or says no.
    pub async fn connect(address: SocketAddr, client_id: &str, version: Version, clean_start: bool) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Self::over(stream, client_id, version, clean_start).await.ok()
    }

    /// Connects over TLS, dialling `name`.
    pub async fn connect_tls(
        address: SocketAddr,
        name: &str,
        tls: &Arc<ClientConfig>,
        client_id: &str,
        version: Version,
    ) -> Result<Self, NotConnected> {
        let unreachable = |error: std::io::Error| NotConnected::Unreachable(error.to_string());
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(unreachable)?;
        Self::over(stream, client_id, version, true).await
    }

    /// Sends CONNECT over an open line and waits for CONNACK.
    pub async fn over(stream: impl Line + 'static, client_id: &str, version: Version, clean_start: bool) -> Result<Self, NotConnected> {
        let mut device = Self {
            stream: Box::new(stream),
            buffer: BytesMut::new(),
            version,
            session_present: false,
        };
        let properties = ConnectProperties {
            session_expiry: (version == Version::V5 && !clean_start).then_some(3600),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version,
            clean_start,
            keep_alive: 60,
            client_id: Text::from(client_id),
            will: None,
            username: None,
            password: None,
            properties,
        };
        device.send(&Packet::Connect(Box::new(connect))).await.ok_or(NotConnected::Closed)?;
        match device.next().await.ok_or(NotConnected::Closed)? {
            Packet::ConnAck(connack) if connack.code.is_error() => Err(NotConnected::Refused(connack.code)),
            Packet::ConnAck(connack) => {
                device.session_present = connack.session_present;
                Ok(device)
            }
            other => panic!("the first packet was {other:?}"),
        }
    }

    /// Sends a packet; none if the line is dead.
    pub async fn send(&mut self, packet: &Packet) -> Option<()> {
        let mut out = BytesMut::new();
        codec::encode(packet, self.version, &mut out).unwrap();
        self.send_bytes(&out).await
    }

    /// Sends bytes as they are; none if the line is dead.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()?;
        self.stream.flush().await.ok()
    }

    /// Publishes.
    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, id: u16, dup: bool) -> Option<()> {
        self.send(&publish(topic, payload, qos, id, dup, None)).await
    }

    /// PUBREL.
    pub async fn release(&mut self, id: u16) -> Option<()> {
        self.send(&Packet::PubRel(Ack::new(NonZeroU16::new(id).unwrap(), ReasonCode::SUCCESS)))
            .await
    }

    /// The next packet; none when the line has ended.
    pub async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = codec::decode(&mut self.buffer, self.version, Role::Client, MAX_PACKET).ok()? {
                return Some(packet);
            }
            let read = tokio::time::timeout(DEADLINE, self.stream.read_buf(&mut self.buffer)).await.ok()?;
            if read.ok()? == 0 {
                return None;
            }
        }
    }

    /// The next packet, if it comes this soon.
    pub async fn next_within(&mut self, time: Duration) -> Option<Packet> {
        tokio::time::timeout(time, self.next()).await.ok()?
    }

    /// The reason of the next PUBACK; none when the line has ended.
    pub async fn puback(&mut self) -> Option<ReasonCode> {
        match self.next().await? {
            Packet::PubAck(ack) => Some(ack.reason),
            other => panic!("{other:?} came instead of a PUBACK"),
        }
    }
}

/// A PUBLISH; on MQTT 5 with a message expiry in seconds if one is given.
pub fn publish(topic: &str, payload: &[u8], qos: QoS, id: u16, dup: bool, expiry: Option<u32>) -> Packet {
    Packet::Publish(Publish {
        dup,
        qos,
        retain: false,
        topic: Text::from(topic),
        packet_id: NonZeroU16::new(id),
        properties: PublishProperties {
            expiry,
            ..PublishProperties::default()
        },
        payload: payload.to_vec().into(),
    })
}
