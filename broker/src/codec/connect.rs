//! CONNECT and CONNACK.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{EncodeError, Fault, Found};
use super::frame::{self, Header, Reader};
use super::properties::{Property, Travelling, UserProperties, each, misplaced, once, read_id, users, write_raw_section, write_section};
use super::text::{self, Text};
use super::{PacketType, QoS, ReasonCode, Version};

/// A client's introduction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// What the rest of the connection is in.
    pub version: Version,
    /// Begin with an empty session (`clean session` on 3.1.1).
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive: u16,
    /// May be empty: the server then chooses one, or on 3.1.1 without a clean session refuses with 0x85.
    pub client_id: Text,
    /// Published when the client is lost.
    pub will: Option<Will>,
    /// As sent.
    pub username: Option<Text>,
    /// Any bytes.
    pub password: Option<Bytes>,
    /// Empty on 3.1.1.
    pub properties: ConnectProperties,
}

/// The properties of CONNECT; `None` for the protocol's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties {
    /// Seconds the session outlives the connection; `u32::MAX` is for ever.
    pub session_expiry: Option<u32>,
    /// How many QoS 1 and 2 publishes the client takes at a time; default 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet the client takes; default any.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest alias the server may use; default 0.
    pub topic_alias_maximum: Option<u16>,
    /// Default no.
    pub request_response_information: Option<bool>,
    /// Whether reason strings are welcome beyond CONNACK and DISCONNECT; default yes.
    pub request_problem_information: Option<bool>,
    /// Name and value pairs.
    pub user: UserProperties,
    /// Asks for enhanced authentication.
    pub authentication_method: Option<Text>,
    /// Goes with the method.
    pub authentication_data: Option<Bytes>,
}

/// The message left with the server for the case that the client is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// A topic name, without wildcards.
    pub topic: Text,
    /// The message.
    pub payload: Bytes,
    /// How hard it is delivered.
    pub qos: QoS,
    /// Whether it is kept.
    pub retain: bool,
    /// Empty on 3.1.1.
    pub properties: WillProperties,
}

/// The properties of a will.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WillProperties {
    /// Seconds to wait for the client to return; default 0.
    pub delay: Option<u32>,
    /// Becomes the message's expiry.
    pub expiry: Option<u32>,
    /// As [`PublishProperties::travelling`](super::PublishProperties::travelling).
    pub travelling: Bytes,
}

/// The server's answer to CONNECT. The code is MQTT 5's on both versions; on 3.1.1 it is translated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAck {
    /// There was a session for this client.
    pub session_present: bool,
    /// Success, or why not.
    pub code: ReasonCode,
    /// Empty on 3.1.1.
    pub properties: ConnAckProperties,
}

/// The properties of CONNACK; `None` for the protocol's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub struct ConnAckProperties {
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    /// `AtMostOnce` or `AtLeastOnce`; QoS 2 is the default and has no wire form.
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<NonZeroU32>,
    pub assigned_client_id: Option<Text>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<Text>,
    pub user: UserProperties,
    pub wildcard_available: Option<bool>,
    pub subscription_id_available: Option<bool>,
    pub shared_available: Option<bool>,
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<Text>,
    pub server_reference: Option<Text>,
    pub authentication_method: Option<Text>,
    pub authentication_data: Option<Bytes>,
}

impl ConnAck {
    /// A refusal with nothing but its code.
    pub fn refused(code: ReasonCode) -> ConnAck {
        ConnAck {
            code,
            ..ConnAck::default()
        }
    }
}

const USERNAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// Reads a CONNECT; a fault comes with the version to answer in, once that is known.
pub(super) fn decode_connect(reader: &mut Reader<'_>, header: Header) -> Result<Connect, (Fault, Option<Version>)> {
    let version = read_version(reader).map_err(|fault| (fault, None))?;
    header
        .check_minimal(version)
        .and_then(|()| read_connect(reader, version))
        .map_err(|fault| (fault, Some(version)))
}

pub(super) fn encode_connect(connect: &Connect, out: &mut BytesMut) -> Result<(), EncodeError> {
    let version = connect.version;
    if version == Version::V311 && connect.password.is_some() && connect.username.is_none() {
        return Err(EncodeError::Unsayable("MQTT 3.1.1 has no password without a user name"));
    }
    let mut flags = 0;
    if connect.username.is_some() {
        flags |= USERNAME;
    }
    if connect.password.is_some() {
        flags |= PASSWORD;
    }
    if connect.clean_start {
        flags |= CLEAN_START;
    }
    if let Some(will) = &connect.will {
        flags |= WILL | will.qos.level() << 3;
        if will.retain {
            flags |= WILL_RETAIN;
        }
    }
    let mut body = BytesMut::new();
    body.put_slice(b"\0\x04MQTT");
    body.put_u8(if version == Version::V5 { 5 } else { 4 });
    body.put_u8(flags);
    body.put_u16(connect.keep_alive);
    if version == Version::V5 {
        connect.properties.write(&mut body)?;
    }
    frame::write_text(connect.client_id.as_bytes(), "client id", &mut body)?;
    if let Some(will) = &connect.will {
        write_will(will, version, &mut body)?;
    }
    if let Some(username) = &connect.username {
        frame::write_text(username.as_bytes(), "user name", &mut body)?;
    }
    if let Some(password) = &connect.password {
        frame::write_binary(password, "password", &mut body)?;
    }
    frame::write(PacketType::Connect, 0, &body, out)
}

