//! PUBLISH, the packet everything else is for.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{EncodeError, Fault, Found};
use super::frame::{self, Reader};
use super::properties::{Travelling, once, read_id};
use super::text::{self, Text};
use super::{PacketType, QoS, Role, Version};

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    /// Sent before, perhaps. Never at QoS 0.
    pub dup: bool,
    /// How hard it is delivered.
    pub qos: QoS,
    /// To be kept for later subscribers; from a server: it was kept.
    pub retain: bool,
    /// The topic name; empty only if a topic alias replaces it.
    pub topic: Text,
    /// There at QoS 1 and 2, and only there.
    pub packet_id: Option<NonZeroU16>,
    /// Empty on 3.1.1.
    pub properties: PublishProperties,
    /// The message itself.
    pub payload: Bytes,
}

/// The properties of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishProperties {
    /// Replaces the topic on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Seconds until the message is worthless.
    pub expiry: Option<u32>,
    /// From a server: the subscriptions that matched.
    pub subscription_ids: Vec<NonZeroU32>,
    /// What every receiver gets: payload format, content type, response topic, correlation data and user properties, in the order and
    /// encoding of the wire, without a length in front. Validated by `decode`; [`travelling`](super::travelling) reads it,
    /// [`Property::write`](super::Property::write) makes it.
    pub travelling: Bytes,
}

/// A PUBLISH without its payload, borrowed: for writers that send the payload by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are those of Publish and PublishProperties")]
pub struct PublishHeader<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a [u8],
    pub packet_id: Option<NonZeroU16>,
    pub topic_alias: Option<NonZeroU16>,
    pub expiry: Option<u32>,
    pub subscription_ids: &'a [NonZeroU32],
    pub travelling: &'a [u8],
    /// How many bytes of payload will follow.
    pub payload_len: usize,
}

impl Publish {
    /// All of it but the payload.
    pub fn header(&self) -> PublishHeader<'_> {
        PublishHeader {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_bytes(),
            packet_id: self.packet_id,
            topic_alias: self.properties.topic_alias,
            expiry: self.properties.expiry,
            subscription_ids: &self.properties.subscription_ids,
            travelling: &self.properties.travelling,
            payload_len: self.payload.len(),
        }
    }
}

impl PublishHeader<'_> {
    /// The size of the whole packet with its payload, to compare with the receiver's Maximum Packet Size.
    pub fn packet_len(&self, version: Version) -> usize {
        let remaining = self.remaining(version);
        1 + frame::varint_width(remaining) + remaining
    }

    fn remaining(&self, version: Version) -> usize {
        let packet_id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let section = match version {
            Version::V311 => 0,
            Version::V5 => {
                let length = self.section();
                frame::varint_width(length) + length
            }
        };
        2 + self.topic.len() + packet_id + section + self.payload_len
    }

    fn section(&self) -> usize {
        let ids: usize = self
            .subscription_ids
            .iter()
            .map(|id| 1 + frame::varint_width(id.get() as usize))
            .sum();
        self.topic_alias.map_or(0, |_| 3) + self.expiry.map_or(0, |_| 5) + ids + self.travelling.len()
    }
}

/// Appends a PUBLISH up to where its payload begins; `payload_len` bytes of payload must follow.
///
/// # Errors
///
/// QoS 1 or 2 without a packet id, a topic or packet that is too long, NUL in the topic. `out` is then unchanged.
pub fn encode_publish_header(header: &PublishHeader<'_>, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let packet_id = match (header.qos, header.packet_id) {
        (QoS::AtMostOnce, _) => None,
        (_, Some(id)) => Some(id),
        (_, None) => return Err(EncodeError::Unsayable("a publish at QoS 1 or 2 has no packet id")),
    };
    let topic_length = frame::field_length(header.topic, "topic")?;
    if header.topic.contains(&0) {
        return Err(EncodeError::Unsayable("a topic holds a NUL character, which MQTT excludes"));
    }
    if header.subscription_ids.iter().any(|id| id.get() as usize > frame::MAX_VARINT) {
        return Err(EncodeError::Unsayable("a subscription identifier is above 268435455"));
    }
    let dup = header.dup && packet_id.is_some();
    let first = (PacketType::Publish as u8) << 4 | u8::from(dup) << 3 | header.qos.level() << 1 | u8::from(header.retain);
    frame::write_header(first, header.remaining(version), out)?;
    out.put_u16(topic_length);
    out.put_slice(header.topic);
    if let Some(id) = packet_id {
        out.put_u16(id.get());
    }
    if version == Version::V5 {
        write_properties(header, out);
    }
    Ok(())
}

