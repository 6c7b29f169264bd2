//! Persistent sessions, as many as a gateway keeps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use forebay_broker::codec::{
    self, Connect, ConnectProperties, Packet, Publish, QoS, Role, Subscribe, SubscribeOptions, Subscription, Text, UserProperties, Version,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE_SECONDS: u16 = 1200;
const MAX_PACKET: usize = 64 << 10;
/// Publishes sent before their acks are awaited.
const IN_FLIGHT: usize = 50;

/// How many, and what each has.
pub(crate) struct Sessions {
    pub(crate) count: usize,
    /// Subscriptions of each.
    pub(crate) filters: u16,
    /// Retained messages of all together, and the bytes of each one's payload.
    pub(crate) retained: usize,
    pub(crate) size: usize,
}

/// Opens sessions that outlive their connections; each subscribes and publishes its share of what is retained. The connections
/// stay open until dropped.
pub(crate) fn open(address: SocketAddr, sessions: &Sessions) -> anyhow::Result<Vec<TcpStream>> {
    let count = sessions.count;
    let open = |number: usize| -> anyhow::Result<TcpStream> {
        let client_id = format!("session-{number:04}");
        let mut stream = session(address, &client_id, sessions.filters)?;
        let share = (number + 1) * sessions.retained / count - number * sessions.retained / count;
        retain(&mut stream, &client_id, share, sessions.size)?;
        Ok(stream)
    };
    (0..count)
        .map(|number| open(number).with_context(|| format!("session {number} of {count}")))
        .collect()
}

/// Publishes so many retained messages at QoS 1, each under a topic of its own, and waits for their acks.
fn retain(stream: &mut TcpStream, client_id: &str, count: usize, size: usize) -> anyhow::Result<()> {
    let mut acked = 0;
    let mut answers = BytesMut::new();
    for first in (0..count).step_by(IN_FLIGHT) {
        let mut packets = BytesMut::new();
        let until = count.min(first + IN_FLIGHT);
        for number in first..until {
            let publish = Publish {
                qos: QoS::AtLeastOnce,
                retain: true,
                topic: Text::from(format!("devices/{client_id}/state/{number}").as_str()),
                packet_id: NonZeroU16::new(u16::try_from(number - first + 1)?),
                payload: vec![b'r'; size].into(),
                ..Publish::default()
            };
            codec::encode(&Packet::Publish(publish), Version::V5, &mut packets)?;
        }
        stream.write_all(&packets)?;
        while acked < until {
            match answer(stream, &mut answers)? {
                Packet::PubAck(ack) if !ack.reason.is_error() => acked += 1,
                other => bail!("not retained: {other:?}"),
            }
        }
    }
    Ok(())
}

fn session(address: SocketAddr, client_id: &str, filters: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let connect = Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: KEEP_ALIVE_SECONDS,
        client_id: client_id.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry: Some(3600),
            ..ConnectProperties::default()
        },
    };
    match exchange(&mut stream, &Packet::Connect(Box::new(connect)))? {
        Packet::ConnAck(connack) if !connack.code.is_error() => {}
        other => bail!("refused: {other:?}"),
    }
    let filter = |number: u16| Subscription {
        filter: Text::from(format!("devices/{client_id}/commands/kind-{number}").as_str()),
        options: SubscribeOptions {
            qos: QoS::AtLeastOnce,
            ..SubscribeOptions::default()
        },
    };
    let subscribe = Subscribe {
        packet_id: NonZeroU16::MIN,
        subscription_id: None,
        user: UserProperties::default(),
        filters: (0..filters).map(filter).collect(),
    };
    match exchange(&mut stream, &Packet::Subscribe(subscribe))? {
        Packet::SubAck(suback) if suback.codes.iter().all(|code| !code.is_error()) => Ok(stream),
        other => bail!("not subscribed: {other:?}"),
    }
}

fn exchange(stream: &mut TcpStream, packet: &Packet) -> anyhow::Result<Packet> {
    let mut buffer = BytesMut::new();
    codec::encode(packet, Version::V5, &mut buffer)?;
    stream.write_all(&buffer)?;
    buffer.clear();
    answer(stream, &mut buffer)
}

fn answer(stream: &mut TcpStream, buffer: &mut BytesMut) -> anyhow::Result<Packet> {
    let mut chunk = [0; 1024];
    loop {
        if let Some(answer) = codec::decode(buffer, Version::V5, Role::Client, MAX_PACKET)? {
            return Ok(answer);
        }
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            bail!("closed by the gateway");
        }
        buffer.extend_from_slice(&chunk[..read]);
    }
}
