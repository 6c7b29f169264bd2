//! Acks: after the commit, in order, and only what is true.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_broker::codec::{Ack, Packet, Publish, ReasonCode, Version};
use forebay_broker::{Limits, Observer, Refusal};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish, until};

const OK: ReasonCode = ReasonCode::SUCCESS;

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_acked_only_after_its_commit() {
    let bench = Bench::new().await;
    for connect in [connect_5("d5"), connect_311("d3")] {
        let mut device = Client::connected(bench.address(), connect).await;
        bench.hold_commits().await;
        device.send(&publish("cloud/a", 1, Some(1))).await;
        device.send(&publish("cloud/a", 2, Some(2))).await;
        // The answer to the PINGREQ stands outside the order: what could be acked would have come before it.
        device.ping().await;
        bench.gate.open();
        device.expect_ack(1, OK).await;
        device.expect_ack(2, OK).await;
    }
    let stored: Vec<_> = bench
        .records()
        .await
        .into_iter()
        .map(|record| (record.identity, record.qos))
        .collect();
    assert_eq!(
        stored,
        [("d5", 1), ("d5", 2), ("d3", 1), ("d3", 2)].map(|(who, qos)| (who.to_owned(), qos))
    );
    until("the acks are counted as sent", || {
        bench.view.stats().acked.load(Ordering::Relaxed) == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_leave_in_the_order_of_their_publishes() {
    let rules = vec![support::rule("*", &["cloud/#", "here/#", "nowhere/#"], &[], &[])];
    let bench = Bench::start(Setup { rules, ..Setup::default() }).await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    bench.hold_commits().await;
    let kinds = ["cloud/a", "here/a", "nowhere/a", "forbidden/a", "cloud/a", "forbidden/b"];
    let plan: Vec<(u16, &str, u8)> = (1..=60)
        .map(|n| (n, kinds[usize::from(n - 1) % 6], (n * 5 / 4 % 3) as u8))
        .collect();
    for (packet_id, topic, qos) in &plan {
        device.send(&publish(topic, *qos, Some(*packet_id))).await;
    }
    device.ping().await;
    bench.gate.open();
    for (packet_id, topic, _) in plan.iter().filter(|(_, _, qos)| *qos > 0) {
        let is_forbidden = topic.starts_with("forbidden");
        device
            .expect_ack(*packet_id, if is_forbidden { ReasonCode::NOT_AUTHORIZED } else { OK })
            .await;
    }
    let stats = bench.view.stats();
    assert_eq!(stats.refused(Refusal::NotAuthorized) + stats.dropped(Refusal::NotAuthorized), 20);
    let stored: Vec<_> = bench.records().await.iter().map(|record| record.payload.clone()).collect();
    let routed: Vec<_> = plan.iter().filter(|(_, topic, _)| topic.starts_with("cloud")).collect();
    assert_eq!(stored.len(), routed.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrouted_publish_waits_for_its_own_connection_only() {
    let bench = Bench::new().await;
    let mut busy = Client::connected(bench.address(), connect_311("busy")).await;
    let mut other = Client::connected(bench.address(), connect_311("other")).await;
    bench.hold_commits().await;
    busy.send(&publish("cloud/a", 1, Some(1))).await;
    busy.send(&publish("nowhere/a", 1, Some(2))).await;
    busy.ping().await;
    other.send(&publish("nowhere/a", 1, Some(3))).await;
    other.send(&publish("here/a", 2, Some(4))).await;
    other.expect_ack(3, OK).await;
    other.expect_ack(4, OK).await;
    busy.ping().await;
    bench.gate.open();
    busy.expect_ack(1, OK).await;
    busy.expect_ack(2, OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_in_flight_than_allowed_is_not_read() {
    let limits = Limits {
        max_in_flight: 3,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let (mut device, connack) = Client::connect(bench.address(), connect_5("d")).await;
    assert_eq!(connack.properties.receive_maximum.map(|limit| limit.get()), Some(3));
    bench.hold_commits().await;
    for packet_id in 1..=10 {
        device.send(&publish("cloud/a", 1, Some(packet_id))).await;
    }
    let accepted = || bench.view.stats().accepted.load(Ordering::Relaxed);
    until("three are taken in", || accepted() == 3).await;
    Client::connected(bench.address(), connect_5("other")).await.ping().await;
    assert_eq!(accepted(), 3);
    bench.gate.open();
    for packet_id in 1..=10 {
        device.expect_ack(packet_id, OK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_bytes_of_all_connections_stay_within_their_bound() {
    let limits = Limits {
        max_uncommitted_bytes: 4096,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut devices = Vec::new();
    for number in 0..4 {
        devices.push(Client::connected(bench.address(), connect_5(&format!("d{number}"))).await);
    }
    bench.hold_commits().await;
    let large = |packet_id| {
        let Packet::Publish(small) = publish("cloud/a", 1, Some(packet_id)) else {
            unreachable!()
        };
        Packet::Publish(Publish {
            payload: vec![0; 3000].into(),
            ..small
        })
    };
    for device in &mut devices {
        device.send(&large(1)).await;
        device.send(&large(2)).await;
    }
    let accepted = || bench.view.stats().accepted.load(Ordering::Relaxed);
    until("one is taken in", || accepted() == 1).await;
    bench.gate.open();
    for device in &mut devices {
        device.expect_ack(1, OK).await;
        device.expect_ack(2, OK).await;
        // A publish that is larger than the whole bound is accepted alone.
        let Packet::Publish(small) = publish("cloud/a", 1, Some(3)) else {
            unreachable!()
        };
        device
            .send(&Packet::Publish(Publish {
                payload: vec![0; 9000].into(),
                ..small
            }))
            .await;
        device.expect_ack(3, OK).await;
    }
    assert_eq!(bench.records().await.len(), 12);
}

/// Makes the commit of what is sent next fail: it shares its batch with more than the disk's bound has room for.
async fn with_a_failing_commit(device: &mut Client, bench: &Bench, packets: &[Packet]) {
    bench.hold_commits().await;
    for packet in packets {
        device.send(packet).await;
    }
    device.ping().await;
    bench.append_bulk(24 << 20);
    bench.gate.open();
}

async fn small_disk() -> Bench {
    Bench::start(Setup {
        max_disk: 24 << 20,
        ..Setup::default()
    })
    .await
}

async fn writable(bench: &Bench) {
    until("the log takes records again", || bench.log.status().unavailable.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_commit_lost_is_never_acked() {
    let bench = small_disk().await;
    let mut device = Client::connected(bench.address(), connect_5("d5")).await;
    let packets = [
        publish("cloud/a", 1, Some(1)),
        publish("cloud/a", 2, Some(2)),
        publish("cloud/a", 0, None),
        publish("nowhere", 1, Some(3)),
    ];
    with_a_failing_commit(&mut device, &bench, &packets).await;
    device.expect_ack(1, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR).await;
    device.expect_ack(2, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR).await;
    device.expect_ack(3, OK).await;
    // An answer is counted behind the write of it, and the device of a QoS 0 publish cannot know.
    until("the refusals are counted", || {
        let stats = bench.view.stats();
        (stats.refused(Refusal::CommitFailed), stats.dropped(Refusal::CommitFailed)) == (2, 1)
    })
    .await;
    assert!(bench.records().await.is_empty());

    // The packet id is free again: what is sent with it is a new publish, not one sent twice.
    let mut reason = ReasonCode::QUOTA_EXCEEDED;
    while reason == ReasonCode::QUOTA_EXCEEDED {
        device.send(&publish("cloud/b", 2, Some(2))).await;
        let Some(Packet::PubRec(ack)) = device.receive().await else {
            panic!("PUBREC was due")
        };
        reason = ack.reason;
    }
    assert_eq!(reason, OK);
    assert_eq!(bench.records().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_ends_a_311_connection_and_a_resend_is_stored() {
    let bench = small_disk().await;
    let session = || forebay_broker::codec::Connect {
        clean_start: false,
        ..connect_311("d3")
    };
    let mut device = Client::connected(bench.address(), session()).await;
    let packets = [
        publish("cloud/a", 2, Some(2)),
        publish("cloud/a", 2, Some(2)),
        publish("nowhere", 1, Some(3)),
    ];
    with_a_failing_commit(&mut device, &bench, &packets).await;
    assert_eq!(device.receive().await, None, "nothing may be acked after a publish that was lost");
    writable(&bench).await;
    let mut device = loop {
        let (device, connack) = Client::connect(bench.address(), session()).await;
        if connack.code == OK {
            assert!(
                connack.session_present,
                "a session is not forgotten because the log could not write"
            );
            break device;
        }
    };
    device.send(&publish("cloud/a", 2, Some(2))).await;
    device.expect_ack(2, OK).await;
    assert_eq!(bench.records().await.len(), 1, "the resend is stored");
    device.send(&Packet::PubRel(Ack::new(id(2), OK))).await;
    device.expect_ack(2, OK).await;
    assert_eq!(device.version, Version::V311);
}

#[tokio::test(flavor = "multi_thread")]
async fn local_subscribers_do_not_wait_for_a_commit_that_failed() {
    let bench = small_disk().await;
    let mut subscriber = Client::connected(bench.address(), connect_5("s")).await;
    subscriber.subscribe(1, "nowhere").await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    with_a_failing_commit(
        &mut device,
        &bench,
        &[publish("cloud/a", 1, Some(1)), publish("nowhere", 1, Some(2))],
    )
    .await;
    assert_eq!(subscriber.text().await, ("nowhere".to_owned(), "2".to_owned()));
}

/// Panics once when it is told of an ack.
#[derive(Default)]
struct Mine(AtomicBool);

impl Observer for Mine {
    fn acked(&self, _oldest: Duration, _count: u64) {
        assert!(!self.0.swap(false, Ordering::SeqCst), "a test asked for this panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_one_connections_answers_ends_no_other() {
    let mine = Arc::<Mine>::default();
    let observer = mine.clone();
    let bench = Bench::start(Setup {
        observer,
        ..Setup::default()
    })
    .await;
    let mut devices = Vec::new();
    for name in ["a", "b", "c", "d"] {
        devices.push(Client::connected(bench.address(), connect_311(name)).await);
    }
    bench.hold_commits().await;
    for device in &mut devices {
        device.send(&publish("cloud/a", 1, Some(1))).await;
        device.ping().await;
    }
    mine.0.store(true, Ordering::SeqCst);
    bench.gate.open();
    let mut ended = 0;
    for device in &mut devices {
        device.expect_ack(1, OK).await;
        device.try_send(&publish("cloud/a", 1, Some(2))).await;
        match support::within("an ack, or the end", device.receive()).await {
            Some(Packet::PubAck(ack)) => assert_eq!(ack.packet_id, id(2)),
            None => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ended, 1);
    bench.assert_serves("a panic of ours").await;
}
