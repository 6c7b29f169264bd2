//! The systemd unit's limits, held by a gateway that runs under them.
//!
//! Needs python3-seccomp and systemd (`apt-get install -y python3-seccomp systemd`), not systemd as process 1.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_broker::codec::{QoS, ReasonCode, Version};
use support::device::{Device, publish};
use support::gateway::Gateway;
use support::plant::Plant;
use support::program::program;

const BOARD: &str = "board-1";

fn config(plant: &Plant) -> String {
    format!(
        "gateway: {{id: service, max_disk: 128MiB, keep_free: 0B}}\n\
         listeners: [{{bind: \"127.0.0.1:0\", names: [localhost], tls: {}, identity: \"{{cn}}\"}}]\n\
         streams: [{{name: telemetry, max_bytes: 32MiB, when_full: refuse}}]\n\
         routes: [{{from: \"devices/+/telemetry\", to: \"dt/{{device}}\", stream: telemetry}}]\n\
         admin: {{bind: \"127.0.0.1:0\"}}\n",
        plant.listener_tls()
    )
}

/// The unit as it is shipped, changed by the test.
fn unit(change: impl FnOnce(String) -> String) -> tempfile::NamedTempFile {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/forebay.service");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), change(std::fs::read_to_string(path).unwrap())).unwrap();
    file
}

fn under(gateway: Gateway, unit: &tempfile::NamedTempFile) -> Gateway {
    program("systemd-analyze", "systemd");
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/filter.py");
    // Debian's own Python, for which the package is.
    gateway.through(&["/usr/bin/python3", filter, unit.path().to_str().unwrap()])
}

/// What the clock's metric says of the kernel's answer.
async fn is_unknown(gateway: &Gateway) -> bool {
    gateway.metric("forebay_clock_reason", &["reason=\"unknown\""]).await == 1.0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_serves_under_the_units_filter_and_may_ask_the_kernel_for_its_clock() {
    let plant = Plant::new(&[BOARD]);
    let shipped = unit(|text| text);
    let mut gateway = under(Gateway::new(&config(&plant)), &shipped);
    gateway.start().await;
    assert!(!is_unknown(&gateway).await, "{}", gateway.log());
    let mut device = Device::connect_tls(gateway.listeners[0], "localhost", &plant.device(BOARD), "board", Version::V5)
        .await
        .unwrap();
    let message = publish("devices/board-1/telemetry", b"1", QoS::AtLeastOnce, 1, false, None);
    device.send(&message).await.unwrap();
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    assert_eq!(gateway.stop().await, 0, "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_refuses_the_call_leaves_the_clock_untrusted_and_nothing_fails() {
    let plant = Plant::new(&[BOARD]);
    let narrow = unit(|text| {
        text.lines()
            .filter(|line| !line.contains("adjtimex"))
            .collect::<Vec<_>>()
            .join("\n")
    });
    let mut gateway = under(Gateway::new(&config(&plant)), &narrow);
    gateway.start().await;
    let is_by_file = gateway.metric("forebay_clock_reason", &["reason=\"timesync_file\""]).await == 1.0;
    assert!(is_unknown(&gateway).await || is_by_file, "{}", gateway.log());
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    assert_eq!(gateway.stop().await, 0);
}

/// The filter may refuse to raise the limit; then the gateway lives with what there is, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a9_under_the_units_filter_a_low_limit_of_open_files_is_raised_or_told() {
    let plant = Plant::new(&[BOARD]);
    let shipped = unit(|text| text);
    program("systemd-analyze", "systemd");
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/filter.py");
    let low = "ulimit -Sn 256; exec \"$0\" \"$@\"";
    let through = ["sh", "-c", low, "/usr/bin/python3", filter, shipped.path().to_str().unwrap()];
    let mut gateway = Gateway::new(&config(&plant)).through(&through);
    gateway.start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = files.split_whitespace().nth(3).unwrap().parse().unwrap();
    let is_told = gateway.status().await["problems"]
        .to_string()
        .contains("the process may open 256 files");
    assert_eq!(soft < 2312, is_told, "{files}: {}", gateway.log());
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    assert_eq!(gateway.stop().await, 0, "{}", gateway.log());
}
