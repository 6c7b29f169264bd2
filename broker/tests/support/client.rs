//! A client that does only what it is told, on the codec of the front.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use forebay_broker::codec::{
    ConnAck, Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, ReasonCode, Role, Subscribe, SubscribeOptions,
    Subscription, Text, Version, Will, WillProperties, decode, encode,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub struct Client {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    pub version: Version,
}

impl Client {
    /// A TCP connection on which nothing was said yet.
    pub async fn opened(address: SocketAddr, version: Version) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, version)
    }

    pub fn over(stream: impl Stream + 'static, version: Version) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: BytesMut::new(),
            version,
        }
    }

    /// Connects and gives the CONNACK.
    pub async fn connect(address: SocketAddr, connect: Connect) -> (Self, ConnAck) {
        let mut client = Self::opened(address, connect.version).await;
        client.send(&Packet::Connect(Box::new(connect))).await;
        let connack = client.connack().await;
        (client, connack)
    }

    pub async fn connack(&mut self) -> ConnAck {
        match self.receive().await {
            Some(Packet::ConnAck(connack)) => *connack,
            other => panic!("CONNACK was due, not {other:?}"),
        }
    }

    /// Connects with success.
    pub async fn connected(address: SocketAddr, connect: Connect) -> Self {
        let (client, connack) = Self::connect(address, connect).await;
        assert_eq!(connack.code, ReasonCode::SUCCESS);
        client
    }

    pub async fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        encode(packet, self.version, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends; false if the peer is gone.
    pub async fn try_send(&mut self, packet: &Packet) -> bool {
        let mut out = BytesMut::new();
        encode(packet, self.version, &mut out).unwrap();
        self.send_raw(&out).await
    }

    /// Sends the beginning of a packet, so many bytes of it.
    pub async fn begin(&mut self, packet: &Packet, bytes: usize) {
        let mut out = BytesMut::new();
        encode(packet, self.version, &mut out).unwrap();
        assert!(self.send_raw(&out[..bytes]).await);
    }

    /// Sends whatever bytes; false if the peer is gone.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// The next packet; `None` if the connection has ended.
    pub async fn receive(&mut self) -> Option<Packet> {
        within("a packet", async {
            loop {
                if let Some(packet) = decode(&mut self.buffer, self.version, Role::Client, usize::MAX).unwrap() {
                    return Some(packet);
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    pub async fn expect(&mut self, expected: &Packet) {
        assert_eq!(self.receive().await.as_ref(), Some(expected));
    }

    pub async fn expect_ack(&mut self, packet_id: u16, expected: ReasonCode) {
        match self.receive().await {
            Some(Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack)) => {
                assert_eq!((ack.packet_id.get(), ack.reason), (packet_id, expected));
            }
            other => panic!("an ack of {packet_id} was due, not {other:?}"),
        }
    }

    /// The connection ends, on MQTT 5 with this reason first.
    pub async fn expect_end(&mut self, reason: ReasonCode) {
        if self.version == Version::V5 {
            match self.receive().await {
                Some(Packet::Disconnect(disconnect)) => assert_eq!(disconnect.reason, reason),
                other => panic!("DISCONNECT {reason} was due, not {other:?}"),
            }
        }
        assert_eq!(self.receive().await, None, "the connection should have ended");
    }

    /// PINGREQ and its answer. All that was sent before is processed then, and what comes first was sent before.
    pub async fn ping(&mut self) {
        self.send(&Packet::PingReq).await;
        self.expect(&Packet::PingResp).await;
    }

    /// Subscribes at QoS 0; all that was asked for is granted.
    pub async fn subscribe(&mut self, packet_id: u16, filter: &str) {
        let codes = self.subscribe_with(packet_id, &[filter], SubscribeOptions::default(), None).await;
        assert_eq!(codes, [ReasonCode::SUCCESS], "{filter}");
    }

    pub async fn subscribe_with(
        &mut self,
        packet_id: u16,
        filters: &[&str],
        options: SubscribeOptions,
        subscription_id: Option<u32>,
    ) -> Vec<ReasonCode> {
        let subscribe = Subscribe {
            packet_id: id(packet_id),
            subscription_id: subscription_id.and_then(std::num::NonZeroU32::new),
            user: Vec::new(),
            filters: filters
                .iter()
                .map(|filter| Subscription {
                    filter: Text::from((*filter).to_owned()),
                    options,
                })
                .collect(),
        };
        self.send(&Packet::Subscribe(subscribe)).await;
        match self.receive().await {
            Some(Packet::SubAck(suback)) => {
                assert_eq!(suback.packet_id.get(), packet_id);
                suback.codes
            }
            other => panic!("SUBACK was due, not {other:?}"),
        }
    }

    pub async fn message(&mut self) -> Publish {
        match self.receive().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("a message was due, not {other:?}"),
        }
    }

    /// The next message's topic and payload.
    pub async fn text(&mut self) -> (String, String) {
        let message = self.message().await;
        (
            message.topic.as_str().to_owned(),
            String::from_utf8_lossy(&message.payload).into_owned(),
        )
    }
}

pub fn id(packet_id: u16) -> NonZeroU16 {
    NonZeroU16::new(packet_id).unwrap()
}

/// A CONNECT of MQTT 5 with a clean start and a session that ends with it.
pub fn connect_5(client_id: &str) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 60,
        client_id: Text::from(client_id.to_owned()),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A CONNECT that resumes its session and keeps it for an hour.
pub fn resume_5(client_id: &str) -> Connect {
    Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: Some(3600),
            ..ConnectProperties::default()
        },
        ..connect_5(client_id)
    }
}

/// [`connect_5`] in 3.1.1.
pub fn connect_311(client_id: &str) -> Connect {
    Connect {
        version: Version::V311,
        ..connect_5(client_id)
    }
}

/// A publish whose payload is its packet id (0 at QoS 0).
pub fn publish(topic: &str, qos: u8, packet_id: Option<u16>) -> Packet {
    Packet::Publish(Publish {
        qos: QoS::from_level(qos).unwrap(),
        topic: Text::from(topic.to_owned()),
        packet_id: packet_id.map(id),
        properties: PublishProperties::default(),
        payload: Bytes::from(packet_id.unwrap_or(0).to_string()),
        ..Publish::default()
    })
}

pub fn will(topic: &str, qos: u8, delay: Option<u32>) -> Will {
    Will {
        topic: Text::from(topic.to_owned()),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::from_level(qos).unwrap(),
        retain: false,
        properties: WillProperties {
            delay,
            ..WillProperties::default()
        },
    }
}
