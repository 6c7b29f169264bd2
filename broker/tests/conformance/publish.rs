//! Sections 3.3 and 4.3 to 4.4: publishes of clients, and what reaches subscribers.

use std::time::Duration;

use bytes::Bytes;
use forebay_broker::codec::{Ack, Packet, Property, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubscribeOptions, Text};

use crate::support::{Bench, Setup, connect_5, id, publish, rule};
use crate::{BOTH, OK, connected, pubrel, travelling};

/// Routed to the cloud, on a local route, without a route.
const AREAS: [&str; 3] = ["cloud", "here", "nowhere"];

fn of(packet: Packet) -> Publish {
    match packet {
        Packet::Publish(publish) => publish,
        _ => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_answered_as_its_qos_says() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        for area in AREAS {
            let topic = format!("{area}/x");
            for packet_id in [1, 2, 255, 256, 65_535] {
                client.send(&publish(&topic, 0, None)).await;
                client.ping().await;
                client.send(&publish(&topic, 1, Some(packet_id))).await;
                client.expect(&Packet::PubAck(Ack::new(id(packet_id), OK))).await;
                client.send(&publish(&topic, 2, Some(packet_id))).await;
                client.expect(&Packet::PubRec(Ack::new(id(packet_id), OK))).await;
                client.send(&pubrel(packet_id)).await;
                client.expect(&Packet::PubComp(Ack::new(id(packet_id), OK))).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dup_of_a_publisher_reaches_no_subscriber() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut subscriber = connected(&bench, base("s")).await;
        subscriber.subscribe(1, "#").await;
        let mut client = connected(&bench, base("c")).await;
        for area in AREAS {
            for qos in [0, 1, 2] {
                let packet_id = (qos > 0).then_some(1);
                let sent = Publish {
                    dup: qos > 0,
                    ..of(publish(&format!("{area}/x"), qos, packet_id))
                };
                client.send(&Packet::Publish(sent)).await;
                let got = subscriber.message().await;
                assert_eq!((got.dup, got.qos, got.packet_id), (false, QoS::AtMostOnce, None), "{area} {qos}");
                if qos > 0 {
                    client.expect_ack(1, OK).await;
                }
                if qos == 2 {
                    client.send(&pubrel(1)).await;
                    client.expect_ack(1, OK).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_ack_an_id_is_a_new_publish() {
    let bench = Bench::new().await;
    for (round, base) in BOTH.into_iter().enumerate() {
        let mut client = connected(&bench, base("c")).await;
        for dup in [false, true, true, false] {
            let sent = Publish {
                dup,
                ..of(publish("cloud/a", 1, Some(7)))
            };
            client.send(&Packet::Publish(sent)).await;
            client.expect_ack(7, OK).await;
        }
        assert_eq!(bench.records().await.len(), 4 * (round + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_refused_qos_2_publish_is_free() {
    let setup = Setup {
        rules: vec![rule("*", &["#"], &["#"], &["cloud/secret"])],
        ..Setup::default()
    };
    let bench = Bench::start(setup).await;
    let mut client = connected(&bench, connect_5("c")).await;
    for _ in 0..2 {
        client.send(&publish("cloud/secret", 2, Some(7))).await;
        client.expect_ack(7, ReasonCode::NOT_AUTHORIZED).await;
    }
    client.send(&publish("cloud/a", 2, Some(7))).await;
    client.expect_ack(7, OK).await;
    client.send(&pubrel(7)).await;
    client.expect_ack(7, OK).await;
    assert_eq!(bench.records().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_is_completed_although_the_message_expired() {
    let bench = Bench::new().await;
    let mut client = connected(&bench, connect_5("c")).await;
    for (packet_id, expiry) in [(7, 0), (8, 1), (9, 60)] {
        let properties = PublishProperties {
            expiry: Some(expiry),
            ..PublishProperties::default()
        };
        let sent = Packet::Publish(Publish {
            properties,
            ..of(publish("cloud/a", 2, Some(packet_id)))
        });
        client.send(&sent).await;
        client.expect(&Packet::PubRec(Ack::new(id(packet_id), OK))).await;
        bench.setup.clock.advance(Duration::from_secs(100));
        client.send(&sent).await;
        client.expect(&Packet::PubRec(Ack::new(id(packet_id), OK))).await;
        client.send(&pubrel(packet_id)).await;
        client.expect(&Packet::PubComp(Ack::new(id(packet_id), OK))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_reach_every_subscriber_unaltered() {
    let bench = Bench::new().await;
    let user = |name: &'static str, value: &'static str| Property::User((Text::from_static(name), Text::from_static(value)));
    let all = [
        Property::PayloadFormat(false),
        Property::PayloadFormat(true),
        Property::ContentType(Text::from_static("a/\u{fffd};°")),
        Property::ResponseTopic(Text::from_static("cloud/answer")),
        Property::CorrelationData((0..=255).collect::<Vec<u8>>().into()),
        Property::CorrelationData(Bytes::new()),
        user("z", "1"),
        user("a", "2"),
        user("z", "1"),
        user("", ""),
    ];
    let mut subscribers = Vec::new();
    for name in ["one", "two"] {
        let mut subscriber = connected(&bench, connect_5(name)).await;
        subscriber.subscribe(1, "#").await;
        subscribers.push(subscriber);
    }
    let mut client = connected(&bench, connect_5("c")).await;
    // Each of them, each pair that may stand together, and all; forwards and backwards.
    let mut sets: Vec<Vec<Property>> = all.iter().map(|property| vec![property.clone()]).collect();
    for (at, first) in all.iter().enumerate() {
        let others = all[at + 1..]
            .iter()
            .filter(|second| second.id() != first.id() || first.id() == 0x26);
        sets.extend(others.map(|second| vec![first.clone(), second.clone()]));
    }
    sets.push(all[1..5].iter().chain(&all[6..]).cloned().collect());
    let backwards: Vec<_> = sets.iter().map(|set| set.iter().rev().cloned().collect()).collect();
    sets.extend(backwards);
    for (number, set) in sets.iter().enumerate() {
        let sent = travelling(set);
        let topic = format!("{}/{number}", AREAS[number % 3]);
        let message = Publish {
            retain: true,
            properties: PublishProperties {
                travelling: sent.clone(),
                ..PublishProperties::default()
            },
            ..of(publish(&topic, 1, Some(1)))
        };
        client.send(&Packet::Publish(message)).await;
        client.expect_ack(1, OK).await;
        for subscriber in &mut subscribers {
            let got = subscriber.message().await;
            assert_eq!((got.topic.as_str(), got.properties.travelling), (&*topic, sent.clone()), "{set:?}");
        }
        let mut later = connected(&bench, connect_5("later")).await;
        later.subscribe(1, &topic).await;
        assert_eq!(later.message().await.properties.travelling, sent, "{set:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_alias_above_the_clients_maximum_is_sent() {
    let bench = Bench::new().await;
    let mut client = connected(&bench, connect_5("c")).await;
    for maximum in [None, Some(0), Some(1), Some(5), Some(u16::MAX)] {
        let mut connect = connect_5("s");
        connect.properties.topic_alias_maximum = maximum;
        let mut subscriber = connected(&bench, connect).await;
        subscriber.subscribe(1, "#").await;
        let mut known = std::collections::HashMap::<u16, String>::new();
        for number in 0..30 {
            let topic = format!("{}/{}", AREAS[number % 3], number % 10);
            client.send(&publish(&topic, 0, None)).await;
            let got = subscriber.message().await;
            let alias = got.properties.topic_alias.map(std::num::NonZeroU16::get);
            assert!(alias.is_none_or(|alias| alias <= maximum.unwrap_or(0)), "{alias:?} of {maximum:?}");
            let said = got.topic.as_str();
            let meant = match alias {
                Some(alias) if said.is_empty() => known[&alias].clone(),
                Some(alias) => {
                    known.insert(alias, said.to_owned());
                    said.to_owned()
                }
                None => said.to_owned(),
            };
            assert_eq!(meant, topic);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_without_retain_leaves_the_retained_message() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        let mut watcher = connected(&bench, connect_5("watcher")).await;
        let live = SubscribeOptions {
            retain_handling: RetainHandling::DoNotSend,
            ..SubscribeOptions::default()
        };
        watcher.subscribe_with(1, &["+/x"], live, None).await;
        for area in AREAS {
            let topic = format!("{area}/x");
            let kept = Publish {
                retain: true,
                payload: Bytes::from_static(b"kept"),
                ..of(publish(&topic, 1, Some(1)))
            };
            client.send(&Packet::Publish(kept)).await;
            client.expect_ack(1, OK).await;
            watcher.message().await;
            for qos in [0, 1, 2] {
                for payload in [&b"other"[..], b""] {
                    let packet_id = (qos > 0).then_some(2);
                    let other = Publish {
                        payload: Bytes::copy_from_slice(payload),
                        ..of(publish(&topic, qos, packet_id))
                    };
                    client.send(&Packet::Publish(other)).await;
                    if qos > 0 {
                        client.expect_ack(2, OK).await;
                    }
                    if qos == 2 {
                        client.send(&pubrel(2)).await;
                        client.expect_ack(2, OK).await;
                    }
                    // Who comes after this gets what is kept only.
                    watcher.message().await;
                    let mut later = connected(&bench, base("later")).await;
                    let codes = later.subscribe_with(1, &[&topic], SubscribeOptions::default(), None).await;
                    assert_eq!(codes, [OK]);
                    let got = later.message().await;
                    assert_eq!((&got.payload[..], got.retain), (&b"kept"[..], true), "{topic} {qos}");
                }
            }
        }
    }
}
