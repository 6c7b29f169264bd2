//! The cloud is away for 100,000 messages: devices notice nothing, memory stays flat, and all arrive when it is back.
//!
//! `FOREBAY_OUTAGE=1000000 cargo test --test outage` makes it a longer one.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use forebay_broker::codec::{QoS, ReasonCode, Version};
use support::device::Device;
use support::gateway::Gateway;
use support::scene::Scene;
use support::{eventually, within};
use tokio::task::JoinSet;

const DEVICES: u64 = 10;
const WINDOW: usize = 50;
const PAYLOAD: usize = 256;
/// Messages of each phase with the cloud there, against which the outage is compared.
const COMPARED: u64 = 20_000;
const MEMORY: u64 = 64 << 20;

fn scene(cloud: SocketAddr) -> Scene {
    Scene::new("outage")
        .set("gateway", "max_disk", "2GiB")
        .stream("name: telemetry, max_bytes: 1GiB, when_full: refuse")
        .cloud(cloud)
        .set("cloud", "in_flight", 100)
        .set("cloud", "canary", "off")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_hundred_thousand_messages_costs_disk_and_nothing_else() {
    let away: u64 = std::env::var("FOREBAY_OUTAGE").ok().map_or(100_000, |text| text.parse().unwrap());
    let ledger = Arc::new(Ledger::new(LedgerConfig {
        keep_entries: 0,
        keep_payload_bytes: 0,
        ..LedgerConfig::default()
    }));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    let mut gateway = scene(cloud.address()).gateway();
    gateway.start().await;

    let mut fleet = Fleet::new(gateway.listeners[0]);
    let there = fleet.publish(COMPARED).await;
    gateway.drained().await;
    let memory_before = gateway.resident();

    cloud.faults().stop_listening().await.unwrap();
    eventually("/status says that the cloud is away", || async {
        is_away(&gateway).await.then_some(())
    })
    .await;
    let (mut gone, mut memory_away) = (Vec::new(), 0);
    for _ in 0..10 {
        gone.extend(fleet.publish(away / 10).await);
        memory_away = memory_away.max(gateway.resident());
        let (code, text) = gateway.get("/readyz").await.unwrap();
        assert_eq!(code, 200, "a publish is acked truthfully without the cloud: {text}");
        assert!(is_away(&gateway).await, "{}", gateway.status().await["cloud"]);
    }
    assert_eq!(gateway.waiting().await, fleet.sent - COMPARED);
    let status = gateway.status().await;
    let problems = status["problems"].to_string();
    assert!(
        problems.contains("the cloud is not connected") && problems.contains("in the log"),
        "{problems}"
    );
    assert_eq!(gateway.metric("forebay_cloud_connected", &[]).await, 0.0);

    cloud.faults().resume_listening().await.unwrap();
    let began = Instant::now();
    within(Duration::from_secs(180), "the log drains", || async {
        (gateway.waiting().await == 0).then_some(())
    })
    .await;
    let drained = began.elapsed();
    memory_away = memory_away.max(gateway.resident());
    assert_eq!(gateway.status().await["cloud"]["state"], "connected");

    let report = ledger.report();
    assert_eq!(report.keyed_unique, fleet.sent, "all arrive");
    assert_eq!(
        (report.gaps, report.out_of_order),
        (0, 0),
        "nothing is missing and each device's order is kept: {report:?}"
    );
    let missing = fleet.acked().find(|(device, seq)| !ledger.contains_key(device, *seq));
    assert_eq!(missing, None);
    assert_eq!(cloud.violations(), Vec::<String>::new());

    let grown = memory_away.saturating_sub(memory_before);
    let (there, gone) = (Latency::of(there), Latency::of(gone));
    println!(
        "acks: cloud there {there:?}, away {gone:?}; memory {} MiB + {} MiB; {away} drained in {drained:?}",
        memory_before >> 20,
        grown >> 20
    );
    assert!(grown < MEMORY, "memory grew by {grown} bytes from {memory_before}");
    assert!(
        gone.p50 < there.p50 * 5,
        "acks waited {gone:?} while the cloud was away, {there:?} while it was there"
    );
    assert_eq!(gateway.stop().await, 0);
}

async fn is_away(gateway: &Gateway) -> bool {
    let cloud = gateway.status().await["cloud"].clone();
    cloud["state"] != "connected" && !cloud["last_error"].is_null()
}

/// What acks waited for.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
struct Latency {
    p50: Duration,
    p99: Duration,
}

impl Latency {
    fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        assert!(samples.len() > 1000);
        Self {
            p50: samples[samples.len() / 2],
            p99: samples[samples.len() * 99 / 100],
        }
    }
}

/// Devices that keep a window of publishes in flight.
struct Fleet {
    gateway: SocketAddr,
    /// Messages sent and acked so far, the same number by each device.
    sent: u64,
}

impl Fleet {
    fn new(gateway: SocketAddr) -> Self {
        Self { gateway, sent: 0 }
    }

    /// All devices together publish `count` more; the wait of each ack.
    async fn publish(&mut self, count: u64) -> Vec<Duration> {
        let each = count / DEVICES;
        let first = self.sent / DEVICES + 1;
        let mut devices = JoinSet::new();
        for number in 0..DEVICES {
            devices.spawn(device(format!("d{number}"), self.gateway, first, each));
        }
        self.sent += each * DEVICES;
        devices.join_all().await.concat()
    }

    fn acked(&self) -> impl Iterator<Item = (String, u64)> {
        let each = self.sent / DEVICES;
        (0..DEVICES).flat_map(move |number| (1..=each).map(move |seq| (format!("d{number}"), seq)))
    }
}

async fn device(name: String, gateway: SocketAddr, first: u64, count: u64) -> Vec<Duration> {
    let mut device = Device::connect(gateway, &name, Version::V5, true)
        .await
        .expect("the gateway takes the device");
    let topic = format!("devices/{name}/telemetry");
    let (mut next, end) = (first, first + count);
    let (mut in_flight, mut waits) = (VecDeque::new(), Vec::new());
    while next < end || !in_flight.is_empty() {
        while next < end && in_flight.len() < WINDOW {
            let mut payload = format!(r#"{{"device":"{name}","seq":{next},"fill":""#);
            payload.extend(std::iter::repeat_n('x', PAYLOAD - 2 - payload.len()));
            payload.push_str("\"}");
            let id = u16::try_from(next % 60_000 + 1).unwrap();
            device
                .publish(&topic, payload.as_bytes(), QoS::AtLeastOnce, id, false)
                .await
                .expect("the line stands");
            in_flight.push_back(Instant::now());
            next += 1;
        }
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
        waits.push(in_flight.pop_front().unwrap().elapsed());
    }
    waits
}
