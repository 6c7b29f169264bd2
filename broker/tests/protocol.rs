//! Rules of the protocol that clients of others depend on, and what is refused because brokers behind us would close over it.
#![allow(clippy::unwrap_used)]

mod support;

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use forebay_broker::codec::{
    Ack, AckProperties, Connect, ConnectProperties, Packet, Property, Publish, PublishProperties, QoS, ReasonCode, Subscribe,
    SubscribeOptions, Subscription, Text, Unsubscribe, Version, encode,
};
use forebay_broker::{Disconnection, Limits, Refusal};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish};

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_mosquitto_that_asks_to_be_a_bridge_is_refused_in_its_own_form() {
    let bench = Bench::new().await;
    for (level, name) in [(0x83_u8, &b"MQIsdp"[..]), (0x84, b"MQTT")] {
        let mut body = Vec::new();
        body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        body.extend(name);
        body.extend([level, 2, 0, 60, 0, 1, b'b']);
        let mut client = Client::opened(bench.address(), Version::V311).await;
        let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        assert!(client.send_raw(&packet).await);
        // 20 02 00 01 on the wire: the refusal that makes it try again as a client.
        assert_eq!(client.connack().await.code, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
        assert_eq!(client.receive().await, None);
    }
    let counted = |view: &forebay_broker::View| view.stats().disconnected(Disconnection::UnsupportedVersion) == 2;
    bench.until("both are counted", counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_no_packet_is_larger_than_a_peer_takes_from_connack_on() {
    let bench = Bench::new().await;
    let mut served = 0;
    for (given, assigned) in [("small", false), ("", true)] {
        for limit in 1..=90 {
            let connect = Connect {
                properties: ConnectProperties {
                    maximum_packet_size: NonZeroU32::new(limit),
                    ..ConnectProperties::default()
                },
                ..connect_5(given)
            };
            let mut client = Client::opened(bench.address(), Version::V5).await;
            client.send(&Packet::Connect(Box::new(connect))).await;
            let connack = match client.receive().await {
                Some(Packet::ConnAck(connack)) => connack,
                None => {
                    assert!(limit < 5, "a refusal has five bytes");
                    continue;
                }
                other => panic!("{other:?}"),
            };
            let mut bytes = BytesMut::new();
            encode(&Packet::ConnAck(connack.clone()), Version::V5, &mut bytes).unwrap();
            assert!(bytes.len() <= limit as usize, "{limit}: {} bytes", bytes.len());
            if connack.code.is_error() {
                assert_eq!(connack.code, ReasonCode::PACKET_TOO_LARGE);
                assert!(limit < if assigned { 38 } else { 11 }, "{limit}");
            } else {
                served += 1;
                client.ping().await;
            }
            assert!(limit < 80 || !connack.properties.user.is_empty(), "the time is told where it fits");
        }
    }
    assert!(served > 100);
}

/// The id of the gateway that the bench is.
const GATEWAY: &str = "gw";

/// Topics that the protocol allows and brokers close over.
fn unwelcome() -> Vec<String> {
    let codes = [0x01, 0x07, 0x0a, 0x0d, 0x1b, 0x1f, 0x7f, 0x80, 0x9f, 0xfdd0, 0xffff, 0x1fffe];
    let characters = codes.into_iter().map(|code| char::from_u32(code).unwrap());
    characters
        .flat_map(|c| [format!("cloud/{c}"), format!("{c}/a"), format!("cloud/a{c}b/c")])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_topics_with_control_characters_go_no_further_than_the_front() {
    let bench = Bench::new().await;
    let topics = unwelcome();
    for (connect, answer) in [
        (connect_5("five"), ReasonCode::TOPIC_NAME_INVALID),
        (connect_311("three"), ReasonCode::SUCCESS),
    ] {
        let mut device = Client::connected(bench.address(), connect).await;
        for topic in &topics {
            for qos in [1, 2] {
                device.send(&publish(topic, qos, Some(7))).await;
                device.expect_ack(7, answer).await;
            }
            device.send(&publish(topic, 0, None)).await;
            let codes = device.subscribe_with(8, &[topic], SubscribeOptions::default(), None).await;
            assert!(codes[0].is_error(), "{topic:?}");
        }
        device.send(&publish("cloud/good", 1, Some(9))).await;
        device.expect_ack(9, ReasonCode::SUCCESS).await;
    }
    let count = topics.len() as u64;
    assert_eq!(bench.view.stats().refused(Refusal::TopicBounds), 4 * count);
    assert_eq!(bench.view.stats().dropped(Refusal::TopicBounds), 2 * count);
    let stored: Vec<_> = bench.records().await.into_iter().map(|record| record.topic).collect();
    assert_eq!(stored, ["cloud/good", "cloud/good"]);
}

fn carrying(ids: &[&str], qos: u8) -> Packet {
    let mut travelling = BytesMut::new();
    for id in ids {
        let pair = (Text::from_static("forebay-id"), Text::from((*id).to_owned()));
        Property::User(pair).write(&mut travelling).unwrap();
    }
    Packet::Publish(Publish {
        qos: QoS::from_level(qos).unwrap(),
        topic: Text::from_static("cloud/x"),
        packet_id: (qos > 0).then(|| id(3)),
        properties: PublishProperties {
            travelling: travelling.freeze(),
            ..PublishProperties::default()
        },
        payload: Bytes::from_static(b"again"),
        ..Publish::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn e14_what_this_gateway_has_sent_is_not_taken_again() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("bridge")).await;
    let ours = format!("{}/0000000000000abc/main/7", GATEWAY);
    let longer = format!("{}-2/0000000000000abc/main/7", GATEWAY);
    for ids in [&[ours.as_str()][..], &["other/0000000000000abc/main/1", &ours]] {
        for qos in [1, 2] {
            device.send(&carrying(ids, qos)).await;
            device.expect_ack(3, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR).await;
        }
        device.send(&carrying(ids, 0)).await;
    }
    // Another gateway's, and what is no id, goes on: gateways may stand behind each other.
    for id in ["other/0000000000000abc/main/1", &longer, "", "/", GATEWAY] {
        device.send(&carrying(&[id], 1)).await;
        device.expect_ack(3, ReasonCode::SUCCESS).await;
    }
    let stats = bench.view.stats();
    assert_eq!((stats.refused(Refusal::Loop), stats.dropped(Refusal::Loop)), (4, 2));
    assert_eq!(bench.records().await.len(), 5);
    assert_eq!(stats.accepted.load(Ordering::Relaxed), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_no_local_is_by_client_id_also_where_clients_share_an_identity() {
    let bench = Bench::start(Setup {
        identities: vec!["local"],
        ..Setup::default()
    })
    .await;
    let no_local = SubscribeOptions {
        no_local: true,
        ..SubscribeOptions::default()
    };
    let lasting = |client_id: &str| Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: Some(600),
            ..ConnectProperties::default()
        },
        ..connect_5(client_id)
    };
    let mut all = Client::connected(bench.address(), connect_311("all")).await;
    all.subscribe(1, "#").await;
    let mut clients = Vec::new();
    for client_id in ["one", "two", "three"] {
        let mut client = Client::connected(bench.address(), lasting(client_id)).await;
        let codes = client.subscribe_with(1, &["here/#", "cloud/#"], no_local, None).await;
        assert!(codes.iter().all(|code| !code.is_error()), "{codes:?}");
        clients.push(client);
    }
    for round in 0..3 {
        if round == 2 {
            // A session that comes back knows its own, too.
            let old = std::mem::replace(&mut clients[0], Client::connected(bench.address(), lasting("one")).await);
            drop(old);
        }
        for publisher in 0..clients.len() {
            let mut sent = Vec::new();
            for (number, qos) in [0, 1, 2, 1, 0, 2].into_iter().enumerate() {
                // `cloud/#` goes through the log, the others do not.
                for area in ["here", "cloud"] {
                    let topic = format!("{area}/{round}/{publisher}/{number}");
                    let packet_id = (qos > 0).then_some(7);
                    clients[publisher].send(&publish(&topic, qos, packet_id)).await;
                    if qos > 0 {
                        // Nothing but the ack: its own message does not come.
                        clients[publisher].expect_ack(7, ReasonCode::SUCCESS).await;
                    }
                    if qos == 2 {
                        clients[publisher]
                            .send(&Packet::PubRel(Ack {
                                packet_id: id(7),
                                reason: ReasonCode::SUCCESS,
                                properties: AckProperties::default(),
                            }))
                            .await;
                        clients[publisher].expect_ack(7, ReasonCode::SUCCESS).await;
                    }
                    sent.push(topic);
                }
            }
            sent.sort();
            let others = (0..clients.len()).filter(|other| *other != publisher);
            for other in others {
                let mut got = Vec::new();
                for _ in 0..sent.len() {
                    got.push(clients[other].text().await.0);
                }
                got.sort();
                assert_eq!(got, sent, "round {round}, {publisher} to {other}");
            }
            for _ in 0..sent.len() {
                all.message().await;
            }
            clients[publisher].ping().await;
        }
    }
}

/// MQTT-3.1.2-24, for the answers that grow with what was asked.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_filters_is_larger_than_the_peer_takes() {
    let bench = Bench::new().await;
    for (filters, limit, fits) in [
        (60, 64, false),
        (59, 64, true),
        (124, 129, true),
        (125, 131, false),
        (125, 132, true),
        (1, 40, true),
    ] {
        let connect = Connect {
            properties: ConnectProperties {
                maximum_packet_size: NonZeroU32::new(limit),
                ..ConnectProperties::default()
            },
            ..connect_5("small")
        };
        let topics: Vec<String> = (0..filters).map(|number| format!("here/{}", number % 50)).collect();
        for is_subscribe in [true, false] {
            let mut client = Client::connected(bench.address(), connect.clone()).await;
            let packet = if is_subscribe {
                let filter = |topic: &String| Subscription {
                    filter: Text::from(topic.clone()),
                    options: SubscribeOptions::default(),
                };
                Packet::Subscribe(Subscribe {
                    packet_id: id(1),
                    filters: topics.iter().map(filter).collect(),
                    subscription_id: None,
                    user: Default::default(),
                })
            } else {
                Packet::Unsubscribe(Unsubscribe {
                    packet_id: id(1),
                    filters: topics.iter().map(|topic| Text::from(topic.clone())).collect(),
                    user: Default::default(),
                })
            };
            client.send(&packet).await;
            match client.receive().await {
                Some(Packet::SubAck(_) | Packet::UnsubAck(_)) => assert!(fits, "{filters} {limit}"),
                Some(Packet::Disconnect(disconnect)) => {
                    assert_eq!(
                        (disconnect.reason, fits),
                        (ReasonCode::PACKET_TOO_LARGE, false),
                        "{filters} {limit}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Filters beyond what one SUBSCRIBE may have are refused and counted like the others.
#[tokio::test(flavor = "multi_thread")]
async fn each_refused_filter_is_counted() {
    let limits = Limits {
        max_subscriptions: 100,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut client = Client::connected(bench.address(), connect_5("many")).await;
    let topics: Vec<String> = (0..1000).map(|number| format!("here/{number}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let codes = client.subscribe_with(1, &topics, SubscribeOptions::default(), None).await;
    assert_eq!(codes.iter().filter(|code| code.is_error()).count(), 900);
    let refused = bench.view.stats().subscriptions_refused.load(Ordering::Relaxed);
    assert_eq!(refused, 900);
}
