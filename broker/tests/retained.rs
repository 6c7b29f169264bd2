//! Retained messages: which are kept, for how long, and when subscribers get them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use forebay_broker::codec::{
    Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeOptions,
    Subscription, Text, Version,
};
use forebay_broker::{Limits, Unretained};
use forebay_wal::{BootId, Clock, Timestamp};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish, rule, until, will};

const OK: ReasonCode = ReasonCode::SUCCESS;

fn retained(topic: &str, payload: &str, qos: u8, packet_id: Option<u16>) -> Publish {
    Publish {
        qos: QoS::from_level(qos).unwrap(),
        retain: true,
        topic: Text::from(topic.to_owned()),
        packet_id: packet_id.map(id),
        payload: Bytes::from(payload.to_owned()),
        ..Publish::default()
    }
}

fn expiring(topic: &str, payload: &str, expiry: u32) -> Publish {
    Publish {
        properties: PublishProperties {
            expiry: Some(expiry),
            ..PublishProperties::default()
        },
        ..retained(topic, payload, 1, Some(1))
    }
}

/// Publishes at QoS 1 and waits for the ack.
async fn keep(device: &mut Client, topic: &str, payload: &str) {
    keep_this(device, retained(topic, payload, 1, Some(1))).await;
}

async fn keep_this(device: &mut Client, publish: Publish) {
    device.send(&Packet::Publish(publish)).await;
    device.expect_ack(1, OK).await;
}

async fn five(bench: &Bench, client_id: &str) -> Client {
    Client::connected(bench.address(), connect_5(client_id)).await
}

/// What a new subscriber gets for a filter.
async fn kept(bench: &Bench, filter: &str) -> BTreeMap<String, String> {
    let mut got = BTreeMap::new();
    let mut client = five(bench, "looker").await;
    client.subscribe(1, filter).await;
    for message in all(&mut client).await {
        assert!(message.retain);
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        assert_eq!(got.insert(message.topic.as_str().to_owned(), payload), None, "sent twice");
    }
    got
}

/// All that comes before the answer to a PINGREQ.
async fn all(client: &mut Client) -> Vec<Publish> {
    client.send(&Packet::PingReq).await;
    let mut messages = Vec::new();
    loop {
        match client.receive().await {
            Some(Packet::Publish(publish)) => messages.push(publish),
            // Live messages may come before it.
            Some(Packet::SubAck(_)) => {}
            Some(Packet::PingResp) => return messages,
            other => panic!("{other:?}"),
        }
    }
}

fn texts(messages: &[Publish]) -> Vec<(&str, &[u8], bool)> {
    messages
        .iter()
        .map(|message| (message.topic.as_str(), &message.payload[..], message.retain))
        .collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned()))
        .collect()
}

async fn restarted(bench: Bench) -> Bench {
    let (directory, setup, _) = bench.stop().await;
    Bench::start_in(directory, setup).await
}

