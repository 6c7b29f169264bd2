//! Retained messages of the whole gateway: kills at any moment, and as many as the bound allows in little memory.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_broker::codec::{Packet, Publish, QoS, Subscribe, SubscribeOptions, Subscription, Text, Version};
use support::device::Device;
use support::gateway::Gateway;
use support::scene::Scene;

/// As `limits.max_topics` by default.
const MANY: usize = 100_000;
/// Publishers of the many: one identity may not have more than a quarter.
const PUBLISHERS: usize = 8;
/// Publishes in flight.
const WINDOW: usize = 100;
/// Bytes that the gateway may take with the many, all in all, in a debug build.
const RESIDENT: u64 = 96 << 20;

fn gateway() -> Gateway {
    Scene::new("retained")
        .set("gateway", "max_disk", "1GiB")
        .more("access: [{who: \"*\", publish: [\"#\"], subscribe: [\"#\"]}]\n")
        .gateway()
}

fn retained(topic: &str, payload: &str, packet_id: usize) -> Packet {
    Packet::Publish(Publish {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: Text::from(topic.to_owned()),
        packet_id: NonZeroU16::new(u16::try_from(packet_id).unwrap()),
        payload: Bytes::from(payload.to_owned()),
        ..Publish::default()
    })
}

async fn connected(gateway: &Gateway, client_id: &str) -> Device {
    Device::connect(gateway.listeners[0], client_id, Version::V5, true).await.unwrap()
}

