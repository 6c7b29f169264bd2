//! The MQTT 3.1.1 and 5.0 codec: bytes to packets and back, without any I/O.
//!
//! # Promises
//!
//! 1. No byte sequence panics [`decode`], [`decode_connect`] or any function of this module, and no [`Packet`] panics [`encode`].
//! 2. What the protocol forbids is refused here, once, with the rule that forbids it: wrong flags, packet id 0, bad UTF-8, NUL, wildcards in
//!    topic names, properties that are unknown, misplaced or repeated, bytes left over. What comes out of `decode` is valid on its own.
//!    Left to the caller: what needs more than one packet (aliases, packet ids in use), filter syntax, and what the gateway allows.
//! 3. `None` means *more bytes are needed* and nothing else. A size over the limit is refused from the fixed header alone, and memory grows
//!    with the bytes that arrived, not with the length a peer claims.
//! 4. Publishes are not copied: topic, payload and properties share the read buffer. Copy what is kept for long.
//! 5. A packet that cannot be encoded is an [`EncodeError`], and the output is then as it was.
//!
//! MQTT 3.1 (`MQIsdp`, level 3) has the layout of 3.1.1 and is served as such.

mod ack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod properties;
mod publish;
mod reason;
mod subscribe;
#[cfg(test)]
mod tests;
mod text;

pub use ack::{Ack, AckProperties, encode_puback, encode_pubcomp, encode_pubrec, encode_pubrel};
pub use connect::{ConnAck, ConnAckProperties, Connect, ConnectProperties, Will, WillProperties};
pub use disconnect::{Auth, AuthProperties, Disconnect, DisconnectProperties};
pub use error::{DecodeError, EncodeError, Fault};
pub use frame::packet_length;
pub use properties::{Property, UserProperties, travelling};
pub use publish::{Publish, PublishHeader, PublishProperties, encode_publish, encode_publish_header};
pub use reason::ReasonCode;
pub use subscribe::{RetainHandling, SubAck, Subscribe, SubscribeOptions, Subscription, UnsubAck, Unsubscribe};
pub use text::Text;

use std::fmt;

use bytes::{Bytes, BytesMut};

use error::Found;
use frame::{Header, Reader};

/// The protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1.1; 3.1 is treated the same.
    V311,
    /// MQTT 5.0.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        })
    }
}

/// How hard a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level 0, 1 or 2; nothing else exists.
    pub fn from_level(level: u8) -> Option<QoS> {
        match level {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// 0, 1 or 2.
    pub fn level(self) -> u8 {
        self as u8
    }
}

/// Which end of the connection *we* are: it decides which packets the peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We are the broker.
    Server,
    /// We are the client.
    Client,
}

/// The sixteen packet types, as they are in the fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum PacketType {
    Reserved = 0,
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    fn of(first: u8) -> PacketType {
        use PacketType::*;
        const TYPES: [PacketType; 16] = [
            Reserved,
            Connect,
            ConnAck,
            Publish,
            PubAck,
            PubRec,
            PubRel,
            PubComp,
            Subscribe,
            SubAck,
            Unsubscribe,
            UnsubAck,
            PingReq,
            PingResp,
            Disconnect,
            Auth,
        ];
        TYPES[usize::from(first >> 4)]
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_uppercase())
    }
}

/// A packet of either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

impl Packet {
    /// The type in its fixed header.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}

/// Takes the next packet off the front of `buffer`, or returns `None` when more bytes are needed.
///
/// `role` is ours, `max_packet` counts the whole packet with its fixed header.
///
/// # Errors
///
/// Any breach of the protocol within the packet, a packet the peer may not send (a second CONNECT included), a size over `max_packet`.
/// After an error the connection cannot go on: framing may be lost.
pub fn decode(buffer: &mut BytesMut, version: Version, role: Role, max_packet: usize) -> Result<Option<Packet>, DecodeError> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let packet_type = PacketType::of(first);
    let blame = |fault| DecodeError::new(packet_type, Some(version), fault);
    admit(packet_type, first & 0x0f, version, role).map_err(blame)?;
    let Some((header, frame)) = frame::take(buffer, max_packet).map_err(blame)? else {
        return Ok(None);
    };
    header.check_minimal(version).map_err(blame)?;
    parse(packet_type, header, &frame, version, role).map(Some).map_err(blame)
}

