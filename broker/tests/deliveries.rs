//! Deliveries at QoS 1 and 2: what is granted, the window, the handshakes, and what a bad subscriber does to others.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use forebay_broker::codec::{
    Ack, Connect, ConnectProperties, Packet, Publish, QoS, ReasonCode, SubscribeOptions, Text, Unsubscribe, Version,
};
use forebay_broker::{Bound, Disconnection, DroppedOwed, Limits};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish, until};

const OK: ReasonCode = ReasonCode::SUCCESS;

fn at(qos: u8) -> SubscribeOptions {
    SubscribeOptions {
        qos: QoS::from_level(qos).unwrap(),
        ..SubscribeOptions::default()
    }
}

fn with(client_id: &str, receive_maximum: u16, maximum_packet_size: Option<u32>) -> Connect {
    Connect {
        properties: ConnectProperties {
            receive_maximum: NonZeroU16::new(receive_maximum),
            maximum_packet_size: maximum_packet_size.and_then(NonZeroU32::new),
            ..ConnectProperties::default()
        },
        ..connect_5(client_id)
    }
}

/// A subscriber at this QoS with this Receive Maximum.
async fn subscriber(bench: &Bench, client_id: &str, filter: &str, qos: u8, receive_maximum: u16) -> Client {
    let mut client = Client::connected(bench.address(), with(client_id, receive_maximum, None)).await;
    assert_eq!(client.subscribe_with(1, &[filter], at(qos), None).await, [ReasonCode(qos)]);
    client
}

/// Publishes with this number as payload, and waits for the ack.
async fn send(device: &mut Client, topic: &str, qos: u8, number: u16) {
    device.send(&publish(topic, qos, Some(number))).await;
    device.expect_ack(number, OK).await;
    if qos == 2 {
        device.send(&Packet::PubRel(Ack::new(id(number), OK))).await;
        device.expect_ack(number, OK).await;
    }
}

async fn ack(client: &mut Client, message: &Publish) {
    let Some(id) = message.packet_id else { return };
    match message.qos {
        QoS::AtLeastOnce => client.send(&Packet::PubAck(Ack::new(id, OK))).await,
        QoS::ExactlyOnce => {
            client.send(&Packet::PubRec(Ack::new(id, OK))).await;
            client.expect(&Packet::PubRel(Ack::new(id, OK))).await;
            client.send(&Packet::PubComp(Ack::new(id, OK))).await;
        }
        QoS::AtMostOnce => {}
    }
}

