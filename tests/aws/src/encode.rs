//! From answers to bytes. Coded answers are written by hand, because faults may ask for codes a codec would refuse.

use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    packet::{
        AssignedClientIdentifier, MaximumPacketSize, MaximumQos, Properties, Property, Qos, ReceiveMaximum, RetainAvailable,
        ServerKeepAlive, SessionExpiryInterval, SharedSubscriptionAvailable, SubscriptionIdentifierAvailable, TopicAliasMaximum,
        UserProperty, WildcardSubscriptionAvailable, v3_1_1, v5_0,
    },
    result_code::{ConnectReasonCode, MqttError},
};

use crate::{config::Limits, decode::Version};

/// PINGRESP.
pub(crate) const PINGRESP: [u8; 2] = [0xD0, 0];

/// What a CONNACK of MQTT 5 says about the session beside the limits.
#[derive(Debug)]
pub(crate) struct Granted<'a> {
    pub(crate) session_present: bool,
    pub(crate) keep_alive: u16,
    pub(crate) session_expiry: u32,
    pub(crate) assigned_client_id: Option<&'a str>,
}

/// CONNACK for a connection that is accepted.
pub(crate) fn connack(version: Version, limits: &Limits, granted: &Granted<'_>) -> Vec<u8> {
    let session_present = granted.session_present;
    match version {
        Version::V311 => vec![0x20, 2, u8::from(session_present), 0],
        Version::V5 => connack_v5(limits, granted).unwrap_or_else(|_| vec![0x20, 3, u8::from(session_present), 0, 0]),
    }
}

fn connack_v5(limits: &Limits, granted: &Granted<'_>) -> Result<Vec<u8>, MqttError> {
    let mut properties: Properties = vec![
        Property::SessionExpiryInterval(SessionExpiryInterval::new(granted.session_expiry)?),
        Property::ReceiveMaximum(ReceiveMaximum::new(limits.receive_maximum)?),
        Property::MaximumQos(MaximumQos::new(1)?),
        Property::RetainAvailable(RetainAvailable::new(1)?),
        Property::MaximumPacketSize(MaximumPacketSize::new(u32::try_from(limits.packet).unwrap_or(u32::MAX))?),
        Property::TopicAliasMaximum(TopicAliasMaximum::new(limits.topic_aliases)?),
        Property::WildcardSubscriptionAvailable(WildcardSubscriptionAvailable::new(1)?),
        Property::SubscriptionIdentifierAvailable(SubscriptionIdentifierAvailable::new(0)?),
        Property::SharedSubscriptionAvailable(SharedSubscriptionAvailable::new(1)?),
        Property::ServerKeepAlive(ServerKeepAlive::new(granted.keep_alive)?),
    ];
    if let Some(client_id) = granted.assigned_client_id {
        properties.push(Property::AssignedClientIdentifier(AssignedClientIdentifier::new(client_id)?));
    }
    let connack = v5_0::Connack::builder()
        .session_present(granted.session_present)
        .reason_code(ConnectReasonCode::Success)
        .props(properties)
        .build()?;
    Ok(connack.to_continuous_buffer())
}

/// CONNACK that refuses. On 3.1.1 only the codes 1 to 5 have a CONNACK, as AWS closes without one.
pub(crate) fn connack_refused(version: Version, code: u8) -> Option<Vec<u8>> {
    match version {
        Version::V5 => Some(vec![0x20, 3, 0, code, 0]),
        Version::V311 if (1..=5).contains(&code) => Some(vec![0x20, 2, 0, code]),
        Version::V311 => None,
    }
}

/// PUBACK; 3.1.1 has no reason code.
pub(crate) fn puback(version: Version, packet_id: u16, code: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V5 && code != 0 {
        vec![0x40, 3, high, low, code]
    } else {
        vec![0x40, 2, high, low]
    }
}

/// DISCONNECT; only MQTT 5 has one from the server.
pub(crate) fn disconnect(version: Version, code: u8) -> Option<Vec<u8>> {
    (version == Version::V5).then(|| vec![0xE0, 2, code, 0])
}

/// SUBACK; on 3.1.1 every refusal is 0x80.
pub(crate) fn suback(version: Version, packet_id: u16, codes: &[u8]) -> Vec<u8> {
    listed(
        0x90,
        version,
        packet_id,
        codes
            .iter()
            .map(|&code| if version == Version::V311 { code.min(0x80) } else { code }),
    )
}

/// UNSUBACK; 3.1.1 has no codes.
pub(crate) fn unsuback(version: Version, packet_id: u16, codes: &[u8]) -> Vec<u8> {
    let codes = if version == Version::V311 { &[] } else { codes };
    listed(0xB0, version, packet_id, codes.iter().copied())
}

fn listed(head: u8, version: Version, packet_id: u16, codes: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(codes);
    let mut packet = vec![head];
    let mut rest = body.len();
    while rest > 0x7F {
        packet.push(0x80 | (rest & 0x7F) as u8);
        rest >>= 7;
    }
    packet.push(rest as u8);
    packet.append(&mut body);
    packet
}

/// A PUBLISH towards a subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) user_properties: Vec<(String, String)>,
}

/// Encodes a delivery; `packet_id` is `None` at QoS 0.
///
/// # Errors
/// When the codec refuses the topic or a property.
pub(crate) fn publish(version: Version, message: &Message, packet_id: Option<u16>, dup: bool) -> Result<Vec<u8>, MqttError> {
    let qos = if packet_id.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce };
    let payload = message.payload.to_vec();
    match version {
        Version::V311 => {
            let mut builder = v3_1_1::Publish::builder()
                .topic_name(message.topic.as_str())?
                .qos(qos)
                .dup(dup)
                .payload(payload);
            if let Some(id) = packet_id {
                builder = builder.packet_id(id);
            }
            Ok(builder.build()?.to_continuous_buffer())
        }
        Version::V5 => {
            let properties = message
                .user_properties
                .iter()
                .map(|(name, value)| UserProperty::new(name.as_str(), value.as_str()).map(Property::UserProperty))
                .collect::<Result<Properties, _>>()?;
            let mut builder = v5_0::Publish::builder()
                .topic_name(message.topic.as_str())?
                .qos(qos)
                .dup(dup)
                .props(properties)
                .payload(payload);
            if let Some(id) = packet_id {
                builder = builder.packet_id(id);
            }
            Ok(builder.build()?.to_continuous_buffer())
        }
    }
}
