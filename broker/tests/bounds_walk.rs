//! The table of bounds, walked: each is reached by what its peers do, counted and told, an ordinary device is served meanwhile,
//! and all that was charged is given back when they are gone.
#![allow(clippy::unwrap_used)]

mod support;

use std::num::NonZeroU16;
use std::sync::atomic::Ordering;

use forebay_broker::codec::{
    Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, ReasonCode, SubscribeOptions, Text, Version,
};
use forebay_broker::{Bound, BoundStatus, Limits, View};
use support::{Bench, Client, Setup, connect_5, connect_311, publish, until, will};

fn status(view: &View, bound: Bound) -> BoundStatus {
    let all = view.budget().status();
    all.into_iter().find(|status| status.bound == bound).unwrap()
}

/// Small bounds, so that each is reached soon; `bound` itself smaller still.
fn limits_for(bound: Bound) -> Limits {
    let limits = Limits::default();
    match bound {
        Bound::Connections => Limits {
            max_connections: 5,
            ..limits
        },
        Bound::Pending => Limits { max_pending: 8, ..limits },
        Bound::Sessions => Limits {
            max_connections: 4,
            ..limits
        },
        Bound::OutputBytes => Limits {
            max_output_bytes: 128 << 10,
            ..limits
        },
        Bound::AliasBytes => Limits {
            max_alias_bytes: 4_000,
            ..limits
        },
        Bound::WillBytes => Limits {
            max_will_bytes: 4_000,
            ..limits
        },
        Bound::InputBytes => Limits {
            max_input_bytes: 200_000,
            ..limits
        },
        Bound::SessionBytes => Limits {
            max_session_pool: 2_000,
            ..limits
        },
        Bound::OwedBytes => Limits {
            max_owed_bytes: 100_000,
            ..limits
        },
        Bound::OneSessionBytes => Limits {
            max_session_bytes: 1_000,
            ..limits
        },
        Bound::InFlight => Limits {
            max_in_flight: 3,
            ..limits
        },
        Bound::UncommittedBytes => Limits {
            max_uncommitted_bytes: 10_000,
            ..limits
        },
        Bound::ParkedBytes => Limits {
            max_parked_bytes: 1_000,
            ..limits
        },
        Bound::Retained => Limits { max_topics: 4, ..limits },
        Bound::RetainedBytes => Limits {
            max_retained_bytes: 100,
            ..limits
        },
        Bound::Subscriptions => Limits {
            max_subscriptions: 100,
            ..limits
        },
        Bound::Filters | Bound::Members => limits,
    }
}

fn sized(topic: &str, id: u16, bytes: usize) -> Publish {
    let Packet::Publish(small) = publish(topic, 1, Some(id)) else {
        unreachable!()
    };
    Publish {
        payload: vec![7; bytes].into(),
        ..small
    }
}

async fn connected(bench: &Bench, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(Client::connected(bench.address(), connect_5(&format!("c{number}"))).await);
    }
    clients
}

