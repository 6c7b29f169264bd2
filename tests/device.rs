//! The device's own core and TLS against the real gateway: what it measures arrives in the cloud, over restarts of either.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use forebay_virtual_device::{Credentials, Options, VirtualDevice};
use serde_json::Value;
use support::eventually;
use support::gateway::forebay;
use support::kernel_clock::KernelClock;
use support::plant::Plant;
use support::telemetry::{cloud, scene};
use tokio::task::LocalSet;

fn device(plant: &Plant, name: &str, gateway: SocketAddr) -> VirtualDevice {
    VirtualDevice::new(Options {
        name: name.to_owned(),
        gateway: gateway.to_string(),
        server_name: "localhost".to_owned(),
        credentials: Credentials {
            ca: plant.path("devices-ca.pem").into(),
            certificate: plant.path(&format!("{name}.pem")).into(),
            key: plant.path(&format!("{name}.key")).into(),
        },
        sample_every: Duration::from_millis(50),
        health_every: Duration::from_secs(3600),
        flash: None,
    })
    .unwrap()
}

#[tokio::test]
async fn restarts_of_the_gateway_cost_no_device_restart_and_no_sample() {
    let plant = Plant::new(&["board-1", "board-2"]);
    let (_cloud, ledger) = cloud().await;
    let gateway = scene(&plant, _cloud.address()).gateway();
    // Only a trusted clock is told to devices.
    let mut gateway = KernelClock::new(gateway.folder()).under(gateway);
    gateway.start().await;
    LocalSet::new()
        .run_until(async {
            let devices = ["board-1", "board-2"].map(|name| {
                let device = device(&plant, name, gateway.listeners[0]);
                (name, device.handle(), tokio::task::spawn_local(device.run()))
            });
            for round in 1..=5_u32 {
                eventually("both devices are acked", || async {
                    devices
                        .iter()
                        .all(|(_, handle, _)| handle.status().counters.connections >= round && handle.status().is_connected)
                        .then_some(())
                })
                .await;
                let before: u32 = devices.iter().map(|(_, handle, _)| handle.status().counters.acked).sum();
                eventually("samples are acked", || async {
                    let now: u32 = devices.iter().map(|(_, handle, _)| handle.status().counters.acked).sum();
                    (now > before + 20).then_some(())
                })
                .await;
                if round % 2 == 0 {
                    assert_eq!(gateway.stop().await, 0);
                } else {
                    gateway.kill().await;
                }
                gateway.start().await;
            }
            for (name, handle, _) in &devices {
                assert!(handle.status().is_time_told, "{name}: the gateway tells the time");
                handle.stop();
            }
            for (name, _, task) in devices {
                let outcome = task.await.unwrap().unwrap();
                assert_eq!((outcome.boots, outcome.evicted, outcome.waiting), (1, 0, 0), "{name}: {outcome:?}");
                assert_eq!(outcome.acked, outcome.measured);
                eventually("the cloud has all", || async {
                    (1..=outcome.measured)
                        .all(|sequence| ledger.contains_key(name, sequence))
                        .then_some(())
                })
                .await;
                println!("{name}: {outcome:?}");
            }
        })
        .await;
    let report = ledger.report();
    assert_eq!((report.gaps, report.out_of_order), (0, 0), "{report:?}");
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test]
async fn forebay_device_runs_devices_and_says_what_became_of_their_samples() {
    let plant = Plant::new(&["board-1", "board-2"]);
    let (_cloud, ledger) = cloud().await;
    let mut gateway = scene(&plant, _cloud.address()).gateway();
    gateway.start().await;
    let address = format!("localhost:{}", gateway.listeners[0].port());
    let certs = plant.folder().display().to_string();
    let flash = tempfile::tempdir().unwrap();
    let flash = flash.path().display().to_string();
    let base = ["device", "--gateway", &address, "--certs", &certs, "--json", "--every", "20ms"];
    let (code, stdout, stderr) = forebay(
        &[base.as_slice(), &["--flash", &flash, "--for", "2s", "board-1", "board-2"]].concat(),
        plant.folder(),
    )
    .await;
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let total: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(total["devices"], 2);
    assert!(total["measured"].as_u64().unwrap() > 20, "{total}");
    assert_eq!((&total["acked"], &total["waiting"]), (&total["measured"], &0.into()), "{total}");
    eventually("the cloud has them", || async { ledger.contains_key("board-2", 10).then_some(()) }).await;

    // Without a gateway nothing is acked, and the exit code tells it; with flash it waits for the next run.
    assert_eq!(gateway.stop().await, 0);
    let away = [base.as_slice(), &["--for", "300ms", "board-1"]].concat();
    let (code, _, stderr) = forebay(&away, plant.folder()).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("never reached the gateway"), "{stderr}");
    let (code, _, stderr) = forebay(
        &[base.as_slice(), &["--flash", &flash, "--for", "300ms", "board-9"]].concat(),
        plant.folder(),
    )
    .await;
    assert_eq!(code, 1);
    assert!(stderr.contains("board-9.pem") && stderr.contains("forebay certs"), "{stderr}");
}

#[tokio::test]
async fn forebay_device_says_why_it_does_not_connect() {
    let plant = Plant::new(&["board-1"]);
    let (_cloud, _ledger) = cloud().await;
    let mut gateway = scene(&plant, _cloud.address()).gateway();
    gateway.start().await;
    let port = gateway.listeners[0].port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let certs = plant.folder().display().to_string();
    let cases = [
        ("nowhere.invalid:8883".to_owned(), "nowhere.invalid", "cannot be resolved"),
        (closed.to_string(), "localhost", "nothing accepts connections at"),
        (
            format!("localhost:{port}"),
            "plant-9.example",
            "the gateway's certificate is not for plant-9.example",
        ),
    ];
    for (address, name, reason) in cases {
        let args = [
            "device",
            "--gateway",
            &address,
            "--server-name",
            name,
            "--certs",
            &certs,
            "--for",
            "3s",
            "board-1",
        ];
        let (_, _, stderr) = forebay(&args, plant.folder()).await;
        let told: Vec<_> = stderr.lines().filter(|line| line.contains("not connected (1 device): ")).collect();
        assert!(told.len() == 1 && told[0].contains(reason), "{reason}: {stderr}");
    }
    assert_eq!(gateway.stop().await, 0);
}
