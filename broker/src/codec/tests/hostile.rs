//! Bytes that other brokers accepted, misread or died of.

use super::*;

const V311: Version = Version::V311;
const V5: Version = Version::V5;

fn refused(version: Version, bytes: &[u8]) -> DecodeError {
    match decode(&mut BytesMut::from(bytes), version, Role::Server, MAX_PACKET) {
        Err(error) => error,
        other => panic!("{bytes:02x?} was taken as {other:?}"),
    }
}

fn connect_refused(bytes: &[u8]) -> DecodeError {
    match decode_connect(&mut BytesMut::from(bytes), MAX_PACKET) {
        Err(error) => error,
        other => panic!("{bytes:02x?} was taken as {other:?}"),
    }
}

#[test]
fn a_server_refuses_what_the_protocol_forbids() {
    let table: &[(Version, &[u8], Fault)] = &[
        (V5, b"\x00\x00", Fault::ReservedType),
        (V311, b"\xf0\x00", Fault::ReservedType),
        (V5, b"\x10\x00", Fault::SecondConnect),
        // Sent by servers only.
        (V5, b"\x20\x03\0\0\0", Fault::WrongDirection),
        (V311, b"\x20\x02\0\0", Fault::WrongDirection),
        (V5, b"\x90\x04\0\x01\0\0", Fault::WrongDirection),
        (V5, b"\xb0\x04\0\x01\0\0", Fault::WrongDirection),
        (V5, b"\xd0\x00", Fault::WrongDirection),
        // Flags.
        (V5, b"\x41\x02\0\x01", Fault::Flags(1)),
        (V5, b"\x60\x02\0\x01", Fault::Flags(0)),
        (V5, b"\x80\x06\0\x01\0\0\x01a\0", Fault::Flags(0)),
        (V311, b"\xa0\x05\0\x01\0\x01a", Fault::Flags(0)),
        (V311, b"\xc1\x00", Fault::Flags(1)),
        (V311, b"\xe8\x00", Fault::Flags(8)),
        // Lengths.
        (V5, b"\xc0\xff\xff\xff\xff", Fault::LengthField),
        (V5, b"\xc0\x01\0", Fault::Trailing(1)),
        (V311, b"\xe0\x01\x04", Fault::Trailing(1)),
        (V311, b"\x40\x03\0\x01\0", Fault::Trailing(1)),
        (V5, b"\x40\x05\0\x01\0\0\0", Fault::Trailing(1)),
        (V5, b"\x40\x01\0", Fault::Truncated("packet id")),
        (V5, b"\x40\x04\0\x01\0\x05", Fault::Truncated("properties")),
        (V5, b"\xe0\x03\0\xff\x7f", Fault::Truncated("properties")),
        // PUBLISH.
        (V5, b"\x36\x06\0\x01t\0\x01\0", Fault::QoS3),
        (V5, b"\x38\x04\0\x01t\0", Fault::DupAtQoS0),
        (V311, b"\x32\x05\0\x01t\0\0", Fault::PacketIdZero),
        (V311, b"\x32\x03\0\x01t", Fault::Truncated("packet id")),
        (V311, b"\x30\x04\0\x05ab", Fault::Truncated("topic")),
        (V311, b"\x30\x02\0\0", Fault::TopicEmpty("topic")),
        (V5, b"\x30\x03\0\0\0", Fault::TopicEmpty("topic")),
        (V311, b"\x30\x05\0\x03a/#", Fault::TopicWildcard("topic")),
        (V5, b"\x30\x04\0\x01+\0", Fault::TopicWildcard("topic")),
        (V311, b"\x30\x05\0\x03a\0b", Fault::Nul("topic")),
        (V311, b"\x30\x04\0\x02\xc3\x28", Fault::Utf8("topic")),
        (V311, b"\x30\x05\0\x03\xed\xa0\x80", Fault::Utf8("topic")),
        (V5, b"\x30\x07\0\x01t\x03\x23\0\0", Fault::TopicAliasZero),
        (V5, b"\x30\x06\0\x01t\x02\x0b\x01", Fault::SubscriptionIdFromClient),
        (V5, b"\x30\x08\0\x01t\x04\x01\0\x01\0", Fault::PropertyRepeated(0x01)),
        (V5, b"\x30\x0a\0\x01t\x06\x23\0\x01\x23\0\x01", Fault::PropertyRepeated(0x23)),
        (V5, b"\x30\x06\0\x01t\x02\x01\x02", Fault::PropertyValue { id: 1, value: 2 }),
        (V5, b"\x30\x09\0\x01t\x05\x11\0\0\0\0", Fault::PropertyMisplaced(0x11)),
        (V5, b"\x30\x06\0\x01t\x02\x7f\0", Fault::PropertyUnknown(0x7f)),
        (V5, b"\x30\x06\0\x01t\x02\x80\x02", Fault::PropertyUnknown(0x100)),
        (V5, b"\x30\x08\0\x01t\x04\x08\0\x01#", Fault::TopicWildcard("response topic")),
        (V5, b"\x30\x08\0\x01t\x04\x26\0\x01k", Fault::Truncated("user property value")),
        (V5, b"\x30\x05\0\x01t\x80\0", Fault::PaddedLength),
        // Acks.
        (V5, b"\x40\x02\0\0", Fault::PacketIdZero),
        (V5, b"\x40\x03\0\x01\x18", Fault::Reason(0x18)),
        (V5, b"\x62\x03\0\x01\x97", Fault::Reason(0x97)),
        (V5, b"\x40\x09\0\x01\0\x05\x02\0\0\0\0", Fault::PropertyMisplaced(0x02)),
        // SUBSCRIBE and UNSUBSCRIBE.
        (V5, b"\x82\x03\0\x01\0", Fault::NothingListed),
        (V311, b"\x82\x02\0\x01", Fault::NothingListed),
        (V311, b"\xa2\x02\0\x01", Fault::NothingListed),
        (V5, b"\xa2\x03\0\x01\0", Fault::NothingListed),
        (V311, b"\x82\x06\0\0\0\x01a\0", Fault::PacketIdZero),
        (V311, b"\xa2\x05\0\0\0\x01a", Fault::PacketIdZero),
        (V311, b"\x82\x06\0\x01\0\x01a\x03", Fault::SubscriptionOptions(3)),
        (V311, b"\x82\x06\0\x01\0\x01a\x04", Fault::SubscriptionOptions(4)),
        (V5, b"\x82\x07\0\x01\0\0\x01a\x40", Fault::SubscriptionOptions(0x40)),
        (V5, b"\x82\x07\0\x01\0\0\x01a\x30", Fault::SubscriptionOptions(0x30)),
        (V5, b"\x82\x10\0\x01\0\0\x0a$share/g/a\x05", Fault::SharedNoLocal),
        (V311, b"\x82\x05\0\x01\0\x01a", Fault::Truncated("subscription options")),
        (
            V5,
            b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0",
            Fault::PropertyValue { id: 0x0b, value: 0 },
        ),
        (V5, b"\x82\x0b\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0", Fault::PropertyRepeated(0x0b)),
        // DISCONNECT and AUTH.
        (V5, b"\xe0\x01\x01", Fault::Reason(1)),
        (V5, b"\xe0\x06\0\x04\x1c\0\x01s", Fault::PropertyMisplaced(0x1c)),
        (V5, b"\xf0\x02\x18\0", Fault::AuthenticationMethod),
    ];
    for (version, bytes, fault) in table {
        let error = refused(*version, bytes);
        assert_eq!(error.fault, *fault, "{bytes:02x?}");
        assert_eq!(error.version(), Some(*version));
        assert!(error.reason().is_error());
    }
}

