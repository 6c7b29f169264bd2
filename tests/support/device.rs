//! A raw MQTT device on the product's codec: it sees every packet, and answers nothing by itself.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::BytesMut;
use forebay_broker::codec::{
    self, Ack, Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, ReasonCode, Role, Text, Version,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::DEADLINE;

const MAX_PACKET: usize = 1 << 20;

/// One connection.
pub struct Device {
    stream: TcpStream,
    buffer: BytesMut,
    version: Version,
    pub session_present: bool,
}

impl Device {
    /// Connects and waits for CONNACK; none if the gateway is not there or says no.
    pub async fn connect(address: SocketAddr, client_id: &str, version: Version, clean_start: bool) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let mut device = Self {
            stream,
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
        device.send(&Packet::Connect(Box::new(connect))).await?;
        match device.next().await? {
            Packet::ConnAck(connack) if !connack.code.is_error() => {
                device.session_present = connack.session_present;
                Some(device)
            }
            _ => None,
        }
    }

    /// Sends a packet; none if the line is dead.
    pub async fn send(&mut self, packet: &Packet) -> Option<()> {
        let mut out = BytesMut::new();
        codec::encode(packet, self.version, &mut out).unwrap();
        self.stream.write_all(&out).await.ok()
    }

    /// Publishes.
    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, id: u16, dup: bool) -> Option<()> {
        let publish = Publish {
            dup,
            qos,
            retain: false,
            topic: Text::from(topic),
            packet_id: NonZeroU16::new(id),
            properties: PublishProperties::default(),
            payload: payload.to_vec().into(),
        };
        self.send(&Packet::Publish(publish)).await
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
}
