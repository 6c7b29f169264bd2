//! Bytes written by hand from the specification, both ways.

use std::num::{NonZeroU16, NonZeroU32};

use super::*;

fn id(value: u16) -> NonZeroU16 {
    NonZeroU16::new(value).unwrap()
}

/// Both directions: the bytes are what `encode` writes, and `decode` reads.
fn assert_wire(version: Version, bytes: &[u8], packet: Packet) {
    assert_eq!(&encoded(&packet, version)[..], bytes, "encoding {packet:?}");
    assert_reads(version, bytes, packet);
}

fn assert_reads(version: Version, bytes: &[u8], packet: Packet) {
    let mut buffer = BytesMut::from(bytes);
    assert_eq!(read(&mut buffer, version, receiver(&packet)).unwrap(), Some(packet));
    assert!(buffer.is_empty());
}

#[test]
fn connect_is_read_and_written_as_specified() {
    let mut connect = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive: 60,
        client_id: "dev-1".into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    assert_wire(
        Version::V311,
        b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05dev-1",
        Packet::Connect(Box::new(connect.clone())),
    );
    // MQTT 3.1 differs in its name and level only.
    assert_reads(
        Version::V311,
        b"\x10\x13\0\x06MQIsdp\x03\x02\0\x3c\0\x05dev-1",
        Packet::Connect(Box::new(connect.clone())),
    );
    connect.version = Version::V5;
    connect.clean_start = false;
    connect.properties.session_expiry = Some(3600);
    connect.properties.receive_maximum = Some(id(20));
    connect.will = Some(Will {
        topic: "w".into(),
        payload: Bytes::from_static(&[0xff, 0]),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: WillProperties {
            delay: Some(5),
            expiry: None,
            travelling: Bytes::from_static(b"\x01\x01"),
        },
    });
    connect.username = Some("u".into());
    connect.password = Some(Bytes::from_static(b"\xfe\0"));
    assert_wire(
        Version::V5,
        b"\x10\x30\0\x04MQTT\x05\xec\0\x3c\x08\x11\0\0\x0e\x10\x21\0\x14\0\x05dev-1\x07\x18\0\0\0\x05\x01\x01\0\x01w\0\x02\xff\0\0\x01u\0\x02\xfe\0",
        Packet::Connect(Box::new(connect)),
    );
}

#[test]
fn connack_is_translated_for_311() {
    let refused = |code| Packet::ConnAck(Box::new(ConnAck::refused(code)));
    assert_wire(Version::V311, b"\x20\x02\0\x01", refused(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION));
    assert_wire(Version::V5, b"\x20\x03\0\x84\0", refused(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION));
    assert_wire(Version::V311, b"\x20\x02\0\x05", refused(ReasonCode::NOT_AUTHORIZED));
    let present = ConnAck {
        session_present: true,
        ..ConnAck::default()
    };
    assert_wire(Version::V311, b"\x20\x02\x01\0", Packet::ConnAck(Box::new(present.clone())));
    // What has no code of its own is "unavailable": the device tries again later.
    assert_eq!(&encoded(&refused(ReasonCode::QUOTA_EXCEEDED), Version::V311)[..], b"\x20\x02\0\x03");
    let contradiction = ConnAck {
        code: ReasonCode::BANNED,
        ..present
    };
    assert_eq!(
        &encoded(&Packet::ConnAck(Box::new(contradiction)), Version::V5)[..],
        b"\x20\x03\0\x8a\0"
    );
}

#[test]
fn publish_is_read_and_written_as_specified() {
    let mut publish = Publish {
        topic: "a/b".into(),
        payload: Bytes::from_static(b"hi"),
        ..Publish::default()
    };
    assert_wire(Version::V311, b"\x30\x07\0\x03a/bhi", Packet::Publish(publish.clone()));
    assert_wire(Version::V5, b"\x30\x08\0\x03a/b\0hi", Packet::Publish(publish.clone()));
    publish.qos = QoS::AtLeastOnce;
    publish.packet_id = Some(id(0x102));
    publish.dup = true;
    publish.retain = true;
    assert_wire(Version::V311, b"\x3b\x09\0\x03a/b\x01\x02hi", Packet::Publish(publish.clone()));
    publish.properties = PublishProperties {
        topic_alias: Some(id(3)),
        expiry: Some(9),
        subscription_ids: vec![NonZeroU32::new(200).unwrap()],
        travelling: Bytes::from_static(b"\x26\0\x01k\0\x01v"),
    };
    publish.topic = Text::default();
    assert_wire(
        Version::V5,
        b"\x3b\x19\0\0\x01\x02\x12\x23\0\x03\x02\0\0\0\x09\x0b\xc8\x01\x26\0\x01k\0\x01vhi",
        Packet::Publish(publish),
    );
}

