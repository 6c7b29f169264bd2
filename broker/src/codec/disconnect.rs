//! DISCONNECT and AUTH.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{EncodeError, Fault, Found};
use super::frame::{self, Reader};
use super::properties::{Property, UserProperties, each, misplaced, once, users, write_section};
use super::text::Text;
use super::{PacketType, ReasonCode, Role, Version};

/// The end of a connection, said aloud. On 3.1.1 only clients send it, and it has no content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disconnect {
    /// Why. A client's 0x00 discards its will.
    pub reason: ReasonCode,
    /// Empty on 3.1.1.
    pub properties: DisconnectProperties,
}

/// The properties of DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisconnectProperties {
    /// From a client: replaces the interval of CONNECT, in seconds.
    pub session_expiry: Option<u32>,
    /// A text for the device's log.
    pub reason_string: Option<Text>,
    /// Name and value pairs.
    pub user: UserProperties,
    /// From a server: where to go instead.
    pub server_reference: Option<Text>,
}

/// A step of enhanced authentication; MQTT 5 only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Auth {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// What the method needs.
    pub properties: AuthProperties,
}

/// The properties of AUTH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthProperties {
    /// The method's name.
    pub method: Option<Text>,
    /// The method's data.
    pub data: Option<Bytes>,
    /// A text for the device's log.
    pub reason_string: Option<Text>,
    /// Name and value pairs.
    pub user: UserProperties,
}

impl Disconnect {
    /// A DISCONNECT without properties.
    pub fn new(reason: ReasonCode) -> Disconnect {
        Disconnect {
            reason,
            properties: DisconnectProperties::default(),
        }
    }
}

pub(super) fn decode_disconnect(reader: &mut Reader<'_>, version: Version, role: Role) -> Found<Disconnect> {
    let mut disconnect = Disconnect::default();
    // MQTT 5 lets reason and properties be left out, in this order; 3.1.1 has neither, and the caller refuses what is left over.
    if version == Version::V311 || reader.remaining() == 0 {
        return Ok(disconnect);
    }
    disconnect.reason = ReasonCode::checked(reader.u8("reason code")?, PacketType::Disconnect)?;
    if role == Role::Client && disconnect.reason == ReasonCode::DISCONNECT_WITH_WILL {
        return Err(Fault::Reason(disconnect.reason.value()));
    }
    if reader.remaining() == 0 {
        return Ok(disconnect);
    }
    let properties = &mut disconnect.properties;
    each(&mut reader.section()?, |property| match property {
        Property::SessionExpiry(seconds) if role == Role::Server => once(&mut properties.session_expiry, seconds, 0x11),
        Property::ServerReference(text) if role == Role::Client => once(&mut properties.server_reference, text, 0x1c),
        Property::ReasonString(text) => once(&mut properties.reason_string, text, 0x1f),
        Property::User(pair) => {
            properties.user.push(pair);
            Ok(())
        }
        other => Err(misplaced(&other)),
    })?;
    Ok(disconnect)
}

pub(super) fn encode_disconnect(disconnect: &Disconnect, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let mut body = BytesMut::new();
    let properties = &disconnect.properties;
    if version == Version::V5 && *disconnect != Disconnect::default() {
        body.put_u8(disconnect.reason.value());
        if *properties != DisconnectProperties::default() {
            let fixed = [
                properties.session_expiry.map(Property::SessionExpiry),
                properties.reason_string.clone().map(Property::ReasonString),
                properties.server_reference.clone().map(Property::ServerReference),
            ];
            write_section(fixed.into_iter().flatten().chain(users(&properties.user)), &mut body)?;
        }
    }
    frame::write(PacketType::Disconnect, 0, &body, out)
}

pub(super) fn decode_auth(reader: &mut Reader<'_>) -> Found<Auth> {
    let mut auth = Auth::default();
    if reader.remaining() == 0 {
        return Ok(auth);
    }
    auth.reason = ReasonCode::checked(reader.u8("reason code")?, PacketType::Auth)?;
    let properties = &mut auth.properties;
    each(&mut reader.section()?, |property| match property {
        Property::AuthenticationMethod(text) => once(&mut properties.method, text, 0x15),
        Property::AuthenticationData(bytes) => once(&mut properties.data, bytes, 0x16),
        Property::ReasonString(text) => once(&mut properties.reason_string, text, 0x1f),
        Property::User(pair) => {
            properties.user.push(pair);
            Ok(())
        }
        other => Err(misplaced(&other)),
    })?;
    if auth.properties.method.is_none() {
        return Err(Fault::AuthenticationMethod);
    }
    Ok(auth)
}

pub(super) fn encode_auth(auth: &Auth, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    if version == Version::V311 {
        return Err(EncodeError::Unsayable("MQTT 3.1.1 has no AUTH packet"));
    }
    let mut body = BytesMut::new();
    if *auth != Auth::default() {
        let properties = &auth.properties;
        if properties.method.is_none() {
            return Err(EncodeError::Unsayable(
                "an AUTH packet that says anything needs the authentication method",
            ));
        }
        let fixed = [
            properties.method.clone().map(Property::AuthenticationMethod),
            properties.data.clone().map(Property::AuthenticationData),
            properties.reason_string.clone().map(Property::ReasonString),
        ];
        body.put_u8(auth.reason.value());
        write_section(fixed.into_iter().flatten().chain(users(&properties.user)), &mut body)?;
    }
    frame::write(PacketType::Auth, 0, &body, out)
}
