//! Shared subscriptions: which member gets a message, and what becomes of it when that member leaves.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_broker::codec::{
    Ack, Connect, ConnectProperties, Packet, Publish, QoS, ReasonCode, SubscribeOptions, Text, Unsubscribe, Version,
};
use forebay_broker::{Bound, DroppedOwed, Limits};
use support::{Bench, Client, Setup, connect_5, id, publish, resume_5, rule, within};

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

async fn member(bench: &Bench, client_id: &str, qos: u8, receive_maximum: u16) -> Client {
    let mut client = Client::connected(bench.address(), with(client_id, receive_maximum, None)).await;
    let codes = client.subscribe_with(1, &["$share/g/here/#"], at(qos), None).await;
    assert_eq!(codes, [ReasonCode(qos)]);
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

/// The next message before the answer to a PINGREQ; none if the answer comes first.
async fn before_pong(client: &mut Client) -> Option<Publish> {
    match client.receive().await {
        Some(Packet::Publish(message)) => Some(message),
        Some(Packet::PingResp) => None,
        other => panic!("a message or PINGRESP was due, not {other:?}"),
    }
}

/// All that has been sent to this member, acknowledged.
async fn drained(client: &mut Client) -> Vec<Publish> {
    let mut messages = Vec::new();
    client.send(&Packet::PingReq).await;
    while let Some(message) = before_pong(client).await {
        if let Some(id) = message.packet_id {
            client.send(&Packet::PubAck(Ack::new(id, OK))).await;
        }
        messages.push(message);
    }
    messages
}

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
async fn each_message_goes_to_one_member_at_the_lower_qos_in_turn_on_both_versions() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let mut sent = 0;
    for version in [Version::V5, Version::V311] {
        for granted in 0..=2 {
            let mut members = Vec::new();
            for name in ["one", "two", "three"] {
                let connect = Connect {
                    version,
                    ..connect_5(name)
                };
                let mut client = Client::connected(bench.address(), connect).await;
                let codes = client
                    .subscribe_with(1, &["$share/g/cloud/#", "$share/g/here/#"], at(granted), None)
                    .await;
                assert_eq!(codes, [ReasonCode(granted); 2]);
                members.push(client);
            }
            let mut got = [0; 3];
            for round in 0..30_u16 {
                for topic in ["cloud/x", "here/x"] {
                    sent += 1;
                    send(&mut device, topic, 1 + (round % 2) as u8, sent).await;
                    bench
                        .until("it is sent to one of them", |view| {
                            view.stats().fanned_out.load(Ordering::Relaxed) == u64::from(sent)
                        })
                        .await;
                    let mut next = None;
                    for (nth, member) in members.iter_mut().enumerate() {
                        member.send(&Packet::PingReq).await;
                        while let Some(message) = before_pong(member).await {
                            assert_eq!(next, None, "two members got it");
                            assert_eq!((number(&message), message.topic.as_str()), (sent, topic));
                            assert_eq!(message.qos.level(), granted.min(1 + (round % 2) as u8));
                            next = Some((nth, message));
                        }
                    }
                    let (nth, message) = next.unwrap();
                    got[nth] += 1;
                    ack(&mut members[nth], &message).await;
                    members[nth].ping().await;
                }
            }
            assert_eq!(got, [20; 3], "{granted}");
        }
    }
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_that_owes_the_fewest_answers_gets_the_next_message() {
    let bench = Bench::new().await;
    let mut silent = member(&bench, "silent", 1, 100).await;
    let mut busy = member(&bench, "busy", 1, 100).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    send(&mut device, "here/x", 1, 1).await;
    assert_eq!(number(&silent.message().await), 1);
    for round in 2..=40 {
        send(&mut device, "here/x", 1, round).await;
        let message = busy.message().await;
        assert_eq!(number(&message), round);
        ack(&mut busy, &message).await;
        busy.ping().await;
    }
    silent.ping().await;
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_unacked_messages_gets_less_and_an_idle_one_takes_what_waits() {
    let bench = Bench::new().await;
    let mut silent = member(&bench, "silent", 1, 2).await;
    let mut busy = member(&bench, "busy", 1, 3).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for round in 1..=40 {
        send(&mut device, "here/x", 1, round).await;
    }
    // Two are in flight to the one that does not answer; all others come to the other one, in order, whatever waited.
    let mut got = Vec::new();
    while got.len() < 38 {
        let message = busy.message().await;
        got.push(number(&message));
        ack(&mut busy, &message).await;
    }
    let kept: BTreeSet<u16> = [number(&silent.message().await), number(&silent.message().await)].into();
    silent.ping().await;
    let expected: Vec<u16> = (1..=40).filter(|number| !kept.contains(number)).collect();
    assert_eq!(got, expected);
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d18_what_is_unsent_or_unacked_at_qos_1_goes_to_another_member_and_qos_2_begun_never_does() {
    let bench = Bench::new().await;
    let mut leaving = member(&bench, "leaving", 2, 4).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for round in 1..=10 {
        send(&mut device, "here/x", if round % 2 == 0 { 2 } else { 1 }, round).await;
    }
    let begun: Vec<Publish> = vec![
        leaving.message().await,
        leaving.message().await,
        leaving.message().await,
        leaving.message().await,
    ];
    assert_eq!(begun.iter().map(number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    // One is answered: it does not come again.
    ack(&mut leaving, &begun[0]).await;
    assert_eq!(number(&leaving.message().await), 5);
    leaving.ping().await;
    let mut stays = member(&bench, "stays", 2, 100).await;
    // What waited comes at once.
    let mut got = BTreeMap::new();
    let mut waited = Vec::new();
    for _ in 6..=10 {
        waited.push(stays.message().await);
    }
    for message in &waited {
        assert!(!message.dup);
        got.insert(number(message), message.qos.level());
        ack(&mut stays, message).await;
    }
    drop(leaving);
    for expected in [3, 5] {
        let message = stays.message().await;
        assert_eq!((number(&message), message.qos.level(), message.dup), (expected, 1, false));
        got.insert(number(&message), message.qos.level());
        ack(&mut stays, &message).await;
    }
    assert_eq!(got, BTreeMap::from([(3, 1), (5, 1), (6, 2), (7, 1), (8, 2), (9, 1), (10, 2)]));
    stays.ping().await;
    let stats = bench.view.stats();
    assert_eq!(stats.owed_dropped(DroppedOwed::SessionEnd), 2, "those of QoS 2");
    balances(&bench).await;
    assert_eq!(stats.owed_waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_goes_to_no_other_member() {
    let bench = Bench::new().await;
    let mut members = [member(&bench, "one", 2, 100).await, member(&bench, "two", 2, 100).await];
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let refused = ReasonCode::NOT_AUTHORIZED;
    for round in 1..=20_u16 {
        send(&mut device, "here/x", 1 + (round % 2) as u8, round).await;
        let member = &mut members[usize::from((round + 1) % 2)];
        let message = member.message().await;
        assert_eq!(number(&message), round);
        let answer = Ack::new(message.packet_id.unwrap(), refused);
        member
            .send(&if message.qos == QoS::ExactlyOnce {
                Packet::PubRec(answer)
            } else {
                Packet::PubAck(answer)
            })
            .await;
        member.ping().await;
    }
    drop(members);
    let stats = bench.view.stats();
    assert_eq!(stats.owed_dropped(DroppedOwed::Refused), 20);
    balances(&bench).await;
    assert_eq!(
        (stats.owed.load(Ordering::Relaxed), stats.owed_waiting.load(Ordering::Relaxed)),
        (20, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn d20_a_client_with_a_plain_subscription_too_gets_two_copies_each_with_its_id() {
    let bench = Bench::new().await;
    let mut client = Client::connected(bench.address(), connect_5("both")).await;
    for (packet_id, filter) in [(1, "here/#"), (2, "$share/g/here/#"), (3, "$share/h/here/+"), (4, "$share/g/#")] {
        let codes = client.subscribe_with(packet_id, &[filter], at(1), Some(packet_id.into())).await;
        assert_eq!(codes, [ReasonCode(1)]);
    }
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for qos in 0..=1 {
        if qos == 0 {
            device.send(&publish("here/x", 0, None)).await;
        } else {
            send(&mut device, "here/x", qos, 1).await;
        }
        let mut ids = BTreeSet::new();
        for _ in 0..4 {
            let message = client.message().await;
            ack(&mut client, &message).await;
            let of_one = &message.properties.subscription_ids;
            assert_eq!(of_one.len(), 1, "{of_one:?}");
            ids.insert(of_one[0].get());
        }
        assert_eq!(ids, BTreeSet::from([1, 2, 3, 4]));
    }
    // What it unsubscribes comes no more, and the rest still does.
    let unsubscribe = Unsubscribe {
        packet_id: id(9),
        user: Vec::new(),
        filters: vec![Text::from("$share/g/here/#".to_owned()), Text::from("$share/g/here/#".to_owned())],
    };
    client.send(&Packet::Unsubscribe(unsubscribe)).await;
    let Some(Packet::UnsubAck(unsuback)) = client.receive().await else {
        panic!("UNSUBACK was due")
    };
    assert_eq!(unsuback.codes, [OK, ReasonCode::NO_SUBSCRIPTION_EXISTED]);
    send(&mut device, "here/x", 1, 2).await;
    for _ in 0..3 {
        let message = client.message().await;
        ack(&mut client, &message).await;
    }
    assert!(drained(&mut client).await.is_empty());
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_never_given_what_the_rules_keep_from_it_or_what_it_cannot_take() {
    let rules = vec![
        rule("trusted", &[], &["here/#"], &[]),
        rule("d", &["#"], &[], &[]),
        rule("*", &[], &["here/#"], &["here/secret/#"]),
    ];
    let bench = Bench::start(Setup { rules, ..Setup::default() }).await;
    let mut small = Client::connected(bench.address(), with("small", 100, Some(40))).await;
    small.subscribe_with(1, &["$share/g/here/#"], at(1), None).await;
    let mut other = Client::connected(bench.address(), connect_5("other")).await;
    other.subscribe_with(1, &["$share/g/here/#"], at(1), None).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let long = format!("here/{}", "x".repeat(40));
    for round in 1..=10 {
        send(&mut device, "here/secret/x", 1, 100 + round).await;
        send(&mut device, &long, 1, round).await;
        let message = other.message().await;
        assert_eq!((number(&message), message.topic.as_str()), (round, &*long));
        ack(&mut other, &message).await;
    }
    drop(other);
    bench
        .until("it has left", |view| view.stats().connected.load(Ordering::Relaxed) == 2)
        .await;
    // None can take it: it counts as too large. One that is not allowed is not owed at all.
    send(&mut device, &long, 1, 11).await;
    send(&mut device, "here/secret/x", 1, 12).await;
    bench
        .until("it is counted", |view| view.stats().owed_dropped(DroppedOwed::TooLarge) == 1)
        .await;
    let mut trusted = Client::connected(bench.address(), connect_5("trusted")).await;
    trusted.subscribe_with(1, &["$share/g/here/#"], at(1), None).await;
    send(&mut device, "here/secret/x", 1, 13).await;
    assert_eq!(number(&trusted.message().await), 13);
    assert!(drained(&mut small).await.is_empty());
    assert_eq!(bench.view.stats().owed.load(Ordering::Relaxed), 12);
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_group_has_a_bound_and_the_oldest_go_first_and_are_counted() {
    let limits = Limits {
        max_session_bytes: 20_000,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut silent = member(&bench, "silent", 1, 1).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for round in 1..=400 {
        send(&mut device, "here/x", 1, round).await;
    }
    let stats = bench.view.stats();
    bench
        .until("all have come to the group", |view| {
            view.stats().owed.load(Ordering::Relaxed) == 400
        })
        .await;
    let dropped = stats.owed_dropped(DroppedOwed::SessionBound);
    assert!((250..399).contains(&dropped), "{dropped}");
    assert!(
        bench.view.budget().reached(Bound::OwedBytes) == 0,
        "the group's own bound comes first"
    );
    let first = silent.message().await;
    assert_eq!(number(&first), 1);
    ack(&mut silent, &first).await;
    for expected in dropped + 2..=400 {
        let message = silent.message().await;
        assert_eq!(u64::from(number(&message)), expected);
        ack(&mut silent, &message).await;
    }
    // The last member's end is the group's.
    for round in 401..=410 {
        send(&mut device, "here/x", 1, round).await;
    }
    drop(silent);
    bench
        .until("what waited is counted", |view| {
            let stats = view.stats();
            stats.owed_dropped(DroppedOwed::SessionEnd) == 10 && stats.owed_waiting.load(Ordering::Relaxed) == 0
        })
        .await;
    balances(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_session_lasts_is_granted_qos_0_and_is_a_member_again_when_it_resumes() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let mut lasts = Client::connected(bench.address(), resume_5("lasts")).await;
    assert_eq!(lasts.subscribe_with(1, &["$share/g/here/#"], at(2), None).await, [OK]);
    send(&mut device, "here/x", 1, 1).await;
    assert_eq!(lasts.message().await.qos, QoS::AtMostOnce);
    drop(lasts);
    bench
        .until("it has left", |view| view.stats().connected.load(Ordering::Relaxed) == 1)
        .await;
    send(&mut device, "here/x", 1, 2).await;
    let mut lasts = Client::connected(bench.address(), resume_5("lasts")).await;
    lasts.ping().await;
    send(&mut device, "here/x", 1, 3).await;
    assert_eq!(number(&lasts.message().await), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_reads_nothing_holds_up_neither_its_group_nor_the_publisher() {
    let limits = Limits {
        max_session_bytes: 64 << 20,
        max_owed_bytes: 512 << 20,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    // Its socket is full before its window is.
    let mut deaf = member(&bench, "deaf", 1, u16::MAX).await;
    let mut reads = member(&bench, "reads", 1, 10).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let big = |number: u16| {
        Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            topic: Text::from("here/x".to_owned()),
            packet_id: Some(id(number)),
            payload: vec![b'x'; 60_000].into(),
            ..Publish::default()
        })
    };
    let all = 300;
    let sending = tokio::spawn(async move {
        for number in 1..=all {
            device.send(&big(number)).await;
            device.expect_ack(number, OK).await;
        }
        device
    });
    let mut got = 0;
    let stats = bench.view.stats();
    within("all but what the deaf one holds", async {
        loop {
            let owed = stats.owed.load(Ordering::Relaxed);
            let message = tokio::time::timeout(Duration::from_millis(100), reads.message()).await;
            match message {
                Ok(message) => {
                    got += 1;
                    ack(&mut reads, &message).await;
                }
                Err(_) if owed == u64::from(all) && sending.is_finished() => break,
                Err(_) => {}
            }
        }
    })
    .await;
    assert!(got > 100, "{got}");
    // And the deaf one gets the rest once it reads.
    for _ in got..all {
        let message = deaf.message().await;
        ack(&mut deaf, &message).await;
    }
    sending.await.unwrap();
    deaf.ping().await;
    balances(&bench).await;
    assert_eq!(stats.owed_acked.load(Ordering::Relaxed), u64::from(all));
}
