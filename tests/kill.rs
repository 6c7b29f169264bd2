//! SIGKILL at random moments under load, again and again: what a device saw acked is in the cloud, in order.
//!
//! `FOREBAY_KILL_ROUNDS=500 cargo test --test kill` runs more rounds; `FOREBAY_SEED=7` replays a run's choices.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_aws_standin::{Flap, Ledger, LedgerConfig, Standin, StandinConfig};
use forebay_broker::codec::{Packet, QoS, Version};
use support::device::Device;
use support::scene::Scene;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const DEVICES: usize = 50;
/// Every tenth device publishes at QoS 2.
const QOS2_EVERY: usize = 10;
const WINDOW: usize = 8;
const IN_FLIGHT: u64 = 32;
/// What a kill may repeat besides the windows: 200 ms of deliveries, generously counted.
const REPEATED_BY_A_KILL: u64 = 4000;

/// A small generator, so that a seed replays a run's choices.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn scene(cloud: SocketAddr) -> Scene {
    Scene::new("kill")
        .set("gateway", "max_disk", "512MiB")
        .stream("name: telemetry, max_bytes: 256MiB, when_full: refuse")
        .cloud(cloud)
        .set("cloud", "in_flight", IN_FLIGHT)
        .set("cloud", "canary", "off")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_saw_acked_survives_sigkill_at_any_moment() {
    let rounds = variable("FOREBAY_KILL_ROUNDS", 30);
    let seed = variable("FOREBAY_SEED", std::process::id().into());
    println!("{rounds} rounds, FOREBAY_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);

    let ledger = Arc::new(Ledger::new(LedgerConfig {
        keep_entries: 2_000_000,
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

    let stop = CancellationToken::new();
    let mut devices = JoinSet::new();
    for number in 0..DEVICES {
        let (address, stop) = (gateway.listeners[0], stop.clone());
        devices.spawn(async move {
            let name = format!("d{number}");
            let acked = if number.is_multiple_of(QOS2_EVERY) {
                qos2_device(&name, address, &stop).await
            } else {
                qos1_device(&name, number, address, &stop).await
            };
            (name, acked)
        });
    }

    let mut clouds = BTreeMap::<&str, u64>::new();
    for round in 0..rounds {
        let weather = match random.below(3) {
            0 => "there",
            1 => "away",
            _ => "flapping",
        };
        *clouds.entry(weather).or_default() += 1;
        set_weather(&cloud, weather, &mut random).await;
        let life = Duration::from_millis(30 + random.below(400));
        tokio::time::sleep(life).await;
        gateway.kill().await;
        println!(
            "round {round}: cloud {weather}, killed after {life:?}; {} in the cloud",
            ledger.count()
        );
        gateway.start().await;
    }

    set_weather(&cloud, "there", &mut random).await;
    stop.cancel();
    let mut acked = BTreeMap::new();
    while let Some(device) = devices.join_next().await {
        let (name, seqs) = device.unwrap();
        acked.insert(name, seqs);
    }
    gateway.drained().await;

    let missing: Vec<_> = acked
        .iter()
        .flat_map(|(device, seqs)| {
            seqs.iter()
                .filter(|seq| !ledger.contains_key(device, **seq))
                .map(move |seq| (device, *seq))
        })
        .collect();
    let total: usize = acked.values().map(BTreeSet::len).sum();
    assert!(
        missing.is_empty(),
        "{} of {total} acked publishes are not in the cloud, the first {:?}",
        missing.len(),
        &missing[..missing.len().min(10)]
    );
    assert!(total > DEVICES * 2, "the load was real: {total} acked");

    let report = ledger.report();
    assert_eq!(
        report.out_of_order, 0,
        "each device's records came first in the order in which they were accepted (C3)"
    );
    assert!(
        report.duplicates <= (rounds + 1) * (IN_FLIGHT + REPEATED_BY_A_KILL),
        "duplicates stay within the bound: {report:?}"
    );
    assert_stored_once(&ledger);
    assert_eq!(cloud.violations(), Vec::<String>::new());

    assert_eq!(gateway.stop().await, 0);
    println!(
        "{total} acked, {} in the cloud, {} duplicates, weather {clouds:?}",
        report.keyed_unique, report.duplicates
    );
}

/// A QoS 2 publish has one record: its duplicates in the cloud all bear the same id.
fn assert_stored_once(ledger: &Ledger) {
    let mut ids = BTreeMap::<(String, u64), BTreeSet<String>>::new();
    for entry in ledger.entries() {
        if let (Some(key), Some(id)) = (entry.key.clone(), entry.forebay_id.clone()) {
            ids.entry(key).or_default().insert(id.to_string());
        }
    }
    for ((device, seq), ids) in ids {
        let number: usize = device.trim_start_matches('d').parse().unwrap();
        assert!(
            !number.is_multiple_of(QOS2_EVERY) || ids.len() == 1,
            "{device} {seq} at QoS 2 was stored {} times: {ids:?}",
            ids.len()
        );
    }
}

async fn set_weather(cloud: &Standin, weather: &str, random: &mut Random) {
    let faults = cloud.faults();
    match weather {
        "away" => faults.stop_listening().await.unwrap(),
        "flapping" => {
            faults.resume_listening().await.unwrap();
            let mut time_ms = || 20 + random.below(100);
            faults.flap(
                (0..4)
                    .map(|_| Flap {
                        down_ms: time_ms(),
                        up_ms: time_ms(),
                    })
                    .collect(),
            );
        }
        _ => faults.resume_listening().await.unwrap(),
    }
}

fn payload(device: &str, seq: u64) -> Vec<u8> {
    format!(r#"{{"device":"{device}","seq":{seq}}}"#).into_bytes()
}

/// Keeps a window of publishes in flight; after a reconnect sends again, in order, what was not acked.
async fn qos1_device(name: &str, number: usize, address: SocketAddr, stop: &CancellationToken) -> BTreeSet<u64> {
    let version = if number.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    let topic = format!("devices/{name}/telemetry");
    let (mut next, mut unacked, mut acked) = (1, VecDeque::new(), BTreeSet::new());
    while !stop.is_cancelled() {
        let Some(mut device) = Device::connect(address, name, version, true).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut sent = 0;
        'line: while !stop.is_cancelled() {
            while unacked.len() < WINDOW {
                unacked.push_back(next);
                next += 1;
            }
            while sent < unacked.len() {
                let seq: u64 = unacked[sent];
                let id = u16::try_from(seq % 60_000 + 1).unwrap();
                if device
                    .publish(&topic, &payload(name, seq), QoS::AtLeastOnce, id, false)
                    .await
                    .is_none()
                {
                    break 'line;
                }
                sent += 1;
            }
            let Some(Packet::PubAck(ack)) = device.next().await else { break };
            assert!(!ack.reason.is_error(), "{name} was refused: {}", ack.reason);
            let seq = unacked.pop_front().unwrap();
            assert_eq!(
                u64::from(ack.packet_id.get()),
                seq % 60_000 + 1,
                "acks come in the order of their publishes"
            );
            acked.insert(seq);
            sent -= 1;
        }
    }
    acked
}

/// One publish at a time with the packet ids 1 and 2 in turn; after a reconnect goes on where it stood.
async fn qos2_device(name: &str, address: SocketAddr, stop: &CancellationToken) -> BTreeSet<u64> {
    let topic = format!("devices/{name}/telemetry");
    let (mut seq, mut is_received, mut dup, mut acked) = (1_u64, false, false, BTreeSet::new());
    let mut clean = true;
    while !stop.is_cancelled() {
        let Some(mut device) = Device::connect(address, name, Version::V5, clean).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if clean {
            // The first connection only clears what there may be; the next one begins the session that lasts.
            clean = false;
            continue;
        }
        assert!(
            device.session_present || (seq == 1 && !dup),
            "{name}: the session was lost at {seq}"
        );
        while !stop.is_cancelled() {
            let id = u16::try_from(seq % 2 + 1).unwrap();
            if !is_received {
                let sent = device.publish(&topic, &payload(name, seq), QoS::ExactlyOnce, id, dup).await;
                dup = true;
                if sent.is_none() {
                    break;
                }
                let Some(Packet::PubRec(ack)) = device.next().await else { break };
                assert!(!ack.reason.is_error(), "{name} was refused: {}", ack.reason);
                is_received = true;
                acked.insert(seq);
            }
            if device.release(id).await.is_none() {
                break;
            }
            let Some(Packet::PubComp(_)) = device.next().await else { break };
            (seq, is_received, dup) = (seq + 1, false, false);
        }
    }
    acked
}