/// Subscribes to everything and calls `each` for each retained message, until all of the one SUBSCRIBE have come.
async fn look(gateway: &Gateway, mut each: impl FnMut(&Publish)) {
    let mut subscriber = connected(gateway, "looker").await;
    let subscribe = Subscribe {
        packet_id: NonZeroU16::MIN,
        subscription_id: None,
        user: Vec::new(),
        filters: vec![Subscription {
            filter: Text::from("#"),
            options: SubscribeOptions::default(),
        }],
    };
    subscriber.send(&Packet::Subscribe(subscribe)).await.unwrap();
    // What comes before its answer came of the SUBSCRIBE.
    subscriber.send(&Packet::PingReq).await.unwrap();
    loop {
        match subscriber.next().await.unwrap() {
            Packet::Publish(publish) => each(&publish),
            Packet::SubAck(_) => {}
            Packet::PingResp => return,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_saw_acked_is_retained_after_sigkill_at_any_moment() {
    const TOPICS: usize = 50;
    const ROUNDS: u64 = 12;
    let mut gateway = gateway();
    gateway.start().await;
    let mut acked: BTreeMap<String, usize> = BTreeMap::new();
    let mut sent = acked.clone();
    let mut value = 0;
    for round in 0..ROUNDS {
        let mut device = connected(&gateway, "d").await;
        let kill_at = value + TOPICS * 4 + (round as usize * 37) % TOPICS;
        let mut in_flight = BTreeMap::new();
        // Some are acked, some are on their way, and the log or the checkpoint has what the other lacks.
        while value < kill_at {
            value += 1;
            let packet_id = 1 + value % WINDOW;
            // Unrouted, and on the default route to the cloud.
            let root = if value % 2 == 0 { "here" } else { "devices" };
            let topic = format!("{root}/{}", value % TOPICS);
            if device.send(&retained(&topic, &value.to_string(), packet_id)).await.is_none() {
                break;
            }
            sent.insert(topic.clone(), value);
            in_flight.insert(packet_id, (topic, value));
            while in_flight.len() > TOPICS / 2 || value == kill_at - TOPICS / 4 && !in_flight.is_empty() {
                match device.next().await {
                    Some(Packet::PubAck(ack)) => {
                        assert!(!ack.reason.is_error(), "{ack:?}");
                        let (topic, value) = in_flight.remove(&usize::from(ack.packet_id.get())).unwrap();
                        acked.insert(topic, value);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        gateway.kill().await;
        gateway.start().await;
        let mut kept = BTreeMap::new();
        look(&gateway, |publish| {
            let value: usize = String::from_utf8_lossy(&publish.payload).parse().unwrap();
            assert_eq!(kept.insert(publish.topic.as_str().to_owned(), value), None);
        })
        .await;
        for (topic, acked) in &acked {
            let kept = kept.get(topic).copied().unwrap_or(0);
            assert!(
                (*acked..=sent[topic]).contains(&kept),
                "round {round}: {topic} has {kept}, acked was {acked}"
            );
        }
        // From here on what is kept is the least.
        acked = kept;
    }
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_retained_messages_are_kept_found_and_loaded_in_little_memory() {
    let mut gateway = gateway();
    gateway.start().await;
    let payload = "x".repeat(200);
    let began = Instant::now();
    for publisher in 0..PUBLISHERS {
        let mut device = connected(&gateway, &format!("p{publisher}")).await;
        let each = MANY / PUBLISHERS;
        for start in (0..each).step_by(WINDOW) {
            for nth in 0..WINDOW.min(each - start) {
                let topic = format!("plant/{publisher}/sensor/{:05}/value", start + nth);
                device.send(&retained(&topic, &payload, nth + 1)).await.unwrap();
            }
            for _ in 0..WINDOW.min(each - start) {
                assert!(!device.puback().await.unwrap().is_error(), "{}", gateway.log());
            }
        }
    }
    println!("{MANY} kept in {:?}, resident {} MiB", began.elapsed(), gateway.resident() >> 20);
    for life in ["the first", "one after a kill"] {
        let began = Instant::now();
        let (mut count, mut bytes) = (0, 0);
        let mut before = String::new();
        look(&gateway, |publish| {
            assert!(publish.retain);
            assert!(*publish.topic.as_str() > *before, "each once, in order");
            before = publish.topic.as_str().to_owned();
            count += 1;
            bytes += publish.payload.len();
        })
        .await;
        let resident = gateway.resident();
        println!("{life} life: all sent in {:?}, resident {} MiB", began.elapsed(), resident >> 20);
        assert_eq!((count, bytes), (MANY, MANY * payload.len()), "{}", gateway.log());
        assert!(resident <= RESIDENT, "{resident} bytes");
        assert_eq!(gateway.metric("forebay_retained_messages", &[]).await as usize, MANY);
        gateway.kill().await;
        let began = Instant::now();
        gateway.start().await;
        println!("started in {:?}, resident {} MiB", began.elapsed(), gateway.resident() >> 20);
    }
    assert_eq!(gateway.stop().await, 0);
}

/// However much is retained, a subscriber that does not read holds a page of it.
#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_do_not_read_hold_a_page_each() {
    const SUBSCRIBERS: usize = 200;
    const EACH: u64 = 256 << 10;
    let mut gateway = gateway();
    gateway.start().await;
    let payload = "x".repeat(16 << 10);
    let mut device = connected(&gateway, "d").await;
    for number in 0..1_000 {
        device.send(&retained(&format!("a/{number}"), &payload, 1)).await.unwrap();
        assert!(!device.puback().await.unwrap().is_error());
    }
    let before = gateway.resident();
    let mut subscribers = Vec::new();
    for number in 0..SUBSCRIBERS {
        let mut subscriber = connected(&gateway, &format!("s{number}")).await;
        let filters = vec![Subscription {
            filter: Text::from("#"),
            options: SubscribeOptions::default(),
        }];
        let subscribe = Subscribe {
            packet_id: NonZeroU16::MIN,
            subscription_id: None,
            user: Vec::new(),
            filters,
        };
        subscriber.send(&Packet::Subscribe(subscribe)).await.unwrap();
        subscribers.push(subscriber);
    }
    // Sent is what sockets took and what waits: it stands still once both are full.
    let mut sent = -1.0;
    loop {
        let now = gateway.metric("forebay_retained_sent_total", &[]).await;
        if now > 0.0 && now == sent {
            break;
        }
        sent = now;
        tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>())
            .await
            .ok();
    }
    let each = gateway.resident().saturating_sub(before) / SUBSCRIBERS as u64;
    println!("{each} bytes for each, {sent} messages sent");
    assert!(sent < 1_000.0 * SUBSCRIBERS as f64, "they should not all fit in sockets");
    assert!(each <= EACH, "{each} bytes for each");
    // Others are served meanwhile.
    let mut count = 0;
    look(&gateway, |_| count += 1).await;
    assert_eq!(count, 1_000);
    assert_eq!(gateway.stop().await, 0);
}