/// Appends a PUBLISH.
///
/// # Errors
///
/// As [`encode_publish_header`].
pub fn encode_publish(publish: &Publish, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    encode_publish_header(&publish.header(), version, out)?;
    out.put_slice(&publish.payload);
    Ok(())
}

/// Refuses flags that no PUBLISH has.
pub(super) fn check_flags(flags: u8) -> Found<()> {
    match (flags >> 1) & 0b11 {
        3 => Err(Fault::QoS3),
        0 if flags & 0b1000 != 0 => Err(Fault::DupAtQoS0),
        _ => Ok(()),
    }
}

pub(super) fn decode(flags: u8, reader: &mut Reader<'_>, version: Version, role: Role) -> Found<Publish> {
    let qos = QoS::from_level((flags >> 1) & 0b11).ok_or(Fault::QoS3)?;
    let topic = reader.text("topic")?;
    text::check_name(topic.as_bytes(), "topic")?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties = match version {
        Version::V311 => PublishProperties::default(),
        Version::V5 => read_properties(&mut reader.section()?, role)?,
    };
    if topic.as_bytes().is_empty() && properties.topic_alias.is_none() {
        return Err(Fault::TopicEmpty("topic"));
    }
    Ok(Publish {
        dup: flags & 0b1000 != 0,
        qos,
        retain: flags & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
    })
}

fn read_properties(section: &mut Reader<'_>, role: Role) -> Found<PublishProperties> {
    let mut properties = PublishProperties::default();
    if section.remaining() == 0 {
        return Ok(properties);
    }
    let mut travelling = Travelling::default();
    while section.remaining() > 0 {
        let start = section.position();
        let id = read_id(section)?;
        if travelling.take(id, start, section)? {
            continue;
        }
        match id {
            0x02 => once(&mut properties.expiry, section.u32("message expiry interval")?, id)?,
            0x23 => {
                let alias = NonZeroU16::new(section.u16("topic alias")?).ok_or(Fault::TopicAliasZero)?;
                once(&mut properties.topic_alias, alias, id)?;
            }
            0x0b if role == Role::Server => return Err(Fault::SubscriptionIdFromClient),
            0x0b => {
                let value = section.varint("subscription identifier")? as u32;
                properties
                    .subscription_ids
                    .push(NonZeroU32::new(value).ok_or(Fault::PropertyValue { id, value })?);
            }
            0x11..=0x2a if !matches!(id, 0x14 | 0x1b | 0x1d | 0x1e | 0x20) => return Err(Fault::PropertyMisplaced(id)),
            _ => return Err(Fault::PropertyUnknown(u32::from(id))),
        }
    }
    properties.travelling = travelling.finish(section);
    Ok(properties)
}

fn write_properties(header: &PublishHeader<'_>, out: &mut BytesMut) {
    frame::write_varint(header.section(), out);
    if let Some(alias) = header.topic_alias {
        out.put_u8(0x23);
        out.put_u16(alias.get());
    }
    if let Some(expiry) = header.expiry {
        out.put_u8(0x02);
        out.put_u32(expiry);
    }
    for id in header.subscription_ids {
        out.put_u8(0x0b);
        frame::write_varint(id.get() as usize, out);
    }
    out.put_slice(header.travelling);
}
