//! What peers leave behind: each bound reached, others unharmed, and all of it given back.
#![allow(clippy::unwrap_used)]

mod support;

use std::num::NonZeroU16;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_broker::codec::{Connect, ConnectProperties, Packet, Publish, PublishProperties, ReasonCode, Text, Version, Will};
use forebay_broker::{Bound, BoundStatus, Disconnection, Limits, View};
use support::{Bench, Certificates, Client, Setup, connect_5, connect_311, publish, rule, until, will, within};
use tokio::task::JoinSet;

const OK: ReasonCode = ReasonCode::SUCCESS;

fn status(view: &View, bound: Bound) -> BoundStatus {
    let all = view.budget().status();
    all.into_iter().find(|status| status.bound == bound).unwrap()
}

fn taken(view: &View, bound: Bound) -> u64 {
    status(view, bound).taken.unwrap().0
}

async fn nobody_is_connected(bench: &Bench) {
    until("all connections have ended", || {
        bench.view.stats().connected.load(Ordering::Relaxed) == 0 && taken(&bench.view, Bound::Connections) == 0
    })
    .await;
}

/// For each share, on each version: the share is reached, one more is refused, a takeover is not, others are unharmed, and a
/// place that is given back is taken again.
#[tokio::test(flavor = "multi_thread")]
async fn a10_an_identity_has_its_connections_and_may_take_over_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates::made_in(folder.path());
    for (most, connect) in [(1, connect_5 as fn(&str) -> Connect), (4, connect_5), (3, connect_311)] {
        let mut few = rule("greedy", &["#"], &["#"], &[]);
        few.max_connections = most;
        let bench = Bench::start(Setup {
            identities: vec!["{cn}"],
            tls: Some(made.server()),
            rules: vec![few, rule("*", &["#"], &["#"], &[])],
            ..Setup::default()
        })
        .await;
        let open = async |name: &str, client_id: &str| {
            let connect = connect(client_id);
            let mut client = made.client(name, &bench, connect.version).await;
            client.send(&Packet::Connect(Box::new(connect))).await;
            let code = client.connack().await.code;
            (client, code)
        };
        let mut clients = Vec::new();
        for number in 0..most {
            let (client, code) = open("greedy", &number.to_string()).await;
            assert_eq!(code, OK);
            clients.push(client);
        }
        for more in 0..3 {
            let (mut client, code) = open("greedy", &format!("more-{more}")).await;
            assert!(code.is_error(), "{code}");
            assert!(client.version == Version::V311 || code == ReasonCode::QUOTA_EXCEEDED, "{code}");
            assert_eq!(client.receive().await, None);
        }
        let reached = status(&bench.view, Bound::Connections);
        let lasting = reached.lasting.unwrap();
        assert_eq!((reached.reached, lasting.limit, lasting.is_share), (3, u64::from(most), true));
        assert_eq!(lasting.last, "`greedy`");
        assert_eq!(bench.view.sessions(), most as usize, "a refused client leaves no session");
        open("modest", "0").await.0.ping().await;
        // A device whose network dropped its connection without a word comes back at once.
        let (mut again, code) = open("greedy", "0").await;
        assert_eq!(code, OK);
        again.ping().await;
        drop((again, clients));
        nobody_is_connected(&bench).await;
        let (_, code) = open("greedy", "later").await;
        assert_eq!(code, OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_tenth_of_the_connections_is_there_for_a_fixed_word_alone() {
    for most in [1, 10, 25] {
        let bench = Bench::start(Setup {
            identities: vec!["{client_id}", "local"],
            limits: Limits {
                max_connections: most,
                ..Limits::default()
            },
            ..Setup::default()
        })
        .await;
        let reserve = most.div_ceil(10);
        let open = async |listener: usize, count: usize| {
            let mut clients = Vec::new();
            for number in 0..count {
                clients.push(Client::connected(bench.addresses[listener], connect_5(&number.to_string())).await);
            }
            clients
        };
        let is_closed = async |listener: usize| {
            let mut refused = Client::opened(bench.addresses[listener], Version::V5).await;
            refused.receive().await.is_none()
        };
        let devices = open(0, most).await;
        assert!(is_closed(0).await);
        let local = open(1, reserve).await;
        assert!(is_closed(1).await && is_closed(0).await);
        assert_eq!(status(&bench.view, Bound::Connections).reached, 3);
        drop((devices, local));
        nobody_is_connected(&bench).await;
        // The share of an identity does not bind it.
        let local = open(1, most + reserve).await;
        assert!(is_closed(1).await);
        drop(local);
        nobody_is_connected(&bench).await;
    }
}

fn aliased(alias: u16, topic: &str) -> Packet {
    Packet::Publish(Publish {
        topic: Text::from(topic.to_owned()),
        properties: PublishProperties {
            topic_alias: NonZeroU16::new(alias),
            ..PublishProperties::default()
        },
        ..Publish::default()
    })
}

/// Aliases of many connections, of short topics and long ones, set once or again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a10_aliases_of_all_connections_stay_within_their_bound_and_are_given_back() {
    for (length, again) in [(20, 1), (20, 5), (300, 2), (1000, 1)] {
        let bench = Bench::start(Setup {
            limits: Limits {
                max_alias_bytes: 40_000,
                ..Limits::default()
            },
            ..Setup::default()
        })
        .await;
        let topic = |round: usize| format!("here/{}", "x".repeat(length - round));
        let mut clients = Vec::new();
        let mut full = None;
        for number in 0..100 {
            let (mut client, connack) = Client::connect(bench.address(), connect_5(&format!("d{number}"))).await;
            if connack.properties.topic_alias_maximum == Some(0) {
                full = Some(number);
                // Without aliases it works as ever.
                client.send(&publish("here/x", 1, Some(1))).await;
                client.expect_ack(1, OK).await;
                break;
            }
            for round in 0..again {
                for alias in 1..=32 {
                    client.send(&aliased(alias, &topic(round))).await;
                }
            }
            client.ping().await;
            let of_one = (32 * (64 + topic(again - 1).len())) as u64;
            assert_eq!(
                taken(&bench.view, Bound::AliasBytes),
                of_one * (number + 1),
                "set again, an alias counts once"
            );
            clients.push(client);
        }
        let full = full.expect("aliases are still granted");
        assert!(full > 0, "one connection alone takes half of the bound");
        drop(clients);
        until("aliases are free", || taken(&bench.view, Bound::AliasBytes) == 0).await;
        // All of these are granted some before the first uses any.
        let (mut ended, mut late) = (0, Vec::new());
        for number in 0..60 {
            late.push(Client::connected(bench.address(), connect_5(&format!("e{number}"))).await);
        }
        for client in &mut late {
            for alias in 1..=32 {
                if !client.try_send(&aliased(alias, &"y".repeat(1000))).await {
                    break;
                }
            }
            if client.try_send(&Packet::PingReq).await {
                match client.receive().await {
                    Some(Packet::PingResp) => {}
                    Some(Packet::Disconnect(disconnect)) => {
                        assert_eq!(disconnect.reason, ReasonCode::QUOTA_EXCEEDED);
                        ended += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(taken(&bench.view, Bound::AliasBytes) <= 40_000);
        }
        assert!(ended > 0, "{length} {again}");
        drop(late);
        nobody_is_connected(&bench).await;
        assert!(bench.view.stats().disconnected(Disconnection::OverBudget) >= ended);
        assert_eq!(taken(&bench.view, Bound::AliasBytes), 0);
    }
}

/// Subscribers that read nothing, of several message sizes: what waits for them is bounded in all, a device gets its acks, a
/// local subscriber its messages, and everything is given back.
#[tokio::test(flavor = "multi_thread")]
async fn a10_what_peers_do_not_read_stays_within_its_bound_and_is_given_back() {
    const MOST: u64 = 256 << 10;
    for size in [100, 20_000, 100_000] {
        let bench = Bench::start(Setup {
            identities: vec!["{client_id}", "local"],
            limits: Limits {
                max_output_bytes: MOST as usize,
                ..Limits::default()
            },
            ..Setup::default()
        })
        .await;
        let mut deaf = Vec::new();
        for number in 0..3 {
            let mut client = Client::connected(bench.address(), connect_5(&format!("deaf-{number}"))).await;
            client.subscribe(1, "here/bulk").await;
            deaf.push(client);
        }
        let mut local = Client::connected(bench.addresses[1], connect_5("local")).await;
        local.subscribe(1, "here/small").await;
        let mut device = Client::connected(bench.address(), connect_5("device")).await;
        let bulk = Packet::Publish(Publish {
            topic: Text::from_static("here/bulk"),
            payload: Bytes::from(vec![7; size]),
            ..Publish::default()
        });
        let mut rounds = 0;
        while status(&bench.view, Bound::OutputBytes).reached == 0 {
            rounds += 1;
            assert!(rounds < 500, "what waits is not bounded");
            // As much at a time for each size.
            for _ in 0..(400_000 / size).min(500) {
                device.send(&bulk).await;
            }
            device.ping().await;
            assert!(taken(&bench.view, Bound::OutputBytes) <= MOST);
        }
        assert!(bench.view.stats().fanout_dropped.load(Ordering::Relaxed) > 0);
        for packet_id in 1..=20 {
            device.send(&publish("here/small", 1, Some(packet_id))).await;
            device.expect_ack(packet_id, OK).await;
            assert_eq!(local.text().await.1, packet_id.to_string());
        }
        drop(deaf);
        until("what waited for them is given back", || taken(&bench.view, Bound::OutputBytes) == 0).await;
        let mut again = Client::connected(bench.address(), connect_5("again")).await;
        again.subscribe(1, "here/bulk").await;
        device.send(&bulk).await;
        assert_eq!(again.message().await.payload.len(), size);
    }
}

/// Devices that each take longer than others are patient for, all from one address and at once, with fewer places than devices;
/// and silent peers that hold all places.
#[tokio::test(flavor = "multi_thread")]
async fn a8_slow_devices_from_one_address_all_get_in_and_silent_peers_give_way() {
    let bench = Bench::start(Setup {
        limits: Limits {
            max_pending: 100,
            ..Limits::default()
        },
        ..Setup::default()
    })
    .await;
    let mut joined = JoinSet::new();
    for number in 0..300 {
        let address = bench.address();
        joined.spawn(async move {
            let mut tries = 0;
            loop {
                tries += 1;
                let mut client = Client::opened(address, Version::V5).await;
                let pace = tokio::time::timeout(Duration::from_millis(600), client.receive()).await;
                // Closed before it said anything: it comes back.
                let is_there = pace.is_err() && client.try_send(&Packet::Connect(Box::new(connect_5(&format!("d{number}"))))).await;
                if is_there && let Some(Packet::ConnAck(connack)) = client.receive().await {
                    assert_eq!(connack.code, OK);
                    return (client, tries);
                }
                assert!(tries < 100, "d{number} does not get in");
                // It comes back a little later, as devices do.
                tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>())
                    .await
                    .ok();
            }
        });
    }
    let clients = within("all get in", joined.join_all()).await;
    assert_eq!(clients.len(), 300);
    assert_eq!(bench.view.stats().disconnected(Disconnection::Evicted), 0, "none of them gave way");
    drop(clients);
    nobody_is_connected(&bench).await;

    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Client::opened(bench.address(), Version::V5).await);
    }
    let (mut device, connack) = within("a silent peer gives way", Client::connect(bench.address(), connect_5("d"))).await;
    assert_eq!(connack.code, OK);
    device.ping().await;
    assert!(bench.view.stats().disconnected(Disconnection::Evicted) > 0);
    let pending = status(&bench.view, Bound::Pending);
    assert!(
        pending
            .lasting
            .is_some_and(|lasting| lasting.limit == 100 && lasting.last == "127.0.0.1")
    );
}

fn large(id: u16, bytes: usize) -> Packet {
    let Packet::Publish(small) = publish("here/large", 1, Some(id)) else {
        unreachable!()
    };
    Packet::Publish(Publish {
        payload: vec![7; bytes].into(),
        ..small
    })
}

/// The first half of a large packet from each of many peers, before CONNECT and after: what they take stays within the bound,
/// small packets are taken as ever, and so is a large one of another device, because silent peers give way.
#[tokio::test(flavor = "multi_thread")]
async fn halves_of_packets_stay_within_their_bound_and_keep_no_whole_packet_out() {
    const MOST: u64 = 512 << 10;
    for (count, size, is_connect) in [(5, 120_000, false), (60, 20_000, false), (60, 60_000, true)] {
        let bench = Bench::start(Setup {
            limits: Limits {
                max_input_bytes: MOST as usize,
                ..Limits::default()
            },
            ..Setup::default()
        })
        .await;
        let mut halves = Vec::new();
        for number in 0..count {
            let half = if is_connect {
                let mut half = Client::opened(bench.address(), Version::V5).await;
                let will = Will {
                    payload: vec![7; size].into(),
                    ..will("here/will", 1, None)
                };
                let connect = Connect {
                    will: Some(will),
                    ..connect_5(&format!("h{number}"))
                };
                half.begin(&Packet::Connect(Box::new(connect)), 30_000).await;
                half
            } else {
                let mut half = Client::connected(bench.address(), connect_5(&format!("h{number}"))).await;
                half.begin(&large(1, size), size / 2).await;
                half
            };
            halves.push(half);
        }
        until("some are not read on", || status(&bench.view, Bound::InputBytes).reached > 0).await;
        let within_bound = || taken(&bench.view, Bound::InputBytes) <= MOST;
        let mut device = Client::connected(bench.address(), connect_5("device")).await;
        for id in 1..=20 {
            device.send(&publish("here/small", 1, Some(id))).await;
            device.expect_ack(id, OK).await;
            assert!(within_bound());
        }
        if is_connect {
            // Their address has a share; a device has one of its own.
            device.send(&large(21, 120_000)).await;
            device.expect_ack(21, OK).await;
        } else if size > 100_000 {
            within("those that are silent give way", async {
                device.send(&large(21, 120_000)).await;
                device.expect_ack(21, OK).await;
            })
            .await;
            assert!(bench.view.stats().disconnected(Disconnection::OverBudget) > 0);
        }
        assert!(within_bound());
        drop((halves, device));
        nobody_is_connected(&bench).await;
        until("all is given back", || taken(&bench.view, Bound::InputBytes) == 0).await;
    }
}

/// Beginnings of a TLS ClientHello of 60,000 bytes, in records of several sizes, from nobody in particular.
#[tokio::test(flavor = "multi_thread")]
async fn halves_of_handshakes_stay_within_their_bound_and_keep_no_device_out() {
    const MOST: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates::made_in(folder.path());
    for (record, sent) in [(16_000, 50_000), (500, 30_000)] {
        let bench = Bench::start(Setup {
            identities: vec!["{cn}"],
            tls: Some(made.server()),
            limits: Limits {
                max_input_bytes: MOST as usize,
                ..Limits::default()
            },
            ..Setup::default()
        })
        .await;
        let mut hello = vec![1, 0, 0xea, 0x60, 3, 3];
        hello.resize(sent, 7);
        let mut bytes = Vec::new();
        for part in hello.chunks(record) {
            bytes.extend([0x16, 3, 1]);
            bytes.extend((part.len() as u16).to_be_bytes());
            bytes.extend(part);
        }
        let mut halves = Vec::new();
        for _ in 0..60 {
            let mut half = Client::opened(bench.address(), Version::V5).await;
            assert!(half.send_raw(&bytes).await);
            halves.push(half);
        }
        until("some are not read on", || status(&bench.view, Bound::InputBytes).reached > 0).await;
        assert!(taken(&bench.view, Bound::InputBytes) <= MOST);
        // A handshake of an ordinary size needs no room, from the same address either.
        let began = Instant::now();
        let mut device = made.client("device", &bench, Version::V5).await;
        device.send(&Packet::Connect(Box::new(connect_5("device")))).await;
        assert_eq!(device.connack().await.code, OK);
        assert!(began.elapsed() < Duration::from_secs(10), "none of the halves has given way yet");
        // What needs some gets it when the silent ones have given way.
        device.send(&large(1, 40_000)).await;
        device.expect_ack(1, OK).await;
        drop((halves, device));
        nobody_is_connected(&bench).await;
        until("all is given back", || taken(&bench.view, Bound::InputBytes) == 0).await;
    }
}

/// Large packets that go on are taken, all of them, however little room there is.
#[tokio::test(flavor = "multi_thread")]
async fn large_packets_that_go_on_are_all_taken_in_turn() {
    let bench = Bench::start(Setup {
        limits: Limits {
            max_input_bytes: 200_000,
            ..Limits::default()
        },
        ..Setup::default()
    })
    .await;
    let mut devices = JoinSet::new();
    for number in 0..20 {
        let address = bench.address();
        devices.spawn(async move {
            let mut device = Client::connected(address, connect_5(&format!("d{number}"))).await;
            for id in 1..=5 {
                device.send(&large(id, 120_000)).await;
                device.expect_ack(id, OK).await;
            }
        });
    }
    while let Some(done) = devices.join_next().await {
        done.unwrap();
    }
    assert_eq!(bench.view.stats().disconnected(Disconnection::OverBudget), 0);
}

/// Wills of several sizes whose devices go and leave them to wait for a day: one identity comes to its share, others to the
/// whole, a device without a will connects as ever, and each will that is published or not needed gives its bytes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_wills_that_wait_stay_within_their_bound_and_are_given_back() {
    const MOST: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates::made_in(folder.path());
    for (size, is_one) in [(0, true), (60_000, true), (60_000, false), (5_000, false)] {
        let mut setup = Setup {
            limits: Limits {
                max_will_bytes: MOST as usize,
                ..Limits::default()
            },
            ..Setup::default()
        };
        if is_one {
            (setup.identities, setup.tls) = (vec!["{cn}"], Some(made.server()));
        }
        let bench = Bench::start(setup).await;
        let connect = async |connect: Connect| {
            let mut client = match is_one {
                true => made.client("greedy", &bench, connect.version).await,
                false => Client::opened(bench.address(), connect.version).await,
            };
            client.send(&Packet::Connect(Box::new(connect))).await;
            let code = client.connack().await.code;
            (client, code)
        };
        let start = |number: usize, payload: Option<usize>| Connect {
            clean_start: false,
            will: payload.map(|size| Will {
                payload: vec![7; size].into(),
                ..will("here/will", 1, Some(86_400))
            }),
            properties: ConnectProperties {
                session_expiry: Some(86_400),
                ..ConnectProperties::default()
            },
            ..connect_5(&format!("w{number}"))
        };
        let mut kept = 0;
        let refused = loop {
            let (client, code) = connect(start(kept, Some(size))).await;
            drop(client);
            nobody_is_connected(&bench).await;
            if code.is_error() {
                break code;
            }
            kept += 1;
            assert!((kept * (size + 1000)) as u64 <= 2 * MOST, "{kept} wills of {size} bytes are kept");
            assert!(taken(&bench.view, Bound::WillBytes) <= MOST);
        };
        assert_eq!((refused, kept > 0), (ReasonCode::QUOTA_EXCEEDED, true));
        assert_eq!(connect(connect_5("without")).await.1, OK);
        nobody_is_connected(&bench).await;
        let before = taken(&bench.view, Bound::WillBytes);
        let reached = status(&bench.view, Bound::WillBytes);
        assert_eq!((reached.reached, reached.lasting.unwrap().is_share), (1, is_one), "{size}");
        // Back, and gone in peace: its will is not needed.
        let (back, code) = connect(start(0, None)).await;
        assert_eq!(code, OK);
        until("its will is given back", || taken(&bench.view, Bound::WillBytes) < before).await;
        drop(back);
        // A session that ends publishes its will.
        for number in 0..kept {
            assert_eq!(connect(connect_5(&format!("w{number}"))).await.1, OK);
            nobody_is_connected(&bench).await;
        }
        until("all are given back", || taken(&bench.view, Bound::WillBytes) == 0).await;
    }
}

