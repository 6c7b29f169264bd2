//! Hostile peers: no byte sequence stops the front, wedges it, or harms another connection.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use forebay_broker::codec::{Connect, Packet, ReasonCode, SubscribeOptions, Version, encode};
use forebay_broker::{Disconnection, Limits, Refusal};
use support::{Bench, Client, Dice, Setup, connect_5, connect_311, publish, will, within};
use tokio::task::JoinSet;

/// A subscriber that is there all the time, and what every hostile input is followed by.
struct Watch {
    bench: Bench,
    canary: Client,
}

impl Watch {
    async fn new(setup: Setup) -> Self {
        let bench = Bench::start(setup).await;
        let mut canary = Client::connected(bench.address(), connect_311("canary")).await;
        canary.subscribe(1, "canary/#").await;
        Self { bench, canary }
    }

    /// A probe connects and publishes to itself, and the canary's own connection and subscription still work.
    async fn assert_well(&mut self, what: &str) {
        self.bench.assert_serves(what).await;
        self.canary.send(&publish("canary/x", 0, None)).await;
        assert_eq!(self.canary.text().await.0, "canary/x", "{what}");
    }

    async fn client(&self, connect: Connect) -> Client {
        Client::connected(self.bench.address(), connect).await
    }
}

fn bytes_of(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).unwrap();
    out.to_vec()
}

