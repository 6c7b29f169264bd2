//! SUBSCRIBE, UNSUBSCRIBE and their answers.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, BytesMut};

use super::error::{EncodeError, Fault, Found};
use super::frame::{self, Reader};
use super::properties::{Property, UserProperties, each, misplaced, once, users, write_section};
use super::text::Text;
use super::{AckProperties, PacketType, QoS, ReasonCode, Version};

/// A request for topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Echoed by the SUBACK.
    pub packet_id: NonZeroU16,
    /// Sent back with every publish that matches one of the filters.
    pub subscription_id: Option<NonZeroU32>,
    /// Name and value pairs.
    pub user: UserProperties,
    /// At least one. Their syntax is not checked here.
    pub filters: Vec<Subscription>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// As sent, `$share/...` included.
    pub filter: Text,
    /// What is wanted.
    pub options: SubscribeOptions,
}

/// The options of one subscription; on 3.1.1 only the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscribeOptions {
    /// The most that deliveries may have.
    pub qos: QoS,
    /// Not what this client itself published.
    pub no_local: bool,
    /// Keep the RETAIN flag of the publish.
    pub retain_as_published: bool,
    /// Whether kept messages are sent now.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent upon SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetainHandling {
    /// At each subscribe.
    #[default]
    Send = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// The answer to SUBSCRIBE: a code per filter, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// The granted QoS or a failure (0x80 is all that 3.1.1 has).
    pub codes: Vec<ReasonCode>,
    /// Empty on 3.1.1.
    pub properties: AckProperties,
}

/// A request to end subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Echoed by the UNSUBACK.
    pub packet_id: NonZeroU16,
    /// Name and value pairs.
    pub user: UserProperties,
    /// At least one.
    pub filters: Vec<Text>,
}

/// The answer to UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// Of the UNSUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// One for each filter; empty on 3.1.1.
    pub codes: Vec<ReasonCode>,
    /// Empty on 3.1.1.
    pub properties: AckProperties,
}