pub(super) fn decode_connack(reader: &mut Reader<'_>, version: Version) -> Found<ConnAck> {
    let flags = reader.u8("acknowledge flags")?;
    if flags > 1 {
        return Err(Fault::AcknowledgeFlags(flags));
    }
    let code = reader.u8("reason code")?;
    let mut connack = ConnAck {
        session_present: flags == 1,
        ..ConnAck::default()
    };
    match version {
        Version::V311 => connack.code = ReasonCode::from_return_code(code)?,
        Version::V5 => {
            connack.code = ReasonCode::checked(code, PacketType::ConnAck)?;
            connack.properties = ConnAckProperties::read(&mut reader.section()?)?;
        }
    }
    if connack.session_present && connack.code.is_error() {
        return Err(Fault::AcknowledgeFlags(flags));
    }
    Ok(connack)
}

pub(super) fn encode_connack(connack: &ConnAck, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let mut body = BytesMut::new();
    // A refusal never has session present [MQTT-3.2.2-6].
    body.put_u8(u8::from(connack.session_present && connack.code == ReasonCode::SUCCESS));
    match version {
        Version::V311 => body.put_u8(connack.code.to_return_code()),
        Version::V5 => {
            body.put_u8(connack.code.value());
            connack.properties.write(&mut body)?;
        }
    }
    frame::write(PacketType::ConnAck, 0, &body, out)
}

fn read_version(reader: &mut Reader<'_>) -> Found<Version> {
    let name = reader.field("protocol name")?;
    let name = reader.get(name);
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Fault::ProtocolName);
    }
    match (name, reader.u8("protocol level")?) {
        (b"MQIsdp", 3) | (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (_, level @ (0x83 | 0x84)) => Err(Fault::BridgeLevel(level)),
        (_, level) => Err(Fault::UnsupportedLevel(level)),
    }
}