#[test]
fn travelling_properties_keep_their_order_and_share_the_buffer_where_they_can() {
    let wire = |section: &[u8]| {
        let mut bytes = vec![0x30, 4 + section.len() as u8, 0, 1, b't', section.len() as u8];
        bytes.extend_from_slice(section);
        bytes
    };
    let decoded = |section: &[u8]| match decode(&mut BytesMut::from(&wire(section)[..]), Version::V5, Role::Server, MAX_PACKET) {
        Ok(Some(Packet::Publish(publish))) => publish,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        &decoded(b"\x26\0\x01b\0\x01x\x26\0\x01a\0\x01y").properties.travelling[..],
        b"\x26\0\x01b\0\x01x\x26\0\x01a\0\x01y"
    );
    // One in the middle that does not travel, and one at either end.
    let mixed = decoded(b"\x02\0\0\0\x07\x01\x01\x23\0\x01\x03\0\x01j\x09\0\0");
    assert_eq!(&mixed.properties.travelling[..], b"\x01\x01\x03\0\x01j\x09\0\0");
    assert_eq!((mixed.properties.expiry, mixed.properties.topic_alias), (Some(7), Some(id(1))));
    let read: Vec<_> = travelling(&mixed.properties.travelling).collect();
    assert_eq!(
        read,
        [
            Property::PayloadFormat(true),
            Property::ContentType("j".into()),
            Property::CorrelationData(Bytes::new())
        ]
    );
}

#[test]
fn acks_have_all_their_legal_forms() {
    let plain = Ack::new(id(7), ReasonCode::SUCCESS);
    assert_wire(Version::V311, b"\x40\x02\0\x07", Packet::PubAck(plain.clone()));
    assert_wire(Version::V5, b"\x50\x02\0\x07", Packet::PubRec(plain.clone()));
    assert_wire(Version::V5, b"\x62\x02\0\x07", Packet::PubRel(plain.clone()));
    assert_wire(Version::V311, b"\x70\x02\0\x07", Packet::PubComp(plain.clone()));
    let full = Ack::new(id(7), ReasonCode::QUOTA_EXCEEDED);
    assert_wire(Version::V5, b"\x40\x03\0\x07\x97", Packet::PubAck(full.clone()));
    assert_reads(Version::V5, b"\x40\x04\0\x07\x97\0", Packet::PubAck(full.clone()));
    let mut named = full.clone();
    named.properties.reason_string = Some("full".into());
    assert_wire(Version::V5, b"\x40\x0b\0\x07\x97\x07\x1f\0\x04full", Packet::PubAck(named));
    let mut fast = BytesMut::new();
    encode_puback(&mut fast, Version::V5, id(7), ReasonCode::QUOTA_EXCEEDED).unwrap();
    encode_pubrec(&mut fast, Version::V311, id(7), ReasonCode::SUCCESS).unwrap();
    encode_pubrel(&mut fast, Version::V5, id(7), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    encode_pubcomp(&mut fast, Version::V311, id(7), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    assert_eq!(&fast[..], b"\x40\x03\0\x07\x97\x50\x02\0\x07\x62\x03\0\x07\x92\x70\x02\0\x07");
}

#[test]
fn a_refusal_never_becomes_a_311_ack() {
    let mut out = BytesMut::new();
    assert!(encode_puback(&mut out, Version::V311, id(7), ReasonCode::QUOTA_EXCEEDED).is_err());
    assert!(
        encode(
            &Packet::PubRec(Ack::new(id(7), ReasonCode::NOT_AUTHORIZED)),
            Version::V311,
            &mut out
        )
        .is_err()
    );
    assert!(out.is_empty());
}

#[test]
fn subscriptions_are_read_and_written_as_specified() {
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let mut subscribe = Subscribe {
        packet_id: id(10),
        subscription_id: Some(NonZeroU32::new(1).unwrap()),
        user: Vec::new(),
        filters: vec![Subscription {
            filter: "a/+".into(),
            options,
        }],
    };
    assert_wire(
        Version::V5,
        b"\x82\x0b\0\x0a\x02\x0b\x01\0\x03a/+\x2d",
        Packet::Subscribe(subscribe.clone()),
    );
    subscribe.subscription_id = None;
    subscribe.filters[0].options = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        ..SubscribeOptions::default()
    };
    assert_wire(Version::V311, b"\x82\x08\0\x0a\0\x03a/+\x02", Packet::Subscribe(subscribe));
    let codes = vec![ReasonCode::GRANTED_QOS_1, ReasonCode::UNSPECIFIED_ERROR];
    let suback = SubAck {
        packet_id: id(10),
        codes,
        properties: AckProperties::default(),
    };
    assert_wire(Version::V311, b"\x90\x04\0\x0a\x01\x80", Packet::SubAck(suback.clone()));
    assert_wire(Version::V5, b"\x90\x05\0\x0a\0\x01\x80", Packet::SubAck(suback));
    let unsubscribe = Unsubscribe {
        packet_id: id(11),
        user: Vec::new(),
        filters: vec!["a".into(), "b".into()],
    };
    assert_wire(
        Version::V311,
        b"\xa2\x08\0\x0b\0\x01a\0\x01b",
        Packet::Unsubscribe(unsubscribe.clone()),
    );
    assert_wire(Version::V5, b"\xa2\x09\0\x0b\0\0\x01a\0\x01b", Packet::Unsubscribe(unsubscribe));
    let mut unsuback = UnsubAck {
        packet_id: id(11),
        codes: vec![ReasonCode::NO_SUBSCRIPTION_EXISTED],
        properties: AckProperties::default(),
    };
    assert_wire(Version::V5, b"\xb0\x04\0\x0b\0\x11", Packet::UnsubAck(unsuback.clone()));
    unsuback.codes.clear();
    assert_wire(Version::V311, b"\xb0\x02\0\x0b", Packet::UnsubAck(unsuback));
}

#[test]
fn disconnect_has_all_its_legal_forms() {
    assert_wire(Version::V311, b"\xe0\0", Packet::Disconnect(Disconnect::default()));
    assert_wire(Version::V5, b"\xe0\0", Packet::Disconnect(Disconnect::default()));
    assert_wire(
        Version::V5,
        b"\xe0\x01\x04",
        Packet::Disconnect(Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL)),
    );
    assert_reads(
        Version::V5,
        b"\xe0\x02\x04\0",
        Packet::Disconnect(Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL)),
    );
    let mut disconnect = Disconnect::default();
    disconnect.properties.session_expiry = Some(0);
    assert_wire(Version::V5, b"\xe0\x07\0\x05\x11\0\0\0\0", Packet::Disconnect(disconnect));
    assert_wire(Version::V5, b"\xf0\0", Packet::Auth(Auth::default()));
    assert_wire(Version::V311, b"\xc0\0", Packet::PingReq);
    assert_wire(Version::V5, b"\xd0\0", Packet::PingResp);
}

