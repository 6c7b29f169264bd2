//! From bytes to packets. The codec crate reads the variable parts; framing and what it lets pass are checked here.

use bytes::{Buf, Bytes, BytesMut};
use mqtt_protocol_core::mqtt::{
    packet::{Properties, Property, v3_1_1, v5_0},
    result_code::MqttError,
};

/// The protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Version {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
}

/// A packet cut out of the stream.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The first byte: type and flags.
    pub(crate) head: u8,
    pub(crate) body: Bytes,
    /// Bytes of the whole packet.
    pub(crate) size: usize,
}

/// Bytes that break the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The reason code MQTT 5 is told.
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Malformed {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn codec(packet: &str, error: MqttError) -> Self {
        let code = u8::try_from(error as u16).ok().filter(|&code| code >= 0x80).unwrap_or(0x81);
        Self::new(code, format!("{packet} does not parse: {error}"))
    }
}

/// Cuts the next packet out of `buffer`, if it is complete.
pub(crate) fn frame(buffer: &mut BytesMut, max_packet: usize) -> Result<Option<Frame>, Malformed> {
    let Some(&head) = buffer.first() else { return Ok(None) };
    let mut remaining = 0_usize;
    for index in 0..4 {
        let Some(&byte) = buffer.get(1 + index) else { return Ok(None) };
        remaining |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        let size = 2 + index + remaining;
        if size > max_packet {
            return Err(Malformed::new(0x95, format!("packet of {size} bytes, the limit is {max_packet}")));
        }
        if buffer.len() < size {
            buffer.reserve(size - buffer.len());
            return Ok(None);
        }
        buffer.advance(2 + index);
        return Ok(Some(Frame {
            head,
            body: buffer.split_to(remaining).freeze(),
            size,
        }));
    }
    Err(Malformed::new(0x81, "remaining length longer than four bytes"))
}

/// A CONNECT, whichever version.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    /// `None` when a 3.1.1 client asks for a session: it lasts as long as the server allows.
    pub(crate) session_expiry: Option<u32>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: Option<u32>,
    pub(crate) will: Option<Will>,
}

/// A last will.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
}

/// Why a first packet is no CONNECT.
#[derive(Debug)]
pub(crate) struct NotConnect {
    /// The version to answer in, when it could be told.
    pub(crate) version: Option<Version>,
    pub(crate) malformed: Malformed,
}

/// Reads the first packet.
pub(crate) fn connect(frame: &Frame) -> Result<Connect, NotConnect> {
    let refuse = |version, malformed| NotConnect { version, malformed };
    if frame.head != 0x10 {
        let text = format!("the first packet starts with 0x{:02X}, CONNECT with 0x10", frame.head);
        return Err(refuse(None, Malformed::new(0x82, text)));
    }
    let (version, flags) = match (frame.body.get(6), frame.body.get(7)) {
        (Some(4), Some(flags)) => (Version::V311, *flags),
        (Some(5), Some(flags)) => (Version::V5, *flags),
        (Some(level), _) => return Err(refuse(None, Malformed::new(0x84, format!("protocol level {level}")))),
        _ => return Err(refuse(None, Malformed::new(0x81, "CONNECT too short"))),
    };
    let malformed = |text: &str| refuse(Some(version), Malformed::new(0x81, text));
    let will_bits = flags & 0b0011_1000;
    if flags & 1 != 0 || flags & 0b0001_1000 == 0b0001_1000 || (flags & 0b100 == 0 && will_bits != 0) {
        return Err(malformed("CONNECT with reserved flags"));
    }
    let codec = |error| refuse(Some(version), Malformed::codec("CONNECT", error));
    let (connect, consumed) = match version {
        Version::V311 => {
            let (packet, consumed) = v3_1_1::Connect::parse(&frame.body).map_err(codec)?;
            let will = will(packet.will_topic(), packet.will_payload(), packet.will_qos() as u8);
            let connect = Connect {
                version,
                client_id: packet.client_id().to_owned(),
                clean: packet.clean_session(),
                keep_alive: packet.keep_alive(),
                session_expiry: packet.clean_session().then_some(0),
                receive_maximum: u16::MAX,
                max_packet: None,
                will,
            };
            (connect, consumed)
        }
        Version::V5 => {
            let (packet, consumed) = v5_0::Connect::parse(&frame.body).map_err(codec)?;
            let will = will(packet.will_topic(), packet.will_payload(), packet.will_qos() as u8);
            let mut connect = Connect {
                version,
                client_id: packet.client_id().to_owned(),
                clean: packet.clean_start(),
                keep_alive: packet.keep_alive(),
                session_expiry: Some(0),
                receive_maximum: u16::MAX,
                max_packet: None,
                will,
            };
            for property in packet.props() {
                match property {
                    Property::SessionExpiryInterval(value) => connect.session_expiry = Some(value.val()),
                    Property::ReceiveMaximum(value) => connect.receive_maximum = value.val(),
                    Property::MaximumPacketSize(value) => connect.max_packet = Some(value.val()),
                    Property::AuthenticationMethod(_) => {
                        return Err(refuse(
                            Some(version),
                            Malformed::new(0x82, "enhanced authentication is not supported"),
                        ));
                    }
                    _ => {}
                }
            }
            (connect, consumed)
        }
    };
    if consumed != frame.body.len() {
        return Err(malformed("CONNECT with bytes after its end"));
    }
    Ok(connect)
}

