//! The MQTT 5 properties that travel with a record, from their wire encoding.

use bytes::{Buf, Bytes};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// User properties of this prefix are the gateway's; a device's are dropped, so that nobody can forge them.
const OURS: &str = "forebay-";

/// Decodes what travels: payload format, content type, response topic, correlation data and user properties. The front has
/// validated the encoding and the log's checksum guards it; should it be damaged all the same, the rest is left out.
pub(crate) fn decode(wire: &Bytes) -> PublishProperties {
    let mut properties = PublishProperties::default();
    let mut rest = wire.clone();
    while read_one(&mut rest, &mut properties).is_some() {}
    properties
}

fn read_one(rest: &mut Bytes, into: &mut PublishProperties) -> Option<()> {
    match rest.try_get_u8().ok()? {
        0x01 => into.payload_format_indicator = Some(rest.try_get_u8().ok()?),
        0x03 => into.content_type = Some(text(rest)?),
        0x08 => into.response_topic = Some(text(rest)?),
        0x09 => into.correlation_data = Some(binary(rest)?),
        0x26 => {
            let (name, value) = (text(rest)?, text(rest)?);
            if !name.starts_with(OURS) {
                into.user_properties.push((name, value));
            }
        }
        _ => return None,
    }
    Some(())
}

fn binary(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(rest.try_get_u16().ok()?);
    (rest.len() >= length).then(|| rest.split_to(length))
}

fn text(rest: &mut Bytes) -> Option<String> {
    String::from_utf8(binary(rest)?.to_vec()).ok()
}

/// Bytes of the properties on the wire, without their leading length.
pub(crate) fn encoded_len(properties: &PublishProperties) -> usize {
    let string = |text: &Option<String>| text.as_ref().map_or(0, |text| 3 + text.len());
    let user: usize = properties
        .user_properties
        .iter()
        .map(|(name, value)| 5 + name.len() + value.len())
        .sum();
    user + properties.payload_format_indicator.map_or(0, |_| 2)
        + properties.message_expiry_interval.map_or(0, |_| 5)
        + string(&properties.content_type)
        + string(&properties.response_topic)
        + properties.correlation_data.as_ref().map_or(0, |data| 3 + data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_five_kinds_travel_and_forged_ones_do_not() {
        let wire: &[u8] = b"\x01\x01\x03\x00\x04json\x08\x00\x01r\x09\x00\x02\x00\xff\x26\x00\x01k\x00\x01v\x26\x00\x0aforebay-id\x00\x01x\x26\x00\x01k\x00\x00";
        let found = decode(&Bytes::from_static(wire));
        assert_eq!(found.payload_format_indicator, Some(1));
        assert_eq!(found.content_type.as_deref(), Some("json"));
        assert_eq!(found.response_topic.as_deref(), Some("r"));
        assert_eq!(found.correlation_data.as_deref(), Some(&b"\x00\xff"[..]));
        assert_eq!(
            found.user_properties,
            [("k".to_owned(), "v".to_owned()), ("k".to_owned(), String::new())]
        );
        assert_eq!(encoded_len(&found), wire.len() - 16);
    }

    #[test]
    fn damage_ends_the_reading_and_nothing_else() {
        let wire = b"\x01\x01\x26\x00\x01k\x00\x01v\x03\x00\x04json";
        for cut in 0..wire.len() {
            decode(&Bytes::copy_from_slice(&wire[..cut]));
        }
        assert_eq!(decode(&Bytes::from_static(b"\x7f\x01\x01")), PublishProperties::default());
    }
}