impl SubscribeOptions {
    fn to_byte(self, version: Version) -> u8 {
        match version {
            Version::V311 => self.qos.level(),
            Version::V5 => {
                self.qos.level()
                    | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }

    fn from_byte(byte: u8, version: Version) -> Found<SubscribeOptions> {
        let fault = Fault::SubscriptionOptions(byte);
        let reserved = if version == Version::V311 { 0b1111_1100 } else { 0b1100_0000 };
        if byte & reserved != 0 {
            return Err(fault);
        }
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(fault),
        };
        let qos = QoS::from_level(byte & 0b11).ok_or(fault)?;
        Ok(SubscribeOptions {
            qos,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }
}

pub(super) fn decode_subscribe(reader: &mut Reader<'_>, version: Version) -> Found<Subscribe> {
    let mut subscribe = Subscribe {
        packet_id: reader.packet_id()?,
        subscription_id: None,
        user: Vec::new(),
        filters: Vec::new(),
    };
    if version == Version::V5 {
        each(&mut reader.section()?, |property| match property {
            Property::SubscriptionId(id) => once(&mut subscribe.subscription_id, id, 0x0b),
            Property::User(pair) => {
                subscribe.user.push(pair);
                Ok(())
            }
            other => Err(misplaced(&other)),
        })?;
    }
    if reader.remaining() == 0 {
        return Err(Fault::NothingListed);
    }
    while reader.remaining() > 0 {
        let filter = reader.text("topic filter")?;
        let options = SubscribeOptions::from_byte(reader.u8("subscription options")?, version)?;
        if options.no_local && filter.as_bytes().starts_with(b"$share/") {
            return Err(Fault::SharedNoLocal);
        }
        subscribe.filters.push(Subscription { filter, options });
    }
    Ok(subscribe)
}

pub(super) fn encode_subscribe(subscribe: &Subscribe, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    listed(subscribe.filters.is_empty())?;
    let mut body = BytesMut::new();
    body.put_u16(subscribe.packet_id.get());
    if version == Version::V5 {
        let id = subscribe.subscription_id.map(Property::SubscriptionId);
        write_section(id.into_iter().chain(users(&subscribe.user)), &mut body)?;
    }
    for subscription in &subscribe.filters {
        frame::write_text(subscription.filter.as_bytes(), "topic filter", &mut body)?;
        body.put_u8(subscription.options.to_byte(version));
    }
    frame::write(PacketType::Subscribe, 0b0010, &body, out)
}

pub(super) fn decode_unsubscribe(reader: &mut Reader<'_>, version: Version) -> Found<Unsubscribe> {
    let mut unsubscribe = Unsubscribe {
        packet_id: reader.packet_id()?,
        user: Vec::new(),
        filters: Vec::new(),
    };
    if version == Version::V5 {
        each(&mut reader.section()?, |property| match property {
            Property::User(pair) => {
                unsubscribe.user.push(pair);
                Ok(())
            }
            other => Err(misplaced(&other)),
        })?;
    }
    if reader.remaining() == 0 {
        return Err(Fault::NothingListed);
    }
    while reader.remaining() > 0 {
        unsubscribe.filters.push(reader.text("topic filter")?);
    }
    Ok(unsubscribe)
}

pub(super) fn encode_unsubscribe(unsubscribe: &Unsubscribe, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    listed(unsubscribe.filters.is_empty())?;
    let mut body = BytesMut::new();
    body.put_u16(unsubscribe.packet_id.get());
    if version == Version::V5 {
        write_section(users(&unsubscribe.user), &mut body)?;
    }
    for filter in &unsubscribe.filters {
        frame::write_text(filter.as_bytes(), "topic filter", &mut body)?;
    }
    frame::write(PacketType::Unsubscribe, 0b0010, &body, out)
}

pub(super) fn decode_suback(reader: &mut Reader<'_>, version: Version) -> Found<SubAck> {
    let packet_id = reader.packet_id()?;
    let properties = if version == Version::V5 {
        AckProperties::read(reader)?
    } else {
        AckProperties::default()
    };
    let codes = read_codes(reader, PacketType::SubAck)?;
    match codes.iter().find(|code| version == Version::V311 && code.value() > 0x80) {
        Some(code) => Err(Fault::Reason(code.value())),
        None => Ok(SubAck {
            packet_id,
            codes,
            properties,
        }),
    }
}

pub(super) fn encode_suback(suback: &SubAck, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    listed(suback.codes.is_empty())?;
    let mut body = BytesMut::new();
    body.put_u16(suback.packet_id.get());
    if version == Version::V5 {
        suback.properties.write(&mut body)?;
    }
    let failure = |code: &ReasonCode| {
        if version == Version::V311 && code.is_error() {
            0x80
        } else {
            code.value()
        }
    };
    body.extend(suback.codes.iter().map(failure));
    frame::write(PacketType::SubAck, 0, &body, out)
}

pub(super) fn decode_unsuback(reader: &mut Reader<'_>, version: Version) -> Found<UnsubAck> {
    let packet_id = reader.packet_id()?;
    if version == Version::V311 {
        return Ok(UnsubAck {
            packet_id,
            codes: Vec::new(),
            properties: AckProperties::default(),
        });
    }
    let properties = AckProperties::read(reader)?;
    Ok(UnsubAck {
        packet_id,
        codes: read_codes(reader, PacketType::UnsubAck)?,
        properties,
    })
}

pub(super) fn encode_unsuback(unsuback: &UnsubAck, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let mut body = BytesMut::new();
    body.put_u16(unsuback.packet_id.get());
    if version == Version::V5 {
        listed(unsuback.codes.is_empty())?;
        unsuback.properties.write(&mut body)?;
        body.extend(unsuback.codes.iter().map(|code| code.value()));
    }
    frame::write(PacketType::UnsubAck, 0, &body, out)
}

fn read_codes(reader: &mut Reader<'_>, packet_type: PacketType) -> Found<Vec<ReasonCode>> {
    let codes = reader.rest();
    if codes.is_empty() {
        return Err(Fault::NothingListed);
    }
    codes.iter().map(|&code| ReasonCode::checked(code, packet_type)).collect()
}

fn listed(empty: bool) -> Result<(), EncodeError> {
    if empty {
        Err(EncodeError::Unsayable("the list of filters or codes is empty"))
    } else {
        Ok(())
    }
}
