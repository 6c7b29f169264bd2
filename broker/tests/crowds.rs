//! Much work for the front, from one client or many at once: it ends with what asked for it, and delays no other.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use forebay_broker::codec::{
    ConnAck, Connect, Disconnect, Packet, Publish, ReasonCode, Subscribe, SubscribeOptions, Subscription, Text, Version, encode,
};
use forebay_broker::{Bound, Disconnection, Limits};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish, resume_5};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a2_overlapping_filters_of_many_clients_give_each_one_copy_and_delay_no_other() {
    let bench = Bench::new().await;
    for (clients, filters, levels) in [(1, 1, 1), (3, 16, 4), (8, 100, 7), (2, 100, 12), (20, 100, 8)] {
        let topic = "a/".repeat(levels) + "x";
        let mixtures: Vec<_> = (0..filters)
            .map(|bits: u32| {
                let level = |at: usize| if bits >> at & 1 == 1 { "+/" } else { "a/" };
                (0..levels).map(level).collect::<String>() + if bits.is_multiple_of(3) { "#" } else { "x" }
            })
            .collect();
        let mixtures: Vec<_> = mixtures.iter().map(String::as_str).collect();
        let mut subscribers = Vec::new();
        for number in 0..clients {
            let mut client = Client::connected(bench.address(), connect_5(&format!("many-{number}"))).await;
            let codes = client.subscribe_with(1, &mixtures, SubscribeOptions::default(), None).await;
            assert!(codes.iter().all(|code| !code.is_error()));
            subscribers.push(client);
        }
        let mut talker = Client::connected(bench.address(), connect_5("talker")).await;
        for number in 1..=20 {
            talker.send(&publish(&topic, 1, Some(number))).await;
        }
        // It subscribes, publishes and receives in the middle of it.
        bench.assert_serves(&format!("{filters} filters of {levels} levels")).await;
        for subscriber in &mut subscribers {
            for _ in 0..20 {
                assert_eq!(subscriber.text().await.0, topic);
            }
            subscriber.ping().await;
        }
    }
    assert_eq!(bench.view.stats().fanout_cut.load(Ordering::Relaxed), 0);
    assert!(bench.view.fault().is_none());
}