async fn killed(bench: Bench) -> Bench {
    let (directory, setup) = bench.kill();
    Bench::start_in(directory, setup).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connack_says_that_messages_are_retained() {
    let bench = Bench::new().await;
    let (_client, connack) = Client::connect(bench.address(), connect_5("d")).await;
    assert_ne!(connack.properties.retain_available, Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_subscription_gets_the_newest_message_of_each_topic() {
    let bench = Bench::new().await;
    let mut device = five(&bench, "d").await;
    // Routed to the cloud, on a local route, and without a route.
    for topic in ["cloud/a", "here/a", "nowhere/a"] {
        for qos in 0..=2 {
            let topic = format!("{topic}{qos}");
            for payload in ["old", "new"] {
                let packet_id = (qos > 0).then_some(1);
                device.send(&Packet::Publish(retained(&topic, payload, qos, packet_id))).await;
                if qos > 0 {
                    device.expect_ack(1, OK).await;
                }
                if qos == 2 {
                    device.send(&Packet::PubRel(forebay_broker::codec::Ack::new(id(1), OK))).await;
                    device.expect_ack(1, OK).await;
                }
            }
        }
    }
    for connect in [connect_5("s5"), connect_311("s3")] {
        let mut subscriber = Client::connected(bench.address(), connect).await;
        for (packet_id, filter) in [(1, "cloud/#"), (2, "here/+"), (3, "+/a0"), (4, "nowhere/a2"), (5, "nothing/#")] {
            subscriber.subscribe(packet_id, filter).await;
            let messages = all(&mut subscriber).await;
            let expected: Vec<&str> = match packet_id {
                1 => vec!["cloud/a0", "cloud/a1", "cloud/a2"],
                2 => vec!["here/a0", "here/a1", "here/a2"],
                3 => vec!["cloud/a0", "here/a0", "nowhere/a0"],
                4 => vec!["nowhere/a2"],
                _ => vec![],
            };
            let expected: Vec<_> = expected.iter().map(|topic| (*topic, &b"new"[..], true)).collect();
            assert_eq!(texts(&messages), expected, "{filter}");
        }
    }
    assert_eq!(bench.view.stats().retained.load(Ordering::Relaxed), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_subscribers_get_it_live_without_the_flag() {
    let bench = Bench::new().await;
    let mut plain = five(&bench, "plain").await;
    let mut old = Client::connected(bench.address(), connect_311("old")).await;
    plain.subscribe(1, "#").await;
    old.subscribe(1, "#").await;
    let mut device = five(&bench, "d").await;
    for topic in ["cloud/x", "here/x", "nowhere/x"] {
        keep(&mut device, topic, "1").await;
        keep(&mut device, topic, "").await;
        for subscriber in [&mut plain, &mut old] {
            for payload in ["1", ""] {
                let message = subscriber.message().await;
                assert_eq!(
                    (message.topic.as_str(), &message.payload[..], message.retain),
                    (topic, payload.as_bytes(), false)
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_payload_removes_the_message_for_good() {
    let bench = Bench::new().await;
    let mut device = five(&bench, "d").await;
    for topic in ["cloud/a", "nowhere/a", "nowhere/b"] {
        keep(&mut device, topic, "1").await;
    }
    keep(&mut device, "cloud/a", "").await;
    keep(&mut device, "nowhere/a", "").await;
    keep(&mut device, "nowhere/never", "").await;
    // Without the flag nothing is removed (rumqttd does).
    device
        .send(&Packet::Publish(Publish {
            retain: false,
            ..retained("nowhere/b", "", 1, Some(1))
        }))
        .await;
    device.expect_ack(1, OK).await;
    assert_eq!(kept(&bench, "#").await, map(&[("nowhere/b", "1")]));
    let bench = killed(bench).await;
    assert_eq!(kept(&bench, "#").await, map(&[("nowhere/b", "1")]));
    let bench = restarted(bench).await;
    assert_eq!(kept(&bench, "#").await, map(&[("nowhere/b", "1")]));
    assert_eq!(bench.view.stats().retained.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_handling_is_followed() {
    let bench = Bench::new().await;
    let mut device = five(&bench, "d").await;
    keep(&mut device, "a", "1").await;
    let mut subscriber = five(&bench, "s").await;
    let options = |retain_handling| SubscribeOptions {
        retain_handling,
        ..SubscribeOptions::default()
    };
    let mut count = async |filter: &str, handling| {
        subscriber.subscribe_with(1, &[filter], options(handling), Some(7)).await;
        let messages = all(&mut subscriber).await;
        assert!(messages.iter().all(|message| message.properties.subscription_ids.len() == 1));
        messages.len()
    };
    assert_eq!(count("a", RetainHandling::DoNotSend).await, 0);
    assert_eq!(count("a", RetainHandling::SendIfNew).await, 0, "it is not new");
    assert_eq!(count("a", RetainHandling::Send).await, 1);
    assert_eq!(count("a", RetainHandling::Send).await, 1);
    assert_eq!(count("+", RetainHandling::SendIfNew).await, 1);
    assert_eq!(count("+", RetainHandling::SendIfNew).await, 0);
    assert_eq!(count("$share/g/a", RetainHandling::Send).await, 0);

    // On 3.1.1 each SUBSCRIBE is answered with them (MQTT-3.8.4-3).
    let mut old = Client::connected(bench.address(), connect_311("s3")).await;
    for _ in 0..2 {
        old.subscribe(1, "a").await;
        assert_eq!(all(&mut old).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_does_not_get_them_again() {
    let bench = Bench::new().await;
    let mut device = five(&bench, "d").await;
    keep(&mut device, "a", "1").await;
    let session = || Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: Some(3600),
            ..ConnectProperties::default()
        },
        ..connect_5("s")
    };
    let mut subscriber = Client::connected(bench.address(), session()).await;
    subscriber.subscribe(1, "#").await;
    assert_eq!(all(&mut subscriber).await.len(), 1);
    let bench = restarted(bench).await;
    let (mut subscriber, connack) = Client::connect(bench.address(), session()).await;
    assert!(connack.session_present);
    assert_eq!(all(&mut subscriber).await.len(), 0);
    let handling = SubscribeOptions {
        retain_handling: RetainHandling::SendIfNew,
        ..SubscribeOptions::default()
    };
    subscriber.subscribe_with(1, &["#"], handling, None).await;
    assert_eq!(all(&mut subscriber).await.len(), 0, "the subscription is not new");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_subscriber_gets_a_topic_that_is_denied_or_reserved() {
    let rules = vec![
        rule("d", &["#", "$secret/#"], &[], &[]),
        rule("*", &["#"], &["#", "$secret/#"], &["hidden/#"]),
    ];
    let bench = Bench::start(Setup { rules, ..Setup::default() }).await;
    let mut device = five(&bench, "d").await;
    for topic in ["hidden/a", "$secret/a", "open/a"] {
        keep(&mut device, topic, "1").await;
    }
    assert_eq!(kept(&bench, "#").await, map(&[("open/a", "1")]));
    assert_eq!(kept(&bench, "+/a").await, map(&[("open/a", "1")]));
    assert_eq!(kept(&bench, "$secret/#").await, map(&[("$secret/a", "1")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_local_and_the_peers_packet_size_hold_for_them_too() {
    let bench = Bench::new().await;
    let mut device = five(&bench, "d").await;
    keep(&mut device, "a", "1").await;
    keep(&mut device, "b", &"x".repeat(2_000)).await;
    let no_local = SubscribeOptions {
        no_local: true,
        ..SubscribeOptions::default()
    };
    device.subscribe_with(1, &["#"], no_local, None).await;
    assert_eq!(all(&mut device).await.len(), 0);
    let mut small = connect_5("s");
    small.properties.maximum_packet_size = std::num::NonZeroU32::new(1_000);
    let mut small = Client::connected(bench.address(), small).await;
    small.subscribe(1, "#").await;
    assert_eq!(texts(&all(&mut small).await), [("a", &b"1"[..], true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_retained_if_it_says_so() {
    let bench = Bench::new().await;
    for (topic, connect) in [("cloud/gone", connect_5("d5")), ("nowhere/gone", connect_311("d3"))] {
        let mut watcher = five(&bench, "w").await;
        watcher.subscribe(1, topic).await;
        let mut will = will(topic, 1, None);
        will.retain = true;
        let connect = Connect {
            will: Some(will),
            ..connect
        };
        drop(Client::connected(bench.address(), connect).await);
        assert_eq!(watcher.text().await, (topic.to_owned(), "gone".to_owned()));
        assert_eq!(kept(&bench, topic).await, map(&[(topic, "gone")]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_survives_a_kill_by_the_log_and_a_restart_by_the_checkpoint() {
    let limits = Limits {
        max_topic: 65_535,
        ..Limits::default()
    };
    let mut bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let long = "l".repeat(65_535);
    let mut expected = BTreeMap::new();
    for round in 0..4 {
        let mut device = five(&bench, "d").await;
        for topic in ["cloud/a", "nowhere/a", &long] {
            keep(&mut device, topic, &format!("{round}")).await;
            expected.insert(topic.to_owned(), format!("{round}"));
        }
        keep(&mut device, &format!("nowhere/{round}"), "once").await;
        expected.insert(format!("nowhere/{round}"), "once".to_owned());
        bench = if round % 2 == 0 {
            killed(bench).await
        } else {
            restarted(bench).await
        };
        assert_eq!(kept(&bench, "#").await, expected, "round {round}");
    }
    let bytes: usize = expected.iter().map(|(topic, payload)| topic.len() + payload.len()).sum();
    assert_eq!(bench.view.stats().retained_bytes.load(Ordering::Relaxed), bytes as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_travel_with_them() {
    use forebay_broker::codec::{Property, travelling};
    let bench = Bench::new().await;
    let mut travels = bytes::BytesMut::new();
    Property::ContentType(Text::from("text/plain".to_owned()))
        .write(&mut travels)
        .unwrap();
    let publish = Publish {
        properties: PublishProperties {
            travelling: travels.freeze(),
            ..PublishProperties::default()
        },
        ..retained("a", "1", 1, Some(1))
    };
    let mut device = five(&bench, "d").await;
    keep_this(&mut device, publish.clone()).await;
    let bench = restarted(bench).await;
    let mut subscriber = five(&bench, "s").await;
    subscriber.subscribe(1, "a").await;
    let message = subscriber.message().await;
    assert_eq!(message.properties.travelling, publish.properties.travelling);
    assert_eq!(travelling(&message.properties.travelling).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_waits_for_the_commit_that_keeps_the_message() {
    let bench = Bench::new().await;
    let mut device = five(&bench, "d").await;
    bench.hold_commits().await;
    device.send(&Packet::Publish(retained("nowhere/a", "1", 1, Some(1)))).await;
    device.ping().await;
    // Not committed: not acked, and not visible.
    assert_eq!(kept_now(&bench).await, BTreeMap::new());
    bench.gate.open();
    device.expect_ack(1, OK).await;
    assert_eq!(kept(&bench, "nowhere/a").await, map(&[("nowhere/a", "1")]));
}

/// As [`kept`], by a session whose start and subscription need no commit.
async fn kept_now(bench: &Bench) -> BTreeMap<String, String> {
    kept(bench, "nowhere/#").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_leaves_the_value_before_it() {
    let bench = Bench::start(Setup {
        max_disk: 24 << 20,
        ..Setup::default()
    })
    .await;
    let mut device = five(&bench, "d").await;
    keep(&mut device, "nowhere/a", "before").await;
    keep(&mut device, "nowhere/c", "before").await;
    bench.hold_commits().await;
    for (packet_id, topic, payload) in [
        (1, "nowhere/a", "lost"),
        (2, "nowhere/b", "lost"),
        (3, "cloud/a", "lost"),
        (4, "nowhere/c", ""),
    ] {
        device.send(&Packet::Publish(retained(topic, payload, 1, Some(packet_id)))).await;
    }
    device.ping().await;
    bench.append_bulk(24 << 20);
    bench.gate.open();
    for packet_id in 1..=4 {
        device.expect_ack(packet_id, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR).await;
    }
    let before = map(&[("nowhere/a", "before"), ("nowhere/c", "before")]);
    assert_eq!(kept(&bench, "#").await, before);
    assert_eq!(bench.view.stats().retained.load(Ordering::Relaxed), 2);
    until("the log takes records again", || bench.log.status().unavailable.is_none()).await;
    let bench = killed(bench).await;
    assert_eq!(kept(&bench, "#").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_message_is_not_sent_and_what_is_left_is_said() {
    let setup = Setup::default();
    let clock = Arc::clone(&setup.clock);
    let bench = Bench::start(setup).await;
    let mut device = five(&bench, "d").await;
    keep_this(&mut device, expiring("a", "short", 10)).await;
    keep_this(&mut device, expiring("b", "long", 100)).await;
    clock.advance(Duration::from_secs(9));
    assert_eq!(left(&bench).await, [("a".to_owned(), Some(1)), ("b".to_owned(), Some(91))]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(left(&bench).await, [("b".to_owned(), Some(90))]);
    // After a boot without a trusted clock no age is proved, and nothing expires.
    let bench = restarted(bench).await;
    assert_eq!(left(&bench).await, [("b".to_owned(), Some(90))]);
    let booted = |trusted, wall_ms| Timestamp {
        wall_ms,
        boot: BootId(2),
        monotonic_ms: 1_000,
        trusted,
    };
    let wall_ms = clock.now().wall_ms;
    clock.set(booted(false, 1_000));
    assert_eq!(left(&bench).await, [("a".to_owned(), Some(10)), ("b".to_owned(), Some(100))]);
    clock.set(booted(true, wall_ms + 200_000));
    assert_eq!(left(&bench).await, []);
}

async fn left(bench: &Bench) -> Vec<(String, Option<u32>)> {
    let mut subscriber = five(bench, "s").await;
    subscriber.subscribe(1, "#").await;
    let messages = all(&mut subscriber).await;
    messages
        .iter()
        .map(|message| (message.topic.as_str().to_owned(), message.properties.expiry))
        .collect()
}

fn few(max_topics: usize, max_retained_bytes: u64) -> Setup {
    Setup {
        limits: Limits {
            max_topics,
            max_retained_bytes,
            ..Limits::default()
        },
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_a_new_topic_is_delivered_but_not_retained() {
    let bench = Bench::start(few(4, 1 << 20)).await;
    let mut watcher = five(&bench, "w").await;
    watcher.subscribe(1, "over").await;
    for number in 0..4 {
        let mut device = five(&bench, &format!("d{number}")).await;
        keep(&mut device, &format!("cloud/{number}"), "1").await;
    }
    let mut device = five(&bench, "more").await;
    keep(&mut device, "over", "live").await;
    keep(&mut device, "cloud/over", "live").await;
    assert_eq!(watcher.text().await, ("over".to_owned(), "live".to_owned()));
    assert_eq!(bench.view.stats().unretained(Unretained::TooMany), 2);
    assert_eq!(bench.records().await.len(), 5, "the cloud gets it");
    let expected = [("cloud/0", "1"), ("cloud/1", "1"), ("cloud/2", "1"), ("cloud/3", "1")];
    assert_eq!(kept(&bench, "#").await, map(&expected));

    // A present message can be replaced, and removed to make room; the bound holds after a restart.
    let bench = restarted(bench).await;
    let mut device = five(&bench, "more").await;
    keep(&mut device, "over", "live").await;
    assert_eq!(bench.view.stats().unretained(Unretained::TooMany), 1);
    let mut owner = five(&bench, "d0").await;
    keep(&mut owner, "cloud/0", "2").await;
    keep(&mut device, "cloud/1", "").await;
    keep(&mut device, "over", "kept").await;
    let expected = [("cloud/0", "2"), ("cloud/2", "1"), ("cloud/3", "1"), ("over", "kept")];
    assert_eq!(kept(&bench, "#").await, map(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_cannot_use_the_whole_quota() {
    let bench = Bench::start(few(8, 1 << 20)).await;
    let mut greedy = five(&bench, "greedy").await;
    for number in 0..8 {
        keep(&mut greedy, &format!("greedy/{number}"), "1").await;
    }
    assert_eq!(bench.view.stats().unretained(Unretained::IdentityQuota), 4);
    let mut other = five(&bench, "other").await;
    keep(&mut other, "other", "1").await;
    assert_eq!(kept(&bench, "#").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_fit_leaves_no_older_one_behind() {
    let bench = Bench::start(few(100, 10_000)).await;
    let mut device = five(&bench, "d").await;
    keep(&mut device, "a", "small").await;
    keep(&mut device, "a", &"x".repeat(20_000)).await;
    assert_eq!(bench.view.stats().unretained(Unretained::TooLarge), 1);
    assert_eq!(kept(&bench, "#").await, BTreeMap::new());
    assert_eq!(bench.view.stats().retained_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_makes_room() {
    let setup = few(4, 1 << 20);
    let clock = Arc::clone(&setup.clock);
    let bench = Bench::start(setup).await;
    for number in 0..4 {
        let mut device = five(&bench, &format!("d{number}")).await;
        keep_this(&mut device, expiring(&format!("old/{number}"), "1", 10)).await;
    }
    clock.advance(Duration::from_secs(11));
    let mut device = five(&bench, "new").await;
    let deadline = tokio::time::Instant::now() + support::DEADLINE;
    while bench.view.stats().retained_expired.load(Ordering::Relaxed) < 4 {
        keep(&mut device, "new", "1").await;
        assert!(tokio::time::Instant::now() < deadline, "what has expired still takes all places");
    }
    keep(&mut device, "new", "2").await;
    assert_eq!(kept(&bench, "#").await, map(&[("new", "2")]));
    let bench = killed(bench).await;
    assert_eq!(kept(&bench, "#").await, map(&[("new", "2")]));
}

fn subscribe(filter: &str) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id: id(1),
        subscription_id: None,
        user: Vec::new(),
        filters: vec![Subscription {
            filter: Text::from(filter.to_owned()),
            options: SubscribeOptions::default(),
        }],
    })
}

/// Messages that fill many pages and more than an outbox takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_slowly_misses_none() {
    let bench = Bench::new().await;
    let mut device = five(&bench, "d").await;
    let payload = "x".repeat(30_000);
    for number in 0..200 {
        keep(&mut device, &format!("big/{number:03}"), &payload).await;
    }
    let mut subscriber = five(&bench, "s").await;
    subscriber.subscribe(1, "big/#").await;
    // It reads nothing while others go on.
    for number in 0..50 {
        keep(&mut device, &format!("other/{number}"), &payload).await;
    }
    let dropped = bench.view.stats().fanout_dropped.load(Ordering::Relaxed);
    let messages = all(&mut subscriber).await;
    let topics: Vec<_> = messages.iter().map(|message| message.topic.as_str().to_owned()).collect();
    let expected: Vec<_> = (0..200).map(|number| format!("big/{number:03}")).collect();
    assert_eq!(topics, expected);
    assert_eq!(dropped, 0);
}

/// Values increase while subscribers come: each ends with the last value of each topic, retained or live.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_never_ends_with_an_older_value() {
    const TOPICS: usize = 40;
    const VALUES: usize = 40;
    let bench = Bench::new().await;
    for root in ["cloud", "nowhere"] {
        let mut device = five(&bench, "d").await;
        let writes = async {
            for value in 0..VALUES {
                for topic in 0..TOPICS {
                    let packet_id = Some(1 + topic as u16);
                    device
                        .send(&Packet::Publish(retained(
                            &format!("{root}/{topic}"),
                            &value.to_string(),
                            1,
                            packet_id,
                        )))
                        .await;
                }
                for topic in 0..TOPICS {
                    device.expect_ack(1 + topic as u16, OK).await;
                }
            }
        };
        let subscribes = async {
            let mut subscribers = Vec::new();
            for number in 0..80 {
                let mut subscriber = five(&bench, &format!("s{number}")).await;
                subscriber.send(&subscribe(&format!("{root}/#"))).await;
                subscribers.push(subscriber);
            }
            subscribers
        };
        let ((), subscribers) = tokio::join!(writes, subscribes);
        let last = VALUES - 1;
        for mut subscriber in subscribers {
            let mut newest = BTreeMap::new();
            let mut is_complete = false;
            let deadline = tokio::time::Instant::now() + support::DEADLINE;
            while !is_complete {
                for message in all(&mut subscriber).await {
                    let value: usize = String::from_utf8_lossy(&message.payload).parse().unwrap();
                    let before = newest.insert(message.topic.as_str().to_owned(), value);
                    // Live ones may come late, and the newest with them; a retained one has no other behind it.
                    let is_stale = message.retain && before.is_some_and(|before| before > value);
                    assert!(!is_stale, "{value} came after {before:?}");
                }
                is_complete = newest.len() == TOPICS && newest.values().all(|value| *value == last);
                assert!(tokio::time::Instant::now() < deadline, "it ends with {newest:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_publish_of_a_live_topic_needs_no_subscriber() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_311("d")).await;
    device.send(&publish("nowhere/a", 1, Some(1))).await;
    device.expect_ack(1, OK).await;
    assert_eq!(kept(&bench, "#").await, BTreeMap::new(), "without RETAIN nothing is kept");
    assert_eq!(device.version, Version::V311);
}