/// One identity sends more than all may have uncommitted, over all its connections; the log stands. Another is taken in at once.
#[tokio::test(flavor = "multi_thread")]
async fn a15_what_one_identity_has_uncommitted_leaves_room_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates::made_in(folder.path());
    for size in [2_000, 100_000] {
        let bench = Bench::start(Setup {
            identities: vec!["{cn}"],
            tls: Some(made.server()),
            limits: Limits {
                max_uncommitted_bytes: 1 << 20,
                ..Limits::default()
            },
            ..Setup::default()
        })
        .await;
        let open = async |name: &str, client_id: &str| {
            let mut client = made.client(name, &bench, Version::V5).await;
            client.send(&Packet::Connect(Box::new(connect_5(client_id)))).await;
            assert_eq!(client.connack().await.code, OK);
            client
        };
        let mut greedy = Vec::new();
        for number in 0..4 {
            greedy.push(open("greedy", &number.to_string()).await);
        }
        let mut modest = open("modest", "0").await;
        bench.hold_commits().await;
        let sent = ((2 << 20) / size / 4).min(100) as u16;
        let mut sending = JoinSet::new();
        for mut client in greedy {
            sending.spawn(async move {
                for packet_id in 1..=sent {
                    let Packet::Publish(small) = publish("cloud/greedy", 1, Some(packet_id)) else {
                        unreachable!()
                    };
                    let payload = vec![0; size].into();
                    client.send(&Packet::Publish(Publish { payload, ..small })).await;
                }
                for packet_id in 1..=sent {
                    client.expect_ack(packet_id, OK).await;
                }
            });
        }
        // Each publish counts for some more than its payload.
        until("the greedy one has its share, and waits", || {
            let has = bench.view.uncommitted_bytes();
            assert!(has <= 256 << 10, "{size}: one identity has {has} bytes");
            has + size + 300 > 256 << 10 && status(&bench.view, Bound::UncommittedBytes).reached > 0
        })
        .await;
        let accepted = || bench.view.stats().accepted.load(Ordering::Relaxed);
        let before = accepted();
        modest.send(&publish("cloud/modest", 1, Some(1))).await;
        until("the other is taken in", || accepted() > before).await;
        let lasting = status(&bench.view, Bound::UncommittedBytes).lasting.unwrap();
        assert!(lasting.is_share && lasting.last == "`greedy`", "{lasting:?}");
        bench.gate.open();
        modest.expect_ack(1, OK).await;
        within("the greedy one is served, too", sending.join_all()).await;
        until("all is given back", || taken(&bench.view, Bound::UncommittedBytes) == 0).await;
    }
}