/// A 3.1.1 PUBLISH as its parts say, right or wrong.
fn raw_publish(first: u8, topic: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = 2 + topic.len() + rest.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        out.push(byte | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    out.extend((topic.len() as u16).to_be_bytes());
    out.extend(topic);
    out.extend(rest);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_a_stock_router_is_harmless() {
    let mut watch = Watch::new(Setup::default()).await;

    // K1, K2, K3: a topic that begins with a character of several bytes; retained; as a will.
    let mut device = watch.client(connect_311("k1")).await;
    device.subscribe(1, "é/#").await;
    device.send(&publish("é/x", 1, Some(1))).await;
    let Packet::Publish(retained) = publish("é/x", 0, None) else {
        unreachable!()
    };
    device
        .send(&Packet::Publish(forebay_broker::codec::Publish { retain: true, ..retained }))
        .await;
    for _ in 0..3 {
        assert!(device.receive().await.is_some());
    }
    drop(
        watch
            .client(Connect {
                will: Some(will("é/will", 0, None)),
                ..connect_311("k3")
            })
            .await,
    );
    assert_eq!(device.text().await.0, "é/will");
    watch.assert_well("K1 to K3").await;

    // K4, K6: shared subscriptions.
    let mut member = watch
        .client(Connect {
            clean_start: false,
            ..connect_311("k4")
        })
        .await;
    let codes = member
        .subscribe_with(
            1,
            &["$share/g/t", "$share/g", "$share//t", "$share/+/t"],
            SubscribeOptions::default(),
            None,
        )
        .await;
    let is_granted: Vec<bool> = codes.iter().map(|code| !code.is_error()).collect();
    assert_eq!(is_granted, [true, false, false, false], "{codes:?}");
    drop(member);
    watch.assert_well("K4 and K6").await;

    // K5, K10: another client takes over from a subscriber that does not read, and leaves; the old one reads on.
    let mut slow = watch.client(connect_5("k5")).await;
    slow.subscribe(1, "load/#").await;
    let mut talker = watch.client(connect_5("talker")).await;
    let Packet::Publish(load) = publish("load/x", 0, None) else {
        unreachable!()
    };
    let load = Packet::Publish(forebay_broker::codec::Publish {
        payload: vec![0; 50_000].into(),
        ..load
    });
    while watch.bench.view.stats().fanout_dropped.load(Ordering::Relaxed) == 0 {
        talker.send(&load).await;
        talker.ping().await;
    }
    drop(watch.client(connect_5("k5")).await);
    while slow.receive().await.is_some() {}
    watch.assert_well("K5").await;
    let mut new = watch.client(connect_5("k5")).await;
    new.subscribe(1, "load/#").await;
    drop(slow);
    talker.send(&load).await;
    assert_eq!(new.message().await.payload.len(), 50_000);
    watch.assert_well("K10").await;

    // K7: ids that the router would refuse, twice.
    for client_id in ["dev/1", "+", "#", "$SYS", "a b", "é"] {
        for _ in 0..2 {
            let (client, _) = Client::connect(
                watch.bench.address(),
                Connect {
                    will: Some(will("w", 0, None)),
                    ..connect_311(client_id)
                },
            )
            .await;
            drop(client);
        }
    }
    watch.assert_well("K7").await;

    // K8: what only a server sends.
    for _ in 0..3 {
        for bytes in [&[0x20, 3, 0, 0, 0][..], &[0xb0, 4, 0, 1, 0, 0], &[0x90, 4, 0, 1, 0, 0], &[0xd0, 0]] {
            let mut device = watch.client(connect_5("k8")).await;
            device.send_raw(bytes).await;
            assert!(matches!(device.receive().await, Some(Packet::Disconnect(_))));
            assert_eq!(device.receive().await, None);
        }
    }
    watch.assert_well("K8").await;

    // K9: a user property on its way to a 3.1.1 subscriber (the canary is one).
    let mut device = watch.client(connect_5("k9")).await;
    let mut with_property = raw_publish(0x30, b"canary/k9", &[7, 0x26, 0, 1, b'a', 0, 1, b'b', b'!']);
    device.send_raw(&std::mem::take(&mut with_property)).await;
    assert_eq!(watch.canary.text().await, ("canary/k9".to_owned(), "!".to_owned()));
    watch.assert_well("K9").await;
}

/// What a connected peer may send, by name.
fn inputs() -> Vec<(&'static str, Vec<u8>)> {
    let deep = vec![b'/'; 60_000];
    let mut many_filters = vec![0x00, 0x01];
    for number in 0..4000 {
        let filter = format!("f/{number}");
        many_filters.extend((filter.len() as u16).to_be_bytes());
        many_filters.extend(filter.as_bytes());
        many_filters.push(0);
    }
    let length = many_filters.len();
    let mut subscribe = vec![
        0x82,
        (length % 128) as u8 | 0x80,
        (length / 128 % 128) as u8 | 0x80,
        (length / 16384) as u8,
    ];
    subscribe.extend(many_filters);
    vec![
        ("packet id 0", raw_publish(0x32, b"a", &[0, 0])),
        ("QoS 3", raw_publish(0x36, b"a", &[0, 1])),
        ("DUP at QoS 0", raw_publish(0x38, b"a", b"")),
        ("empty topic", raw_publish(0x30, b"", b"")),
        ("NUL in a topic", raw_publish(0x30, b"a\0b", b"")),
        ("topic that is not UTF-8", raw_publish(0x30, &[0xff, 0xfe], b"")),
        ("a surrogate", raw_publish(0x30, &[0xed, 0xa0, 0x80], b"")),
        ("wildcards in a topic", raw_publish(0x32, b"a/+/#", &[0, 1])),
        ("$ topic", raw_publish(0x30, b"$SYS/x", b"x")),
        ("topic length beyond the packet", vec![0x30, 3, 0xff, 0xff, b'a']),
        ("no body", vec![0x30, 0]),
        ("60,000 levels", raw_publish(0x32, &deep, &[0, 1])),
        ("length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("256 MB announced", vec![0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1]),
        ("unknown acks", vec![0x40, 2, 0, 9, 0x50, 2, 0, 9, 0x62, 2, 0, 9, 0x70, 2, 0, 9]),
        ("ack of id 0", vec![0x40, 2, 0, 0]),
        ("PUBREL with wrong flags", vec![0x60, 2, 0, 9]),
        (
            "second CONNECT",
            bytes_of(&Packet::Connect(Box::new(connect_311("again"))), Version::V311),
        ),
        ("AUTH", vec![0xf0, 2, 0x18, 0]),
        ("reserved type", vec![0x00, 0]),
        ("SUBSCRIBE with id 0", vec![0x82, 6, 0, 0, 0, 1, b'a', 0]),
        ("SUBSCRIBE without filters", vec![0x82, 2, 0, 1]),
        ("SUBSCRIBE with QoS 3", vec![0x82, 6, 0, 1, 0, 1, b'a', 3]),
        ("SUBSCRIBE with an empty filter", vec![0x82, 5, 0, 1, 0, 0, 0]),
        ("SUBSCRIBE with wrong flags", vec![0x80, 6, 0, 1, 0, 1, b'a', 0]),
        ("4000 filters", subscribe),
        ("UNSUBSCRIBE without filters", vec![0xa2, 2, 0, 1]),
        ("UNSUBSCRIBE of what never was", vec![0xa2, 5, 0, 1, 0, 1, b'a']),
        ("PINGREQ with a body", vec![0xc0, 1, 0]),
        ("v5 alias 0", raw_publish(0x30, b"a", &[3, 0x23, 0, 0])),
        ("v5 alias 65535", raw_publish(0x30, b"a", &[3, 0x23, 0xff, 0xff])),
        ("v5 unknown alias", raw_publish(0x30, b"", &[3, 0x23, 0, 7])),
        ("v5 lying property length", raw_publish(0x30, b"a", &[100, 0x23])),
        ("v5 subscription id from a client", raw_publish(0x30, b"a", &[2, 0x0b, 1])),
        ("v5 unknown property", raw_publish(0x30, b"a", &[1, 0x7f])),
        ("v5 response topic with wildcards", raw_publish(0x30, b"a", &[4, 0x08, 0, 1, b'#'])),
        ("v5 DISCONNECT with one byte", vec![0xe0, 1, 4]),
        ("DISCONNECT with a body", vec![0xe0, 3, 0, 0, 0]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("zeros", vec![0; 5000]),
        ("ones", vec![0xff; 5000]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_forbidden_packets_harm_their_own_connection_only() {
    let mut watch = Watch::new(Setup::default()).await;
    for (name, bytes) in inputs() {
        for start in [connect_5("bad"), connect_311("bad")] {
            let version = start.version;
            let mut bad = watch.client(start).await;
            bad.send_raw(&bytes).await;
            // Whatever becomes of it, a last packet is answered or the connection ends.
            bad.send_raw(&[0xc0, 0]).await;
            while let Some(packet) = bad.receive().await {
                if matches!(packet, Packet::PingResp) {
                    break;
                }
            }
            // In place of CONNECT.
            let mut bad = Client::opened(watch.bench.address(), version).await;
            bad.send_raw(&bytes).await;
        }
        watch.assert_well(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_that_are_wrong_are_refused() {
    let mut watch = Watch::new(Setup::default()).await;
    let good = bytes_of(&Packet::Connect(Box::new(connect_5("good"))), Version::V5);
    for position in 0..good.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[position] = value;
            let mut client = Client::opened(watch.bench.address(), Version::V5).await;
            client.send_raw(&bytes).await;
        }
        let mut client = Client::opened(watch.bench.address(), Version::V5).await;
        client.send_raw(&good[..position]).await;
    }
    watch.assert_well("mutated CONNECTs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_traffic_never_stops_the_front() {
    let panics = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&panics);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        counting.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let setup = Setup {
        max_bytes: 4 << 20,
        ..Setup::default()
    };
    let mut watch = Watch::new(setup).await;
    let seed = 0x5eed_0000_0000_0001_u64;
    let until = Instant::now() + Duration::from_secs(5);
    let mut hostile = JoinSet::new();
    for number in 0..8_u64 {
        let address = watch.bench.address();
        hostile.spawn(async move {
            let mut dice = Dice(seed + number * 7919);
            let mut sent = 0;
            while Instant::now() < until {
                sent += fuzz(&mut dice, address).await;
            }
            sent
        });
    }
    let mut sent = 0;
    while let Some(outcome) = within("the fuzzers end", hostile.join_next()).await {
        sent += outcome.unwrap();
    }
    assert!(sent > 1000, "only {sent} packets were sent");
    watch.assert_well(&format!("{sent} mutated packets with seed {seed:#x}")).await;
    let (_, _, took) = {
        drop(watch.canary);
        watch.bench.stop().await
    };
    assert!(took < Duration::from_secs(10), "took {took:?}");
    assert_eq!(panics.load(Ordering::Relaxed), 0, "a task panicked with seed {seed:#x}");
}

/// One connection: a session, then packets with a few bytes changed, until the front has enough of it.
async fn fuzz(dice: &mut Dice, address: std::net::SocketAddr) -> usize {
    let client_id = format!("fuzz{}", dice.below(6));
    let mut start = if dice.below(2) == 0 {
        connect_5(&client_id)
    } else {
        connect_311(&client_id)
    };
    start.clean_start = dice.below(2) == 0;
    if start.version == Version::V5 {
        start.properties.session_expiry = Some(dice.below(3) as u32 * 1000);
    }
    if dice.below(3) == 0 {
        start.will = Some(will("fuzz/will", dice.below(3) as u8, Some(dice.below(2) as u32)));
    }
    let version = start.version;
    let mut client = Client::opened(address, version).await;
    client.send_raw(&bytes_of(&Packet::Connect(Box::new(start)), version)).await;
    let mut corpus: Vec<Vec<u8>> = [
        publish("cloud/fuzz", 1, Some(1)),
        publish("cloud/fuzz", 2, Some(2)),
        publish("fuzz/é", 0, None),
        publish("$fuzz/x", 1, Some(3)),
        Packet::PubRel(forebay_broker::codec::Ack::new(support::id(2), ReasonCode::SUCCESS)),
        Packet::PingReq,
    ]
    .iter()
    .map(|packet| bytes_of(packet, version))
    .collect();
    corpus.push(if version == Version::V5 {
        vec![0x82, 10, 0, 1, 0, 0, 4, b'f', b'/', b'+', b'/', 0]
    } else {
        vec![0x82, 8, 0, 1, 0, 3, b'f', b'/', b'#', 0]
    });
    corpus.push(if version == Version::V5 {
        vec![0xa2, 8, 0, 1, 0, 0, 3, b'f', b'/', b'#']
    } else {
        vec![0xa2, 7, 0, 1, 0, 3, b'f', b'/', b'#']
    });
    let mut sent = 0;
    for _ in 0..40 {
        let mut bytes = corpus[dice.below(corpus.len())].clone();
        if dice.below(3) == 0 {
            for _ in 0..=dice.below(3) {
                let at = dice.below(bytes.len());
                bytes[at] = dice.next() as u8;
            }
        }
        if dice.below(20) == 0 {
            bytes.truncate(dice.below(bytes.len()) + 1);
        }
        if !client.send_raw(&bytes).await {
            break;
        }
        sent += 1;
    }
    sent
}

/// Filters and topics of one device: deep, long, many.
#[tokio::test(flavor = "multi_thread")]
async fn a1_topics_and_filters_over_the_bounds_are_refused_and_harm_no_other() {
    let mut watch = Watch::new(Setup::default()).await;
    for (version, refused_filter, refused_publish) in [
        (Version::V5, ReasonCode::TOPIC_FILTER_INVALID, ReasonCode::TOPIC_NAME_INVALID),
        (Version::V311, ReasonCode::UNSPECIFIED_ERROR, ReasonCode::SUCCESS),
    ] {
        for (what, levels, level) in [("deep", 12_000, ""), ("just over", 32, "a"), ("long", 1, &*"x".repeat(1100))] {
            let connect = if version == Version::V5 {
                connect_5("bounds")
            } else {
                connect_311("bounds")
            };
            let mut device = watch.client(connect).await;
            let topic = format!("cloud/{}", format!("{level}/").repeat(levels));
            let codes = device
                .subscribe_with(1, &[&format!("{topic}#")], SubscribeOptions::default(), None)
                .await;
            assert_eq!(codes, [refused_filter], "{what}");
            device.send(&publish(&topic, 1, Some(2))).await;
            device.expect_ack(2, refused_publish).await;
            device.send(&publish("cloud/well", 1, Some(3))).await;
            device.expect_ack(3, ReasonCode::SUCCESS).await;
            watch.assert_well(what).await;
        }
        let will = Connect {
            will: Some(will(&"w/".repeat(40), 0, None)),
            ..connect_5("bounded-will")
        };
        let (_, connack) = Client::connect(watch.bench.address(), will).await;
        assert_eq!(connack.code, ReasonCode::TOPIC_NAME_INVALID);
    }
    assert_eq!(watch.bench.view.stats().refused(Refusal::TopicBounds), 6);
}

/// What is kept of a long topic under an alias still says why it is refused, wherever a character of it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_over_the_bound_under_an_alias_is_refused_for_its_length() {
    let mut watch = Watch::new(Setup::default()).await;
    let mut device = watch.client(connect_5("aliased")).await;
    let characters = ["x", "é", "€", "🦀"];
    for (begin, character) in ["cloud/", "cloud/a", "cloud/aa", "cloud/aaa"]
        .into_iter()
        .flat_map(|begin| characters.map(|c| (begin, c)))
    {
        let long = format!("{begin}{}", character.repeat(1100));
        for topic in [long.as_str(), ""] {
            let Packet::Publish(mut sent) = publish(topic, 1, Some(2)) else {
                unreachable!()
            };
            sent.properties.topic_alias = std::num::NonZeroU16::new(1);
            device.send(&Packet::Publish(sent)).await;
            device.expect_ack(2, ReasonCode::TOPIC_NAME_INVALID).await;
        }
    }
    assert_eq!(watch.bench.view.stats().refused(Refusal::TopicBounds), 32);
    watch.assert_well("after aliases").await;
}

/// The ids of a session outlive its connection and the process, so there are at most `max_in_flight` of them.
#[tokio::test(flavor = "multi_thread")]
async fn a5_qos_2_publishes_that_are_never_released_are_bounded() {
    let limits = Limits {
        max_in_flight: 10,
        ..Limits::default()
    };
    let mut watch = Watch::new(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    for connect in [connect_5("unreleased-5"), connect_311("unreleased-3")] {
        let mut device = watch
            .client(Connect {
                clean_start: true,
                ..connect
            })
            .await;
        for id in 1..=10 {
            device.send(&publish("cloud/x", 2, Some(id))).await;
            device.expect_ack(id, ReasonCode::SUCCESS).await;
        }
        // The same again is no new one.
        device.send(&publish("cloud/x", 2, Some(10))).await;
        device.expect_ack(10, ReasonCode::SUCCESS).await;
        device.send(&publish("cloud/x", 2, Some(11))).await;
        device.expect_end(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED).await;
        watch.assert_well("unreleased ids").await;
    }
    assert_eq!(watch.bench.view.stats().disconnected(Disconnection::ReceiveMaximum), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_one_subscribe_repeats_gets_its_retained_messages_once() {
    let mut watch = Watch::new(Setup::default()).await;
    let mut device = watch.client(connect_5("repeats")).await;
    for number in 0..20 {
        let Packet::Publish(retained) = publish(&format!("kept/{number}"), 1, Some(number + 1)) else {
            unreachable!()
        };
        device
            .send(&Packet::Publish(forebay_broker::codec::Publish { retain: true, ..retained }))
            .await;
        device.expect_ack(number + 1, ReasonCode::SUCCESS).await;
    }
    let filters = vec!["kept/#"; 4000];
    let codes = device.subscribe_with(99, &filters, SubscribeOptions::default(), None).await;
    assert_eq!(codes.len(), filters.len());
    for _ in 0..20 {
        assert!(device.text().await.0.starts_with("kept/"));
    }
    device.ping().await;
    watch.assert_well("a repeated filter").await;
}
