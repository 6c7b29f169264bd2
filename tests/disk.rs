//! Bad disks: missing, not writable, full. Errors that say what to do, no false ack, and it goes on by itself.
//!
//! The full ones are small real file systems: this needs root.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use forebay_broker::codec::{Packet, QoS, ReasonCode, Version};
use support::device::Device;
use support::disk::Disk;
use support::eventually;
use support::gateway::Gateway;
use support::scene::Scene;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const DISK: i32 = 74;
/// Large, so that a disk is full soon.
const PAYLOAD: usize = 16 << 10;

fn scene(data_dir: &str, keep_free: &str, stream: &str, cloud: SocketAddr) -> Scene {
    Scene::new("disk")
        .set("gateway", "data_dir", data_dir)
        .set("gateway", "keep_free", keep_free)
        .stream(stream)
        .cloud(cloud)
        .set("cloud", "canary", "off")
}

const REFUSING: &str = "name: telemetry, max_bytes: 128MiB, when_full: refuse";

/// A cloud that is away until it is told to come.
async fn absent_cloud() -> (Standin, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::new(LedgerConfig {
        keep_payload_bytes: 0,
        ..LedgerConfig::default()
    }));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    cloud.faults().stop_listening().await.unwrap();
    (cloud, ledger)
}

fn payload(device: &str, seq: u64, size: usize) -> Vec<u8> {
    let mut payload = format!(r#"{{"device":"{device}","seq":{seq},"fill":""#).into_bytes();
    payload.resize(size.max(payload.len() + 2) - 2, b'x');
    payload.extend(b"\"}");
    payload
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_missing_is_made() {
    let (cloud, _) = absent_cloud().await;
    let mut gateway = scene("not/yet/there", "0B", REFUSING, cloud.address()).gateway();
    gateway.start().await;
    assert!(gateway.folder().join("not/yet/there/log").is_dir());
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written_ends_with_74_and_its_name() {
    let (cloud, _) = absent_cloud().await;
    let mut gateway = scene("file/data", "0B", REFUSING, cloud.address()).gateway();
    std::fs::write(gateway.folder().join("file"), b"not a directory").unwrap();
    assert_eq!(gateway.try_start().await, Some(DISK));
    let log = gateway.log();
    assert!(log.contains("file/data/log cannot be used") && log.contains("data_dir"), "{log}");

    let disk = Disk::new(32);
    disk.read_only();
    let data_dir = disk.path().join("data");
    let mut gateway = scene(&data_dir.display().to_string(), "0B", REFUSING, cloud.address()).gateway();
    assert_eq!(gateway.try_start().await, Some(DISK));
    let log = gateway.log();
    assert!(log.contains("cannot be used") && log.contains("Read-only file system"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_first_start_ends_with_74_and_starts_when_there_is_space() {
    let (cloud, _) = absent_cloud().await;
    let disk = Disk::new(64);
    disk.fill(0);
    let mut gateway = scene(&disk.path().join("data").display().to_string(), "0B", REFUSING, cloud.address()).gateway();
    assert_eq!(gateway.try_start().await, Some(DISK));
    let log = gateway.log();
    assert!(log.contains("No space left on device") && log.contains("data/log"), "{log}");
    disk.relieve();
    gateway.start().await;
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_keep_free_devices_are_refused_or_parked_and_served_again_when_there_is_space() {
    let (cloud, ledger) = absent_cloud().await;
    let disk = Disk::new(192);
    let mut gateway = scene(&disk.path().join("data").display().to_string(), "32MiB", REFUSING, cloud.address()).gateway();
    gateway.start().await;
    let mut new = Device::connect(gateway.listeners[0], "new", Version::V5, true).await.unwrap();
    let mut old = Device::connect(gateway.listeners[0], "old", Version::V311, true).await.unwrap();
    let mut acked = vec![("new", 1), ("old", 1)];
    for (device, name) in [(&mut new, "new"), (&mut old, "old")] {
        device
            .publish(
                &format!("devices/{name}/telemetry"),
                &payload(name, 1, PAYLOAD),
                QoS::AtLeastOnce,
                1,
                false,
            )
            .await
            .unwrap();
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    }

    disk.fill(16 << 20);
    // The first may still fit: the log looks at the disk from time to time.
    let (mut refused, mut is_refused) = (2, false);
    for _ in 0..200 {
        new.publish(
            "devices/new/telemetry",
            &payload("new", refused, PAYLOAD),
            QoS::AtLeastOnce,
            1,
            false,
        )
        .await
        .unwrap();
        match new.puback().await.unwrap() {
            ReasonCode::SUCCESS => {
                acked.push(("new", refused));
                refused += 1;
            }
            // It was taken in before the log looked at the disk; its commit failed.
            ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR => {}
            reason => {
                assert_eq!(reason, ReasonCode::QUOTA_EXCEEDED, "0x97");
                is_refused = true;
                break;
            }
        }
    }
    assert!(is_refused, "{} were acked", acked.len());
    for id in [2, 3] {
        old.publish(
            "devices/old/telemetry",
            &payload("old", u64::from(id), PAYLOAD),
            QoS::AtLeastOnce,
            id,
            false,
        )
        .await
        .unwrap();
    }
    eventually("publishes on 3.1.1 are parked", || async {
        (gateway.metric("forebay_parked", &[]).await == 2.0).then_some(())
    })
    .await;
    assert_eq!(
        old.next_within(Duration::from_millis(300)).await,
        None,
        "nothing is acked that is not stored"
    );
    let (code, text) = gateway.get("/readyz").await.unwrap();
    assert!(
        code == 503 && text.contains("the file system is full") && !text.contains("raise"),
        "{code} {text}"
    );
    assert_eq!(gateway.get("/healthz").await.unwrap().0, 200, "a restart would not help");
    assert!(gateway.metric("forebay_refused_total", &["log_full"]).await >= 1.0);
    gateway.logs(&["ERROR", "free some space"]).await;

    disk.relieve();
    for _ in [2, 3] {
        assert_eq!(
            old.puback().await,
            Some(ReasonCode::SUCCESS),
            "what was parked is stored and acked by itself"
        );
    }
    acked.extend([("old", 2), ("old", 3)]);
    eventually("/readyz", || async { (gateway.get("/readyz").await?.0 == 200).then_some(()) }).await;
    new.publish(
        "devices/new/telemetry",
        &payload("new", refused, PAYLOAD),
        QoS::AtLeastOnce,
        1,
        true,
    )
    .await
    .unwrap();
    assert_eq!(new.puback().await, Some(ReasonCode::SUCCESS));
    acked.push(("new", refused));

    gateway.kill().await;
    gateway.start().await;
    cloud.faults().resume_listening().await.unwrap();
    gateway.drained().await;
    for (device, seq) in acked {
        assert!(ledger.contains_key(device, seq), "{device} {seq} was acked");
    }
    let report = ledger.report();
    assert_eq!(
        (report.keyed, report.gaps, report.out_of_order),
        (report.keyed_unique, 0, 0),
        "{report:?}"
    );
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_not_a_byte_left_costs_no_acked_message() {
    const DEVICES: usize = 8;
    let (cloud, ledger) = absent_cloud().await;
    let disk = Disk::new(256);
    // Nothing is kept free: writes and syncs fail in earnest.
    let mut gateway = scene(&disk.path().join("data").display().to_string(), "0B", REFUSING, cloud.address()).gateway();
    gateway.start().await;
    let stop = CancellationToken::new();
    let counts = Arc::new(Counts::default());
    let mut devices = JoinSet::new();
    for number in 0..DEVICES {
        let (address, stop, counts) = (gateway.listeners[0], stop.clone(), Arc::clone(&counts));
        let version = if number % 2 == 0 { Version::V5 } else { Version::V311 };
        devices.spawn(async move { stubborn(format!("d{number}"), version, address, &stop, &counts).await });
    }
    for round in 0..3 {
        counts.acks_go_on(20).await;
        disk.fill(0);
        eventually("/readyz tells of the disk", || async {
            let (code, text) = gateway.get("/readyz").await?;
            (code == 503 && text.contains("the log cannot be written")).then_some(())
        })
        .await;
        if round == 2 {
            gateway.kill().await;
        }
        disk.relieve();
        if round == 2 {
            gateway.start().await;
        }
        eventually("/readyz", || async { (gateway.get("/readyz").await?.0 == 200).then_some(()) }).await;
    }
    counts.acks_go_on(20).await;
    stop.cancel();
    let acked: BTreeMap<String, BTreeSet<u64>> = devices.join_all().await.into_iter().collect();
    cloud.faults().resume_listening().await.unwrap();
    gateway.drained().await;

    for (device, seqs) in &acked {
        let lost: Vec<_> = seqs.iter().filter(|seq| !ledger.contains_key(device, **seq)).collect();
        assert!(lost.is_empty(), "{device}: {lost:?} of {} acked are not in the cloud", seqs.len());
    }
    assert_eq!(ledger.report().out_of_order, 0);
    assert_balance(&gateway).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_what_waits_on_a_disk_that_became_read_only_reaches_the_cloud() {
    const ACKED: u16 = 60;
    let (cloud, ledger) = absent_cloud().await;
    let disk = Disk::new(128);
    let mut gateway = scene(&disk.path().join("data").display().to_string(), "0B", REFUSING, cloud.address()).gateway();
    gateway.start().await;
    let mut device = Device::connect(gateway.listeners[0], "d", Version::V5, true).await.unwrap();
    for seq in 1..=ACKED {
        let payload = payload("d", seq.into(), PAYLOAD);
        let topic = "devices/d/telemetry";
        device.publish(topic, &payload, QoS::AtLeastOnce, seq, false).await.unwrap();
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    }
    if !disk.fails() {
        eprintln!("a tmpfs does not fail: not tested here");
        return;
    }
    // One more meets it; it is not acked.
    let topic = "devices/d/telemetry";
    device.publish(topic, b"{}", QoS::AtLeastOnce, ACKED + 1, false).await.unwrap();
    eventually("/readyz names the error and the file", || async {
        let (code, text) = gateway.get("/readyz").await?;
        (code == 503 && text.contains("Read-only file system") && text.contains(".redb")).then_some(())
    })
    .await;
    cloud.faults().resume_listening().await.unwrap();
    eventually("all that was acked is in the cloud", || async {
        (1..=ACKED).all(|seq| ledger.contains_key("d", seq.into())).then_some(())
    })
    .await;
    eventually("the ledger says so", || async {
        (gateway.status().await["ledger"]["waiting"] == 0).then_some(())
    })
    .await;
    let log = gateway.log();
    assert!(log.contains("errno=30") || log.contains("\"errno\":30"), "{log}");
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_backlog_starts_on_a_full_disk_and_delivers() {
    let (cloud, ledger) = absent_cloud().await;
    let disk = Disk::new(128);
    let mut gateway = scene(&disk.path().join("data").display().to_string(), "0B", REFUSING, cloud.address()).gateway();
    gateway.start().await;
    let mut device = Device::connect(gateway.listeners[0], "d", Version::V5, true).await.unwrap();
    for seq in 1..=20_u16 {
        device
            .publish(
                "devices/d/telemetry",
                &payload("d", seq.into(), PAYLOAD),
                QoS::AtLeastOnce,
                seq,
                false,
            )
            .await
            .unwrap();
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    }
    gateway.kill().await;
    disk.fill(0);
    cloud.faults().resume_listening().await.unwrap();
    gateway.start().await;
    eventually("all that was acked is in the cloud", || async {
        (1..=20).all(|seq| ledger.contains_key("d", seq)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_that_refuses_says_so_and_takes_more_when_the_cloud_is_back() {
    let (cloud, ledger) = absent_cloud().await;
    let mut gateway = scene(
        "data",
        "0B",
        "name: telemetry, max_bytes: 256KiB, when_full: refuse",
        cloud.address(),
    )
    .gateway();
    gateway.start().await;
    let mut device = Device::connect(gateway.listeners[0], "d", Version::V5, true).await.unwrap();
    let mut seq = 0;
    let reason = loop {
        seq += 1;
        device
            .publish("devices/d/telemetry", &payload("d", seq, 4096), QoS::AtLeastOnce, 1, false)
            .await
            .unwrap();
        let reason = device.puback().await.unwrap();
        if reason != ReasonCode::SUCCESS {
            break reason;
        }
        assert!(seq < 100, "the bound holds");
    };
    assert_eq!(reason, ReasonCode::QUOTA_EXCEEDED, "0x97");
    assert_eq!(gateway.waiting().await, seq - 1);
    let (code, text) = gateway.get("/readyz").await.unwrap();
    assert!(
        code == 503 && text.contains("stream `telemetry` is full") && text.contains("max_bytes"),
        "{code} {text}"
    );
    assert_eq!(gateway.metric("forebay_refused_total", &["log_full"]).await, 1.0);

    cloud.faults().resume_listening().await.unwrap();
    gateway.drained().await;
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    device
        .publish("devices/d/telemetry", &payload("d", seq, 4096), QoS::AtLeastOnce, 1, true)
        .await
        .unwrap();
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    gateway.drained().await;
    let report = ledger.report();
    assert_eq!(
        (report.keyed, report.keyed_unique, report.gaps, report.out_of_order),
        (seq, seq, 0, 0)
    );
    assert_balance(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_that_drops_its_oldest_counts_them_and_the_ledger_balances() {
    const MESSAGES: u64 = 2000;
    let (cloud, ledger) = absent_cloud().await;
    let mut gateway = scene(
        "data",
        "0B",
        "name: telemetry, max_bytes: 512KiB, when_full: drop_oldest",
        cloud.address(),
    )
    .gateway();
    gateway.start().await;
    let mut device = Device::connect(gateway.listeners[0], "d", Version::V5, true).await.unwrap();
    for seq in 1..=MESSAGES {
        device
            .publish("devices/d/telemetry", &payload("d", seq, 2048), QoS::AtLeastOnce, 1, false)
            .await
            .unwrap();
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS), "a device is never held back");
    }
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    gateway
        .logs(&["WARN", "acked records were dropped", "stream `telemetry` is at its max_bytes"])
        .await;
    let problems = gateway.status().await["problems"].to_string();
    assert!(
        problems.contains("dropped within a day because a stream was at its max_bytes: raise it"),
        "{problems}"
    );
    gateway.kill().await;
    gateway.start().await;
    cloud.faults().resume_listening().await.unwrap();
    gateway.drained().await;

    let books = assert_balance(&gateway).await;
    assert_eq!(books["accepted"], MESSAGES);
    let evicted = books["evicted"].as_u64().unwrap();
    assert!(evicted > 0 && evicted < MESSAGES, "{books}");
    assert_eq!(ledger.report().keyed_unique, MESSAGES - evicted);
    let missing: Vec<_> = (1..=MESSAGES).filter(|seq| !ledger.contains_key("d", *seq)).collect();
    assert_eq!(missing, (1..=evicted).collect::<Vec<_>>(), "the oldest went, and only they");
}

/// Adds up the ledger of `/status`, and returns it.
async fn assert_balance(gateway: &Gateway) -> serde_json::Value {
    let books = gateway.status().await["ledger"].clone();
    let get = |name: &str| books[name].as_u64().unwrap();
    let settled: u64 = ["delivered", "waiting", "expired", "evicted", "dead", "damaged"]
        .map(get)
        .iter()
        .sum();
    assert_eq!(get("accepted") + get("requeued"), settled, "{books}");
    books
}

#[derive(Default)]
struct Counts {
    acked: AtomicU64,
}

impl Counts {
    /// Waits for so many acks more.
    async fn acks_go_on(&self, count: u64) {
        let until = self.acked.load(Ordering::Relaxed) + count;
        eventually("acks go on", || async {
            (self.acked.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
    }
}

/// A device that sends each message until it is acked, over as many connections as it takes.
async fn stubborn(
    name: String,
    version: Version,
    address: SocketAddr,
    stop: &CancellationToken,
    counts: &Counts,
) -> (String, BTreeSet<u64>) {
    let topic = format!("devices/{name}/telemetry");
    let (mut seq, mut acked) = (1, BTreeSet::new());
    while !stop.is_cancelled() {
        let Some(mut device) = Device::connect(address, &name, version, true).await else {
            tokio::time::timeout(Duration::from_millis(20), stop.cancelled()).await.ok();
            continue;
        };
        while device
            .publish(&topic, &payload(&name, seq, PAYLOAD), QoS::AtLeastOnce, 1, false)
            .await
            .is_some()
        {
            let packet = tokio::select! {
                packet = device.next() => packet,
                () = stop.cancelled() => return (name, acked),
            };
            match packet {
                Some(Packet::PubAck(ack)) if ack.reason == ReasonCode::SUCCESS => {
                    acked.insert(seq);
                    seq += 1;
                    counts.acked.fetch_add(1, Ordering::Relaxed);
                }
                Some(Packet::PubAck(_)) => {}
                _ => break,
            }
        }
    }
    (name, acked)
}
