//! Persistent sessions, as many as a gateway keeps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use forebay_broker::codec::{
    self, Connect, ConnectProperties, Packet, QoS, Role, Subscribe, SubscribeOptions, Subscription, Text, UserProperties, Version,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE_SECONDS: u16 = 1200;
const MAX_PACKET: usize = 64 << 10;

/// Opens `count` sessions that outlive their connections, each with `filters` subscriptions; the connections stay open until dropped.
pub(crate) fn open(address: SocketAddr, count: usize, filters: u16) -> anyhow::Result<Vec<TcpStream>> {
    (0..count)
        .map(|number| session(address, &format!("session-{number:04}"), filters).with_context(|| format!("session {number} of {count}")))
        .collect()
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
    let mut chunk = [0; 1024];
    loop {
        if let Some(answer) = codec::decode(&mut buffer, Version::V5, Role::Client, MAX_PACKET)? {
            return Ok(answer);
        }
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            bail!("closed by the gateway");
        }
        buffer.extend_from_slice(&chunk[..read]);
    }
}
