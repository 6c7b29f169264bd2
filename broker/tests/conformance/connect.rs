//! Section 3.1: CONNECT.

use std::collections::BTreeSet;

use forebay_broker::codec::{Packet, ReasonCode, SubscribeOptions, Version};

use crate::support::{Bench, Client, Setup, connect_5, connect_311, publish};
use crate::{BOTH, OK, bytes_of, bytes_of_connect, connected, frame, goodbye, lasting, pubrel, subscribe_packet, unsubscribe_packet};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_packet_other_than_connect_ends_the_connection_unanswered() {
    let bench = Bench::new().await;
    for base in BOTH {
        let version = base("c").version;
        let mut packets: Vec<Vec<u8>> = [
            publish("here/x", 0, None),
            publish("here/x", 1, Some(1)),
            pubrel(1),
            subscribe_packet(1, &[("a", SubscribeOptions::default())]),
            unsubscribe_packet(1, &["a"]),
            Packet::PingReq,
            goodbye(),
        ]
        .iter()
        .map(|packet| bytes_of(packet, version))
        .collect();
        // All other types, too.
        packets.extend((0..16).filter(|kind| *kind != 1).map(|kind| vec![kind << 4, 2, 0, 1]));
        for packet in packets {
            let mut client = Client::opened(bench.address(), version).await;
            client.send_raw(&packet).await;
            assert_eq!(client.receive().await, None, "{packet:02x?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connect_ends_the_connection_and_is_not_answered() {
    let bench = Bench::new().await;
    for base in BOTH {
        for again in [base("c"), lasting(base("c")), base("other")] {
            let mut client = connected(&bench, base("c")).await;
            client.send_raw(&bytes_of_connect(again)).await;
            client.expect_end(ReasonCode::PROTOCOL_ERROR).await;
        }
        // Both at once.
        let mut client = Client::opened(bench.address(), base("c").version).await;
        client.send_raw(&bytes_of_connect(base("c")).repeat(2)).await;
        assert_eq!(client.connack().await.code, OK);
        client.expect_end(ReasonCode::PROTOCOL_ERROR).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_name_or_level_is_refused() {
    let bench = Bench::new().await;
    let connect = |name: &[u8], level: u8| {
        let name = [&[0, name.len() as u8], name].concat();
        let properties: &[u8] = if level < 5 { b"" } else { b"\0" };
        frame(0x10, &[&name, &[level, 2, 0, 60][..], properties, b"\0\x01c"].concat())
    };
    for name in [&b"MQTX"[..], b"mqtt", b"MQT", b"MQTTT", b"", b"HTTP", b"MQIsdq"] {
        for (level, version) in [(4, Version::V311), (5, Version::V5)] {
            let mut client = Client::opened(bench.address(), version).await;
            client.send_raw(&connect(name, level)).await;
            match client.receive().await {
                None => {}
                Some(Packet::ConnAck(connack)) => {
                    assert_eq!(connack.code, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, "{name:?}");
                    assert_eq!(client.receive().await, None);
                }
                other => panic!("{name:?}: {other:?}"),
            }
        }
    }
    for level in (0..=255).filter(|level| ![4, 5].contains(level)) {
        // An older client is answered in its own form.
        let version = if level < 5 || level & 0x7f < 5 && level >= 0x83 {
            Version::V311
        } else {
            Version::V5
        };
        let mut client = Client::opened(bench.address(), version).await;
        client.send_raw(&connect(b"MQTT", level)).await;
        let connack = client.connack().await;
        assert_eq!(connack.code, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, "{level}");
        assert_eq!(client.receive().await, None, "{level}");
    }
}

/// Whether a CONNECT may have these flags.
fn may_have(flags: u8, version: Version) -> bool {
    let (user, password, retain) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0x20 != 0);
    let (qos, will) = (flags >> 3 & 3, flags & 4 != 0);
    flags & 1 == 0 && qos != 3 && (will || qos == 0 && !retain) && (version == Version::V5 || user || !password)
}

/// The fields of the payload that these flags announce, in their order.
fn payload(flags: u8, version: Version) -> Vec<&'static [u8]> {
    let mut fields: Vec<&[u8]> = vec![b"\0\x01c"];
    if flags & 4 != 0 {
        if version == Version::V5 {
            fields.push(b"\0");
        }
        fields.extend([&b"\0\x06here/w"[..], b"\0\x01x"]);
    }
    if flags & 0x80 != 0 {
        fields.push(b"\0\x04user");
    }
    if flags & 0x40 != 0 {
        fields.push(b"\0\x02pw");
    }
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_flags_and_payload_must_agree() {
    let bench = Bench::new().await;
    for version in [Version::V5, Version::V311] {
        let start = if version == Version::V5 {
            &b"\0\x04MQTT\x05"[..]
        } else {
            b"\0\x04MQTT\x04"
        };
        let rest: &[u8] = if version == Version::V5 { b"\0\0\0" } else { b"\0\0" };
        for flags in 0..=255 {
            let fields = payload(flags, version).concat();
            let mut forms = vec![(fields.clone(), may_have(flags, version))];
            if may_have(flags, version) {
                // A field too many, and each end of the payload that is too early.
                forms.push(([&fields[..], b"\0\x01x"].concat(), false));
                forms.extend((0..fields.len()).map(|end| (fields[..end].to_vec(), false)));
            }
            for (fields, is_good) in forms {
                let mut client = Client::opened(bench.address(), version).await;
                client.send_raw(&frame(0x10, &[start, &[flags], rest, &fields].concat())).await;
                let what = format!("{version:?} {flags:#010b} {fields:02x?}");
                match client.receive().await {
                    Some(Packet::ConnAck(connack)) if is_good => assert_eq!(connack.code, OK, "{what}"),
                    // Of 3.1.1 no return code says it, so the close is all (MQTT-3.1.4-1, MQTT-3.2.2-6).
                    None if !is_good => {}
                    Some(Packet::ConnAck(connack)) if version == Version::V5 => {
                        assert!(connack.code.is_error(), "{what}");
                        assert_eq!(client.receive().await, None, "{what}");
                    }
                    other => panic!("{what}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_ids_of_1_to_23_letters_and_digits_are_accepted() {
    let bench = Bench::new().await;
    let letters: Vec<char> = ('0'..='9').chain('a'..='z').chain('A'..='Z').collect();
    for base in BOTH {
        for length in 1..=23 {
            let client_id: String = (0..length).map(|place| letters[(place + length * 23) % 62]).collect();
            let mut client = connected(&bench, base(&client_id)).await;
            client.ping().await;
        }
        for letter in &letters {
            connected(&bench, base(&letter.to_string())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assigned_client_id_is_new_and_names_a_session() {
    let setup = Setup {
        identities: vec!["fixed"],
        ..Setup::default()
    };
    let bench = Bench::start(setup).await;
    let mut assigned = BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..30 {
        let (mut client, connack) = Client::connect(bench.address(), lasting(connect_5(""))).await;
        assert_eq!((connack.code, connack.session_present), (OK, false));
        client.subscribe(1, "here/#").await;
        assert!(assigned.insert(connack.properties.assigned_client_id.unwrap().as_str().to_owned()));
        clients.push(client);
    }
    for client_id in &assigned {
        let (mut client, connack) = Client::connect(bench.address(), lasting(connect_5(client_id))).await;
        assert!(connack.session_present);
        assert_eq!(connack.properties.assigned_client_id, None);
        client.send(&publish("here/x", 0, None)).await;
        assert_eq!(client.text().await.0, "here/x");
        client.send(&goodbye()).await;
    }
    // On 3.1.1 each has a session of its own: none is taken over.
    let mut first = connected(&bench, connect_311("")).await;
    let mut second = connected(&bench, connect_311("")).await;
    first.ping().await;
    second.ping().await;
}