fn will(topic: Option<&str>, payload: Option<&[u8]>, qos: u8) -> Option<Will> {
    Some(Will {
        topic: topic?.to_owned(),
        payload: Bytes::copy_from_slice(payload?),
        qos,
    })
}

/// A packet after CONNECT.
#[derive(Debug)]
pub(crate) enum Packet {
    Publish(Publish),
    Puback(u16),
    Subscribe(Subscribe),
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    Pingreq,
    Disconnect { with_will: bool },
}

/// A PUBLISH as it came.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// 0 at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) alias: Option<u16>,
    pub(crate) user_properties: Vec<(String, String)>,
    pub(crate) size: usize,
}

/// A SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) packet_id: u16,
    /// Filters with the QoS asked for.
    pub(crate) filters: Vec<(String, u8)>,
    pub(crate) has_identifier: bool,
}

/// Reads a packet of an established connection.
pub(crate) fn packet(version: Version, frame: &Frame) -> Result<Packet, Malformed> {
    let (kind, flags) = (frame.head >> 4, frame.head & 0x0F);
    let expected_flags = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
    if kind != 3 && flags != expected_flags {
        return Err(Malformed::new(0x81, format!("packet type {kind} with flags {flags:#06b}")));
    }
    match kind {
        1 => Err(Malformed::new(0x82, "a second CONNECT")),
        3 => publish(version, frame).map(Packet::Publish),
        4 => puback(version, &frame.body),
        5..=7 => Err(Malformed::new(0x82, "PUBREC, PUBREL and PUBCOMP are not supported")),
        8 => subscribe(version, &frame.body).map(Packet::Subscribe),
        10 => unsubscribe(version, &frame.body),
        12 if frame.body.is_empty() => Ok(Packet::Pingreq),
        14 => disconnect(version, &frame.body),
        _ => Err(Malformed::new(0x82, format!("packet type {kind} is not for a client to send here"))),
    }
}

fn publish(version: Version, frame: &Frame) -> Result<Publish, Malformed> {
    let flags = frame.head & 0x0F;
    let body = std::sync::Arc::<[u8]>::from(&frame.body[..]);
    let codec = |error| Malformed::codec("PUBLISH", error);
    let mut publish = match version {
        Version::V311 => {
            let (packet, _) = v3_1_1::Publish::parse(flags, body).map_err(codec)?;
            Publish {
                topic: packet.topic_name().to_owned(),
                payload: frame.body.slice(frame.body.len() - packet.payload().len()..),
                qos: packet.qos() as u8,
                dup: packet.dup(),
                retain: packet.retain(),
                packet_id: packet.packet_id().unwrap_or_default(),
                alias: None,
                user_properties: Vec::new(),
                size: frame.size,
            }
        }
        Version::V5 => {
            let (packet, _) = v5_0::Publish::parse(flags, body).map_err(codec)?;
            if packet.size() != frame.size {
                return Err(Malformed::new(
                    0x81,
                    "PUBLISH without a property length, or with one longer than needed",
                ));
            }
            Publish {
                topic: packet.topic_name().to_owned(),
                payload: frame.body.slice(frame.body.len() - packet.payload().len()..),
                qos: packet.qos() as u8,
                dup: packet.dup(),
                retain: packet.retain(),
                packet_id: packet.packet_id().unwrap_or_default(),
                alias: None,
                user_properties: Vec::new(),
                size: frame.size,
            }
            .with_properties(packet.props())?
        }
    };
    if publish.qos > 0 && publish.packet_id == 0 {
        return Err(Malformed::new(0x81, "PUBLISH with packet id 0"));
    }
    if publish.qos == 0 && publish.dup {
        return Err(Malformed::new(0x81, "PUBLISH with DUP at QoS 0"));
    }
    publish.user_properties.shrink_to_fit();
    Ok(publish)
}

