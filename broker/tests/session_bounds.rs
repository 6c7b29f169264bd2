//! What sessions leave behind, connected or not: bounded for each, for each identity and in all, also over a restart.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_broker::codec::{Connect, Packet, ReasonCode, SubscribeOptions, Version};
use forebay_broker::{Bound, BoundStatus, Disconnection, DroppedSession, Limits, View};
use forebay_wal::{Checkpoint, Offset};
use support::{Bench, Certificates, Client, Setup, connect_5, publish, resume_5, rule, state_file, until};

const OK: ReasonCode = ReasonCode::SUCCESS;
const FULL: ReasonCode = ReasonCode::QUOTA_EXCEEDED;

fn status(view: &View, bound: Bound) -> BoundStatus {
    let all = view.budget().status();
    all.into_iter().find(|status| status.bound == bound).unwrap()
}

fn taken(view: &View) -> u64 {
    status(view, Bound::SessionBytes).taken.unwrap().0
}

/// Subscribes to filters of this length until one is refused, 100 at most; how many were granted.
async fn fill(client: &mut Client, length: usize) -> usize {
    for number in 0..100 {
        let filter = format!("{}/{number}", "f".repeat(length - 4));
        let codes = client
            .subscribe_with(number + 1, &[&filter], SubscribeOptions::default(), None)
            .await;
        if codes == [FULL] {
            return number.into();
        }
        assert_eq!(codes, [OK]);
    }
    100
}

/// Dead sessions of made-up client ids, empty and not: the empty ones make room first, then those that have been away for longest, within their
/// identity's share; other identities are served.
#[tokio::test(flavor = "multi_thread")]
async fn b6_dead_sessions_make_room_the_empty_ones_first_and_an_identity_keeps_to_its_share() {
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates::made_in(folder.path());
    for subscribes in [false, true] {
        let bench = Bench::start(Setup {
            identities: vec!["{cn}"],
            tls: Some(made.server()),
            rules: vec![rule("*", &["#"], &["#"], &[])],
            limits: Limits {
                max_connections: 4,
                ..Limits::default()
            },
            ..Setup::default()
        })
        .await;
        let open = async |name: &str, client_id: &str| {
            let mut client = made.client(name, &bench, Version::V5).await;
            client.send(&Packet::Connect(Box::new(resume_5(client_id)))).await;
            let connack = client.connack().await;
            (client, connack)
        };
        let (mut kept, _) = open("greedy", "kept").await;
        kept.subscribe(1, "here/#").await;
        drop(kept);
        let mut refused = 0;
        for number in 0..40 {
            let (mut client, connack) = open("greedy", &format!("made-up-{number}")).await;
            if connack.code == OK {
                if subscribes {
                    client.subscribe(1, "here/x").await;
                }
                client.send(&Packet::Disconnect(forebay_broker::codec::Disconnect::new(OK))).await;
            } else {
                assert_eq!(connack.code, FULL);
                refused += 1;
            }
            assert_eq!(client.receive().await, None);
            bench.setup.clock.advance(Duration::from_secs(1));
        }
        let dropped = |reason| bench.view.stats().dropped_sessions(reason);
        assert_eq!(
            (refused, dropped(DroppedSession::MadeRoom), dropped(DroppedSession::LongestGone)),
            if subscribes { (0, 0, 33) } else { (0, 33, 0) },
            "8 of 16 are its own"
        );
        assert_eq!(bench.view.sessions(), 8);
        for number in 0..2 {
            let (mut client, connack) = open("modest", &number.to_string()).await;
            assert_eq!(connack.code, OK);
            client.ping().await;
        }
        let (_, connack) = open("greedy", "kept").await;
        assert_eq!(
            connack.session_present, !subscribes,
            "what is empty goes before a session with a subscription"
        );
    }
}

