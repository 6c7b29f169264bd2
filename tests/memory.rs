//! What a connection that waits costs, so that 2,000 devices fit beside everything else on a small board.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_broker::codec::{QoS, Version};
use support::device::Device;
use support::scene::Scene;

const CONNECTIONS: u64 = 500;
/// Bytes of an idle connection, all in all, in a debug build; a read buffer of 16 KiB for each is beyond it.
const EACH: u64 = 12 << 10;

#[tokio::test]
async fn an_idle_connection_holds_no_buffers() {
    let mut gateway = Scene::new("memory").gateway();
    gateway.start().await;
    let before = gateway.resident();
    let mut devices = Vec::new();
    for number in 0..CONNECTIONS {
        let mut device = Device::connect(gateway.listeners[0], &format!("d{number}"), Version::V311, true)
            .await
            .unwrap();
        device
            .publish(&format!("devices/d{number}/telemetry"), &[b'x'; 4_000], QoS::AtLeastOnce, 1, false)
            .await
            .unwrap();
        let answer = device.puback().await;
        assert!(answer.is_some(), "{}", gateway.log());
        devices.push(device);
    }
    let each = gateway.resident().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes for each of {CONNECTIONS} idle connections");
    assert!(each <= EACH, "{each} bytes for each idle connection");
    assert_eq!(gateway.stop().await, 0);
}
