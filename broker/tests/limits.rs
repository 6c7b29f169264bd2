//! Limits: each one reached, and what happens then.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forebay_broker::codec::{Packet, Publish, ReasonCode, Version};
use forebay_broker::{Disconnection, Limits, Refusal};
use support::{Bench, Certificates, Client, Setup, connect_5, connect_311, publish, until, within};

const OK: ReasonCode = ReasonCode::SUCCESS;

async fn with_limits(limits: Limits) -> Bench {
    Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await
}

fn large(topic: &str, packet_id: u16, bytes: usize) -> Packet {
    let Packet::Publish(small) = publish(topic, 1, Some(packet_id)) else {
        unreachable!()
    };
    Packet::Publish(Publish {
        payload: vec![0; bytes].into(),
        ..small
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_over_the_limit_ends_its_connection_and_no_other() {
    let bench = with_limits(Limits {
        max_packet: 1000,
        ..Limits::default()
    })
    .await;
    let mut other = Client::connected(bench.address(), connect_5("other")).await;
    for start in [connect_5("d5"), connect_311("d3")] {
        let mut device = Client::connected(bench.address(), start).await;
        device.send(&large("cloud/a", 1, 900)).await;
        device.expect_ack(1, OK).await;
        device.send(&large("cloud/a", 2, 1000)).await;
        device.expect_end(ReasonCode::PACKET_TOO_LARGE).await;
    }
    until("both are counted", || {
        bench.view.stats().disconnected(Disconnection::PacketTooLarge) == 2
    })
    .await;
    other.ping().await;
    assert_eq!(bench.records().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_and_room_is_given_back() {
    let bench = with_limits(Limits {
        max_connections: 3,
        ..Limits::default()
    })
    .await;
    let mut clients = Vec::new();
    for number in 0..3 {
        clients.push(Client::connected(bench.address(), connect_5(&format!("d{number}"))).await);
    }
    for round in 1..=5 {
        let mut refused = Client::opened(bench.address(), Version::V5).await;
        assert_eq!(refused.receive().await, None);
        assert_eq!(bench.view.stats().disconnected(Disconnection::TooManyConnections), round);
    }
    for client in &mut clients {
        client.ping().await;
    }
    drop(clients);
    until("they are gone", || bench.view.stats().connected.load(Ordering::Relaxed) == 0).await;
    // All of them subscribe, again and again: their subscriptions are removed too.
    for round in 0..10 {
        for number in 0..3 {
            let mut device = Client::connected(bench.address(), connect_5(&format!("d{number}"))).await;
            device.subscribe(1, "here/#").await;
            device.send(&publish("here/x", 0, None)).await;
            assert_eq!(device.text().await.0, "here/x", "round {round}");
        }
        until("they are gone", || bench.view.stats().connected.load(Ordering::Relaxed) == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_peers_delay_no_other_and_are_closed_at_the_deadline() {
    let bench = with_limits(Limits {
        connect_timeout: Duration::from_secs(3),
        ..Limits::default()
    })
    .await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(Client::opened(bench.address(), Version::V5).await);
    }
    // Some say half a CONNECT.
    for client in silent.iter_mut().take(30) {
        client.send_raw(&[0x10, 20, 0, 4, b'M']).await;
    }
    Client::connected(bench.address(), connect_5("d")).await.ping().await;
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
    for client in &mut silent {
        assert_eq!(client.receive().await, None);
    }
    assert!(began.elapsed() >= Duration::from_secs(2));
    until("all are counted", || {
        bench.view.stats().disconnected(Disconnection::ConnectTimeout) == 60
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_silent_peers_than_may_wait_give_way_to_a_device_within_seconds() {
    let bench = with_limits(Limits {
        max_pending: 8,
        connect_timeout: Duration::from_secs(300),
        ..Limits::default()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(Client::opened(bench.address(), Version::V5).await);
    }
    Client::connected(bench.address(), connect_5("d")).await.ping().await;
    assert!(bench.view.stats().disconnected(Disconnection::Evicted) > 0);
    for client in silent.iter_mut().take(4) {
        assert_eq!(client.receive().await, None, "the longest silent ones went");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_its_answers_is_not_read_for_ever() {
    let bench = Bench::new().await;
    let mut deaf = Client::connected(bench.address(), connect_5("deaf")).await;
    let pings = [0xc0, 0].repeat(32 << 10);
    let stuck = async {
        // Once its answers fill both socket buffers it is not read either, and this blocks.
        while tokio::time::timeout(Duration::from_secs(2), deaf.send_raw(&pings)).await.is_ok() {}
    };
    within("the flood is held up", stuck).await;
    Client::connected(bench.address(), connect_5("d")).await.ping().await;
}

/// A stream with room for a few records; says how many it took.
async fn filled(bench: &Bench) -> u16 {
    let mut filler = Client::connected(bench.address(), connect_5("filler")).await;
    for packet_id in 1.. {
        filler.send(&large("cloud/fill", packet_id, 1000)).await;
        let Some(Packet::PubAck(ack)) = filler.receive().await else {
            panic!("PUBACK was due")
        };
        if ack.reason == ReasonCode::QUOTA_EXCEEDED {
            return packet_id - 1;
        }
    }
    unreachable!()
}

async fn small_stream() -> Bench {
    Bench::start(Setup {
        max_bytes: 16 << 10,
        ..Setup::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_on_5_with_growing_delay_and_takes_again_when_there_is_room() {
    let bench = small_stream().await;
    let stored = filled(&bench).await;
    assert!(stored > 5);
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let began = Instant::now();
    for (packet_id, qos, at_least) in [(1, 1, 100), (2, 2, 300), (3, 1, 700)] {
        let Packet::Publish(mut message) = large("cloud/a", packet_id, 1000) else {
            unreachable!()
        };
        message.qos = forebay_broker::codec::QoS::from_level(qos).unwrap();
        device.send(&Packet::Publish(message)).await;
        // It is served meanwhile.
        device.ping().await;
        device.expect_ack(packet_id, ReasonCode::QUOTA_EXCEEDED).await;
        assert!(began.elapsed() >= Duration::from_millis(at_least), "{:?}", began.elapsed());
    }
    bench.deliver_all().await;
    let mut reason = ReasonCode::QUOTA_EXCEEDED;
    while reason == ReasonCode::QUOTA_EXCEEDED {
        device.send(&large("cloud/a", 4, 1000)).await;
        let Some(Packet::PubAck(ack)) = device.receive().await else {
            panic!("PUBACK was due")
        };
        reason = ack.reason;
    }
    assert_eq!(reason, OK);
    assert!(bench.view.stats().refused(Refusal::LogFull) >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_parks_on_311_until_there_is_room() {
    let bench = small_stream().await;
    filled(&bench).await;
    let mut device = Client::connected(bench.address(), connect_311("d3")).await;
    let mut other = Client::connected(bench.address(), connect_311("other")).await;
    for packet_id in 1..=3 {
        device.send(&large("cloud/a", packet_id, 1000)).await;
    }
    // In its turn, although it needs no room.
    device.send(&publish("nowhere", 1, Some(4))).await;
    device.ping().await;
    let parked = || bench.view.stats().parked.load(Ordering::Relaxed);
    assert_eq!(parked(), 4);
    // Unrouted traffic of others flows.
    other.send(&publish("nowhere", 1, Some(1))).await;
    other.expect_ack(1, OK).await;
    bench.deliver_all().await;
    for packet_id in 1..=4 {
        device.expect_ack(packet_id, OK).await;
    }
    assert_eq!(parked(), 0);
    assert_eq!(bench.records().await.len(), 3);
    // It ends while something is parked: it is not acked, not appended, and no longer counted.
    bench.append_until_full(&mut other).await;
    device.send(&large("cloud/a", 5, 1000)).await;
    device.ping().await;
    until("it is parked", || parked() >= 1).await;
    drop((device, other));
    until("nothing is parked", || parked() == 0).await;
}

impl Bench {
    /// Fills the stream from a 3.1.1 connection until something of it is parked.
    async fn append_until_full(&self, client: &mut Client) {
        for packet_id in 1..=50 {
            client.send(&large("cloud/fill", packet_id, 1000)).await;
        }
        self.until("the stream is full", |view| view.stats().parked.load(Ordering::Relaxed) > 0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_drops_qos_0_counts_it_and_still_shows_it() {
    let bench = small_stream().await;
    filled(&bench).await;
    let before = bench.records().await.len();
    let mut watcher = Client::connected(bench.address(), connect_5("watcher")).await;
    watcher.subscribe(1, "cloud/#").await;
    for start in [connect_5("d5"), connect_311("d3")] {
        let mut device = Client::connected(bench.address(), start).await;
        let Packet::Publish(message) = large("cloud/a", 1, 1000) else {
            unreachable!()
        };
        let message = Publish {
            qos: Default::default(),
            packet_id: None,
            ..message
        };
        device.send(&Packet::Publish(message)).await;
        assert_eq!(watcher.message().await.payload.len(), 1000);
    }
    assert_eq!(bench.view.stats().dropped(Refusal::LogFull), 2);
    assert_eq!(bench.records().await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_stands_still_while_a_peer_is_not_read() {
    let limits = Limits {
        max_in_flight: 2,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        max_bytes: 16 << 10,
        ..Setup::default()
    })
    .await;
    filled(&bench).await;
    let start = forebay_broker::codec::Connect {
        keep_alive: 1,
        ..connect_311("d")
    };
    let mut device = Client::connected(bench.address(), start).await;
    let mut measure = Client::connected(
        bench.address(),
        forebay_broker::codec::Connect {
            keep_alive: 1,
            ..connect_5("measure")
        },
    )
    .await;
    for packet_id in 1..=2 {
        device.send(&large("cloud/a", packet_id, 1000)).await;
    }
    // Another connection's keep-alive expires meanwhile.
    measure.expect_end(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
    bench.deliver_all().await;
    device.expect_ack(1, OK).await;
    device.expect_ack(2, OK).await;
    device.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_a_certificate_is_who_its_certificate_says() {
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates::made_in(folder.path());
    let bench = Bench::start(Setup {
        identities: vec!["{cn}"],
        tls: Some(made.server()),
        rules: vec![support::rule("*", &["cloud/{device}/#"], &["cloud/{device}/#"], &[])],
        ..Setup::default()
    })
    .await;
    // A peer that is silent in its handshake delays no other.
    let mut silent = Client::opened(bench.address(), Version::V5).await;
    let mut device = made.client("sensor-7", &bench, Version::V5).await;
    device.send(&Packet::Connect(Box::new(connect_5("any id")))).await;
    assert_eq!(device.connack().await.code, OK);
    device.subscribe(1, "cloud/sensor-7/#").await;
    device.send(&publish("cloud/sensor-7/x", 1, Some(2))).await;
    let mut seen = [device.receive().await, device.receive().await].map(|packet| packet.unwrap().packet_type().to_string());
    seen.sort();
    assert_eq!(seen, ["PUBACK", "PUBLISH"]);
    device.send(&publish("cloud/other/x", 1, Some(3))).await;
    device.expect_ack(3, ReasonCode::NOT_AUTHORIZED).await;
    assert_eq!(bench.records().await[0].identity, "sensor-7");
    // Bytes that are no TLS are counted as a failed handshake.
    let mut plain = Client::opened(bench.address(), Version::V311).await;
    plain.send_raw(&[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0]).await;
    until("the handshake failed", || {
        bench.view.stats().disconnected(Disconnection::Handshake) == 1
    })
    .await;
    let ((_, _, took), ()) = tokio::join!(bench.stop(), async {
        device.expect_end(ReasonCode::SERVER_SHUTTING_DOWN).await;
        assert_eq!(within("the silent peer is closed", silent.receive()).await, None);
    });
    assert!(took < Duration::from_secs(5), "took {took:?}");
}
