//! Steps of the clock, before and after something has synchronised it: nothing expires, nothing is refused, all is delivered.
//!
//! Needs libfaketime (`apt-get install -y faketime`).
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use forebay_broker::codec::{Packet, QoS, ReasonCode, Subscribe, SubscribeOptions, Subscription, Text, Version};
use forebay_wal::testing::{ManualClock, Unobserved};
use forebay_wal::{Batch, BootId, Clock as _, CommitError, CommitListener, Log, NewRecord, Options, StreamOptions, Timestamp, WhenFull};
use support::device::{Device, publish};
use support::eventually;
use support::gateway::{Gateway, forebay};
use support::kernel_clock::KernelClock;
use support::plant::Plant;
use support::program::program;
use support::scene::Scene;

const BOARD: &str = "board-1";
const TOPIC: &str = "devices/board-1/telemetry";
/// Retained, and of a device whose session is kept while it is away.
const KEPT: &str = "devices/keeper/commands/kept";
/// Longer than the test, shorter than the jump of the clock.
const EXPIRY: Duration = Duration::from_secs(3600);

fn scene(plant: &Plant, cloud: u16, max_age: Duration) -> Scene {
    Scene::new("clock")
        .tls_listener(plant)
        .stream(&format!(
            "name: telemetry, max_bytes: 32MiB, max_age: {}s, when_full: refuse",
            max_age.as_secs()
        ))
        .cloud_on(cloud)
        .set("cloud", "canary", "off")
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

/// Runs the gateway under a clock that is read from a file, again and again, and a kernel that says of it what the test wants.
fn under_clock(gateway: Gateway, file: &Path, kernel: &KernelClock) -> Gateway {
    program("faketime", "faketime");
    let variables = [
        format!("LD_PRELOAD={}:{}", faketime_library(), kernel.library()),
        kernel.variable(),
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

/// Comes back to its session, which there is or not, and gets the retained message.
async fn keeper(gateway: &Gateway, is_present: bool, step: &str) {
    let mut keeper = Device::connect(gateway.listeners[1], "keeper", Version::V5, false).await.unwrap();
    assert_eq!(keeper.session_present, is_present, "{step}");
    if !is_present {
        let expiry = u32::try_from(EXPIRY.as_secs()).unwrap();
        let Packet::Publish(mut kept) = publish(KEPT, b"kept", QoS::AtLeastOnce, 1, false, Some(expiry)) else {
            unreachable!("a PUBLISH")
        };
        kept.retain = true;
        keeper.send(&Packet::Publish(kept)).await.unwrap();
        assert_eq!(keeper.puback().await, Some(ReasonCode::SUCCESS));
    }
    let subscribe = Subscribe {
        packet_id: NonZeroU16::new(2).unwrap(),
        subscription_id: None,
        user: Vec::new(),
        filters: vec![Subscription {
            filter: Text::from(KEPT),
            options: SubscribeOptions::default(),
        }],
    };
    keeper.send(&Packet::Subscribe(subscribe)).await.unwrap();
    loop {
        match keeper.next().await {
            Some(Packet::Publish(found)) => break assert_eq!(found.payload.as_ref(), b"kept"),
            Some(_) => {}
            None => panic!("the retained message is gone after {step}"),
        }
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
    let gateway = scene(&plant, cloud.address().port(), EXPIRY).gateway();
    let file = gateway.folder().join("clock");
    let clock = Clock(&file);
    clock.set("@1970-01-01 00:00:10");
    let kernel = KernelClock::new(gateway.folder());
    kernel.say("unsynchronised");
    let mut gateway = under_clock(gateway, &file, &kernel);

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
    kernel.say("synchronised");
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
    let mut gateway = scene(&plant, cloud.address().port(), Duration::from_secs(2)).gateway();
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

#[tokio::test(flavor = "multi_thread")]
async fn no_step_of_the_clock_refuses_a_device_or_expires_a_record_a_session_or_a_retained_message() {
    // B2, E2 and E3 from outside: every wrong time that a machine can show, before NTP, under load, over restarts.
    let plant = Plant::new(&[BOARD]);
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    cloud.faults().stop_listening().await.unwrap();
    let gateway = scene(&plant, cloud.address().port(), EXPIRY)
        .listener("identity: \"{client_id}\"")
        .gateway();
    let file = gateway.folder().join("clock");
    let clock = Clock(&file);
    clock.set("+0");
    let kernel = KernelClock::new(gateway.folder());
    let mut gateway = under_clock(gateway, &file, &kernel);
    gateway.start().await;
    assert_eq!(gateway.metric("forebay_clock_reason", &["reason=\"kernel\""]).await, 1.0);
    keeper(&gateway, false, "the start").await;
    let mut device = board(&gateway, &plant, Version::V5).await;
    let mut next = 1;
    for (step, answer) in [
        ("+20d", "unsynchronised"),
        ("+730d", "synchronised"),
        ("-20d", "unsynchronised"),
        ("@2038-01-19 03:14:08", "synchronised"),
        ("@2069-01-01 00:00:00", "unsynchronised"),
        ("@2099-01-01 00:00:00", "synchronised"),
        ("@1970-01-01 00:00:10", "refused"),
    ] {
        // While it runs, with a device that stays and one that comes.
        clock.set(step);
        kernel.say(answer);
        eventually("the step is noticed", || async {
            (gateway.metric("forebay_clock_trusted", &[]).await == 0.0).then_some(())
        })
        .await;
        publishes(&mut device, next..next + 5).await;
        let mut other = board(&gateway, &plant, Version::V5).await;
        publishes(&mut other, next + 5..next + 10).await;
        // Through a power cut, into a boot that shows the same time before anything has synchronised it.
        kernel.say("unsynchronised");
        gateway.kill().await;
        gateway.start().await;
        assert_eq!(gateway.metric("forebay_clock_trusted", &[]).await, 0.0, "{step}");
        keeper(&gateway, true, step).await;
        device = board(&gateway, &plant, Version::V5).await;
        publishes(&mut device, next + 10..next + 15).await;
        // And right again.
        clock.set("+0");
        kernel.say("synchronised");
        eventually("the clock is trusted", || async {
            (gateway.metric("forebay_clock_trusted", &[]).await == 1.0).then_some(())
        })
        .await;
        publishes(&mut device, next + 15..next + 20).await;
        keeper(&gateway, true, step).await;
        next += 20;
    }
    cloud.faults().resume_listening().await.unwrap();
    gateway.drained().await;
    let report = ledger.report();
    assert_eq!(
        (report.keyed_unique, report.gaps, report.out_of_order),
        (next - 1, 0, 0),
        "{report:?}"
    );
    let books = settled(&gateway).await;
    assert_eq!((&books["delivered"], &books["expired"]), (&(next - 1).into(), &0.into()), "{books}");
    let mut ids = BTreeMap::new();
    for entry in ledger.entries() {
        let id = entry.forebay_id.unwrap();
        assert_eq!(
            *ids.entry(id).or_insert_with(|| entry.key.clone()),
            entry.key,
            "one id for two records"
        );
    }
    for refused in [
        "forebay_refused_total",
        "forebay_handshake_faults_total",
        "forebay_cloud_expired_total",
    ] {
        assert_eq!(gateway.metric(refused, &[]).await, 0.0, "{refused}");
    }
    assert_eq!(gateway.stop().await, 0);
}

/// Leaves a log whose last trusted time is `wall_ms`, as an older version did for any clock.
fn last_trusted(gateway: &Gateway, wall_ms: u64) {
    let clock = Arc::new(ManualClock::new(Timestamp {
        wall_ms,
        boot: BootId(1),
        monotonic_ms: 1_000,
        trusted: true,
    }));
    let options = Options {
        directory: gateway.folder().join("data/log"),
        max_disk: 128 << 20,
        keep_free: 0,
        commit_wait: Duration::ZERO,
        max_devices: 100,
        streams: vec![StreamOptions {
            name: "telemetry".to_owned(),
            max_bytes: 32 << 20,
            max_age: None,
            when_full: WhenFull::Refuse,
        }],
    };
    let log = Log::open(options, clock.clone(), Arc::new(Unobserved), None).unwrap().log;
    let record = NewRecord {
        stream: log.stream("telemetry").unwrap(),
        received: clock.now(),
        identity: BOARD,
        route: "devices/+/telemetry",
        topic: TOPIC,
        payload: b"1",
        qos: 1,
        retain: false,
        expiry: None,
        properties: &[],
    };
    log.producer(Arc::new(Unheard)).append(&[record]).unwrap();
    log.close().unwrap();
}

struct Unheard;

impl CommitListener for Unheard {
    fn committed(&self, _batch: Batch) {}

    fn failed(&self, _batch: Batch, error: &CommitError) {
        panic!("{error}");
    }
}

/// A command about the clock: its JSON.
async fn clock_command(gateway: &Gateway, arguments: &[&str]) -> serde_json::Value {
    let admin = format!("admin.bind={}", gateway.admin);
    let arguments = [&["clock"], arguments, &["--json", "--set", &admin]].concat();
    let (code, text, error) = forebay(&arguments, gateway.folder()).await;
    assert_eq!(code, 0, "{arguments:?}: {text}{error}");
    serde_json::from_str(&text).unwrap()
}

async fn is_refused(gateway: &Gateway, plant: &Plant) -> bool {
    let mut device = match Device::connect_tls(gateway.listeners[0], "localhost", &plant.device(BOARD), "board", Version::V5).await {
        Ok(device) => device,
        Err(_) => return true,
    };
    device.send(&publish(TOPIC, b"1", QoS::AtLeastOnce, 1, false, None)).await.is_none() || device.puback().await.is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_time_on_disk_is_named_and_reset_or_gives_way() {
    let plant = Plant::new(&[]);
    plant.certs(&["device", BOARD, "--days", "365"]);
    let two_years_ahead = std::time::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(2 * 365 * 86_400);
    let wrong = u64::try_from(two_years_ahead.as_millis()).unwrap();
    // A port that nothing listens on.
    let config = scene(&plant, 1, EXPIRY).config();

    // Nothing synchronises the clock: the time on disk stands, is named, and a person resets it.
    let gateway = Gateway::new(&config);
    last_trusted(&gateway, wrong);
    let kernel = KernelClock::new(gateway.folder());
    kernel.say("unsynchronised");
    let mut gateway = kernel.under(gateway);
    let shown = clock_command(&gateway, &[]).await;
    assert!(shown["last_trusted_ahead_seconds"].as_i64().unwrap() > 700 * 86_400, "{shown}");
    gateway.start().await;
    assert!(is_refused(&gateway, &plant).await, "the device's certificate has expired by then");
    let problems = gateway.status().await["problems"].to_string();
    assert!(problems.contains("forebay clock reset"), "{problems}");
    let shown = clock_command(&gateway, &[]).await;
    assert_eq!((&shown["trusted"], &shown["reason"]), (&false.into(), &"not_synchronised".into()));
    assert!(clock_command(&gateway, &["reset"]).await["forgotten"].is_string());
    assert!(!is_refused(&gateway, &plant).await);
    assert_eq!(clock_command(&gateway, &[]).await["last_trusted"], serde_json::Value::Null);
    assert!(!gateway.status().await["problems"].to_string().contains("forebay clock reset"));
    assert_eq!(gateway.stop().await, 0);

    // On a stopped gateway, and over its start.
    last_trusted(&gateway, wrong);
    assert!(clock_command(&gateway, &["reset"]).await["forgotten"].is_string());
    assert_eq!(clock_command(&gateway, &["reset"]).await["forgotten"], serde_json::Value::Null);
    gateway.start().await;
    assert!(!is_refused(&gateway, &plant).await);
    assert_eq!(gateway.stop().await, 0);

    // A synchronised clock needs nobody.
    last_trusted(&gateway, wrong);
    kernel.say("synchronised");
    gateway.start().await;
    assert!(!is_refused(&gateway, &plant).await);
    eventually("the time on disk has given way", || async {
        let status = gateway.status().await;
        (status["clock"]["last_trusted_ahead_seconds"].as_i64()? <= 0).then_some(())
    })
    .await;
    assert_eq!(gateway.stop().await, 0);
}
