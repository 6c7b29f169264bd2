//! A gateway that carries devices' telemetry, its cloud, and what of it has arrived there.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use serde_json::Value;

use super::plant::Plant;
use super::scene::Scene;

/// A gateway with this plant's certificates and this cloud.
pub fn scene(plant: &Plant, cloud: SocketAddr) -> Scene {
    Scene::new("plant")
        .tls_listener(plant)
        .route("from: \"devices/+/telemetry/#\", to: \"dt/{device}/{#}\", stream: telemetry")
        .route("from: \"devices/+/health\", to: \"dt/{device}/health\", stream: telemetry")
        .cloud(cloud)
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