/// Takes the first packet of a server's connection, which must be a CONNECT and says which version the rest is in.
///
/// # Errors
///
/// As [`decode`]. A level that is not served is [`Fault::UnsupportedLevel`] (its [`DecodeError::version`] is the one to answer in); another
/// protocol is refused from its first byte.
pub fn decode_connect(buffer: &mut BytesMut, max_packet: usize) -> Result<Option<Connect>, DecodeError> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let packet_type = PacketType::of(first);
    let blame = |fault| DecodeError::new(packet_type, None, fault);
    if packet_type != PacketType::Connect {
        return Err(blame(Fault::FirstNotConnect));
    }
    if first == TLS_HANDSHAKE {
        return Err(blame(Fault::SpeaksTls));
    }
    if first & 0x0f != 0 {
        return Err(blame(Fault::Flags(first & 0x0f)));
    }
    let Some((header, frame)) = frame::take(buffer, max_packet).map_err(blame)? else {
        return Ok(None);
    };
    connect::decode_connect(&mut Reader::body(&frame, header), header)
        .map(Some)
        .map_err(|(fault, version)| DecodeError::new(packet_type, version, fault))
}

/// The first byte of a TLS connection. As a CONNECT's it would have flags that are not allowed.
const TLS_HANDSHAKE: u8 = 0x16;

/// Appends `packet` to `out` in the given version.
///
/// On 3.1.1 properties are left out and reason codes become what that version has: CONNACK codes 1 to 5, 0x80 in SUBACK.
///
/// # Errors
///
/// What cannot be said on the wire (see [`EncodeError`]); `out` is then unchanged.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    let result = match packet {
        Packet::Connect(connect) => connect::encode_connect(connect, out),
        Packet::ConnAck(connack) => connect::encode_connack(connack, version, out),
        Packet::Publish(publish) => encode_publish(publish, version, out),
        Packet::PubAck(ack) => ack::encode(PacketType::PubAck, ack, version, out),
        Packet::PubRec(ack) => ack::encode(PacketType::PubRec, ack, version, out),
        Packet::PubRel(ack) => ack::encode(PacketType::PubRel, ack, version, out),
        Packet::PubComp(ack) => ack::encode(PacketType::PubComp, ack, version, out),
        Packet::Subscribe(subscribe) => subscribe::encode_subscribe(subscribe, version, out),
        Packet::SubAck(suback) => subscribe::encode_suback(suback, version, out),
        Packet::Unsubscribe(unsubscribe) => subscribe::encode_unsubscribe(unsubscribe, version, out),
        Packet::UnsubAck(unsuback) => subscribe::encode_unsuback(unsuback, version, out),
        Packet::PingReq => frame::write(PacketType::PingReq, 0, &[], out),
        Packet::PingResp => frame::write(PacketType::PingResp, 0, &[], out),
        Packet::Disconnect(disconnect) => disconnect::encode_disconnect(disconnect, version, out),
        Packet::Auth(auth) => disconnect::encode_auth(auth, version, out),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Checks of the first byte: whether the peer may send this type, and its flags.
fn admit(packet_type: PacketType, flags: u8, version: Version, role: Role) -> Found<()> {
    use PacketType::*;
    let to = match packet_type {
        Reserved => return Err(Fault::ReservedType),
        Auth if version == Version::V311 => return Err(Fault::ReservedType),
        Connect if role == Role::Server => return Err(Fault::SecondConnect),
        Connect | Subscribe | Unsubscribe | PingReq => Some(Role::Server),
        ConnAck | SubAck | UnsubAck | PingResp => Some(Role::Client),
        Disconnect if version == Version::V311 => Some(Role::Server),
        Publish | PubAck | PubRec | PubRel | PubComp | Disconnect | Auth => None,
    };
    if to.is_some_and(|to| to != role) {
        return Err(Fault::WrongDirection);
    }
    let wanted = match packet_type {
        Publish => return publish::check_flags(flags),
        PubRel | Subscribe | Unsubscribe => 0b0010,
        _ => 0,
    };
    if flags == wanted { Ok(()) } else { Err(Fault::Flags(flags)) }
}

fn parse(packet_type: PacketType, header: Header, frame: &Bytes, version: Version, role: Role) -> Found<Packet> {
    let mut reader = Reader::body(frame, header);
    let reader = &mut reader;
    let packet = match packet_type {
        PacketType::Publish => return publish::decode(header.flags, reader, version, role).map(Packet::Publish),
        PacketType::PubAck => Packet::PubAck(ack::decode(packet_type, reader, version)?),
        PacketType::PubRec => Packet::PubRec(ack::decode(packet_type, reader, version)?),
        PacketType::PubRel => Packet::PubRel(ack::decode(packet_type, reader, version)?),
        PacketType::PubComp => Packet::PubComp(ack::decode(packet_type, reader, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::decode_subscribe(reader, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::decode_unsubscribe(reader, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(disconnect::decode_disconnect(reader, version, role)?),
        PacketType::Auth => Packet::Auth(disconnect::decode_auth(reader)?),
        PacketType::ConnAck => Packet::ConnAck(Box::new(connect::decode_connack(reader, version)?)),
        PacketType::SubAck => Packet::SubAck(subscribe::decode_suback(reader, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::decode_unsuback(reader, version)?),
        PacketType::Reserved | PacketType::Connect => return Err(Fault::ReservedType),
    };
    reader.finish()?;
    Ok(packet)
}
