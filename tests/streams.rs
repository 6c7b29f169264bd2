//! The gateway's own stderr and stdout: closed, full, or read by nobody. Nothing else notices, and the loss is told.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{PipeReader, PipeWriter};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use forebay_aws_standin::{Ledger, Standin};
use forebay_broker::codec::{QoS, ReasonCode, Version};
use rustix::fs::OFlags;
use support::device::Device;
use support::gateway::Gateway;
use support::{eventually, telemetry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DROPPED: &str = "forebay_log_lines_dropped_total";
/// Publishes before the cloud's connection is cut, and after.
const MESSAGES: u16 = 200;

fn config(cloud: SocketAddr) -> String {
    format!(
        "gateway: {{id: streams, max_disk: 128MiB, keep_free: 0B}}\n\
         listeners: [{{bind: \"127.0.0.1:0\", identity: \"{{client_id}}\"}}]\n\
         streams: [{{name: telemetry, max_bytes: 32MiB, when_full: refuse}}]\n\
         routes: [{{from: \"devices/+/telemetry\", to: \"dt/{{device}}\", stream: telemetry}}]\n\
         cloud: {{profile: mqtt, endpoint: 127.0.0.1, port: {}, canary: off}}\n\
         admin: {{bind: \"127.0.0.1:0\"}}\n",
        cloud.port()
    )
}

/// A gateway that logs much to this stderr, and its cloud.
async fn gateway(stderr: impl Into<Stdio>) -> (Gateway, Standin, Arc<Ledger>) {
    let (cloud, ledger) = telemetry::cloud().await;
    let mut gateway = Gateway::new(&config(cloud.address())).logging("trace");
    gateway.start_with(stderr.into()).await;
    (gateway, cloud, ledger)
}

/// A device is acked and its messages reach the cloud, before and after the cloud's connection was cut: that is when the
/// bridge logs.
async fn serves(gateway: &Gateway, cloud: &Standin, ledger: &Ledger) {
    let mut device = Device::connect(gateway.listeners[0], "board-1", Version::V5, true)
        .await
        .expect("a device connects");
    for id in 1..=2 * MESSAGES {
        if id == MESSAGES {
            cloud.faults().stop_listening().await.unwrap();
            cloud.faults().resume_listening().await.unwrap();
        }
        let payload = format!("{{\"device\":\"board-1\",\"seq\":{id}}}");
        device
            .publish("devices/board-1/telemetry", payload.as_bytes(), QoS::AtLeastOnce, id, false)
            .await
            .unwrap();
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    }
    eventually("all messages reach the cloud", || async {
        (ledger.payloads("dt/board-1").len() >= 2 * usize::from(MESSAGES)).then_some(())
    })
    .await;
}

/// Lines are lost, and `/status` says so.
async fn says_that_lines_are_lost(gateway: &Gateway) {
    eventually("the dropped lines are counted", || async {
        // Each leaves a line at this level; more than the queue takes.
        for _ in 0..200 {
            let mut peer = TcpStream::connect(gateway.admin).await.ok()?;
            peer.write_all(b"no request\r\n\r\n").await.ok()?;
            peer.read_to_end(&mut Vec::new()).await.ok()?;
        }
        (gateway.metric(DROPPED, &[]).await > 0.0).then_some(())
    })
    .await;
    let problems = gateway.status().await["problems"].to_string();
    assert!(problems.contains("dropped since the start: stderr cannot be written"), "{problems}");
}

/// A pipe with no room left.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while std::io::Write::write(&mut writer, &[b'\n'; 512]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_full_disk_under_the_log_stops_neither_acks_nor_delivery_nor_the_stop() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (mut gateway, cloud, ledger) = gateway(full).await;
    serves(&gateway, &cloud, &ledger).await;
    says_that_lines_are_lost(&gateway).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_stops_neither_acks_nor_delivery_nor_the_stop() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (mut gateway, cloud, ledger) = gateway(OwnedFd::from(writer)).await;
    serves(&gateway, &cloud, &ledger).await;
    says_that_lines_are_lost(&gateway).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_closed_stderr_stops_neither_acks_nor_delivery_nor_the_stop() {
    let (cloud, ledger) = telemetry::cloud().await;
    let mut gateway = Gateway::new(&config(cloud.address()))
        .logging("trace")
        .through(&["sh", "-c", "exec \"$@\" 2>&-", "closed"]);
    gateway.start().await;
    serves(&gateway, &cloud, &ledger).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_a_full_pipe_under_the_log_stops_neither_acks_nor_delivery_nor_the_stop() {
    let (reader, writer) = full_pipe();
    let (mut gateway, cloud, ledger) = gateway(OwnedFd::from(writer)).await;
    serves(&gateway, &cloud, &ledger).await;
    says_that_lines_are_lost(&gateway).await;
    assert_eq!(gateway.stop().await, 0);
    drop(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_read_again_says_how_many_lines_were_dropped() {
    let (mut reader, writer) = full_pipe();
    let (mut gateway, cloud, ledger) = gateway(OwnedFd::from(writer)).await;
    serves(&gateway, &cloud, &ledger).await;
    says_that_lines_are_lost(&gateway).await;
    let reading = std::thread::spawn(move || {
        let mut log = String::new();
        std::io::Read::read_to_string(&mut reader, &mut log).unwrap();
        log
    });
    eventually("the log tells its losses", || async {
        let problems = gateway.status().await["problems"].to_string();
        problems.contains("stderr was not read fast enough").then_some(())
    })
    .await;
    let dropped = gateway.metric(DROPPED, &[]).await;
    assert_eq!(gateway.stop().await, 0);
    let log = reading.join().unwrap();
    let told = log.lines().filter_map(|line| line.split(" dropped=").nth(1)?.parse::<f64>().ok());
    assert_eq!(told.sum::<f64>(), dropped, "each lost line is told once");
    assert!(log.contains(" log lines were dropped: "));
}

/// With nobody to read the ready line the gateway runs, and its exit is right all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_or_full_stdout_does_not_keep_the_gateway_from_running() {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let (_reader, full) = full_pipe();
    for stdout in [OwnedFd::from(closed), OwnedFd::from(full)] {
        let (cloud, ledger) = telemetry::cloud().await;
        let mut gateway = Gateway::new(&config(cloud.address()));
        gateway.start_blind(stdout.into()).await;
        serves(&gateway, &cloud, &ledger).await;
        assert_eq!(gateway.stop().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_with_its_own_code_whatever_stderr_is() {
    let (_reader, full) = full_pipe();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for stderr in [OwnedFd::from(full), OwnedFd::from(closed)] {
        let mut gateway = Gateway::new("gateway: {id: wrong}\nlisteners: []\nunknown: 1\n");
        let ended = tokio::time::timeout(Duration::from_secs(30), gateway.try_start_with(stderr.into())).await;
        assert_eq!(ended.expect("it ends"), Some(78));
    }
}
