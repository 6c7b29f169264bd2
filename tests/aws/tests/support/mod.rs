//! Clients for the tests: rumqttc for the ordinary, raw bytes for the rest.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part; a helper that fails fails the test"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use forebay_aws_standin::{Standin, StandinConfig, certificates::Authority};
use rumqttc::v5;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn plain() -> Standin {
    Standin::start(StandinConfig::default()).await.unwrap()
}

pub async fn tls_standin(authority: &Authority) -> Standin {
    let config = StandinConfig {
        tls: Some(authority.server_tls().unwrap()),
        ..StandinConfig::default()
    };
    Standin::start(config).await.unwrap()
}

pub type Tls = Arc<rustls::ClientConfig>;

/// A rumqttc client of MQTT 3.1.1.
pub fn client_v4(address: SocketAddr, id: &str) -> (rumqttc::AsyncClient, rumqttc::EventLoop) {
    let mut options = rumqttc::MqttOptions::new(id, "127.0.0.1", address.port());
    options.set_keep_alive(Duration::from_secs(30));
    rumqttc::AsyncClient::new(options, 10)
}

/// A rumqttc client of MQTT 5.
pub fn client_v5(address: SocketAddr, id: &str) -> (v5::AsyncClient, v5::EventLoop) {
    client_v5_with(address, id, |_| {})
}

pub fn client_v5_with(address: SocketAddr, id: &str, change: impl FnOnce(&mut v5::MqttOptions)) -> (v5::AsyncClient, v5::EventLoop) {
    let mut options = v5::MqttOptions::new(id, "127.0.0.1", address.port());
    options.set_keep_alive(Duration::from_secs(30));
    change(&mut options);
    v5::AsyncClient::new(options, 10)
}

/// Polls until an event fits.
pub async fn until_v4(events: &mut rumqttc::EventLoop, fits: impl Fn(&rumqttc::Packet) -> bool) -> rumqttc::Packet {
    let poll = async {
        loop {
            if let rumqttc::Event::Incoming(packet) = events.poll().await.unwrap()
                && fits(&packet)
            {
                return packet;
            }
        }
    };
    timeout(DEADLINE, poll).await.unwrap()
}

pub async fn until_v5(events: &mut v5::EventLoop, fits: impl Fn(&v5::Incoming) -> bool) -> v5::Incoming {
    let poll = async {
        loop {
            if let v5::Event::Incoming(packet) = events.poll().await.unwrap()
                && fits(&packet)
            {
                return packet;
            }
        }
    };
    timeout(DEADLINE, poll).await.unwrap()
}

/// Polls until the connection is over.
pub async fn until_error_v5(events: &mut v5::EventLoop) {
    timeout(DEADLINE, async { while events.poll().await.is_ok() {} }).await.unwrap();
}

/// A TLS connection with a server name of choice.
pub async fn tls_raw(address: SocketAddr, name: &'static str, tls: Tls) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from(name).unwrap();
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await?;
    Ok(Raw { stream, version: 5 })
}

/// CONNECT over TLS with a server name of choice; the CONNACK, or why there is none.
pub async fn tls_connect(address: SocketAddr, name: &'static str, tls: Tls) -> std::io::Result<Vec<u8>> {
    let attempt = async {
        let mut raw = tls_raw(address, name, tls).await?;
        raw.send(&connect(5, "tls", 30)).await;
        raw.packet()
            .await
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
    };
    timeout(DEADLINE, attempt).await.unwrap()
}

/// A client of raw bytes.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    pub version: u8,
}

impl Raw {
    pub async fn open(address: SocketAddr, version: u8) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            version,
        }
    }

    /// Opens and connects with success.
    pub async fn connected(address: SocketAddr, version: u8, id: &str) -> Self {
        let mut raw = Self::open(address, version).await;
        raw.send(&connect(version, id, 30)).await;
        let connack = raw.packet().await.expect("a CONNACK");
        assert_eq!(
            (connack[0], connack[3]),
            (0x20, if version == 5 { 0 } else { connack[3] }),
            "{connack:02X?}"
        );
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Writes; a peer that has closed shows when reading.
    pub async fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes).await {
            eprintln!("write: {error}");
        }
        drop(self.stream.flush().await);
    }

    /// The next packet, or `None` when the connection ends.
    pub async fn packet(&mut self) -> Option<Vec<u8>> {
        timeout(DEADLINE, async {
            let mut packet = vec![self.stream.read_u8().await.ok()?];
            let mut length = 0;
            for index in 0..4 {
                let byte = self.stream.read_u8().await.ok()?;
                packet.push(byte);
                length |= usize::from(byte & 0x7F) << (7 * index);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let start = packet.len();
            packet.resize(start + length, 0);
            self.stream.read_exact(&mut packet[start..]).await.ok()?;
            Some(packet)
        })
        .await
        .expect("a packet or the end within the deadline")
    }

    /// Asserts that the server has answered all it will: the next packet is the answer to a ping.
    pub async fn answers_nothing(&mut self) {
        self.send(&[0xC0, 0]).await;
        assert_eq!(self.packet().await, Some(vec![0xD0, 0]));
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16) {
        let bytes = publish(self.version, topic, payload, qos << 1, id);
        self.send(&bytes).await;
    }

    pub async fn expect_puback(&mut self, id: u16, code: u8) {
        let [high, low] = id.to_be_bytes();
        let expected = if code == 0 {
            vec![0x40, 2, high, low]
        } else {
            vec![0x40, 3, high, low, code]
        };
        assert_eq!(self.packet().await, Some(expected), "the PUBACK of {id}");
    }
}

pub fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    let mut rest = body.len();
    while rest > 0x7F {
        bytes.push(0x80 | (rest & 0x7F) as u8);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.extend_from_slice(body);
    bytes
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = (value.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// A CONNECT with a clean start.
pub fn connect(version: u8, id: &str, keep_alive: u16) -> Vec<u8> {
    connect_with(version, id, keep_alive, 0b10, &[])
}

/// A CONNECT with flags of choice and whatever follows the client id.
pub fn connect_with(version: u8, id: &str, keep_alive: u16, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([version, flags]);
    body.extend(keep_alive.to_be_bytes());
    if version == 5 {
        body.push(0);
    }
    body.extend(text(id));
    body.extend_from_slice(rest);
    packet(0x10, &body)
}

/// A PUBLISH with these flags (DUP 8, QoS 2 or 4, RETAIN 1).
pub fn publish(version: u8, topic: &str, payload: &[u8], flags: u8, id: u16) -> Vec<u8> {
    let mut body = text(topic);
    if flags & 0b110 != 0 {
        body.extend(id.to_be_bytes());
    }
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30 | flags, &body)
}

/// A SUBSCRIBE at QoS 1.
pub fn subscribe(version: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(text(filter));
        body.push(1);
    }
    packet(0x82, &body)
}
