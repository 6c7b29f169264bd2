//! What the gateway runs on: syncs that stand or are not known, a directory in memory, a log that another user's command changed.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use forebay_broker::codec::{Packet, QoS, ReasonCode, Version};
use support::device::Device;
use support::eventually;
use support::gateway::{Gateway, forebay};
use support::program::program;
use support::scene::Scene;
use support::slow_sync::Syncs;

fn scene() -> Scene {
    Scene::new("ground").cloud_on(1).set("cloud", "canary", "off")
}

async fn device(gateway: &Gateway) -> Device {
    Device::connect(gateway.listeners[0], "d1", Version::V5, true).await.unwrap()
}

async fn publish(device: &mut Device, id: u16) {
    device
        .publish("devices/d1/telemetry", b"1", QoS::AtLeastOnce, id, false)
        .await
        .unwrap();
}

async fn names(gateway: &Gateway, words: &[&str]) {
    eventually(&format!("a problem that says all of {words:?}"), || async {
        let status = gateway.status().await;
        let problems = status["problems"].as_array().unwrap();
        let says = |line: &str| words.iter().all(|word| line.contains(word));
        problems.iter().any(|line| says(line.as_str().unwrap())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e27_a_sync_that_stands_is_named_and_neither_cuts_a_device_nor_keeps_the_process_from_its_stop() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Syncs::new(folder.path());
    let mut gateway = syncs.under(scene().gateway());
    gateway.start().await;
    let mut device = device(&gateway).await;
    publish(&mut device, 1).await;
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    syncs.say("stands");
    publish(&mut device, 2).await;
    names(&gateway, &["for a commit", "the disk does not answer"]).await;
    gateway.logs(&["records have waited ten seconds for a commit"]).await;
    assert!(gateway.metric("forebay_commit_waiting_seconds", &[]).await >= 10.0);
    // It goes on when the disk does: the connection is the same.
    syncs.say("well");
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    syncs.say("stands");
    publish(&mut device, 3).await;
    let began = Instant::now();
    assert_eq!(gateway.stop().await, 74, "the log could not be closed");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    gateway.logs(&["the end of the log"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k13_while_the_log_is_opened_the_pages_say_how_far_it_is_and_a_probe_of_health_is_content() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Syncs::new(folder.path());
    let mut gateway = syncs.under(scene().gateway());
    gateway.start().await;
    let mut device = device(&gateway).await;
    publish(&mut device, 1).await;
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    gateway.kill().await;
    syncs.say("stands");
    gateway.begin();
    for path in ["/readyz", "/status", "/"] {
        eventually(&format!("{path} tells of the start"), || async {
            let (code, body) = gateway.get(path).await?;
            (code == 503 && body.contains("it opens the log, and has looked at") && body.contains("%)")).then_some(())
        })
        .await;
    }
    assert_eq!(
        gateway.get("/healthz").await.map(|(code, _)| code),
        Some(200),
        "a restart would begin it again"
    );
    assert_eq!(gateway.get("/metrics").await.map(|(code, _)| code), Some(200));
    assert_eq!(
        gateway.get("/log/stat").await.map(|(code, _)| code),
        Some(404),
        "there is no log yet"
    );
    syncs.say("well");
    eventually("the gateway is ready", || async {
        (gateway.get("/readyz").await?.0 == 200).then_some(())
    })
    .await;
    assert_eq!(gateway.status().await["ledger"]["accepted"], 1);
    assert_eq!(gateway.get("/log/stat").await.map(|(code, _)| code), Some(200));
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn k21_a_log_that_is_made_anew_is_told_as_new() {
    const LINE: &str = "there was no log, and a new one was made";
    let told = |gateway: &Gateway| gateway.log().matches(LINE).count();
    let mut gateway = scene().gateway();
    gateway.start().await;
    assert_eq!((&gateway.status().await["start"]["new"], told(&gateway)), (&true.into(), 1));
    for is_killed in [true, false] {
        if is_killed {
            gateway.kill().await;
        } else {
            assert_eq!(gateway.stop().await, 0);
        }
        gateway.start().await;
        assert_eq!((&gateway.status().await["start"]["new"], told(&gateway)), (&false.into(), 1));
    }
    assert_eq!(gateway.stop().await, 0);
    // As when the disk is not mounted.
    std::fs::rename(gateway.folder().join("data"), gateway.folder().join("mounted")).unwrap();
    gateway.start().await;
    assert_eq!((&gateway.status().await["start"]["new"], told(&gateway)), (&true.into(), 2));
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn k23_pages_probes_and_pings_answer_while_a_sync_stands() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Syncs::new(folder.path());
    let mut gateway = syncs.under(scene().gateway());
    gateway.start().await;
    let mut device = device(&gateway).await;
    publish(&mut device, 1).await;
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    for id in 2..5 {
        syncs.say("stands");
        publish(&mut device, id).await;
        device.send(&Packet::PingReq).await.unwrap();
        assert!(
            matches!(device.next().await, Some(Packet::PingResp)),
            "the publish before it waits for its commit"
        );
        assert_eq!(gateway.get("/healthz").await.map(|(code, _)| code), Some(200));
        assert_eq!(
            gateway.get("/readyz").await.map(|(code, _)| code),
            Some(200),
            "a pause of seconds is no verdict"
        );
        assert_eq!(gateway.status().await["ledger"]["accepted"], id - 2 + 1);
        syncs.say("well");
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    }
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn e25_a_file_system_that_knows_no_sync_of_a_directory_is_told_once_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Syncs::new(folder.path());
    syncs.say("unknown");
    let mut gateway = syncs.under(scene().gateway());
    for life in 1..=2 {
        gateway.start().await;
        let mut device = device(&gateway).await;
        publish(&mut device, 1).await;
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
        drop(device);
        assert_eq!(gateway.stop().await, 0);
        let told = gateway.log().matches("cannot sync a directory").count();
        assert!((1..=life).contains(&told), "once in a life that syncs it:\n{}", gateway.log());
        assert!(!gateway.log().contains("a restart would lose it"), "{}", gateway.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e19_a_directory_in_memory_is_an_error_of_check_and_a_problem_of_the_gateway() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a file system: run it as root"
    );
    let memory = tempfile::tempdir().unwrap();
    let path = memory.path().display().to_string();
    let run = |command: &str, arguments: &[&str]| {
        assert!(Command::new(program(command, "mount")).args(arguments).status().unwrap().success());
    };
    run("mount", &["-t", "tmpfs", "-o", "size=300m", "tmpfs", &path]);
    let mut gateway = scene().set("gateway", "data_dir", format!("{path}/data")).gateway();
    gateway.start().await;
    names(&gateway, &["gateway.data_dir", "is on tmpfs", "loses every acked message"]).await;
    gateway.logs(&["ERROR", "is on tmpfs"]).await;
    let (code, told, _) = forebay(&["check"], gateway.folder()).await;
    assert!(code == 78 && told.contains("is on tmpfs"), "{code} {told}");
    assert_eq!(gateway.stop().await, 0);
    run("umount", &[&path]);
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_what_root_makes_in_a_stopped_log_belongs_to_the_logs_owner() {
    assert!(rustix::process::geteuid().is_root(), "this test changes owners: run it as root");
    const OWNER: u32 = 65_534;
    let mut gateway = scene().gateway();
    gateway.start().await;
    let mut device = device(&gateway).await;
    publish(&mut device, 1).await;
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    gateway.kill().await;
    let data = gateway.folder().join("data");
    let all = || {
        let mut found = vec![data.clone(), data.join("log")];
        for directory in [&data, &data.join("log")] {
            found.extend(std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()));
        }
        found
    };
    for path in all() {
        std::os::unix::fs::chown(&path, Some(OWNER), Some(OWNER)).unwrap();
    }
    let before = all().len();
    // It is made anew, as a segment would be.
    let lock = data.join("log/lock");
    std::fs::remove_file(&lock).unwrap();
    let (code, _, told) = forebay(&["clock", "reset"], gateway.folder()).await;
    assert!(code == 0 || code == 1, "{code} {told}");
    assert!(lock.exists(), "the command made a file");
    for path in all() {
        assert_eq!(path.metadata().unwrap().uid(), OWNER, "{} of {before}: {told}", path.display());
    }
}