impl Publish {
    fn with_properties(mut self, properties: &Properties) -> Result<Self, Malformed> {
        for property in properties {
            match property {
                Property::TopicAlias(alias) => self.alias = Some(alias.val()),
                Property::UserProperty(pair) => self.user_properties.push((pair.key().to_owned(), pair.val().to_owned())),
                Property::SubscriptionIdentifier(_) => {
                    return Err(Malformed::new(0x82, "PUBLISH from a client with a subscription identifier"));
                }
                _ => {}
            }
        }
        Ok(self)
    }
}

fn puback(version: Version, body: &[u8]) -> Result<Packet, Malformed> {
    let (packet_id, consumed) = match version {
        Version::V311 => v3_1_1::Puback::parse(body).map(|(packet, consumed)| (packet.packet_id(), consumed)),
        Version::V5 => v5_0::Puback::parse(body).map(|(packet, consumed)| (packet.packet_id(), consumed)),
    }
    .map_err(|error| Malformed::codec("PUBACK", error))?;
    whole("PUBACK", consumed, body)?;
    Ok(Packet::Puback(packet_id))
}

fn subscribe(version: Version, body: &[u8]) -> Result<Subscribe, Malformed> {
    let codec = |error| Malformed::codec("SUBSCRIBE", error);
    let (packet_id, entries, has_identifier) = match version {
        Version::V311 => {
            let (packet, _) = v3_1_1::Subscribe::parse(body).map_err(codec)?;
            (packet.packet_id(), packet.entries().clone(), false)
        }
        Version::V5 => {
            let (packet, _) = v5_0::Subscribe::parse(body).map_err(codec)?;
            let has_identifier = packet
                .props()
                .iter()
                .any(|property| matches!(property, Property::SubscriptionIdentifier(_)));
            (packet.packet_id(), packet.entries().clone(), has_identifier)
        }
    };
    if packet_id == 0 {
        return Err(Malformed::new(0x81, "SUBSCRIBE with packet id 0"));
    }
    let filters = entries
        .iter()
        .map(|entry| (entry.topic_filter().to_owned(), entry.sub_opts().qos() as u8))
        .collect();
    Ok(Subscribe {
        packet_id,
        filters,
        has_identifier,
    })
}

fn unsubscribe(version: Version, body: &[u8]) -> Result<Packet, Malformed> {
    let codec = |error| Malformed::codec("UNSUBSCRIBE", error);
    let (packet_id, entries) = match version {
        Version::V311 => v3_1_1::Unsubscribe::parse(body).map(|(packet, _)| (packet.packet_id(), packet.entries().clone())),
        Version::V5 => v5_0::Unsubscribe::parse(body).map(|(packet, _)| (packet.packet_id(), packet.entries().clone())),
    }
    .map_err(codec)?;
    if packet_id == 0 {
        return Err(Malformed::new(0x81, "UNSUBSCRIBE with packet id 0"));
    }
    Ok(Packet::Unsubscribe {
        packet_id,
        filters: entries.iter().map(|filter| filter.as_str().to_owned()).collect(),
    })
}

fn disconnect(version: Version, body: &[u8]) -> Result<Packet, Malformed> {
    if version == Version::V311 {
        whole("DISCONNECT", 0, body)?;
        return Ok(Packet::Disconnect { with_will: false });
    }
    let (packet, consumed) = v5_0::Disconnect::parse(body).map_err(|error| Malformed::codec("DISCONNECT", error))?;
    whole("DISCONNECT", consumed, body)?;
    Ok(Packet::Disconnect {
        with_will: packet.reason_code().is_some_and(|code| code as u8 == 0x04),
    })
}

fn whole(packet: &str, consumed: usize, body: &[u8]) -> Result<(), Malformed> {
    if consumed == body.len() {
        Ok(())
    } else {
        Err(Malformed::new(0x81, format!("{packet} with bytes after its end")))
    }
}
