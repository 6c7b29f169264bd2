//! Promises held for generated packets and for any bytes at all.

use proptest::prelude::*;

use super::packets::{auth, on_v311, packet, publish};
use super::*;

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

fn with_version(packet: &Packet, version: Version) -> Packet {
    let mut packet = packet.clone();
    if let Packet::Connect(connect) = &mut packet {
        connect.version = version;
    }
    packet
}

proptest! {
    #[test]
    fn a_packet_survives_mqtt_5_unchanged(packet in packet()) {
        let mut wire = encoded(&packet, Version::V5);
        let decoded = read(&mut wire, Version::V5, receiver(&packet)).unwrap().unwrap();
        prop_assert_eq!(decoded, packet);
        prop_assert!(wire.is_empty());
    }

    #[test]
    fn a_packet_survives_mqtt_311_but_for_what_that_version_lacks(packet in packet()) {
        let packet = with_version(&packet, Version::V311);
        // Its DISCONNECT comes from clients only, and carries nothing that would say otherwise.
        let expected = on_v311(&packet);
        let mut wire = encoded(&packet, Version::V311);
        let decoded = read(&mut wire, Version::V311, receiver(&expected)).unwrap().unwrap();
        prop_assert_eq!(decoded, expected);
        prop_assert!(wire.is_empty());
    }

    #[test]
    fn authentication_survives_and_does_not_exist_on_311(auth in auth()) {
        let packet = Packet::Auth(auth);
        let mut wire = encoded(&packet, Version::V5);
        prop_assert_eq!(read(&mut wire, Version::V5, Role::Server).unwrap(), Some(packet.clone()));
        let mut out = BytesMut::from("before");
        prop_assert!(encode(&packet, Version::V311, &mut out).is_err());
        prop_assert_eq!(&out[..], b"before");
    }

    #[test]
    fn the_announced_size_of_a_publish_is_its_size(publish in publish(), version in any_version()) {
        let size = publish.header().packet_len(version);
        prop_assert_eq!(encoded(&Packet::Publish(publish), version).len(), size);
    }

    #[test]
    fn chunks_make_the_same_packets_as_the_whole(packets in proptest::collection::vec(packet(), 1..6), version in any_version(), cut in any::<prop::sample::Index>()) {
        let packets: Vec<_> = packets.iter().map(|packet| with_version(packet, version)).collect();
        for packet in &packets {
            let expected = if version == Version::V311 { on_v311(packet) } else { packet.clone() };
            let role = receiver(&expected);
            let wire = encoded(packet, version);
            // Byte by byte, then in two parts.
            for steps in [(1..=wire.len()).collect::<Vec<_>>(), vec![cut.index(wire.len()), wire.len()]] {
                let mut buffer = BytesMut::new();
                let mut at = 0;
                for step in steps {
                    prop_assert_eq!(read(&mut buffer, version, role).unwrap(), None);
                    buffer.extend_from_slice(&wire[at..step]);
                    at = step;
                }
                prop_assert_eq!(read(&mut buffer, version, role).unwrap(), Some(expected.clone()));
                prop_assert!(buffer.is_empty());
            }
        }
    }

    #[test]
    fn any_bytes_are_consumed_refused_or_awaited(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in any_version(), role in any_role()) {
        let mut buffer = BytesMut::from(&bytes[..]);
        loop {
            let before = buffer.len();
            match decode(&mut buffer, version, role, MAX_PACKET) {
                Ok(Some(packet)) => {
                    prop_assert!(buffer.len() < before);
                    encode(&packet, version, &mut BytesMut::new()).unwrap();
                }
                Ok(None) => {
                    prop_assert_eq!(buffer.len(), before);
                    break;
                }
                Err(error) => {
                    prop_assert!(error.reason().is_error());
                    prop_assert!(error.to_string().contains("[MQTT"));
                    break;
                }
            }
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode_connect(&mut buffer, MAX_PACKET) {}
    }

    #[test]
    fn damaged_packets_are_refused_or_stay_valid(packet in packet(), version in any_version(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let packet = with_version(&packet, version);
        let mut wire = encoded(&packet, version);
        let at = at.index(wire.len());
        wire[at] = byte;
        for role in [Role::Server, Role::Client] {
            if let Ok(Some(decoded)) = read(&mut wire.clone(), version, role) {
                // A flipped level byte makes a CONNECT of the other version.
                let version = if let Packet::Connect(connect) = &decoded { connect.version } else { version };
                let mut again = encoded(&decoded, version);
                prop_assert_eq!(read(&mut again, version, role).unwrap(), Some(decoded));
            }
        }
    }
}
