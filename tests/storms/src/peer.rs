//! A connection that does what it likes.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use bytes::BytesMut;
use forebay_broker::codec::{
    self, Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, Role, Subscribe, SubscribeOptions, Subscription, Text,
    Version,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const MAX_PACKET: usize = 1 << 20;

/// The reading half.
pub(crate) struct Input {
    stream: OwnedReadHalf,
    buffer: BytesMut,
}

/// The writing half.
pub(crate) struct Output {
    stream: OwnedWriteHalf,
    out: BytesMut,
}

/// Connects with MQTT 5. A session that lasts if `is_clean` is not set.
pub(crate) async fn connect(address: SocketAddr, client_id: &str, is_clean: bool) -> io::Result<(Input, Output)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (input, output) = stream.into_split();
    let mut input = Input {
        stream: input,
        buffer: BytesMut::new(),
    };
    let mut output = Output {
        stream: output,
        out: BytesMut::new(),
    };
    output.add(&Packet::Connect(Box::new(connect_packet(client_id, is_clean))))?;
    output.flush().await?;
    match input.next().await? {
        Packet::ConnAck(connack) if !connack.code.is_error() => Ok((input, output)),
        other => Err(io::Error::other(format!("{other:?} instead of a CONNACK with success"))),
    }
}

/// The CONNECT that [`connect`] sends.
pub(crate) fn connect_packet(client_id: &str, is_clean: bool) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: is_clean,
        keep_alive: 60,
        client_id: Text::from(client_id.to_owned()),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry: (!is_clean).then_some(60),
            ..ConnectProperties::default()
        },
    }
}

/// A PUBLISH; the packet id counts for QoS 1 and 2 alone.
pub(crate) fn publish(topic: String, qos: QoS, packet_id: u16, retain: bool, payload: bytes::Bytes) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain,
        topic: Text::from(topic),
        packet_id: NonZeroU16::new(packet_id).filter(|_| qos != QoS::AtMostOnce),
        properties: PublishProperties::default(),
        payload,
    })
}

/// A SUBSCRIBE at QoS 0.
pub(crate) fn subscribe(packet_id: u16, filters: impl IntoIterator<Item = String>) -> Packet {
    let subscription = |filter| Subscription {
        filter: Text::from(filter),
        options: SubscribeOptions::default(),
    };
    Packet::Subscribe(Subscribe {
        packet_id: NonZeroU16::new(packet_id).unwrap_or(NonZeroU16::MIN),
        subscription_id: None,
        user: Vec::new(),
        filters: filters.into_iter().map(subscription).collect(),
    })
}

impl Input {
    /// The next packet.
    pub(crate) async fn next(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = codec::decode(&mut self.buffer, Version::V5, Role::Client, MAX_PACKET).map_err(io::Error::other)? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads this many bytes at most, and forgets them.
    pub(crate) async fn skip(&mut self, most: usize) -> io::Result<()> {
        self.buffer.clear();
        let mut scratch = vec![0; most];
        match self.stream.read(&mut scratch).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Output {
    /// Adds a packet to what is sent next.
    pub(crate) fn add(&mut self, packet: &Packet) -> io::Result<()> {
        codec::encode(packet, Version::V5, &mut self.out).map_err(io::Error::other)
    }

    /// Sends it.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Sends one packet.
    pub(crate) async fn send(&mut self, packet: &Packet) -> io::Result<()> {
        self.add(packet)?;
        self.flush().await
    }
}