fn read_connect(reader: &mut Reader<'_>, version: Version) -> Found<Connect> {
    let flags = reader.u8("connect flags")?;
    if flags & RESERVED != 0 {
        return Err(Fault::ConnectFlag);
    }
    let will_qos = QoS::from_level((flags & WILL_QOS) >> 3).ok_or(Fault::WillFlags(flags))?;
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(Fault::WillFlags(flags));
    }
    if version == Version::V311 && flags & (USERNAME | PASSWORD) == PASSWORD {
        return Err(Fault::PasswordAlone);
    }
    let keep_alive = reader.u16("keep alive")?;
    let properties = match version {
        Version::V311 => ConnectProperties::default(),
        Version::V5 => ConnectProperties::read(&mut reader.section()?)?,
    };
    let client_id = reader.text("client id")?;
    let will = if flags & WILL != 0 {
        Some(read_will(reader, version, will_qos, flags & WILL_RETAIN != 0)?)
    } else {
        None
    };
    let username = if flags & USERNAME != 0 {
        Some(reader.text("user name")?)
    } else {
        None
    };
    let password = if flags & PASSWORD != 0 {
        Some(reader.binary("password")?)
    } else {
        None
    };
    reader.finish()?;
    Ok(Connect {
        version,
        clean_start: flags & CLEAN_START != 0,
        keep_alive,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

fn read_will(reader: &mut Reader<'_>, version: Version, qos: QoS, retain: bool) -> Found<Will> {
    let mut properties = WillProperties::default();
    if version == Version::V5 {
        let mut section = reader.section()?;
        let mut travelling = Travelling::default();
        while section.remaining() > 0 {
            let mut ahead = section.clone();
            if travelling.take(read_id(&mut ahead)?, section.position(), &mut ahead)? {
                section = ahead;
                continue;
            }
            match Property::read(&mut section)? {
                Property::WillDelay(seconds) => once(&mut properties.delay, seconds, 0x18)?,
                Property::MessageExpiry(seconds) => once(&mut properties.expiry, seconds, 0x02)?,
                other => return Err(misplaced(&other)),
            }
        }
        properties.travelling = travelling.finish(&section);
    }
    let topic = reader.text("will topic")?;
    text::check_name(topic.as_bytes(), "will topic")?;
    if topic.as_bytes().is_empty() {
        return Err(Fault::TopicEmpty("will topic"));
    }
    Ok(Will {
        topic,
        payload: reader.binary("will payload")?,
        qos,
        retain,
        properties,
    })
}

fn write_will(will: &Will, version: Version, body: &mut BytesMut) -> Result<(), EncodeError> {
    if version == Version::V5 {
        let mut section = BytesMut::new();
        let fixed = [
            will.properties.delay.map(Property::WillDelay),
            will.properties.expiry.map(Property::MessageExpiry),
        ];
        for property in fixed.into_iter().flatten() {
            property.write(&mut section)?;
        }
        section.put_slice(&will.properties.travelling);
        write_raw_section(&section, body)?;
    }
    frame::write_text(will.topic.as_bytes(), "will topic", body)?;
    frame::write_binary(&will.payload, "will payload", body)
}

impl ConnectProperties {
    fn read(section: &mut Reader<'_>) -> Found<ConnectProperties> {
        let mut to = ConnectProperties::default();
        each(section, |property| {
            let id = property.id();
            match property {
                Property::SessionExpiry(value) => once(&mut to.session_expiry, value, id),
                Property::ReceiveMaximum(value) => once(&mut to.receive_maximum, value, id),
                Property::MaximumPacketSize(value) => once(&mut to.maximum_packet_size, value, id),
                Property::TopicAliasMaximum(value) => once(&mut to.topic_alias_maximum, value, id),
                Property::RequestResponseInformation(value) => once(&mut to.request_response_information, value, id),
                Property::RequestProblemInformation(value) => once(&mut to.request_problem_information, value, id),
                Property::AuthenticationMethod(value) => once(&mut to.authentication_method, value, id),
                Property::AuthenticationData(value) => once(&mut to.authentication_data, value, id),
                Property::User(pair) => {
                    to.user.push(pair);
                    Ok(())
                }
                other => Err(misplaced(&other)),
            }
        })?;
        if to.authentication_data.is_some() && to.authentication_method.is_none() {
            return Err(Fault::AuthenticationMethod);
        }
        Ok(to)
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let fixed = [
            self.session_expiry.map(Property::SessionExpiry),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.request_response_information.map(Property::RequestResponseInformation),
            self.request_problem_information.map(Property::RequestProblemInformation),
            self.authentication_method.clone().map(Property::AuthenticationMethod),
            self.authentication_data.clone().map(Property::AuthenticationData),
        ];
        write_section(fixed.into_iter().flatten().chain(users(&self.user)), out)
    }
}

impl ConnAckProperties {
    fn read(section: &mut Reader<'_>) -> Found<ConnAckProperties> {
        let mut to = ConnAckProperties::default();
        each(section, |property| {
            let id = property.id();
            match property {
                Property::SessionExpiry(value) => once(&mut to.session_expiry, value, id),
                Property::ReceiveMaximum(value) => once(&mut to.receive_maximum, value, id),
                Property::MaximumQoS(one) => once(&mut to.maximum_qos, if one { QoS::AtLeastOnce } else { QoS::AtMostOnce }, id),
                Property::RetainAvailable(value) => once(&mut to.retain_available, value, id),
                Property::MaximumPacketSize(value) => once(&mut to.maximum_packet_size, value, id),
                Property::AssignedClientId(value) => once(&mut to.assigned_client_id, value, id),
                Property::TopicAliasMaximum(value) => once(&mut to.topic_alias_maximum, value, id),
                Property::ReasonString(value) => once(&mut to.reason_string, value, id),
                Property::WildcardAvailable(value) => once(&mut to.wildcard_available, value, id),
                Property::SubscriptionIdAvailable(value) => once(&mut to.subscription_id_available, value, id),
                Property::SharedAvailable(value) => once(&mut to.shared_available, value, id),
                Property::ServerKeepAlive(value) => once(&mut to.server_keep_alive, value, id),
                Property::ResponseInformation(value) => once(&mut to.response_information, value, id),
                Property::ServerReference(value) => once(&mut to.server_reference, value, id),
                Property::AuthenticationMethod(value) => once(&mut to.authentication_method, value, id),
                Property::AuthenticationData(value) => once(&mut to.authentication_data, value, id),
                Property::User(pair) => {
                    to.user.push(pair);
                    Ok(())
                }
                other => Err(misplaced(&other)),
            }
        })?;
        Ok(to)
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let maximum_qos = self
            .maximum_qos
            .filter(|qos| *qos < QoS::ExactlyOnce)
            .map(|qos| qos == QoS::AtLeastOnce);
        let fixed = [
            self.session_expiry.map(Property::SessionExpiry),
            self.receive_maximum.map(Property::ReceiveMaximum),
            maximum_qos.map(Property::MaximumQoS),
            self.retain_available.map(Property::RetainAvailable),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            self.assigned_client_id.clone().map(Property::AssignedClientId),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.reason_string.clone().map(Property::ReasonString),
            self.wildcard_available.map(Property::WildcardAvailable),
            self.subscription_id_available.map(Property::SubscriptionIdAvailable),
            self.shared_available.map(Property::SharedAvailable),
            self.server_keep_alive.map(Property::ServerKeepAlive),
            self.response_information.clone().map(Property::ResponseInformation),
            self.server_reference.clone().map(Property::ServerReference),
            self.authentication_method.clone().map(Property::AuthenticationMethod),
            self.authentication_data.clone().map(Property::AuthenticationData),
        ];
        write_section(fixed.into_iter().flatten().chain(users(&self.user)), out)
    }
}
