//! PUBACK, PUBREC, PUBREL and PUBCOMP: one layout.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use super::error::{EncodeError, Found};
use super::frame::{self, Reader};
use super::properties::{Property, UserProperties, each, misplaced, once, users, write_section};
use super::text::Text;
use super::{PacketType, ReasonCode, Version};

/// An answer to a publish, or a step of QoS 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Of the publish it is about.
    pub packet_id: NonZeroU16,
    /// Success on 3.1.1, always.
    pub reason: ReasonCode,
    /// Empty on 3.1.1.
    pub properties: AckProperties,
}

impl Ack {
    /// An answer without properties.
    pub fn new(packet_id: NonZeroU16, reason: ReasonCode) -> Ack {
        Ack {
            packet_id,
            reason,
            properties: AckProperties::default(),
        }
    }
}

/// The properties that acks, SUBACK and UNSUBACK share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckProperties {
    /// A text for the device's log.
    pub reason_string: Option<Text>,
    /// Name and value pairs.
    pub user: UserProperties,
}

/// Appends a PUBACK without properties.
///
/// # Errors
///
/// A failure on 3.1.1, which has no code for it: that publish must stay unanswered. The same is true of [`encode_pubrec`].
pub fn encode_puback(out: &mut BytesMut, version: Version, id: NonZeroU16, reason: ReasonCode) -> Result<(), EncodeError> {
    encode_plain(PacketType::PubAck, out, version, id, reason)
}

/// Appends a PUBREC without properties.
///
/// # Errors
///
/// As [`encode_puback`].
pub fn encode_pubrec(out: &mut BytesMut, version: Version, id: NonZeroU16, reason: ReasonCode) -> Result<(), EncodeError> {
    encode_plain(PacketType::PubRec, out, version, id, reason)
}

/// Appends a PUBREL without properties.
pub fn encode_pubrel(out: &mut BytesMut, version: Version, id: NonZeroU16, reason: ReasonCode) {
    write_plain(PacketType::PubRel, out, version, id, reason);
}

/// Appends a PUBCOMP without properties.
pub fn encode_pubcomp(out: &mut BytesMut, version: Version, id: NonZeroU16, reason: ReasonCode) {
    write_plain(PacketType::PubComp, out, version, id, reason);
}

pub(super) fn encode(packet_type: PacketType, ack: &Ack, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    if version == Version::V311 || ack.properties == AckProperties::default() {
        return encode_plain(packet_type, out, version, ack.packet_id, ack.reason);
    }
    let mut body = BytesMut::new();
    body.put_u16(ack.packet_id.get());
    body.put_u8(ack.reason.value());
    ack.properties.write(&mut body)?;
    frame::write(packet_type, flags(packet_type), &body, out)
}

pub(super) fn decode(packet_type: PacketType, reader: &mut Reader<'_>, version: Version) -> Found<Ack> {
    let mut ack = Ack::new(reader.packet_id()?, ReasonCode::SUCCESS);
    // MQTT 5 lets reason and properties be left out, in this order.
    if version == Version::V5 && reader.remaining() > 0 {
        ack.reason = ReasonCode::checked(reader.u8("reason code")?, packet_type)?;
        if reader.remaining() > 0 {
            ack.properties = AckProperties::read(reader)?;
        }
    }
    Ok(ack)
}

impl AckProperties {
    pub(super) fn read(reader: &mut Reader<'_>) -> Found<AckProperties> {
        let mut properties = AckProperties::default();
        each(&mut reader.section()?, |property| match property {
            Property::ReasonString(text) => once(&mut properties.reason_string, text, 0x1f),
            Property::User(pair) => {
                properties.user.push(pair);
                Ok(())
            }
            other => Err(misplaced(&other)),
        })?;
        Ok(properties)
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        write_section(
            self.reason_string
                .clone()
                .map(Property::ReasonString)
                .into_iter()
                .chain(users(&self.user)),
            out,
        )
    }
}

fn encode_plain(
    packet_type: PacketType,
    out: &mut BytesMut,
    version: Version,
    id: NonZeroU16,
    reason: ReasonCode,
) -> Result<(), EncodeError> {
    if version == Version::V311 && reason.is_error() && matches!(packet_type, PacketType::PubAck | PacketType::PubRec) {
        return Err(EncodeError::Unsayable(
            "MQTT 3.1.1 cannot refuse a publish: an ack of it would say that it was taken",
        ));
    }
    write_plain(packet_type, out, version, id, reason);
    Ok(())
}

fn write_plain(packet_type: PacketType, out: &mut BytesMut, version: Version, id: NonZeroU16, reason: ReasonCode) {
    let [high, low] = id.get().to_be_bytes();
    let first = (packet_type as u8) << 4 | flags(packet_type);
    if version == Version::V311 || reason == ReasonCode::SUCCESS {
        out.put_slice(&[first, 2, high, low]);
    } else {
        out.put_slice(&[first, 3, high, low, reason.value()]);
    }
}

fn flags(packet_type: PacketType) -> u8 {
    if packet_type == PacketType::PubRel { 0b0010 } else { 0 }
}