/// Does what reaches the bound, and gives the clients that did it.
async fn reach(bound: Bound, bench: &Bench) -> Vec<Client> {
    let address = bench.address();
    match bound {
        Bound::Connections | Bound::Pending => {
            // The canary has one, and places for others are waited for.
            let mut clients = if bound == Bound::Connections {
                connected(bench, 4).await
            } else {
                Vec::new()
            };
            for _ in 0..30 {
                clients.push(Client::opened(address, Version::V5).await);
            }
            clients
        }
        Bound::Sessions => {
            for number in 0..20 {
                let lasting = Connect {
                    clean_start: false,
                    properties: ConnectProperties {
                        session_expiry: Some(600),
                        ..ConnectProperties::default()
                    },
                    ..connect_5(&format!("s{number}"))
                };
                let (mut client, connack) = Client::connect(address, lasting).await;
                if connack.code.is_error() {
                    break;
                }
                client.subscribe(1, "here/#").await;
            }
            Vec::new()
        }
        Bound::OutputBytes => {
            let mut clients = connected(bench, 3).await;
            for client in &mut clients {
                client.subscribe(1, "here/bulk").await;
            }
            let mut device = Client::connected(address, connect_5("device")).await;
            for _ in 0..500 {
                if status(&bench.view, bound).reached > 0 {
                    break;
                }
                for id in 1..=10 {
                    device.send(&Packet::Publish(sized("here/bulk", id, 20_000))).await;
                    device.expect_ack(id, ReasonCode::SUCCESS).await;
                }
            }
            clients
        }
        Bound::OwedBytes => {
            let mut clients = connected(bench, 3).await;
            let at_1 = SubscribeOptions {
                qos: QoS::AtLeastOnce,
                ..SubscribeOptions::default()
            };
            for client in &mut clients {
                client.subscribe_with(1, &["here/bulk"], at_1, None).await;
            }
            let mut device = Client::connected(address, connect_5("device")).await;
            // More than their windows.
            for round in 0..1200 {
                let id = 1 + round % 10;
                device.send(&Packet::Publish(sized("here/bulk", id, 2_000))).await;
                device.expect_ack(id, ReasonCode::SUCCESS).await;
            }
            clients
        }
        Bound::AliasBytes => {
            let mut clients = connected(bench, 4).await;
            for client in &mut clients {
                for alias in 1..=32 {
                    let publish = Publish {
                        topic: Text::from(format!("here/{alias}")),
                        properties: PublishProperties {
                            topic_alias: NonZeroU16::new(alias),
                            ..PublishProperties::default()
                        },
                        ..Publish::default()
                    };
                    if !client.try_send(&Packet::Publish(publish)).await {
                        break;
                    }
                }
            }
            clients
        }
        Bound::InputBytes => {
            let mut clients = connected(bench, 3).await;
            for client in &mut clients {
                client.begin(&Packet::Publish(sized("here/slow", 1, 100_000)), 50_000).await;
            }
            clients
        }
        Bound::WillBytes => {
            let mut clients = Vec::new();
            for number in 0..5 {
                let connect = Connect {
                    will: Some(will("here/will", 1, None)),
                    ..connect_5(&format!("w{number}"))
                };
                clients.push(Client::connect(address, connect).await.0);
            }
            clients
        }
        Bound::SessionBytes | Bound::OneSessionBytes | Bound::Subscriptions => {
            let mut clients = connected(bench, 4).await;
            for client in &mut clients {
                for id in 1..=101 {
                    let filter = format!("here/{id}");
                    client.subscribe_with(id, &[&filter], SubscribeOptions::default(), None).await;
                }
            }
            clients
        }
        Bound::Members => {
            let mut clients = connected(bench, 257).await;
            for client in &mut clients {
                client
                    .subscribe_with(1, &["$share/g/here/#"], SubscribeOptions::default(), None)
                    .await;
            }
            clients
        }
        Bound::Filters => {
            let mut clients = connected(bench, 201).await;
            for (number, client) in clients.iter_mut().enumerate() {
                let filters: Vec<String> = (0..100).map(|filter| format!("{number}/{filter}")).collect();
                let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
                client.subscribe_with(1, &filters, SubscribeOptions::default(), None).await;
            }
            clients
        }
        Bound::InFlight => {
            let mut clients = connected(bench, 1).await;
            for id in 1..=4 {
                clients[0].send(&publish("cloud/x", 2, Some(id))).await;
            }
            clients
        }
        Bound::UncommittedBytes => {
            bench.hold_commits().await;
            let mut clients = connected(bench, 1).await;
            for id in 1..=3 {
                clients[0].send(&Packet::Publish(sized("cloud/x", id, 5_000))).await;
            }
            until("it is waited for", || status(&bench.view, bound).reached > 0).await;
            bench.gate.open();
            clients
        }
        Bound::ParkedBytes => {
            let mut clients = vec![Client::connected(address, connect_311("parks")).await];
            for id in 1..=40 {
                clients[0].send(&Packet::Publish(sized("cloud/x", id, 1_000))).await;
            }
            clients
        }
        Bound::Retained | Bound::RetainedBytes => {
            let mut clients = connected(bench, 1).await;
            for id in 1..=6 {
                let retained = Publish {
                    retain: true,
                    ..sized(&format!("here/{id}"), id, 20)
                };
                clients[0].send(&Packet::Publish(retained)).await;
                clients[0].expect_ack(id, ReasonCode::SUCCESS).await;
            }
            clients
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bound_of_the_table_is_reached_counted_and_given_back() {
    for &bound in Bound::ALL {
        let bench = Bench::start(Setup {
            limits: limits_for(bound),
            max_bytes: if bound == Bound::ParkedBytes { 16 << 10 } else { 256 << 20 },
            ..Setup::default()
        })
        .await;
        let mut canary = Client::connected(bench.address(), connect_5("canary")).await;
        let clients = reach(bound, &bench).await;
        until(&format!("{bound:?} is reached"), || status(&bench.view, bound).reached > 0).await;
        let reached = status(&bench.view, bound);
        let lasting = reached.lasting.expect("it lasts for a minute");
        let line = bound.line();
        let values = [(line.share)(&bench.setup.limits), (line.whole)(&bench.setup.limits)];
        // A tenth is kept for fixed words.
        let told = values
            .iter()
            .flatten()
            .any(|value| lasting.limit <= *value && lasting.limit >= value * 9 / 10);
        assert!(told, "{bound:?}: {lasting:?} {values:?}");
        assert!(!lasting.last.is_empty() && line.reached(lasting.limit, lasting.is_share).contains(line.what));
        canary.send(&publish("here/canary", 1, Some(1))).await;
        canary.expect_ack(1, ReasonCode::SUCCESS).await;
        drop((clients, canary));
        // A connection with parked publishes is not read, so its end is seen once there is room for them.
        while bench.view.stats().parked.load(Ordering::Relaxed) > 0 {
            bench.deliver_all().await;
        }
        until(&format!("all have gone after {bound:?}"), || {
            bench.view.stats().connected.load(Ordering::Relaxed) == 0
        })
        .await;
        if bound == Bound::Sessions {
            continue;
        }
        until(&format!("all is given back after {bound:?}"), || {
            let all = bench.view.budget().status();
            all.iter().all(|status| status.taken.is_none_or(|(taken, _)| taken == 0))
        })
        .await;
    }
}
