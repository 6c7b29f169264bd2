//! Section 1.5: strings.

use bytes::Bytes;
use forebay_broker::codec::{Connect, Packet, Property, Publish, PublishProperties, ReasonCode, SubscribeOptions, Text, Version, Will};

use crate::support::{Bench, Client, publish, will};
use crate::{BOTH, bytes_of, connected, goodbye, subscribe_packet, travelling, unsubscribe_packet};

/// Stands in a packet where a bad string of its length goes.
const MARK: &str = "MARK";
const BAD: [&[u8; 4]; 6] = [
    b"a\0bc",
    b"abc\0",
    // A surrogate, a cut sequence, an overlong one, and no UTF-8 at all.
    b"a\xed\xa0\x80",
    b"\xc3\x28ab",
    b"ab\xc0\x80",
    b"\xff\xfe\xff\xff",
];

fn with_mark(packet: &Packet, version: Version, in_its_place: &[u8]) -> Vec<u8> {
    let mut bytes = bytes_of(packet, version);
    let at = bytes.windows(4).position(|window| window == MARK.as_bytes()).unwrap();
    bytes[at..at + 4].copy_from_slice(in_its_place);
    bytes
}

fn mark() -> Text {
    Text::from_static(MARK)
}

/// Packets of a connected client, each with one marked string.
fn packets(version: Version) -> Vec<(&'static str, Packet)> {
    let carrying = |property: Property| {
        let properties = PublishProperties {
            travelling: travelling(&[property]),
            ..PublishProperties::default()
        };
        Packet::Publish(Publish {
            topic: Text::from_static("here/x"),
            properties,
            ..Publish::default()
        })
    };
    let mut all = vec![
        ("topic", publish(MARK, 0, None)),
        ("topic at QoS 2", publish(MARK, 2, Some(1))),
        ("filter", subscribe_packet(2, &[(MARK, SubscribeOptions::default())])),
        ("filter to remove", unsubscribe_packet(3, &["a", MARK])),
    ];
    if version == Version::V5 {
        let Packet::Disconnect(mut leaving) = goodbye() else {
            unreachable!()
        };
        leaving.properties.reason_string = Some(mark());
        let other = || Text::from_static("k");
        all.extend([
            ("content type", carrying(Property::ContentType(mark()))),
            ("response topic", carrying(Property::ResponseTopic(mark()))),
            ("name of a user property", carrying(Property::User((mark(), other())))),
            ("value of a user property", carrying(Property::User((other(), mark())))),
            ("reason string", Packet::Disconnect(leaving)),
        ]);
    }
    all
}

/// CONNECTs, each with one marked string.
fn connects(base: fn(&str) -> Connect) -> Vec<(&'static str, Connect)> {
    let leaving = |will: Will| Connect {
        will: Some(will),
        ..base("c")
    };
    let mut all = vec![
        ("client id", base(MARK)),
        ("will topic", leaving(will(MARK, 0, None))),
        (
            "user name",
            Connect {
                username: Some(mark()),
                ..base("c")
            },
        ),
    ];
    if base("c").version == Version::V5 {
        let mut typed = will("here/w", 0, None);
        typed.properties.travelling = travelling(&[Property::ContentType(mark())]);
        let mut user = base("c");
        user.properties.user = vec![(Text::from_static("k"), mark())];
        all.extend([("will's content type", leaving(typed)), ("user property", user)]);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_that_is_not_utf_8_or_has_a_nul_ends_the_connection() {
    let bench = Bench::new().await;
    for base in BOTH {
        let version = base("c").version;
        for (name, packet) in packets(version) {
            for bad in BAD {
                let mut client = connected(&bench, base("c")).await;
                client.send_raw(&with_mark(&packet, version, bad)).await;
                client.expect_end(ReasonCode::MALFORMED_PACKET).await;
            }
            let mut client = connected(&bench, base("c")).await;
            client.send(&packet).await;
            client.send(&Packet::PingReq).await;
            // The packet itself is right: it is answered, or obeyed.
            if !matches!(packet, Packet::Disconnect(_)) {
                assert!(!matches!(client.receive().await, None | Some(Packet::Disconnect(_))), "{name}");
            }
        }
        for (name, connect) in connects(base) {
            let packet = Packet::Connect(Box::new(connect.clone()));
            for bad in BAD {
                let mut client = Client::opened(bench.address(), version).await;
                client.send_raw(&with_mark(&packet, version, bad)).await;
                match client.receive().await {
                    None => {}
                    Some(Packet::ConnAck(connack)) if version == Version::V5 => {
                        assert_eq!(connack.code, ReasonCode::MALFORMED_PACKET, "{name}");
                        assert_eq!(client.receive().await, None, "{name}");
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
            connected(&bench, connect).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zero_width_space_is_kept_wherever_it_stands() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        client.subscribe(1, "here/a").await;
        client.subscribe(2, "+/\u{feff}a/#").await;
        client.subscribe(3, "\u{feff}/#").await;
        for topic in ["\u{feff}here/a", "here/\u{feff}a", "here/\u{feff}a/b\u{feff}", "\u{feff}/\u{feff}"] {
            client.send(&publish(topic, 0, None)).await;
        }
        client.send(&publish("here/a", 0, None)).await;
        for topic in ["here/\u{feff}a", "here/\u{feff}a/b\u{feff}", "\u{feff}/\u{feff}", "here/a"] {
            assert_eq!(client.text().await.0, topic);
        }
        if client.version == Version::V5 {
            let sent = travelling(&[
                Property::ContentType(Text::from_static("\u{feff}")),
                Property::User((Text::from_static("\u{feff}k"), Text::from_static("v\u{feff}"))),
            ]);
            let properties = PublishProperties {
                travelling: sent.clone(),
                ..PublishProperties::default()
            };
            let message = Publish {
                topic: Text::from_static("here/a"),
                properties,
                payload: Bytes::from_static(b"\xef\xbb\xbf"),
                ..Publish::default()
            };
            client.send(&Packet::Publish(message)).await;
            let got = client.message().await;
            assert_eq!((got.properties.travelling, &got.payload[..]), (sent, &b"\xef\xbb\xbf"[..]));
        }
    }
}
