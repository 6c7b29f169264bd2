//! Few file descriptors: clients take what is theirs, and leave the log, the cloud and the admin API what they need.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_broker::codec::{QoS, ReasonCode, Version};
use support::device::Device;
use support::eventually;
use support::gateway::Gateway;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const CONFIG: &str = "gateway: {id: few, max_disk: 128MiB, keep_free: 0B}\n\
    listeners: [{bind: \"127.0.0.1:0\", identity: \"{client_id}\"}, {bind: \"127.0.0.1:0\", identity: local}]\n\
    streams: [{name: telemetry, max_bytes: 32MiB, when_full: refuse}]\n\
    admin: {bind: \"127.0.0.1:0\"}\n";

/// A soft limit alone is raised; a hard one is lived with.
#[tokio::test(flavor = "multi_thread")]
async fn a9_with_256_descriptors_300_clients_leave_the_log_the_cloud_and_the_admin_api_theirs() {
    for (limit, connections) in [("-Sn 256", 300), ("-n 256", 130)] {
        let config = CONFIG.replace("streams:", "cloud: {profile: mqtt, endpoint: 127.0.0.1, port: 1}\nstreams:");
        let mut gateway = Gateway::new(&config).through(&["sh", "-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
        gateway.start().await;
        let mut clients = Vec::new();
        let mut first = None;
        for number in 0..300 {
            match Device::connect(gateway.listeners[0], &format!("c{number}"), Version::V5, true).await {
                Some(client) if first.is_none() => first = Some(client),
                Some(client) => clients.push(client),
                None => {}
            }
        }
        assert_eq!(clients.len() + 1, connections, "{}", gateway.log());
        // Peers that say nothing on top of them.
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(TcpStream::connect(gateway.listeners[0]).await.unwrap());
        }
        let mut device = first.unwrap();
        for packet_id in 1..=50 {
            device
                .publish("devices/c0/x", &[7; 2000], QoS::AtLeastOnce, packet_id, false)
                .await
                .unwrap();
            assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
        }
        let mut local = Device::connect(gateway.listeners[1], "console", Version::V5, true).await.unwrap();
        local.publish("here", b"x", QoS::AtLeastOnce, 1, false).await.unwrap();
        assert_eq!(local.puback().await, Some(ReasonCode::SUCCESS));
        let status = gateway.status().await;
        let problems = status["problems"].to_string();
        assert_eq!(
            problems.contains("the process may open 256 files and limits.max_connections needs 2312: it is lowered from 2000 to 130"),
            connections == 130,
            "{problems}"
        );
        assert!(!problems.contains("the log cannot"), "{problems}");
        if connections == 130 {
            eventually("the bridge still dials", || async {
                gateway.status().await["problems"].to_string().contains("refused").then_some(())
            })
            .await;
            assert!(!gateway.log().contains("Too many open files"), "{}", gateway.log());
            let mut refused = silent.pop().unwrap();
            assert!(matches!(refused.read(&mut [0; 8]).await, Ok(0) | Err(_)), "it is closed");
        }
        assert_eq!(gateway.stop().await, 0);
    }
}
