//! Sections 3.2, 3.15 and 4.12: the answer to CONNECT, and what no answer has.

use std::time::Duration;

use forebay_broker::codec::{Ack, AckProperties, Auth, Connect, Disconnect, Packet, ReasonCode, SubscribeOptions, Text, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Bench, Client, Setup, connect_5, connect_311, id, publish, rule, will, within};
use crate::{BOTH, OK, bytes_of, bytes_of_connect, connected, lasting, pubrel, subscribe_packet, unsubscribe_packet};

/// No client may publish to `secret/#`.
async fn with_a_secret() -> Bench {
    let setup = Setup {
        rules: vec![rule("*", &["#"], &["#"], &["secret/#"])],
        ..Setup::default()
    };
    Bench::start(setup).await
}

fn asking_for_authentication(client_id: &str) -> Connect {
    let mut connect = connect_5(client_id);
    connect.properties.authentication_method = Some(Text::from_static("SCRAM-SHA-256"));
    connect
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
        let unknown = Ack::new(id(99), OK);
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
