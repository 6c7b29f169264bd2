//! What the codec promises, held against hand-written bytes, hostile bytes and generated packets.

#![allow(clippy::unwrap_used)]

mod generated;
mod hostile;
mod packets;
mod wire;

use super::*;

const MAX_PACKET: usize = 128 * 1024;

/// The side that receives this packet, where only one does.
fn receiver(packet: &Packet) -> Role {
    match packet {
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => Role::Client,
        Packet::Publish(publish) if !publish.properties.subscription_ids.is_empty() => Role::Client,
        Packet::Disconnect(disconnect) if disconnect.properties.server_reference.is_some() => Role::Client,
        _ => Role::Server,
    }
}

/// Decodes one packet of any type.
fn read(buffer: &mut BytesMut, version: Version, role: Role) -> Result<Option<Packet>, DecodeError> {
    if role == Role::Server && buffer.first().is_some_and(|first| first >> 4 == 1) {
        return Ok(decode_connect(buffer, MAX_PACKET)?.map(|connect| Packet::Connect(Box::new(connect))));
    }
    decode(buffer, version, role, MAX_PACKET)
}

fn encoded(packet: &Packet, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).unwrap();
    out
}
