//! Local subscribers: what reaches whom.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use forebay_broker::Limits;
use forebay_broker::codec::{
    Packet, Property, Publish, PublishProperties, QoS, ReasonCode, SubscribeOptions, Text, UnsubAck, Unsubscribe, Version, travelling,
};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish, until};

const OK: ReasonCode = ReasonCode::SUCCESS;

fn unsubscribe(packet_id: u16, filters: &[&str]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        user: Vec::new(),
        filters: filters.iter().map(|filter| Text::from((*filter).to_owned())).collect(),
    })
}

async fn unsubscribed(client: &mut Client) -> UnsubAck {
    match client.receive().await {
        Some(Packet::UnsubAck(unsuback)) => unsuback,
        other => panic!("UNSUBACK was due, not {other:?}"),
    }
}

fn message(topic: &str, payload: &'static [u8]) -> Publish {
    Publish {
        topic: Text::from(topic.to_owned()),
        payload: Bytes::from_static(payload),
        ..Publish::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_and_publishes_back_to_back_gets_its_own_message() {
    let bench = Bench::new().await;
    for round in 0..20 {
        let connect = if round % 2 == 0 { connect_5("d") } else { connect_311("d") };
        let mut device = Client::connected(bench.address(), connect).await;
        let mut bytes = BytesMut::new();
        let subscribe = forebay_broker::codec::Subscribe {
            packet_id: id(1),
            subscription_id: None,
            user: Vec::new(),
            filters: vec![forebay_broker::codec::Subscription {
                filter: Text::from("cloud/+"),
                options: SubscribeOptions::default(),
            }],
        };
        for packet in [Packet::Subscribe(subscribe), publish("cloud/a", 1, Some(2))] {
            forebay_broker::codec::encode(&packet, device.version, &mut bytes).unwrap();
        }
        assert!(device.send_raw(&bytes).await);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(device.receive().await.unwrap().packet_type().to_string());
        }
        assert_eq!(seen[0], "SUBACK", "{seen:?}");
        assert!(
            seen.contains(&"PUBLISH".to_owned()) && seen.contains(&"PUBACK".to_owned()),
            "{seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_a_subscription_does_not_reach_it() {
    let bench = Bench::new().await;
    for round in 0..20 {
        let mut device = Client::connected(bench.address(), connect_5("d")).await;
        for packet_id in 1..=5 {
            device.send(&publish("cloud/a", 1, Some(packet_id))).await;
        }
        let mut bytes = BytesMut::new();
        let subscribe = forebay_broker::codec::Subscribe {
            packet_id: id(9),
            subscription_id: None,
            user: Vec::new(),
            filters: vec![forebay_broker::codec::Subscription {
                filter: Text::from("cloud/#"),
                options: SubscribeOptions::default(),
            }],
        };
        forebay_broker::codec::encode(&Packet::Subscribe(subscribe), Version::V5, &mut bytes).unwrap();
        assert!(device.send_raw(&bytes).await);
        for packet_id in 1..=5 {
            device.expect_ack(packet_id, OK).await;
        }
        assert!(matches!(device.receive().await, Some(Packet::SubAck(_))), "round {round}");
        device.send(&publish("cloud/last", 0, None)).await;
        assert_eq!(device.text().await.0, "cloud/last", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_waits_for_batches_that_are_committed_and_not_yet_shown() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    // Without a subscriber the batch would be skipped.
    let mut other = Client::connected(bench.address(), connect_5("other")).await;
    other.subscribe(1, "cloud/#").await;
    bench.hold_after_the_next_commit();
    device.send(&publish("cloud/before", 1, Some(1))).await;
    device.expect_ack(1, OK).await;
    let subscribing = async {
        device.subscribe(2, "cloud/#").await;
        device.send(&publish("cloud/after", 0, None)).await;
        assert_eq!(device.text().await.0, "cloud/after");
    };
    let opening = async {
        Client::connected(bench.address(), connect_5("third")).await.ping().await;
        bench.gate.open();
    };
    tokio::join!(subscribing, opening);
    assert_eq!(other.text().await.0, "cloud/before");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsubscribed_filter_delivers_no_more() {
    let bench = Bench::new().await;
    for (start, is_five) in [(connect_5("d"), true), (connect_311("d"), false)] {
        let mut device = Client::connected(bench.address(), start).await;
        device.subscribe(1, "here/a").await;
        device.subscribe(2, "here/b").await;
        device.send(&unsubscribe(3, &["here/a", "here/never"])).await;
        let unsuback = unsubscribed(&mut device).await;
        assert_eq!(unsuback.packet_id.get(), 3);
        if is_five {
            assert_eq!(unsuback.codes, [OK, ReasonCode::NO_SUBSCRIPTION_EXISTED]);
        }
        device.send(&publish("here/a", 0, None)).await;
        device.send(&publish("here/b", 0, None)).await;
        assert_eq!(device.text().await.0, "here/b");
        // And again, with the same filter.
        device.subscribe(4, "here/a").await;
        device.send(&publish("here/a", 0, None)).await;
        assert_eq!(device.text().await.0, "here/a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_overlapping_subscriptions_deliver_one_copy_with_all_of_their_ids() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for (packet_id, filter) in [(1, "here/#"), (2, "here/+"), (3, "+/x")] {
        let codes = device
            .subscribe_with(
                packet_id,
                &[filter],
                SubscribeOptions::default(),
                Some(u32::from(packet_id) * 100_000),
            )
            .await;
        assert_eq!(codes, [OK]);
    }
    device.send(&publish("here/x", 0, None)).await;
    let mut ids: Vec<_> = device
        .message()
        .await
        .properties
        .subscription_ids
        .iter()
        .map(|id| id.get())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [100_000, 200_000, 300_000]);
    // A subscription repeated replaces the first (MQTT-3.8.4-3).
    device
        .subscribe_with(4, &["here/y", "here/+", "+/x"], SubscribeOptions::default(), None)
        .await;
    device.send(&unsubscribe(5, &["here/+", "here/y", "+/x"])).await;
    unsubscribed(&mut device).await;
    device.send(&publish("here/x", 0, None)).await;
    device.message().await;
    device.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retain_flag_reaches_only_who_asked_for_it() {
    let bench = Bench::new().await;
    let mut plain = Client::connected(bench.address(), connect_5("plain")).await;
    let mut keeps = Client::connected(bench.address(), connect_5("keeps")).await;
    plain.subscribe(1, "+/x").await;
    let options = SubscribeOptions {
        retain_as_published: true,
        ..SubscribeOptions::default()
    };
    keeps.subscribe_with(1, &["+/x"], options, None).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for topic in ["here/x", "cloud/x"] {
        device
            .send(&Packet::Publish(Publish {
                retain: true,
                ..message(topic, b"kept")
            }))
            .await;
        assert!(!plain.message().await.retain, "{topic}");
        assert!(keeps.message().await.retain, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_local_keeps_an_identitys_own_messages_away() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let options = SubscribeOptions {
        no_local: true,
        ..SubscribeOptions::default()
    };
    device.subscribe_with(1, &["here/#"], options, None).await;
    device.send(&publish("here/own", 0, None)).await;
    let mut other = Client::connected(bench.address(), connect_5("other")).await;
    other.send(&publish("here/others", 0, None)).await;
    assert_eq!(device.text().await.0, "here/others");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_travels_with_a_message_arrives_and_311_gets_the_message_alone() {
    let bench = Bench::new().await;
    let mut five = Client::connected(bench.address(), connect_5("s5")).await;
    let mut three = Client::connected(bench.address(), connect_311("s3")).await;
    five.subscribe(1, "+/x").await;
    three.subscribe(1, "+/x").await;
    let mut properties = BytesMut::new();
    let sent = [
        Property::ContentType(Text::from("text/plain")),
        Property::User((Text::from("unit"), Text::from("°C"))),
        Property::User((Text::from("unit"), Text::from("K"))),
    ];
    for property in &sent {
        property.write(&mut properties).unwrap();
    }
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for (topic, qos) in [("here/x", 0), ("cloud/x", 1)] {
        let properties = PublishProperties {
            expiry: Some(60),
            travelling: properties.clone().freeze(),
            ..PublishProperties::default()
        };
        device
            .send(&Packet::Publish(Publish {
                properties,
                qos: QoS::from_level(qos).unwrap(),
                packet_id: (qos > 0).then(|| id(1)),
                ..message(topic, b"21.5")
            }))
            .await;
        let got = five.message().await;
        assert_eq!(travelling(&got.properties.travelling).collect::<Vec<_>>(), sent);
        assert_eq!((got.properties.expiry, &got.payload[..]), (Some(60), &b"21.5"[..]));
        assert_eq!(three.text().await, (topic.to_owned(), "21.5".to_owned()));
    }
    assert_eq!(bench.records().await[0].properties, properties.freeze());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_topic_keep_their_order_on_the_way_to_a_subscriber() {
    // No QoS 2 publish is released here.
    let limits = Limits {
        max_in_flight: 600,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut subscriber = Client::connected(bench.address(), connect_5("s")).await;
    subscriber.subscribe(1, "#").await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let topics = ["cloud/a", "here/b", "nowhere/c"];
    let sending = async {
        for packet_id in 1..=600_u16 {
            let topic = topics[usize::from(packet_id) % 3];
            device.send(&publish(topic, 1 + (packet_id % 2) as u8, Some(packet_id))).await;
        }
        for packet_id in 1..=600 {
            device.expect_ack(packet_id, OK).await;
        }
    };
    let receiving = async {
        let mut last = [0, 0, 0];
        for _ in 1..=600 {
            let (topic, number) = subscriber.text().await;
            let number: usize = number.parse().unwrap();
            assert_eq!(topic, topics[number % 3]);
            assert!(number > last[number % 3], "{number} after {}", last[number % 3]);
            last[number % 3] = number;
        }
        assert_eq!(last, [600, 598, 599]);
    };
    tokio::join!(sending, receiving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_loses_only_its_own_messages() {
    let bench = Bench::new().await;
    let mut slow = Client::connected(bench.address(), connect_5("slow")).await;
    slow.subscribe(1, "here/#").await;
    let mut quick = Client::connected(bench.address(), connect_5("quick")).await;
    quick.subscribe(1, "here/#").await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let large = Packet::Publish(message("here/large", &[b'x'; 100_000]));
    let mut sent = 0;
    while bench.view.stats().fanout_dropped.load(Ordering::Relaxed) == 0 {
        device.send(&large).await;
        sent += 1;
        assert_eq!(quick.message().await.payload.len(), 100_000);
    }
    device.send(&publish("cloud/a", 1, Some(1))).await;
    device.expect_ack(1, OK).await;
    device.send(&publish("here/end", 0, None)).await;
    assert_eq!(quick.text().await.0, "here/end");
    assert!(sent > 10, "a burst is not dropped");
    // It reads again, and is served again.
    slow.send(&publish("here/own", 0, None)).await;
    let mut got = 0;
    while slow.message().await.topic.as_str() != "here/own" {
        got += 1;
    }
    assert!(got <= sent + 1, "{got} of {sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_peers_own_limit_is_left_out() {
    let bench = Bench::new().await;
    let mut start = connect_5("small");
    start.properties.maximum_packet_size = std::num::NonZeroU32::new(100);
    let mut small = Client::connected(bench.address(), start).await;
    small.subscribe(1, "here/#").await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    device.send(&Packet::Publish(message("here/large", &[0; 200]))).await;
    device.send(&publish("here/small", 0, None)).await;
    assert_eq!(small.text().await.0, "here/small");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_an_unsubscribe_arrives_before_its_answer() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for round in 0..20 {
        device.subscribe(1, "here/#").await;
        let mut bytes = BytesMut::new();
        for _ in 0..5 {
            forebay_broker::codec::encode(&publish("here/a", 0, None), Version::V5, &mut bytes).unwrap();
        }
        forebay_broker::codec::encode(&unsubscribe(9, &["here/#"]), Version::V5, &mut bytes).unwrap();
        assert!(device.send_raw(&bytes).await);
        for number in 0..5 {
            let packet = device.receive().await;
            assert!(
                matches!(packet, Some(Packet::Publish(_))),
                "round {round}, message {number}: {packet:?}"
            );
        }
        assert_eq!(unsubscribed(&mut device).await.codes, [OK], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_for_one_subscriber_comes_through_whole() {
    let bench = Bench::new().await;
    let mut subscriber = Client::connected(bench.address(), connect_5("s")).await;
    subscriber.subscribe(1, "+/#").await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    // More than the router keeps, in small and large messages, each on its own topic. So few are on their way at a time that, however
    // late this machine lets a thread run, they are below the bounds at which deliveries at QoS 0 are dropped.
    let on_their_way = tokio::sync::Semaphore::new(100);
    let sending = async {
        for number in 0..3000 {
            on_their_way.acquire().await.unwrap().forget();
            let size = if number % 100 == 0 { 100_000 } else { 10 };
            device
                .send(&Packet::Publish(Publish {
                    payload: vec![b'x'; size].into(),
                    ..message(&format!("here/{number}"), b"")
                }))
                .await;
        }
    };
    let receiving = async {
        for number in 0..3000 {
            assert_eq!(subscriber.message().await.topic.as_str(), format!("here/{number}"));
            on_their_way.add_permits(1);
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(bench.view.stats().fanout_dropped.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_gone_is_served_no_more() {
    let bench = Bench::new().await;
    let mut gone = Client::connected(bench.address(), connect_5("gone")).await;
    gone.subscribe(1, "here/#").await;
    drop(gone);
    until("it is gone", || bench.view.stats().connected.load(Ordering::Relaxed) == 0).await;
    let mut stays = Client::connected(bench.address(), connect_5("stays")).await;
    stays.subscribe(1, "here/#").await;
    for _ in 0..10 {
        stays.send(&publish("here/a", 0, None)).await;
        stays.message().await;
    }
    // Each is counted once it has been given to all: the last one perhaps not yet.
    assert!(bench.view.stats().fanned_out.load(Ordering::Relaxed) <= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_aliases_stand_for_their_topics() {
    let bench = Bench::new().await;
    let (mut device, connack) = Client::connect(bench.address(), connect_5("d")).await;
    let maximum = connack.properties.topic_alias_maximum.unwrap();
    let aliased = |topic: &str, alias: u16| {
        let properties = PublishProperties {
            topic_alias: Some(id(alias)),
            ..PublishProperties::default()
        };
        Packet::Publish(Publish {
            properties,
            ..message(topic, b"x")
        })
    };
    for (topic, alias) in [
        ("cloud/a", 1),
        ("cloud/b", maximum),
        ("", 1),
        ("", maximum),
        ("cloud/c", 1),
        ("", 1),
    ] {
        device.send(&aliased(topic, alias)).await;
    }
    device.ping().await;
    until("all are committed", || {
        bench.log.stats().records_committed.load(Ordering::Relaxed) == 6
    })
    .await;
    let topics: Vec<_> = bench.records().await.into_iter().map(|record| record.topic).collect();
    assert_eq!(topics, ["cloud/a", "cloud/b", "cloud/a", "cloud/b", "cloud/c", "cloud/c"]);
    device.send(&aliased("cloud/a", maximum + 1)).await;
    device.expect_end(ReasonCode::TOPIC_ALIAS_INVALID).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    device.send(&aliased("", 1)).await;
    device.expect_end(ReasonCode::PROTOCOL_ERROR).await;
}
