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
const PUBLISHERS: usize = 10;
const EXPIRY_SECONDS: u32 = 3600;

/// Opens `count` sessions that outlive their connections, each with `filters` subscriptions; the connections stay open until dropped.
pub(crate) fn open(address: SocketAddr, count: usize, filters: u16) -> anyhow::Result<Vec<TcpStream>> {
    (0..count)
        .map(|number| session(address, &format!("session-{number:04}"), filters).with_context(|| format!("session {number} of {count}")))
        .collect()
}

/// Has so many messages of so many bytes retained, by publishers that then leave: no identity may have all of them.
pub(crate) fn retain(address: SocketAddr, count: usize, size: usize) -> anyhow::Result<()> {
    for number in 0..PUBLISHERS {
        let client_id = format!("publisher-{number}");
        let mut stream = connected(address, &client_id, None)?;
        let share = (number + 1) * count / PUBLISHERS - number * count / PUBLISHERS;
        publish(&mut stream, &client_id, share, size)?;
    }
    Ok(())
}

/// Publishes so many retained messages at QoS 1, each under a topic of its own, and waits for their acks.
fn publish(stream: &mut TcpStream, client_id: &str, count: usize, size: usize) -> anyhow::Result<()> {
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

fn connected(address: SocketAddr, client_id: &str, session_expiry: Option<u32>) -> anyhow::Result<TcpStream> {
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
            session_expiry,
            ..ConnectProperties::default()
        },
    };
    match exchange(&mut stream, &Packet::Connect(Box::new(connect)))? {
        Packet::ConnAck(connack) if !connack.code.is_error() => Ok(stream),
        other => bail!("refused: {other:?}"),
    }
}

fn session(address: SocketAddr, client_id: &str, filters: u16) -> anyhow::Result<TcpStream> {
    let mut stream = connected(address, client_id, Some(EXPIRY_SECONDS))?;
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
