//! Sections 3.1, 3.2, 3.15 and 4.12: CONNECT and its answer.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_broker::codec::{
    AckProperties, Auth, Connect, ConnectProperties, Disconnect, Packet, ReasonCode, SubscribeOptions, Text, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Bench, Client, Setup, connect_5, connect_311, publish, rule, will, within};
use crate::{BOTH, OK, bytes_of, connected, frame, goodbye, pubrel, subscribe_packet, unsubscribe_packet};

/// No client may publish to `secret/#`.
async fn with_a_secret() -> Bench {
    let setup = Setup {
        rules: vec![rule("*", &["#"], &["#"], &["secret/#"])],
        ..Setup::default()
    };
    Bench::start(setup).await
}

fn bytes_of_connect(connect: Connect) -> Vec<u8> {
    let version = connect.version;
    bytes_of(&Packet::Connect(Box::new(connect)), version)
}

fn lasting(connect: Connect) -> Connect {
    Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: (connect.version == Version::V5).then_some(600),
            ..connect.properties
        },
        ..connect
    }
}

fn asking_for_authentication(client_id: &str) -> Connect {
    let mut connect = connect_5(client_id);
    connect.properties.authentication_method = Some(Text::from_static("SCRAM-SHA-256"));
    connect
}

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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_after_a_refused_connect_is_processed() {
    let bench = with_a_secret().await;
    let mut watcher = connected(&bench, connect_5("watcher")).await;
    watcher.subscribe(1, "#").await;
    let mut refused = vec![
        asking_for_authentication("c"),
        connect_5(&"x".repeat(300)),
        lasting(connect_311("")),
    ];
    refused.extend(BOTH.map(|base| Connect {
        will: Some(will("secret/w", 0, None)),
        ..base("c")
    }));
    for connect in refused {
        let version = connect.version;
        let mut bytes = bytes_of_connect(connect);
        for packet in [publish("here/x", 0, None), publish("cloud/x", 1, Some(1))] {
            bytes.extend(bytes_of(&packet, version));
        }
        bytes.extend(bytes_of_connect(if version == Version::V5 {
            connect_5("c")
        } else {
            connect_311("c")
        }));
        let mut client = Client::opened(bench.address(), version).await;
        client.send_raw(&bytes).await;
        assert!(client.connack().await.code.is_error());
        assert_eq!(client.receive().await, None);
    }
    watcher.ping().await;
    assert_eq!(bench.records().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_no_session_and_closes() {
    let bench = with_a_secret().await;
    for base in BOTH {
        connected(&bench, lasting(base("c"))).await.subscribe(1, "here/#").await;
        let with_will = |topic: &str| Connect {
            will: Some(will(topic, 0, None)),
            ..lasting(base("c"))
        };
        let mut refused = vec![(with_will("secret/w"), ReasonCode::NOT_AUTHORIZED)];
        let long = lasting(base(&"x".repeat(300)));
        refused.push((long, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID));
        if base("c").version == Version::V5 {
            refused.push((lasting(asking_for_authentication("c")), ReasonCode::BAD_AUTHENTICATION_METHOD));
            refused.push((with_will("here/\u{1}"), ReasonCode::TOPIC_NAME_INVALID));
        }
        for (connect, code) in refused {
            let (mut client, connack) = Client::connect(bench.address(), connect).await;
            assert_eq!((connack.code, connack.session_present), (code, false));
            assert_eq!(client.receive().await, None);
        }
        // The session is still there.
        let (_client, connack) = Client::connect(bench.address(), lasting(base("c"))).await;
        assert!(connack.session_present);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connack_comes_before_any_other_packet() {
    let bench = Bench::new().await;
    for (name, base) in ["five", "three"].into_iter().zip(BOTH) {
        connected(&bench, lasting(base(name))).await.subscribe(1, "here/#").await;
    }
    let mut talker = connected(&bench, connect_5("talker")).await;
    let talking = tokio::spawn(async move {
        loop {
            talker.send(&publish("here/x", 0, None)).await;
            talker.ping().await;
        }
    });
    for (name, base) in ["five", "three"].into_iter().zip(BOTH) {
        for _ in 0..50 {
            // What comes first is CONNACK, or this panics.
            let (mut client, connack) = Client::connect(bench.address(), lasting(base(name))).await;
            assert!(connack.session_present);
            assert_eq!(client.text().await.0, "here/x");
        }
    }
    talking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn enhanced_authentication_is_refused_and_no_auth_is_sent() {
    let bench = Bench::new().await;
    let (mut client, connack) = Client::connect(bench.address(), asking_for_authentication("c")).await;
    assert_eq!(connack.code, ReasonCode::BAD_AUTHENTICATION_METHOD);
    assert_eq!(client.receive().await, None);

    let (mut client, connack) = Client::connect(bench.address(), connect_5("c")).await;
    assert_eq!((connack.code, connack.properties.authentication_method), (OK, None));
    client.ping().await;
    for reason in [
        ReasonCode::SUCCESS,
        ReasonCode::CONTINUE_AUTHENTICATION,
        ReasonCode::RE_AUTHENTICATE,
    ] {
        let mut client = connected(&bench, connect_5("c")).await;
        let mut auth = Auth { reason, ..Auth::default() };
        auth.properties.method = Some(Text::from_static("SCRAM-SHA-256"));
        client.send(&Packet::Auth(auth)).await;
        client.expect_end(ReasonCode::PROTOCOL_ERROR).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_response_information_is_sent() {
    let bench = Bench::new().await;
    for asked in [None, Some(false), Some(true)] {
        let mut connect = connect_5("c");
        connect.properties.request_response_information = asked;
        let (_client, connack) = Client::connect(bench.address(), connect).await;
        assert_eq!((connack.code, connack.properties.response_information), (OK, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reason_strings_and_user_properties_stay_off_answers() {
    let bench = with_a_secret().await;
    for asked in [None, Some(false), Some(true)] {
        let mut connect = connect_5("c");
        connect.properties.request_problem_information = asked;
        let mut client = connected(&bench, connect).await;
        let filters = ["here/a", "secret/a", "a#"].map(|filter| (filter, SubscribeOptions::default()));
        let unknown = forebay_broker::codec::Ack::new(crate::support::id(99), OK);
        let packets = [
            publish("here/x", 1, Some(1)),
            publish("secret/x", 1, Some(2)),
            publish("here/x", 2, Some(3)),
            publish("secret/x", 2, Some(4)),
            pubrel(3),
            pubrel(99),
            Packet::PubRec(unknown),
            subscribe_packet(5, &filters),
            unsubscribe_packet(6, &["here/a", "here/never"]),
        ];
        for packet in packets {
            client.send(&packet).await;
            let properties = match client.receive().await {
                Some(Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)) => ack.properties,
                Some(Packet::SubAck(answer)) => answer.properties,
                Some(Packet::UnsubAck(answer)) => answer.properties,
                other => panic!("{packet:?}: {other:?}"),
            };
            assert_eq!(properties, AckProperties::default(), "{packet:?}");
        }
        // DISCONNECT may have them; ours has none, and no session expiry (MQTT-3.14.2-2).
        client.send_raw(&[0x00, 0x00]).await;
        let end = Packet::Disconnect(Disconnect::new(ReasonCode::MALFORMED_PACKET));
        client.expect(&end).await;
        assert_eq!(client.receive().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_disconnect_comes_before_connack() {
    let mut setup = Setup::default();
    setup.limits.connect_timeout = Duration::from_millis(500);
    let bench = Bench::start(setup).await;
    let good = bytes_of_connect(connect_5("c"));
    let mut peers = JoinSet::new();
    for position in 0..=good.len() {
        // Cut there, or with another byte there.
        let mut forms = vec![good[..position].to_vec()];
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
                forms.push(bytes);
            }
        }
        for bytes in forms {
            let address = bench.address();
            peers.spawn(within("an end", async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                // Its header, flags and code, and in MQTT 5 its properties.
                let mut connack = [0; 4];
                if stream.read_exact(&mut connack).await.is_err() {
                    assert_eq!(connack[0], 0, "{bytes:02x?}");
                    return false;
                }
                assert_eq!(connack[0], 0x20, "{bytes:02x?}");
                if connack[3] == 0 {
                    return false;
                }
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest.len(), usize::from(connack[1]) - 2, "{bytes:02x?}");
                true
            }));
        }
    }
    let refused = peers.join_all().await.into_iter().filter(|refused| *refused).count();
    assert!(refused > 10, "only {refused} were refused");
    // Nor when the gateway stops.
    let mut waiting = Client::opened(bench.address(), Version::V5).await;
    waiting.begin(&Packet::Connect(Box::new(connect_5("c"))), 5).await;
    bench.stop().await;
    assert_eq!(waiting.receive().await, None);
}