/// Connects, as often as the deadline of the test is too short for its machine.
async fn resumed(bench: &Bench, client_id: &str) -> (Client, ConnAck) {
    loop {
        let (client, connack) = Client::connect(bench.address(), resume_5(client_id)).await;
        if connack.code == ReasonCode::SUCCESS {
            return (client, connack);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_of_many_connects_of_one_session_the_newest_waits_and_keeps_no_other_out() {
    let limits = Limits {
        connect_timeout: Duration::from_secs(600),
        ..Limits::default()
    };
    for count in [1, 2, 20, 100] {
        let bench = Bench::start(Setup {
            limits: limits.clone(),
            ..Setup::default()
        })
        .await;
        let mut holder = Client::connected(bench.address(), resume_5("one")).await;
        holder.subscribe(1, "kept/#").await;
        bench.hold_commits().await;
        // Its end waits for the commit of this.
        holder.send(&publish("cloud/x", 1, Some(2))).await;
        holder.ping().await;
        let mut waiting = Vec::new();
        for _ in 0..count {
            let mut client = Client::opened(bench.address(), Version::V5).await;
            client.send(&Packet::Connect(Box::new(resume_5("one")))).await;
            waiting.push(client);
        }
        let mut probe = Client::connected(bench.address(), connect_311("probe")).await;
        probe.ping().await;
        let superseded = |view: &forebay_broker::View| view.stats().disconnected(Disconnection::TakenOver) == count - 1;
        bench.until("all but one are refused", superseded).await;
        bench
            .until("the others have left their places", |view| {
                let mut bounds = view.budget().status().into_iter();
                // The holder, the one that waits, and the probe.
                bounds.any(|status| status.bound == Bound::Connections && status.taken.is_some_and(|(taken, _)| taken <= 3))
            })
            .await;
        bench.gate.open();
        let mut codes = Vec::new();
        for client in &mut waiting {
            let connack = client.connack().await;
            codes.push(connack.code);
            assert_eq!(connack.session_present, connack.code == ReasonCode::SUCCESS);
        }
        codes.sort_unstable_by_key(|code| code.is_error());
        assert_eq!(codes[0], ReasonCode::SUCCESS);
        assert!(codes[1..].iter().all(|code| *code == ReasonCode::SERVER_BUSY), "{codes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_connect_that_waits_for_its_session_ends_at_the_deadline_and_the_session_stays_whole() {
    let bench = Bench::start(Setup {
        limits: Limits {
            connect_timeout: Duration::from_secs(1),
            ..Limits::default()
        },
        ..Setup::default()
    })
    .await;
    let mut holder = resumed(&bench, "one").await.0;
    holder.subscribe(1, "kept/#").await;
    bench.hold_commits().await;
    holder.send(&publish("cloud/x", 1, Some(2))).await;
    holder.ping().await;
    // The first waits for the holder's end, the second for the place of the first.
    for _ in 0..2 {
        let (_, connack) = Client::connect(bench.address(), resume_5("one")).await;
        assert_eq!(connack.code, ReasonCode::SERVER_BUSY);
    }
    // This one waits for its own commit.
    let (_, connack) = Client::connect(bench.address(), resume_5("other")).await;
    assert_eq!(connack.code, ReasonCode::SERVER_BUSY);
    bench.gate.open();
    let (mut client, connack) = resumed(&bench, "one").await;
    assert!(connack.session_present);
    client.send(&publish("kept/x", 0, None)).await;
    assert_eq!(client.text().await.0, "kept/x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_the_work_of_a_subscribe_ends_with_its_connection() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("device")).await;
    for number in 1..=6000 {
        device
            .send(&Packet::Publish(Publish {
                retain: true,
                payload: Bytes::from_static(b"kept"),
                ..match publish(&format!("kept/{number}"), 0, None) {
                    Packet::Publish(publish) => publish,
                    _ => unreachable!(),
                }
            }))
            .await;
    }
    device.ping().await;
    bench
        .until("all are retained", |view| view.stats().retained.load(Ordering::Relaxed) == 6000)
        .await;
    // Each of them looks at all messages and finds none.
    let filters: Vec<_> = (0..100).map(|number| format!("kept/+/{number}")).collect();
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    let connected = |count: u64| move |view: &forebay_broker::View| view.stats().connected.load(Ordering::Relaxed) == count;
    let mut whole = Duration::ZERO;
    for stays in [true, false] {
        let mut client = Client::connected(bench.address(), connect_5("subscriber")).await;
        client.subscribe_with(1, &filters, SubscribeOptions::default(), None).await;
        let began = Instant::now();
        if stays {
            client.ping().await;
            whole = began.elapsed();
            drop(client);
            bench.until("it is gone", connected(1)).await;
        } else {
            drop(client);
            bench.until("it is gone", connected(1)).await;
            assert!(began.elapsed() < whole / 2, "{:?} against {whole:?}", began.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_packet_has_a_bounded_number_of_filters_and_each_counts_once() {
    let limits = Limits {
        max_subscriptions: 100,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    for (distinct, repeats) in [(1, 4000), (100, 40), (101, 1), (199, 3), (3000, 2)] {
        let mut client = Client::connected(bench.address(), connect_5("many")).await;
        let texts: Vec<_> = (0..distinct).map(|number| format!("{number}/x")).collect();
        let filters: Vec<_> = texts.iter().cycle().take(distinct * repeats).map(String::as_str).collect();
        let codes = client.subscribe_with(1, &filters, SubscribeOptions::default(), None).await;
        for (at, code) in codes.iter().enumerate() {
            let expected = if at % distinct < 100 {
                ReasonCode::SUCCESS
            } else {
                ReasonCode::QUOTA_EXCEEDED
            };
            assert_eq!(*code, expected, "{at} of {distinct} times {repeats}");
        }
        client.send(&publish("0/x", 0, None)).await;
        assert_eq!(client.text().await.0, "0/x");
        client.ping().await;
        let stats = bench.view.stats();
        // A hundred fit; each of the others is refused once, however often it is there.
        assert!(stats.subscriptions_granted.swap(0, Ordering::Relaxed) <= 100);
        let refused = stats.subscriptions_refused.swap(0, Ordering::Relaxed);
        assert_eq!(refused, distinct.saturating_sub(100) as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_goodbye_behind_a_subscribe_is_a_goodbye() {
    let bench = Bench::new().await;
    let mut heir = Client::connected(bench.address(), connect_5("heir")).await;
    heir.subscribe(1, "will/#").await;
    for version in [Version::V5, Version::V311] {
        let connect = Connect {
            version,
            will: Some(support::will("will/x", 0, None)),
            ..connect_5("leaves")
        };
        let subscribe = Subscribe {
            packet_id: id(1),
            subscription_id: None,
            user: Vec::new(),
            filters: vec![Subscription {
                filter: Text::from("a/#"),
                options: SubscribeOptions::default(),
            }],
        };
        let packets = [
            Packet::Connect(Box::new(connect)),
            Packet::Subscribe(subscribe),
            Packet::Disconnect(Disconnect::default()),
        ];
        let mut bytes = BytesMut::new();
        for packet in packets {
            encode(&packet, version, &mut bytes).unwrap();
        }
        let mut socket = TcpStream::connect(bench.address()).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        // Reading to the end, so that no reset takes the DISCONNECT away.
        socket.read_to_end(&mut Vec::new()).await.unwrap();
    }
    bench
        .until("both have left", |view| view.stats().clean_disconnects.load(Ordering::Relaxed) == 2)
        .await;
    heir.ping().await;
}
