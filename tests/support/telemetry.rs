//! A gateway that carries devices' telemetry, its cloud, and what of it has arrived there.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use serde_json::Value;

use super::plant::Plant;

/// The configuration of a gateway with this plant's certificates and this cloud.
pub fn config(plant: &Plant, cloud: SocketAddr) -> String {
    format!(
        "gateway: {{id: plant, max_disk: 256MiB, keep_free: 0B}}\n\
         listeners: [{{bind: \"127.0.0.1:0\", names: [localhost], tls: {}}}]\n\
         streams: [{{name: telemetry, max_bytes: 128MiB, when_full: refuse}}]\n\
         routes:\n  - {{from: \"devices/+/telemetry/#\", to: \"dt/{{device}}/{{#}}\", stream: telemetry}}\n  \
         - {{from: \"devices/+/health\", to: \"dt/{{device}}/health\", stream: telemetry}}\n\
         cloud: {{profile: mqtt, endpoint: 127.0.0.1, port: {}}}\n\
         admin: {{bind: \"127.0.0.1:0\"}}\n",
        plant.listener_tls(),
        cloud.port()
    )
}

/// A cloud and its ledger.
pub async fn cloud() -> (Standin, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    });
    (cloud.await.unwrap(), ledger)
}

/// A sample in the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived {
    pub boot: u64,
    pub sequence: u64,
    /// Milliseconds from the device's boot to its measurement.
    pub uptime: u64,
}

/// The samples of a device in the order of their arrival, those that came twice included.
pub fn samples(ledger: &Ledger, device: &str) -> Vec<Arrived> {
    let topic = format!("dt/{device}/env");
    let payloads = ledger.payloads(&topic);
    let sample = |payload: &[u8]| {
        let sample: Value = serde_json::from_slice(payload).unwrap();
        let number = |name: &str| sample[name].as_u64().unwrap();
        Arrived {
            boot: number("boot"),
            sequence: number("seq"),
            uptime: number("up"),
        }
    };
    payloads.iter().map(|payload| sample(payload)).collect()
}