#[test]
fn modems_may_pad_the_length_of_a_311_packet() {
    assert_reads(Version::V311, b"\xc0\x80\0", Packet::PingReq);
    let padded = decode(&mut BytesMut::from(&b"\xc0\x80\0"[..]), Version::V5, Role::Server, MAX_PACKET);
    assert_eq!(padded.unwrap_err().fault, Fault::PaddedLength);
}

#[test]
fn what_is_too_long_is_an_error_and_leaves_the_output_alone() {
    let long = "x".repeat(65_536);
    let publish = Publish {
        topic: long.clone().into(),
        ..Publish::default()
    };
    let unsubscribe = Unsubscribe {
        packet_id: id(1),
        user: vec![("k".into(), long.clone().into())],
        filters: vec!["a".into()],
    };
    let mut ack = Ack::new(id(1), ReasonCode::SUCCESS);
    ack.properties.reason_string = Some(long.into());
    let no_id = Publish {
        qos: QoS::AtLeastOnce,
        topic: "t".into(),
        ..Publish::default()
    };
    let huge = Publish {
        topic: "t".into(),
        payload: vec![0; 268_435_456].into(),
        ..Publish::default()
    };
    let nul = Publish {
        topic: "a\0b".into(),
        ..Publish::default()
    };
    let nothing = Unsubscribe {
        packet_id: id(1),
        user: Vec::new(),
        filters: Vec::new(),
    };
    for packet in [
        Packet::Publish(publish),
        Packet::Unsubscribe(unsubscribe),
        Packet::PubAck(ack),
        Packet::Publish(no_id),
        Packet::Publish(huge),
        Packet::Publish(nul),
        Packet::Unsubscribe(nothing),
    ] {
        let mut out = BytesMut::from("before");
        assert!(encode(&packet, Version::V5, &mut out).is_err());
        assert_eq!(&out[..], b"before");
    }
}