/// Filters of several lengths, sessions that stay and sessions that go: no more than the bound of one, and of all, is ever kept.
#[tokio::test(flavor = "multi_thread")]
async fn a4_sessions_stay_within_their_bytes_also_after_a_restart_and_give_them_back() {
    const ONE: u64 = 8_000;
    const ALL: u64 = 40_000;
    for length in [10, 200, 1000] {
        let setup = Setup {
            limits: Limits {
                max_session_bytes: ONE,
                max_session_pool: ALL as usize,
                ..Limits::default()
            },
            ..Setup::default()
        };
        let bench = Bench::start(setup).await;
        for number in 0..10 {
            let mut client = Client::connected(bench.address(), resume_5(&format!("s{number}"))).await;
            let granted = fill(&mut client, length).await;
            let one = granted as u64 * (160 + length as u64);
            assert!(one <= ONE && taken(&bench.view) <= ALL, "{granted} of {length}");
            assert!(number > 0 || one + 170 + length as u64 > ONE, "{granted} of {length}");
        }
        assert!(status(&bench.view, Bound::OneSessionBytes).reached > 0);
        assert!(status(&bench.view, Bound::SessionBytes).reached > 0);
        // A QoS 2 packet id has no room, and neither has another subscription; QoS 1 needs none.
        let mut full = Client::connected(bench.address(), resume_5("s0")).await;
        full.send(&publish("cloud/x", 1, Some(1))).await;
        full.expect_ack(1, OK).await;
        let before = bench.view.stats().disconnected(Disconnection::OverBudget);
        for id in 2..400 {
            if !full.try_send(&publish("cloud/x", 2, Some(id))).await {
                break;
            }
        }
        until("a packet id too many ends the connection", || {
            bench.view.stats().disconnected(Disconnection::OverBudget) + bench.view.stats().disconnected(Disconnection::ReceiveMaximum)
                > before
        })
        .await;
        drop(full);
        until("it has ended", || {
            bench.view.stats().connected.load(std::sync::atomic::Ordering::Relaxed) == 0
        })
        .await;
        let kept = taken(&bench.view);
        let (directory, setup, _) = bench.stop().await;
        let bench = Bench::start_in(directory, setup).await;
        assert_eq!(taken(&bench.view), kept);
        assert_eq!(bench.view.stats().dropped_sessions(DroppedSession::AtStart), 0);
        // Smaller bounds at the next start: what is over them is dropped, counted, and the gateway runs.
        let (directory, mut setup, _) = bench.stop().await;
        setup.limits.max_session_pool = 10_000;
        setup.limits.max_session_bytes = 2_000;
        let bench = Bench::start_in(directory, setup).await;
        assert!(taken(&bench.view) <= 10_000);
        assert!(bench.view.stats().dropped_sessions(DroppedSession::AtStart) > 0);
        for number in 0..10 {
            let clean = Connect {
                clean_start: true,
                ..connect_5(&format!("s{number}"))
            };
            Client::connected(bench.address(), clean).await.ping().await;
        }
        until("all of it is given back", || taken(&bench.view) == 0).await;
        bench.assert_serves("sessions over their bounds").await;
    }
}

/// A state file of an earlier version with all packet ids of long names: its removal was too large for one record.
#[tokio::test(flavor = "multi_thread")]
async fn a5_a_session_with_all_packet_ids_of_an_earlier_version_is_loaded_and_can_start_clean() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let client_id = "c".repeat(256);
    let old = |tag: u8, parts: &[&[u8]]| {
        let mut key = vec![tag];
        for part in parts {
            key.extend(u16::try_from(part.len()).unwrap().to_le_bytes());
            key.extend(*part);
        }
        key
    };
    let name = client_id.as_bytes();
    let identity = &name[..128];
    let mut writes = vec![
        (old(b's', &[identity, name]), Some(3600_u32.to_le_bytes().to_vec())),
        (old(b'f', &[identity, name, b"here/#"]), Some(vec![0, 0, 0, 0, 0])),
    ];
    for id in 1..=u16::MAX {
        writes.push((old(b'q', &[identity, name, &id.to_le_bytes()]), Some(Vec::new())));
    }
    let checkpoint = Checkpoint::open(&state_file(&directory)).unwrap();
    checkpoint.apply(&writes, Offset(0)).unwrap();
    drop(checkpoint);
    let mut setup = Setup {
        identities: vec!["{client_id}"],
        ..Setup::default()
    };
    // The identity is the client id, and that has 128 bytes at most.
    setup.identities = vec![Box::leak(client_id[..128].to_owned().into_boxed_str())];
    let bench = Bench::start_in(directory, setup).await;
    let dropped = bench.view.stats().dropped_sessions(DroppedSession::AtStart);
    assert_eq!(dropped, u64::from(u16::MAX) - 100, "a hundred are allowed");
    let (mut client, connack) = Client::connect(bench.address(), resume_5(&client_id)).await;
    assert!(connack.session_present);
    client.send(&publish("here/x", 0, None)).await;
    assert_eq!(client.text().await.0, "here/x", "its subscription is restored");
    drop(client);
    let clean = Connect {
        clean_start: true,
        ..resume_5(&client_id)
    };
    let (_, connack) = Client::connect(bench.address(), clean).await;
    assert_eq!((connack.code, connack.session_present), (OK, false));
    let (directory, _, _) = bench.stop().await;
    let mut left: BTreeMap<u8, usize> = BTreeMap::new();
    let checkpoint = Checkpoint::open(&state_file(&directory)).unwrap();
    checkpoint.for_each(|key, _| *left.entry(key[0]).or_default() += 1).unwrap();
    assert_eq!(left, BTreeMap::from([(b's', 1)]), "nothing of it is left but the new session");
}