#[test]
fn a_connect_is_refused_for_what_is_wrong_with_it() {
    let table: &[(&[u8], Fault)] = &[
        (b"GET / HTTP/1.1\r\n", Fault::FirstNotConnect),
        (b"\x17\x03\x01", Fault::Flags(7)),
        (b"\x30", Fault::FirstNotConnect),
        (b"\x10\x0d\0\x04MQTX\x04\x02\0\0\0\x01a", Fault::ProtocolName),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", Fault::SpeaksTls),
        (b"\x16", Fault::SpeaksTls),
        (b"\x10\x0d\0\x04MQTT\x84\x02\0\0\0\x01a", Fault::BridgeLevel(0x84)),
        (b"\x10\x0f\0\x06MQIsdp\x83\x02\0\0\0\x01a", Fault::BridgeLevel(0x83)),
        (b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01a", Fault::UnsupportedLevel(6)),
        (b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a", Fault::ConnectFlag),
        (b"\x10\x0d\0\x04MQTT\x04\x08\0\0\0\x01a", Fault::WillFlags(0x08)),
        (b"\x10\x0d\0\x04MQTT\x04\x20\0\0\0\x01a", Fault::WillFlags(0x20)),
        (b"\x10\x12\0\x04MQTT\x04\x1e\0\0\0\x01a\0\x01w\0\0", Fault::WillFlags(0x1e)),
        (b"\x10\x10\0\x04MQTT\x04\x40\0\0\0\x01a\0\x01p", Fault::PasswordAlone),
        (
            b"\x10\x12\0\x04MQTT\x04\x06\0\0\0\x01a\0\x01#\0\0",
            Fault::TopicWildcard("will topic"),
        ),
        (b"\x10\x11\0\x04MQTT\x04\x06\0\0\0\x01a\0\0\0\0", Fault::TopicEmpty("will topic")),
        (b"\x10\x0d\0\x04MQTT\x04\x06\0\0\0\x01a", Fault::Truncated("will topic")),
        (b"\x10\x0d\0\x04MQTT\x04\x80\0\0\0\x01a", Fault::Truncated("user name")),
        (b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x01a\0", Fault::Trailing(1)),
        (b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\0", Fault::Nul("client id")),
        (
            b"\x10\x11\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\x01a",
            Fault::PropertyValue { id: 0x21, value: 0 },
        ),
        (b"\x10\x10\0\x04MQTT\x05\x02\0\0\x02\x01\0\0\x01a", Fault::PropertyMisplaced(1)),
        (b"\x10\x11\0\x04MQTT\x05\x02\0\0\x03\x16\0\0\0\x01a", Fault::AuthenticationMethod),
        (b"\x10\x8e\x00\0\x04MQTT\x05\x02\0\0\0\0\x01a", Fault::PaddedLength),
    ];
    for (bytes, fault) in table {
        let error = connect_refused(bytes);
        assert_eq!(error.fault, *fault, "{bytes:02x?}");
        // 3.1.1 has a return code for another version, and none for what is malformed.
        let is_level = matches!(fault, Fault::BridgeLevel(_) | Fault::UnsupportedLevel(_));
        assert!(is_level || error.version() != Some(V311), "{bytes:02x?}");
    }
}

#[test]
fn an_unknown_level_is_answered_in_the_nearest_version() {
    let newer = connect_refused(b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01a");
    assert_eq!(
        (newer.version(), newer.reason()),
        (Some(V5), ReasonCode::UNSUPPORTED_PROTOCOL_VERSION)
    );
    let older = connect_refused(b"\x10\x0d\0\x04MQTT\x03\x02\0\0\0\x01a");
    assert_eq!(
        (older.version(), older.reason()),
        (Some(V311), ReasonCode::UNSUPPORTED_PROTOCOL_VERSION)
    );
    assert_eq!(connect_refused(b"GET / HTTP").version(), None);
}

#[test]
fn a_client_refuses_what_only_clients_send() {
    for bytes in [
        &b"\x82\x06\0\x01\0\x01a\0"[..],
        b"\xa2\x05\0\x01\0\x01a",
        b"\xc0\0",
        b"\x10\0",
        b"\xe0\0",
    ] {
        let result = decode(&mut BytesMut::from(bytes), V311, Role::Client, MAX_PACKET);
        assert_eq!(result.unwrap_err().fault, Fault::WrongDirection);
    }
}

#[test]
fn oversize_is_refused_from_the_header_alone() {
    let mut buffer = BytesMut::from(&b"\x30\xff\xff\xff\x7f"[..]);
    let error = decode(&mut buffer, V5, Role::Server, 1024).unwrap_err();
    assert_eq!(
        error.fault,
        Fault::TooLarge {
            size: 268_435_460,
            limit: 1024
        }
    );
    assert_eq!(error.reason(), ReasonCode::PACKET_TOO_LARGE);
    let mut exact = BytesMut::from(&b"\x30\x07\0\x03a/bhi"[..]);
    assert!(decode(&mut exact.clone(), V311, Role::Server, 8).is_err());
    assert!(decode(&mut exact, V311, Role::Server, 9).unwrap().is_some());
}

#[test]
fn a_claimed_length_buys_no_memory() {
    let mut buffer = BytesMut::from(&b"\x30\xff\xff\xff\x7f"[..]);
    assert!(decode(&mut buffer, V311, Role::Server, usize::MAX).unwrap().is_none());
    assert!(buffer.capacity() < 16 * 1024, "{}", buffer.capacity());
}

#[test]
fn a_topic_may_begin_with_any_letter() {
    let mut buffer = BytesMut::from(&b"\x30\x05\0\x03\xc3\xa9x"[..]);
    let Some(Packet::Publish(publish)) = decode(&mut buffer, V311, Role::Server, MAX_PACKET).unwrap() else {
        panic!("not a publish")
    };
    assert_eq!(publish.topic, "éx");
}

#[test]
fn errors_say_what_is_wrong_and_by_which_rule() {
    let error = refused(V5, b"\x38\x04\0\x01t\0");
    assert_eq!(error.to_string(), "PUBLISH refused: DUP is set at QoS 0 [MQTT-3.3.1-2]");
    let error = decode(&mut BytesMut::from(&b"\x30\xff\x7f"[..]), V5, Role::Server, 100).unwrap_err();
    let text = "PUBLISH refused: 16386 bytes, the limit is 100: raise limits.max_packet if the device may send that [MQTT-3.2.2-15]";
    assert_eq!(error.to_string(), text);
}
