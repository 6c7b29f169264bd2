//! Sessions: what outlives a connection and the process, takeover, keep-alive and wills.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use forebay_broker::Disconnection;
use forebay_broker::codec::{Ack, ConnAck, Connect, Disconnect, Packet, ReasonCode, Text, Version, Will};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish, resume_5, state_file, until, will, within};

const OK: ReasonCode = ReasonCode::SUCCESS;

fn resume_311(client_id: &str) -> Connect {
    Connect {
        clean_start: false,
        ..connect_311(client_id)
    }
}

fn clean(connect: Connect) -> Connect {
    Connect {
        clean_start: true,
        ..connect
    }
}

fn with_will(connect: Connect, will: Will) -> Connect {
    Connect {
        will: Some(will),
        ..connect
    }
}

fn pubrel(packet_id: u16) -> Packet {
    Packet::PubRel(Ack::new(id(packet_id), OK))
}

async fn connect(bench: &Bench, connect: Connect) -> (Client, ConnAck) {
    let (client, connack) = Client::connect(bench.address(), connect).await;
    assert_eq!(connack.code, OK);
    (client, connack)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qos_2_publish_sent_twice_is_stored_once() {
    let bench = Bench::new().await;
    for (round, start) in [resume_5("d5"), resume_311("d3"), connect_5("short")].into_iter().enumerate() {
        let (mut device, _) = connect(&bench, start).await;
        device.send(&publish("cloud/a", 2, Some(7))).await;
        device.send(&publish("cloud/a", 2, Some(7))).await;
        device.expect_ack(7, OK).await;
        device.expect_ack(7, OK).await;
        device.send(&pubrel(7)).await;
        device.expect_ack(7, OK).await;
        assert_eq!(bench.records().await.len(), 2 * round + 1);
        // Released: the same id is a new publish.
        device.send(&publish("cloud/a", 2, Some(7))).await;
        device.expect_ack(7, OK).await;
        assert_eq!(bench.records().await.len(), 2 * round + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qos_2_publish_sent_twice_is_not_acked_before_it_is_durable() {
    let bench = Bench::new().await;
    let (mut device, _) = connect(&bench, resume_311("d")).await;
    bench.hold_commits().await;
    device.send(&publish("cloud/a", 2, Some(1))).await;
    device.send(&publish("cloud/a", 2, Some(1))).await;
    device.ping().await;
    bench.gate.open();
    device.expect_ack(1, OK).await;
    device.expect_ack(1, OK).await;
}

/// One packet id received, one received and released; then whatever `interrupt` does to the front.
async fn after_an_interruption(interrupt: impl AsyncFn(Bench) -> Bench) {
    let mut bench = Bench::new().await;
    for start in [resume_5("d5"), resume_311("d3")] {
        let (mut device, connack) = connect(&bench, start.clone()).await;
        assert!(!connack.session_present);
        device.subscribe(9, "here/#").await;
        for packet_id in [1, 2] {
            device.send(&publish("cloud/a", 2, Some(packet_id))).await;
            device.expect_ack(packet_id, OK).await;
        }
        device.send(&pubrel(2)).await;
        device.expect_ack(2, OK).await;
        drop(device);
        let before = bench.records().await.len();

        bench = interrupt(bench).await;
        let (mut device, connack) = connect(&bench, start.clone()).await;
        assert!(connack.session_present);
        device.send(&publish("cloud/a", 2, Some(1))).await;
        device.expect_ack(1, OK).await;
        assert_eq!(bench.records().await.len(), before, "the id of a publish not yet released is known");
        device.send(&publish("cloud/a", 2, Some(2))).await;
        device.expect_ack(2, OK).await;
        assert_eq!(bench.records().await.len(), before + 1, "a released id is free");
        for packet_id in [1, 2] {
            device.send(&pubrel(packet_id)).await;
            device.expect_ack(packet_id, OK).await;
        }
        device.send(&publish("here/x", 0, None)).await;
        assert_eq!(device.text().await.0, "here/x", "the subscription lives on");
        device.send(&Packet::Disconnect(Disconnect::new(OK))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_reconnect() {
    after_an_interruption(async |bench| bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_restart_by_its_checkpoint() {
    after_an_interruption(async |bench| {
        let (directory, setup, _) = bench.stop().await;
        Bench::start_in(directory, setup).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_kill_by_the_log_alone() {
    after_an_interruption(async |bench| {
        let (directory, setup) = bench.kill();
        Bench::start_in(directory, setup).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_start_resets_the_session_for_good() {
    let mut bench = Bench::new().await;
    for start in [resume_5("d5"), resume_311("d3")] {
        let (mut device, _) = connect(&bench, start.clone()).await;
        device.subscribe(9, "here/#").await;
        device.send(&publish("cloud/a", 2, Some(1))).await;
        device.expect_ack(1, OK).await;
        let (_, connack) = connect(&bench, clean(start.clone())).await;
        assert!(!connack.session_present);
        let before = bench.records().await.len();

        let (directory, setup) = bench.kill();
        bench = Bench::start_in(directory, setup).await;
        let (mut device, _) = connect(&bench, start.clone()).await;
        device.send(&publish("here/x", 1, Some(2))).await;
        device.expect_ack(2, OK).await;
        device.send(&publish("cloud/a", 2, Some(1))).await;
        device.expect_ack(1, OK).await;
        assert_eq!(bench.records().await.len(), before + 1, "the old id is forgotten");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_taken_up_to_end_with_its_connection_does_not_come_back_after_a_kill() {
    let bench = Bench::new().await;
    let (mut device, _) = connect(&bench, resume_5("d")).await;
    device.send(&publish("cloud/a", 2, Some(1))).await;
    device.expect_ack(1, OK).await;
    drop(device);
    let short = Connect {
        clean_start: false,
        ..connect_5("d")
    };
    let (mut device, connack) = connect(&bench, short).await;
    assert!(connack.session_present);
    device.ping().await;
    let (directory, setup) = bench.kill();
    let bench = Bench::start_in(directory, setup).await;
    let (mut device, connack) = connect(&bench, resume_5("d")).await;
    assert!(!connack.session_present);
    device.send(&publish("cloud/a", 2, Some(1))).await;
    device.expect_ack(1, OK).await;
    assert_eq!(bench.records().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_present_says_the_truth() {
    let bench = Bench::new().await;
    assert!(!connect(&bench, resume_5("d")).await.1.session_present);
    assert!(connect(&bench, resume_5("d")).await.1.session_present);
    assert!(!connect(&bench, clean(resume_5("d"))).await.1.session_present);
    let (mut device, _) = connect(&bench, resume_5("d")).await;
    // It may not be made to live longer from nothing.
    let (mut short, _) = connect(&bench, connect_5("short")).await;
    let mut disconnect = Disconnect::new(OK);
    disconnect.properties.session_expiry = Some(10);
    short.send(&Packet::Disconnect(disconnect)).await;
    short.expect_end(ReasonCode::PROTOCOL_ERROR).await;
    // But to end now.
    let mut disconnect = Disconnect::new(OK);
    disconnect.properties.session_expiry = Some(0);
    device.send(&Packet::Disconnect(disconnect)).await;
    assert_eq!(device.receive().await, None);
    assert!(!connect(&bench, resume_5("d")).await.1.session_present);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_life_is_up() {
    let bench = Bench::new().await;
    let (mut device, _) = connect(&bench, resume_5("d")).await;
    device.send(&Packet::Disconnect(Disconnect::new(OK))).await;
    assert_eq!(device.receive().await, None);
    until("it is known that the device left", || {
        bench.view.stats().clean_disconnects.load(std::sync::atomic::Ordering::Relaxed) == 1
    })
    .await;
    bench.setup.clock.advance(Duration::from_secs(3601));
    until("the session is swept", || bench.view.sessions() == 0).await;
    assert!(!connect(&bench, resume_5("d")).await.1.session_present);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pubrel_of_an_unknown_id_is_answered_so() {
    let bench = Bench::new().await;
    let (mut device, _) = connect(&bench, connect_5("d5")).await;
    device.send(&pubrel(5)).await;
    device.expect_ack(5, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND).await;
    let (mut device, _) = connect(&bench, connect_311("d3")).await;
    device.send(&pubrel(5)).await;
    device.expect_ack(5, OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_waits_for_what_the_old_connection_appended() {
    let bench = Bench::new().await;
    for start in [resume_5("d5"), resume_311("d3")] {
        let (mut old, _) = connect(&bench, start.clone()).await;
        bench.hold_commits().await;
        old.send(&publish("cloud/a", 2, Some(1))).await;
        old.ping().await;
        let mut new = Client::opened(bench.address(), start.version).await;
        new.send(&Packet::Connect(Box::new(start.clone()))).await;
        // The old one is told at once that it ends; nothing of it is acked yet, and the new one has no CONNACK.
        let early = tokio::time::timeout(Duration::from_millis(100), new.receive()).await;
        assert!(early.is_err(), "{early:?}");
        bench.gate.open();
        old.expect_ack(1, OK).await;
        old.expect_end(ReasonCode::SESSION_TAKEN_OVER).await;
        assert!(new.connack().await.session_present);
        new.send(&publish("cloud/a", 2, Some(1))).await;
        new.expect_ack(1, OK).await;
    }
    assert_eq!(bench.records().await.len(), 2, "the new connection knew the ids");
    until("both takeovers are counted", || {
        bench.view.stats().disconnected(Disconnection::TakenOver) == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_does_not_keep_its_session_from_the_next_connection() {
    let bench = Bench::new().await;
    let (mut dead, _) = connect(&bench, connect_5("d")).await;
    dead.subscribe(1, "here/#").await;
    // It never reads again; its socket fills up until deliveries are dropped.
    let (mut talker, _) = connect(&bench, connect_5("talker")).await;
    let Packet::Publish(mut message) = publish("here/x", 0, None) else {
        unreachable!()
    };
    message.payload = vec![0; 100_000].into();
    let message = Packet::Publish(message);
    while bench.view.stats().fanout_dropped.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        talker.send(&message).await;
        talker.ping().await;
    }
    let began = Instant::now();
    connect(&bench, connect_5("d")).await;
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_id_under_two_identities_is_two_sessions() {
    let bench = Bench::start(Setup {
        identities: vec!["first", "second"],
        ..Setup::default()
    })
    .await;
    let mut first = Client::connected(bench.addresses[0], resume_5("d")).await;
    let (_second, connack) = Client::connect(bench.addresses[1], resume_5("d")).await;
    assert!(!connack.session_present);
    first.ping().await;
    assert_eq!(bench.view.sessions(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_for_one_and_a_half_keep_alives_ends_a_connection_and_zero_means_never() {
    let bench = Bench::new().await;
    let keep_alive = |keep_alive, connect| Connect { keep_alive, ..connect };
    let (mut patient, _) = connect(&bench, keep_alive(0, connect_311("patient"))).await;
    let mut silent = Vec::new();
    for start in [connect_5("d5"), connect_311("d3")] {
        silent.push(connect(&bench, keep_alive(1, start)).await.0);
    }
    let began = Instant::now();
    for client in &mut silent {
        client.expect_end(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
        assert!(began.elapsed() >= Duration::from_millis(1300), "after {:?}", began.elapsed());
    }
    patient.ping().await;
    until("both are counted", || {
        bench.view.stats().disconnected(Disconnection::KeepAlive) == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_keep_alive_is_said_and_kept() {
    let mut setup = Setup::default();
    setup.limits.max_keep_alive = Duration::from_secs(1);
    let bench = Bench::start(setup).await;
    for keep_alive in [0, 60] {
        let start = Connect {
            keep_alive,
            ..connect_5("d5")
        };
        let (mut device, connack) = connect(&bench, start).await;
        assert_eq!(connack.properties.server_keep_alive, Some(1));
        device.expect_end(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
    }
    let within_it = Connect {
        keep_alive: 1,
        ..connect_5("d5")
    };
    assert_eq!(connect(&bench, within_it).await.1.properties.server_keep_alive, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_published_when_its_device_is_lost_and_only_then() {
    let bench = Bench::new().await;
    let (mut watcher, _) = connect(&bench, connect_5("watcher")).await;
    watcher.subscribe(1, "+/will/#").await;
    let start = |name: &str, base: fn(&str) -> Connect, qos| with_will(base(name), will(&format!("cloud/will/{name}"), qos, None));
    // Its own DISCONNECT: none.
    for base in [connect_5 as fn(&str) -> Connect, connect_311] {
        let (mut device, _) = connect(&bench, start("leaves", base, 1)).await;
        device.send(&Packet::Disconnect(Disconnect::new(OK))).await;
        assert_eq!(device.receive().await, None);
    }
    // The line breaks.
    for (name, base, qos) in [
        ("lost5", connect_5 as fn(&str) -> Connect, 2),
        ("lost3", connect_311, 1),
        ("lost0", connect_311, 0),
    ] {
        drop(connect(&bench, start(name, base, qos)).await);
        assert_eq!(watcher.text().await, (format!("cloud/will/{name}"), "gone".to_owned()));
    }
    // It asks for it.
    let (mut device, _) = connect(&bench, start("asks", connect_5, 1)).await;
    device
        .send(&Packet::Disconnect(Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL)))
        .await;
    assert_eq!(watcher.text().await.0, "cloud/will/asks");
    // Taken over; before the new one has its CONNACK.
    let (_old, _) = connect(&bench, start("taken", connect_311, 1)).await;
    connect(&bench, connect_311("taken")).await;
    assert_eq!(watcher.text().await.0, "cloud/will/taken");
    // A publish without a route goes to local subscribers only.
    drop(connect(&bench, with_will(connect_5("local"), will("here/will/local", 1, None))).await);
    assert_eq!(watcher.text().await.0, "here/will/local");
    let stored: Vec<_> = bench.records().await.into_iter().map(|record| record.topic).collect();
    let expected = ["lost5", "lost3", "lost0", "asks", "taken"].map(|name| format!("cloud/will/{name}"));
    assert_eq!(stored, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_will_waits_for_the_device_to_come_back() {
    let bench = Bench::new().await;
    let (mut watcher, _) = connect(&bench, connect_5("watcher")).await;
    watcher.subscribe(1, "here/#").await;
    let start = |name: &str, delay| with_will(resume_5(name), will(&format!("here/{name}"), 1, Some(delay)));
    // Comes back in time: none.
    drop(connect(&bench, start("back", 600)).await);
    assert!(connect(&bench, resume_5("back")).await.1.session_present);
    // Comes back with a clean start: its session has ended, so the will is due.
    drop(connect(&bench, start("anew", 600)).await);
    until("the device is known to be lost", || {
        bench.view.stats().disconnected(Disconnection::ConnectionLost) >= 2
    })
    .await;
    connect(&bench, clean(resume_5("anew"))).await;
    assert_eq!(watcher.text().await.0, "here/anew");
    // Does not come back.
    let began = Instant::now();
    drop(connect(&bench, start("late", 1)).await);
    assert_eq!(watcher.text().await.0, "here/late");
    assert!(began.elapsed() >= Duration::from_millis(900));
    // A session without a life of its own ends at once, and so does the delay.
    drop(connect(&bench, with_will(connect_5("short"), will("here/short", 1, Some(600)))).await);
    assert_eq!(watcher.text().await.0, "here/short");
}

/// The topics of wills in the log, in its order.
async fn wills(bench: &Bench) -> Vec<String> {
    let records = bench.records().await;
    records.into_iter().map(|record| record.topic.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn d14_after_a_kill_the_wills_of_those_that_were_connected_are_published_once() {
    let bench = Bench::new().await;
    let start = |name: &str, base: fn(&str) -> Connect, delay| with_will(base(name), will(&format!("cloud/{name}"), 1, delay));
    let mut stays = Vec::new();
    for connecting in [
        start("clean5", connect_5, None),
        start("clean3", connect_311, None),
        start("resumes5", resume_5, None),
        start("resumes3", resume_311, None),
        // Its session ends with the connection, and so does the delay.
        start("clean-late", connect_5, Some(600)),
        start("late", resume_5, Some(600)),
        start("back", resume_5, Some(600)),
    ] {
        stays.push(connect(&bench, connecting).await.0);
    }
    let (mut leaves, _) = connect(&bench, start("leaves", connect_5, None)).await;
    leaves.send(&Packet::Disconnect(Disconnect::default())).await;
    let (mut leaves_too, _) = connect(&bench, start("leaves-too", resume_5, Some(600))).await;
    leaves_too.send(&Packet::Disconnect(Disconnect::default())).await;
    bench
        .until("both have left", |view| {
            view.stats().clean_disconnects.load(std::sync::atomic::Ordering::Relaxed) == 2
        })
        .await;
    // What they left is committed before what is acked now.
    stays[0].send(&publish("cloud/last", 1, Some(1))).await;
    stays[0].expect_ack(1, OK).await;
    let (directory, setup) = bench.kill();
    drop(stays);

    let bench = Bench::start_in(directory, setup).await;
    let due = [
        "cloud/last",
        "cloud/clean5",
        "cloud/clean3",
        "cloud/resumes5",
        "cloud/resumes3",
        "cloud/clean-late",
    ];
    within("the wills are published", async {
        while wills(&bench).await.len() < due.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // One is back in time, the other waits.
    assert!(connect(&bench, resume_5("back")).await.1.session_present);
    let sorted = |mut topics: Vec<String>| {
        topics.sort();
        topics
    };
    let expected = sorted(due.map(str::to_owned).to_vec());
    assert_eq!(sorted(wills(&bench).await), expected);
    // And none is published again by the next starts.
    let (directory, setup, _) = bench.stop().await;
    setup.clock.advance(Duration::from_secs(700));
    let bench = Bench::start_in(directory, setup).await;
    within("the delay is over", async {
        while wills(&bench).await.len() < due.len() + 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (directory, setup) = bench.kill();
    let bench = Bench::start_in(directory, setup).await;
    connect(&bench, connect_5("anyone")).await.0.ping().await;
    let mut expected = expected;
    expected.push("cloud/late".to_owned());
    assert_eq!(sorted(wills(&bench).await), sorted(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn d13_a_will_waits_its_delay_across_an_orderly_restart_and_a_resumed_session_cancels_it() {
    let bench = Bench::new().await;
    let start = |name: &str| with_will(resume_5(name), will(&format!("cloud/{name}"), 1, Some(600)));
    for name in ["back", "gone", "anew"] {
        drop(connect(&bench, start(name)).await);
    }
    // This one is connected when the gateway stops: that is the beginning of its delay.
    let (connected, _) = connect(&bench, start("connected")).await;
    until("three are known to be lost", || {
        bench.view.stats().disconnected(Disconnection::ConnectionLost) >= 3
    })
    .await;
    let (directory, setup, _) = bench.stop().await;
    drop(connected);
    setup.clock.advance(Duration::from_secs(300));
    let bench = Bench::start_in(directory, setup).await;
    assert!(connect(&bench, resume_5("back")).await.1.session_present);
    assert!(wills(&bench).await.is_empty(), "none is due");
    // Its session ends, so it is due.
    connect(&bench, clean(resume_5("anew"))).await;
    within("it is published", async {
        while wills(&bench).await != ["cloud/anew"] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (directory, setup, _) = bench.stop().await;
    setup.clock.advance(Duration::from_secs(301));
    let bench = Bench::start_in(directory, setup).await;
    within("both are published", async {
        while wills(&bench).await.len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut published = wills(&bench).await;
    published.sort();
    assert_eq!(published, ["cloud/anew", "cloud/connected", "cloud/gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn d14_a_dropped_session_ends_at_once_with_its_connection_and_its_will_is_published() {
    let bench = Bench::new().await;
    let (mut watcher, _) = connect(&bench, connect_5("watcher")).await;
    watcher.subscribe(1, "here/#").await;
    let start = |name: &str, base: fn(&str) -> Connect| with_will(base(name), will(&format!("here/{name}"), 1, Some(600)));
    for (name, base) in [("clean", connect_5 as fn(&str) -> Connect), ("lasts", resume_5)] {
        let (mut client, _) = connect(&bench, start(name, base)).await;
        assert!(bench.view.drop_session(name, name).await);
        client.expect_end(ReasonCode::ADMINISTRATIVE_ACTION).await;
        assert_eq!(watcher.text().await.0, format!("here/{name}"));
        assert_eq!(bench.view.session(name, name), None);
    }
    drop(connect(&bench, start("away", resume_5)).await);
    until("it is known to be lost", || {
        bench.view.session("away", "away").is_some_and(|session| session.absent.is_some())
    })
    .await;
    assert!(bench.view.drop_session("away", "away").await);
    assert_eq!(watcher.text().await.0, "here/away");
    assert!(!bench.view.drop_session("away", "away").await);
    // Another device's client of that name is another session.
    assert!(!bench.view.drop_session("watcher", "other").await);
    assert!(!connect(&bench, resume_5("away")).await.1.session_present);
    watcher.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_client_id_gets_one_or_is_refused() {
    let bench = Bench::start(Setup {
        identities: vec!["fixed"],
        ..Setup::default()
    })
    .await;
    let (_, connack) = Client::connect(bench.address(), connect_5("")).await;
    let assigned = connack.properties.assigned_client_id.unwrap();
    assert!(assigned.as_str().starts_with("forebay-"), "{assigned:?}");
    let (_, connack) = Client::connect(bench.address(), connect_311("")).await;
    assert_eq!(connack.code, OK);
    let (mut refused, connack) = Client::connect(bench.address(), resume_311("")).await;
    assert_eq!(connack.code, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
    assert_eq!(refused.receive().await, None);
    let long = Connect {
        client_id: Text::from("x".repeat(257)),
        ..connect_5("")
    };
    assert_eq!(
        Client::connect(bench.address(), long).await.1.code,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID
    );
    until("both are counted", || {
        bench.view.stats().disconnected(Disconnection::BadClientId) == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_acks_what_was_appended_says_why_and_is_quick() {
    let bench = Bench::new().await;
    let (mut five, _) = connect(&bench, resume_5("d5")).await;
    let (mut three, _) = connect(&bench, resume_311("d3")).await;
    let mut silent = Client::opened(bench.address(), Version::V5).await;
    bench.hold_commits().await;
    for device in [&mut five, &mut three] {
        for packet_id in 1..=50 {
            device.send(&publish("cloud/a", 1, Some(packet_id))).await;
        }
        device.ping().await;
    }
    let gate = std::sync::Arc::clone(&bench.gate);
    let (stopped, ()) = tokio::join!(bench.stop(), async {
        gate.open();
        for device in [&mut five, &mut three] {
            for packet_id in 1..=50 {
                device.expect_ack(packet_id, OK).await;
            }
            device.expect_end(ReasonCode::SERVER_SHUTTING_DOWN).await;
        }
        assert_eq!(within("the silent peer is closed", silent.receive()).await, None);
    });
    let (directory, setup, took) = stopped;
    assert!(took < Duration::from_secs(5), "took {took:?}");
    assert!(state_file(&directory).exists());
    let bench = Bench::start_in(directory, setup).await;
    assert_eq!(bench.records().await.len(), 100);
    assert!(connect(&bench, resume_5("d5")).await.1.session_present);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_may_claim_the_fixed_word_of_another_listener() {
    let bench = Bench::start(Setup {
        identities: vec!["{client_id}", "local"],
        ..Setup::default()
    })
    .await;
    let (_, connack) = Client::connect(bench.address(), connect_5("local")).await;
    assert_eq!(connack.code, ReasonCode::NOT_AUTHORIZED);
    until("the refusal is counted by its reason", || {
        bench.view.stats().disconnected(Disconnection::BadIdentity) == 1
    })
    .await;
    Client::connected(bench.address(), connect_5("locals")).await;
    Client::connected(bench.addresses[1], connect_5("whoever")).await;
}