fn number(message: &Publish) -> u16 {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

/// What was owed is acked, dropped or waits.
async fn balances(bench: &Bench) {
    bench
        .until("the ledger of what is owed balances", |view| {
            let stats = view.stats();
            let dropped: u64 = DroppedOwed::ALL.iter().map(|reason| stats.owed_dropped(*reason)).sum();
            let value = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            value(&stats.owed) == value(&stats.owed_acked) + dropped + value(&stats.owed_waiting)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_granted_as_asked_unless_the_session_outlives_its_connection() {
    let bench = Bench::new().await;
    for (name, connect) in [("five", connect_5("five")), ("three", connect_311("three"))] {
        let mut client = Client::connected(bench.address(), connect).await;
        for qos in 0..=2 {
            let codes = client.subscribe_with(1, &["here/#"], at(qos), None).await;
            assert_eq!(codes, [ReasonCode(qos)], "{name}");
        }
    }
    let lasting = Connect {
        properties: ConnectProperties {
            session_expiry: Some(60),
            ..ConnectProperties::default()
        },
        ..connect_5("lasts")
    };
    let lasting_311 = Connect {
        clean_start: false,
        ..connect_311("lasts too")
    };
    for connect in [lasting, lasting_311] {
        let mut client = Client::connected(bench.address(), connect).await;
        assert_eq!(client.subscribe_with(1, &["here/#"], at(2), None).await, [OK]);
        let mut device = Client::connected(bench.address(), connect_5("d")).await;
        send(&mut device, "here/x", 2, 1).await;
        assert_eq!(client.message().await.qos, QoS::AtMostOnce);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_at_the_lower_of_the_two_qos() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for granted in 0..=2 {
        for version in [Version::V5, Version::V311] {
            let connect = Connect { version, ..connect_5("s") };
            let mut client = Client::connected(bench.address(), connect).await;
            client.subscribe_with(1, &["cloud/#", "here/#"], at(granted), None).await;
            for published in 0..=2 {
                for topic in ["cloud/x", "here/x"] {
                    if published == 0 {
                        device.send(&publish(topic, 0, None)).await;
                    } else {
                        send(&mut device, topic, published, 7).await;
                    }
                    let message = client.message().await;
                    assert_eq!(message.qos.level(), published.min(granted), "{topic}");
                    assert!(!message.dup && message.packet_id.is_some() == (message.qos != QoS::AtMostOnce));
                    ack(&mut client, &message).await;
                }
            }
        }
    }
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_an_ack_that_does_not_come_stops_only_its_own_client_and_then_its_connection_ends() {
    let bench = Bench::start(Setup {
        limits: Limits {
            ack_timeout: Duration::from_secs(2),
            ..Limits::default()
        },
        ..Setup::default()
    })
    .await;
    let mut silent = subscriber(&bench, "silent", "here/#", 1, 1).await;
    let mut other = subscriber(&bench, "other", "here/#", 2, 3).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for round in 1..=20 {
        send(&mut device, "here/x", 2, round).await;
        let message = other.message().await;
        assert_eq!(number(&message), round);
        ack(&mut other, &message).await;
    }
    assert_eq!(number(&silent.message().await), 1);
    // It is served otherwise, and gets neither the message again nor the next one (MQTT-4.4.0-1).
    silent.ping().await;
    silent.send(&publish("cloud/own", 1, Some(1))).await;
    silent.expect_ack(1, OK).await;
    silent.expect_end(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR).await;
    let stats = bench.view.stats();
    until("the end is counted", || stats.disconnected(Disconnection::AckTimeout) == 1).await;
    until("what it was owed is counted", || stats.owed_dropped(DroppedOwed::SessionEnd) == 20).await;
    other.ping().await;
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_the_window_is_never_more_or_less_than_the_receive_maximum() {
    let bench = Bench::new().await;
    let mut client = subscriber(&bench, "s", "here/#", 2, 3).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for round in 1..=60 {
        send(&mut device, "here/x", if round % 2 == 0 { 2 } else { 1 }, round).await;
    }
    let mut next = 1;
    let mut in_flight = Vec::new();
    while next <= 60 {
        while in_flight.len() < 3 && next <= 60 {
            let message = client.message().await;
            assert_eq!(number(&message), next);
            next += 1;
            in_flight.push(message);
        }
        // Nothing more comes, whatever is acked that is not in flight.
        for unknown in [1000, 2000] {
            client.send(&Packet::PubAck(Ack::new(id(unknown), OK))).await;
            client.send(&Packet::PubComp(Ack::new(id(unknown), OK))).await;
        }
        client.ping().await;
        // The last first, and each twice.
        let message = in_flight.pop().unwrap();
        let packet_id = message.packet_id.unwrap();
        for _ in 0..2 {
            if message.qos == QoS::AtLeastOnce {
                client.send(&Packet::PubAck(Ack::new(packet_id, OK))).await;
            } else {
                let refused = Ack::new(packet_id, ReasonCode::NOT_AUTHORIZED);
                client.send(&Packet::PubRec(refused)).await;
            }
        }
    }
    let stats = bench.view.stats();
    until("the refused are counted", || stats.owed_dropped(DroppedOwed::Refused) >= 28).await;
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_d4_the_ids_of_both_directions_are_apart_and_no_answer_out_of_place_ends_the_connection() {
    let bench = Bench::new().await;
    let mut client = subscriber(&bench, "s", "here/#", 2, 10).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    send(&mut device, "here/x", 2, 9).await;
    let message = client.message().await;
    let own = message.packet_id.unwrap();
    // Its own publish has the same id, in every step.
    client.send(&publish("cloud/x", 2, Some(own.get()))).await;
    client.expect_ack(own.get(), OK).await;
    for _ in 0..2 {
        client.send(&Packet::PubRec(Ack::new(own, OK))).await;
        client.expect(&Packet::PubRel(Ack::new(own, OK))).await;
    }
    client.send(&Packet::PubRel(Ack::new(own, OK))).await;
    client.expect_ack(own.get(), OK).await;
    // What has begun is completed, although the subscription has ended (MQTT-3.10.4-3).
    client
        .send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: own,
            user: Vec::new(),
            filters: vec![Text::from_static("here/#")],
        }))
        .await;
    assert!(matches!(client.receive().await, Some(Packet::UnsubAck(_))));
    client.send(&Packet::PubRec(Ack::new(own, OK))).await;
    client.expect(&Packet::PubRel(Ack::new(own, OK))).await;
    assert_eq!(bench.view.stats().owed_waiting.load(Ordering::Relaxed), 1);
    client.send(&Packet::PubComp(Ack::new(own, OK))).await;
    let gone = Ack::new(own, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    client.send(&Packet::PubRec(Ack::new(own, OK))).await;
    client.expect(&Packet::PubRel(gone)).await;
    client.ping().await;
    assert_eq!(bench.view.stats().owed_waiting.load(Ordering::Relaxed), 0);
    assert_eq!(bench.records().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_what_is_larger_than_the_peers_maximum_counts_as_sent_and_the_rest_flows() {
    const MAXIMUM: u32 = 99;
    let bench = Bench::new().await;
    let mut client = Client::connected(bench.address(), with("s", 2, Some(MAXIMUM))).await;
    client.subscribe_with(1, &["here/#"], at(1), None).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let sized = |payload: usize| {
        Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            topic: Text::from_static("here/x"),
            packet_id: Some(id(1)),
            payload: vec![b'7'; payload].into(),
            ..Publish::default()
        })
    };
    // Two bytes of header, eight of topic, two of id, one without properties.
    let fits = MAXIMUM as usize - 13;
    for _ in 0..5 {
        for payload in [fits + 1, fits] {
            device.send(&sized(payload)).await;
            device.expect_ack(1, OK).await;
        }
        let message = client.message().await;
        assert_eq!(message.payload.len(), fits);
        ack(&mut client, &message).await;
    }
    assert_eq!(bench.view.stats().owed_dropped(DroppedOwed::TooLarge), 5);
    client.ping().await;
    balances(&bench).await;
}

/// Also C15: one that never reads and one that never acks.
#[tokio::test(flavor = "multi_thread")]
async fn d9_a_full_queue_loses_its_oldest_counted_and_delays_nobody() {
    const SIZE: usize = 20_000;
    let bench = Bench::new().await;
    let _deaf = subscriber(&bench, "deaf", "here/#", 1, 1000).await;
    let mut holds = subscriber(&bench, "holds", "here/#", 1, 1).await;
    let mut good = subscriber(&bench, "good", "here/#", 1, 100).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let account = || {
        let all = bench.view.budget().status();
        all.into_iter()
            .find(|status| status.bound == Bound::OwedBytes)
            .unwrap()
            .taken
            .unwrap()
    };
    let mut sent = 0_u16;
    let stats = bench.view.stats();
    while stats.owed_dropped(DroppedOwed::SessionBound) < 1000 {
        sent += 1;
        let mut payload = sent.to_string().into_bytes();
        payload.resize(SIZE, b' ');
        device
            .send(&Packet::Publish(Publish {
                qos: QoS::AtLeastOnce,
                topic: Text::from_static("here/x"),
                packet_id: Some(id(sent)),
                payload: payload.into(),
                ..Publish::default()
            }))
            .await;
        device.expect_ack(sent, OK).await;
        let message = good.message().await;
        assert!(message.payload.starts_with(sent.to_string().as_bytes()));
        ack(&mut good, &message).await;
        assert!(account().0 <= account().1 && sent < 5000);
    }
    // What is left for it are the newest.
    assert!(holds.message().await.payload.starts_with(b"1 "));
    holds.send(&Packet::PubAck(Ack::new(id(1), OK))).await;
    let text = |message: &Publish| -> u16 {
        let text = String::from_utf8(message.payload.to_vec()).unwrap();
        text.trim().parse().unwrap()
    };
    let mut last = None;
    while last != Some(sent) {
        let message = holds.message().await;
        assert!(last.is_none_or(|last| last + 1 == text(&message)));
        last = Some(text(&message));
        ack(&mut holds, &message).await;
    }
    balances(&bench).await;
    drop((_deaf, holds, good));
    until("all is given back", || account().0 == 0).await;
    until("nothing waits", || stats.owed_waiting.load(Ordering::Relaxed) == 0).await;
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d15_every_retained_message_comes_at_window_pace_while_the_client_is_served() {
    const COUNT: u16 = 2000;
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for number in 0..COUNT {
        let qos = number % 3;
        let packet = Publish {
            retain: true,
            qos: QoS::from_level(qos as u8).unwrap(),
            topic: Text::from(format!("here/{number}")),
            packet_id: (qos > 0).then(|| id(number + 1)),
            payload: Bytes::from(number.to_string()),
            ..Publish::default()
        };
        device.send(&Packet::Publish(packet)).await;
        if qos > 0 {
            device.expect_ack(number + 1, OK).await;
        }
        if qos == 2 {
            device.send(&Packet::PubRel(Ack::new(id(number + 1), OK))).await;
            device.expect_ack(number + 1, OK).await;
        }
    }
    device.ping().await;
    let stored = bench.view.stats().retained.load(Ordering::Relaxed);
    assert_eq!(stored, u64::from(COUNT));
    let mut client = subscriber(&bench, "s", "here/#", 2, 10).await;
    let mut got = BTreeMap::new();
    let mut held = Vec::new();
    while got.len() < usize::from(COUNT) {
        let message = client.message().await;
        assert!(message.retain && message.qos.level() as u16 == number(&message) % 3);
        *got.entry(number(&message)).or_insert(0) += 1;
        if message.qos == QoS::AtLeastOnce {
            held.push(message);
            if held.len() == 5 {
                for message in held.drain(..) {
                    ack(&mut client, &message).await;
                }
            }
        } else if message.qos == QoS::ExactlyOnce {
            // Refused: done with one answer.
            let refused = Ack::new(message.packet_id.unwrap(), ReasonCode::NOT_AUTHORIZED);
            client.send(&Packet::PubRec(refused)).await;
        }
    }
    assert!(got.values().all(|times| *times == 1));
    // Unsubscribed in the middle, no more comes than is in flight.
    client.subscribe_with(2, &["here/#"], at(2), None).await;
    for message in held {
        ack(&mut client, &message).await;
    }
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d17_overlapping_subscriptions_get_one_copy_at_the_highest_qos_with_all_ids() {
    let bench = Bench::new().await;
    let mut client = Client::connected(bench.address(), connect_5("s")).await;
    client.subscribe_with(1, &["here/#"], at(0), Some(1)).await;
    client.subscribe_with(2, &["here/x"], at(1), Some(2)).await;
    client.subscribe_with(3, &["+/x"], at(2), Some(3)).await;
    let own = SubscribeOptions { no_local: true, ..at(2) };
    client.subscribe_with(4, &["#"], own, Some(4)).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for (publisher_is_self, qos, expected) in [(false, 2, vec![1, 2, 3, 4]), (false, 1, vec![1, 2, 3, 4]), (true, 1, vec![1, 2, 3])] {
        let packet = publish("here/x", qos, Some(5));
        let message = if publisher_is_self {
            client.send(&packet).await;
            let mut message = None;
            for _ in 0..2 {
                match client.receive().await {
                    Some(Packet::Publish(publish)) => message = Some(publish),
                    Some(Packet::PubAck(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
            message.unwrap()
        } else {
            send(&mut device, "here/x", qos, 5).await;
            client.message().await
        };
        let mut ids: Vec<_> = message.properties.subscription_ids.iter().map(|id| id.get()).collect();
        ids.sort_unstable();
        assert_eq!((message.qos.level(), ids), (qos, expected));
        ack(&mut client, &message).await;
    }
    client.ping().await;
}

/// MQTT-4.6.0-5 and -6, with answers in any order and messages of both QoS.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_publisher_and_topic_keep_their_order() {
    const COUNT: u16 = 500;
    let bench = Bench::new().await;
    let mut client = subscriber(&bench, "s", "#", 2, 4).await;
    let publishing = async {
        let mut device = Client::connected(bench.address(), connect_5("d")).await;
        for number in 1..=COUNT {
            send(
                &mut device,
                if number % 2 == 0 { "here/x" } else { "cloud/x" },
                1 + (number % 3 == 0) as u8,
                number,
            )
            .await;
        }
    };
    let receiving = async {
        let mut last = [0, 0];
        let mut held: Vec<Publish> = Vec::new();
        for round in 0..COUNT {
            while held.len() > usize::from(round % 4) {
                let at = usize::from(round) % held.len();
                let message = held.remove(at);
                let id = message.packet_id.unwrap();
                match message.qos {
                    QoS::AtLeastOnce => client.send(&Packet::PubAck(Ack::new(id, OK))).await,
                    _ => client.send(&Packet::PubRec(Ack::new(id, OK))).await,
                }
            }
            let message = loop {
                match client.receive().await {
                    Some(Packet::Publish(publish)) => break publish,
                    Some(Packet::PubRel(ack)) => client.send(&Packet::PubComp(ack)).await,
                    other => panic!("{other:?}"),
                }
            };
            let last = &mut last[usize::from(number(&message) % 2)];
            assert!(*last < number(&message), "{last} before {}", number(&message));
            *last = number(&message);
            held.push(message);
        }
        assert_eq!(last, [COUNT, COUNT - 1]);
    };
    tokio::join!(publishing, receiving);
    balances(&bench).await;
}

/// More than the connection takes at once: the rest follows when there is room, and needs no answer for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_comes_whole_to_a_client_that_acknowledges_nothing() {
    const COUNT: u16 = 900;
    let bench = Bench::new().await;
    let mut client = subscriber(&bench, "s", "here/#", 1, 1000).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    // As much at a time as may wait for it.
    for first in (1..=COUNT).step_by(100) {
        for number in first..first + 100 {
            let mut payload = number.to_string().into_bytes();
            payload.resize(2_000, b' ');
            let packet = Publish {
                qos: QoS::AtLeastOnce,
                topic: Text::from_static("here/x"),
                packet_id: Some(id(number)),
                payload: payload.into(),
                ..Publish::default()
            };
            device.send(&Packet::Publish(packet)).await;
        }
        for expected in first..first + 100 {
            device.expect_ack(expected, OK).await;
        }
        for expected in first..first + 100 {
            let message = client.message().await;
            let number: u16 = std::str::from_utf8(&message.payload).unwrap().trim().parse().unwrap();
            assert_eq!(number, expected);
        }
    }
    assert_eq!(bench.view.stats().owed_waiting.load(Ordering::Relaxed), u64::from(COUNT));
}

/// A client that takes aliases, and what it knows of them.
struct Aliased {
    client: Client,
    known: BTreeMap<u16, String>,
}

impl Aliased {
    /// The next message's topic, and whether it was sent by its alias alone.
    async fn topic(&mut self) -> (String, bool) {
        let message = self.client.message().await;
        ack(&mut self.client, &message).await;
        let said = message.topic.as_str().to_owned();
        match message.properties.topic_alias.map(NonZeroU16::get) {
            Some(alias) if said.is_empty() => (self.known[&alias].clone(), true),
            Some(alias) => {
                assert_eq!(self.known.insert(alias, said.clone()), None, "an alias keeps its topic");
                (said, false)
            }
            None => (said, false),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_sent_by_its_alias_from_its_second_message_on_within_the_clients_maximum() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for (maximum, granted) in [(0, 1), (1, 0), (1, 2), (3, 1), (u16::MAX, 1)] {
        let mut connect = with("s", 100, None);
        connect.properties.topic_alias_maximum = Some(maximum);
        let mut client = Client::connected(bench.address(), connect).await;
        assert_eq!(
            client.subscribe_with(1, &["here/#"], at(granted), None).await,
            [ReasonCode(granted)]
        );
        let mut aliased = Aliased {
            client,
            known: BTreeMap::new(),
        };
        // Sixteen of these topics may have one, whatever the client allows.
        let most = usize::from(maximum.min(16));
        for round in 0..3 {
            for number in 0..20 {
                let topic = format!("here/{number:02}");
                send(&mut device, &topic, 2, 1).await;
                let expected = (topic, round > 0 && number < most);
                assert_eq!(aliased.topic().await, expected, "{maximum} {granted} {round}");
            }
        }
        assert_eq!(aliased.known.len(), most.min(20));
    }
    balances(&bench).await;
}

/// The packet that would set an alias is dropped because the client does not read: what comes later has its topic.
#[tokio::test(flavor = "multi_thread")]
async fn no_alias_stands_that_a_dropped_message_would_have_set() {
    let limits = Limits {
        max_packet: 1 << 20,
        max_output_bytes: 1_200_000,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut connect = with("s", 100, None);
    connect.properties.topic_alias_maximum = Some(16);
    let mut client = Client::connected(bench.address(), connect).await;
    client.subscribe_with(1, &["here/#"], at(0), None).await;
    let mut aliased = Aliased {
        client,
        known: BTreeMap::new(),
    };
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let mut number = 0;
    let stats = bench.view.stats();
    // It reads nothing until messages are dropped, each of a topic of its own.
    while stats.fanout_dropped.load(Ordering::Relaxed) == 0 {
        number += 1;
        device
            .send(&Packet::Publish(Publish {
                topic: Text::from(format!("here/full/{number}")),
                payload: Bytes::from(vec![b'x'; 600_000]),
                ..Publish::default()
            }))
            .await;
        device.ping().await;
    }
    assert!(number < 16, "the last one would have set an alias");
    let dropped = format!("here/full/{number}");
    // Then it reads all, and every alias that comes alone is one that was set before: `topic` fails on another.
    let reading = async {
        loop {
            if aliased.topic().await.0 == "here/last" {
                return;
            }
        }
    };
    let telling = async {
        loop {
            for last in ["here/full/1", &*dropped, "here/last"] {
                send(&mut device, last, 1, 1).await;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = telling => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_a_rule_bounds_what_a_client_of_311_is_sent_and_what_is_larger_is_counted() {
    let mut small = support::rule("small", &["#"], &["#"], &[]);
    small.max_packet_311 = Some(60);
    let rules = vec![small, support::rule("*", &["#"], &["#"], &[])];
    let bench = Bench::start(Setup { rules, ..Setup::default() }).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    // The header of the larger one has two bytes more: its length and the packet id.
    let sized = |qos: u8, bytes: usize| {
        Packet::Publish(Publish {
            qos: QoS::from_level(qos).unwrap(),
            retain: qos == 1,
            topic: Text::from("here/x".to_owned()),
            packet_id: (qos > 0).then(|| id(1)),
            payload: Bytes::from(vec![b'x'; bytes]),
            ..Publish::default()
        })
    };
    let stats = bench.view.stats();
    for granted in 0..=1 {
        let mut small = Client::connected(bench.address(), connect_311("small")).await;
        // Its other answers are as long as they are, and MQTT 5 is not meant.
        let filters: Vec<String> = (0..70).map(|number| format!("here/none/{number}")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        assert_eq!(small.subscribe_with(1, &filters, at(granted), None).await.len(), 70);
        small.subscribe_with(2, &["here/x"], at(granted), None).await;
        let mut other = Client::connected(bench.address(), connect_311("other")).await;
        other.subscribe_with(1, &["here/x"], at(granted), None).await;
        let fits = 60 - 10 - if granted == 1 { 2 } else { 0 };
        for bytes in [fits, fits + 1, fits] {
            device.send(&sized(granted, bytes)).await;
            if granted == 1 {
                device.expect_ack(1, OK).await;
            }
            let message = other.message().await;
            assert_eq!(message.payload.len(), bytes);
            ack(&mut other, &message).await;
            if bytes == fits {
                let message = small.message().await;
                assert_eq!(message.payload.len(), bytes);
                ack(&mut small, &message).await;
            }
        }
        small.ping().await;
        let dropped = || {
            (
                stats.fanout_dropped.load(Ordering::Relaxed),
                stats.owed_dropped(DroppedOwed::TooLarge),
            )
        };
        until("it is counted", || dropped() == (1, granted.into())).await;
        // A retained one that is too large does not come either.
        if granted == 1 {
            device.send(&sized(1, fits + 3)).await;
            device.expect_ack(1, OK).await;
            let mut later = Client::connected(bench.address(), connect_311("small")).await;
            later.subscribe_with(1, &["here/x"], at(0), None).await;
            later.ping().await;
        }
    }
    balances(&bench).await;
}
