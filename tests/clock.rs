//! A board that boots in 1970 and learns the time later: nothing expires, nothing is refused, all is delivered.
//!
//! Needs libfaketime (`apt-get install -y faketime`).
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use forebay_broker::codec::{QoS, ReasonCode, Version};
use support::device::{Device, publish};
use support::eventually;
use support::gateway::Gateway;
use support::plant::Plant;
use support::program::program;

const BOARD: &str = "board-1";
const TOPIC: &str = "devices/board-1/telemetry";
/// Longer than the test, shorter than the jump of the clock.
const EXPIRY: Duration = Duration::from_secs(3600);

fn config(plant: &Plant, cloud: u16) -> String {
    format!(
        "gateway: {{id: clock, max_disk: 128MiB, keep_free: 0B}}\n\
         listeners: [{{bind: \"127.0.0.1:0\", names: [localhost], tls: {}, identity: \"{{cn}}\"}}]\n\
         streams: [{{name: telemetry, max_bytes: 32MiB, max_age: {}s, when_full: refuse}}]\n\
         routes: [{{from: \"devices/+/telemetry\", to: \"dt/{{device}}\", stream: telemetry}}]\n\
         cloud: {{profile: mqtt, endpoint: 127.0.0.1, port: {cloud}, canary: off}}\n\
         admin: {{bind: \"127.0.0.1:0\"}}\n",
        plant.listener_tls(),
        EXPIRY.as_secs()
    )
}

/// A wall clock that the test sets; monotonic clocks go on.
struct Clock<'a>(&'a Path);

impl Clock<'_> {
    /// As libfaketime reads it: a moment to go on from, or an offset to the machine's clock.
    fn set(&self, text: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{text}\n")).unwrap();
        std::fs::rename(new, self.0).unwrap();
    }
}

/// Runs the gateway under a clock that is read from a file, again and again.
fn under_clock(gateway: Gateway, file: &Path) -> Gateway {
    program("faketime", "faketime");
    let library = faketime_library();
    let variables = [
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "TZ=UTC".to_owned(),
    ];
    let words: Vec<&str> = std::iter::once("env").chain(variables.iter().map(String::as_str)).collect();
    gateway.through(&words)
}

/// The library that `faketime` itself would load.
fn faketime_library() -> String {
    let output = std::process::Command::new("faketime").args(["2000-01-01", "env"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("LD_PRELOAD="))
        .expect("faketime preloads its library");
    line.replace("libfaketime.so", "libfaketimeMT.so")
}

async fn board(gateway: &Gateway, plant: &Plant, version: Version) -> Device {
    Device::connect_tls(gateway.listeners[0], "localhost", &plant.device(BOARD), "board", version)
        .await
        .expect("a device with a certificate connects")
}

/// Publishes `seqs` with a message expiry, each acked.
async fn publishes(device: &mut Device, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        let payload = format!(r#"{{"device":"{BOARD}","seq":{seq}}}"#);
        let expiry = u32::try_from(EXPIRY.as_secs()).unwrap();
        device
            .send(&publish(TOPIC, payload.as_bytes(), QoS::AtLeastOnce, 1, false, Some(expiry)))
            .await
            .unwrap();
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS), "message {seq}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_in_1970_that_jumps_to_now_expires_nothing_and_refuses_nothing() {
    let plant = Plant::new(&[BOARD]);
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    cloud.faults().stop_listening().await.unwrap();
    let gateway = Gateway::new(&config(&plant, cloud.address().port()));
    let file = gateway.folder().join("clock");
    let clock = Clock(&file);
    clock.set("@1970-01-01 00:00:10");
    let mut gateway = under_clock(gateway, &file);

    // 1970: certificates are judged by a better clock, messages are taken.
    gateway.start().await;
    assert_eq!(gateway.metric("forebay_clock_trusted", &[]).await, 0.0);
    let problems = gateway.status().await["problems"].to_string();
    assert!(problems.contains("clock") && problems.contains("not trusted"), "{problems}");
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    let mut device = board(&gateway, &plant, Version::V5).await;
    publishes(&mut device, 1..20).await;

    // Another boot in the same wrong year: a restart at an earlier wall time.
    gateway.kill().await;
    clock.set("@1970-01-01 00:00:05");
    gateway.start().await;
    let mut device = board(&gateway, &plant, Version::V5).await;
    publishes(&mut device, 20..40).await;

    // The time is found while the device is connected and everything waits.
    clock.set("+0");
    eventually("the clock is trusted", || async {
        (gateway.metric("forebay_clock_trusted", &[]).await == 1.0).then_some(())
    })
    .await;
    publishes(&mut device, 40..60).await;
    let mut other = board(&gateway, &plant, Version::V5).await;
    publishes(&mut other, 60..80).await;

    // And lost and found again.
    clock.set("@1970-01-01 00:00:10");
    eventually("the clock is not trusted", || async {
        (gateway.metric("forebay_clock_trusted", &[]).await == 0.0).then_some(())
    })
    .await;
    publishes(&mut other, 80..90).await;
    gateway.kill().await;
    gateway.start().await;
    let mut device = board(&gateway, &plant, Version::V5).await;
    publishes(&mut device, 90..100).await;
    clock.set("+0");
    eventually("the clock is trusted", || async {
        (gateway.metric("forebay_clock_trusted", &[]).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(gateway.waiting().await, 99);

    cloud.faults().resume_listening().await.unwrap();
    gateway.drained().await;
    let report = ledger.report();
    assert_eq!((report.keyed_unique, report.gaps, report.out_of_order), (99, 0, 0), "{report:?}");
    let books = settled(&gateway).await;
    assert_eq!(
        (&books["accepted"], &books["delivered"], &books["expired"]),
        (&99.into(), &99.into(), &0.into()),
        "{books}"
    );
    for refused in [
        "forebay_refused_total",
        "forebay_handshake_faults_total",
        "forebay_cloud_expired_total",
    ] {
        assert_eq!(gateway.metric(refused, &[]).await, 0.0, "{refused}");
    }
    assert_eq!(cloud.violations(), Vec::<String>::new());
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn age_that_can_be_proved_does_expire() {
    // The counterpart, without which the test above would pass with an expiry that does not work.
    let plant = Plant::new(&[BOARD]);
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    cloud.faults().stop_listening().await.unwrap();
    let mut gateway = Gateway::new(&config(&plant, cloud.address().port()).replace("max_age: 3600s", "max_age: 2s"));
    gateway.start().await;
    let mut device = board(&gateway, &plant, Version::V5).await;
    publishes(&mut device, 1..10).await;
    eventually("they are old, or gone already", || async {
        let stream = gateway.status().await["streams"][0].clone();
        (stream["waiting"] == 0 || stream["oldest_seconds"].as_u64() > Some(2)).then_some(())
    })
    .await;
    cloud.faults().resume_listening().await.unwrap();
    eventually("the cloud is back", || async {
        (gateway.metric("forebay_cloud_connected", &[]).await == 1.0).then_some(())
    })
    .await;
    publishes(&mut device, 10..11).await;
    gateway.drained().await;
    assert!(ledger.contains_key(BOARD, 10) && !ledger.contains_key(BOARD, 1));
    assert_eq!(settled(&gateway).await["expired"], 9);
}

/// The ledger once it says itself that nothing waits: it counts what is on disk.
async fn settled(gateway: &Gateway) -> serde_json::Value {
    eventually("the ledger is settled", || async {
        let books = gateway.status().await["ledger"].clone();
        (books["waiting"] == 0).then_some(books)
    })
    .await
}
