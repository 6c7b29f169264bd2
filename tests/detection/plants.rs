//! The gateways, each with a cloud and devices of its own, so that the faults do not disturb each other.

use std::net::SocketAddr;
use std::time::Duration;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};

use tokio::sync::Mutex;

use super::expiry;
use super::fleet::Board;
use super::support::gateway::Gateway;
use super::support::plant::Plant;
use super::support::prometheus::Prometheus;
use super::support::scene::Scene;
use super::support::within;

/// A reading a second.
const SECOND: Duration = Duration::from_secs(1);
/// What must have been seen before the first fault: enough scrapes for every window to have a beginning, and enough
/// readings for a drift to have a reference.
const SCRAPES: u32 = 7;

/// One gateway, its cloud and its devices.
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) cloud: Standin,
    pub(crate) boards: Vec<Board>,
}

/// All of them.
pub(crate) struct Sites {
    pub(crate) plant: Plant,
    /// What `expiring` has its certificates of.
    pub(crate) plant_that_expires: Plant,
    /// Faults of single devices: mistyped topic, wrong name, silence, flapping, restart, repeats, gap, drift.
    pub(crate) field: Site,
    /// Its route is mistyped.
    pub(crate) mistyped: Mutex<Site>,
    /// Its cloud will ack nothing.
    pub(crate) deaf: Site,
    /// Its cloud will lose acks.
    pub(crate) lossy: Site,
    /// Its cloud's policy will deny a route.
    pub(crate) denied: Site,
    /// Its log is small for what will come.
    pub(crate) filling: Site,
    /// Its certificate and its revocation list will expire.
    pub(crate) expiring: Mutex<Site>,
}

impl Sites {
    pub(crate) async fn start() -> Self {
        let plant = Plant::new(&["board-3"]);
        let plant_that_expires = Plant::new(&[]);
        expiry::revocation_list(&plant_that_expires, expiry::LONG);
        let names: Vec<_> = (1..=9)
            .map(|number| format!("board-{number}"))
            .chain(["ref-1".to_owned()])
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Self {
            field: Site::start("plant-7", Some(&tls(&plant, false)), TELEMETRY, "1GiB", &names, SECOND / 2).await,
            mistyped: Mutex::new(Site::start("mistyped", None, "devices/+/telemtry", "256MiB", &[], SECOND).await),
            deaf: Site::start("deaf", None, TELEMETRY, "256MiB", &["board-1"], SECOND).await,
            lossy: Site::start("lossy", None, TELEMETRY, "2GiB", &["board-1"], SECOND / 10).await,
            denied: Site::start("denied", None, TELEMETRY, "256MiB", &["board-1"], SECOND).await,
            filling: Site::start("filling", None, TELEMETRY, "64MiB", &["board-1"], SECOND).await,
            expiring: Mutex::new(
                Site::start(
                    "expiring",
                    Some(&tls(&plant_that_expires, true)),
                    TELEMETRY,
                    "256MiB",
                    &["board-1"],
                    SECOND,
                )
                .await,
            ),
            plant_that_expires,
            plant,
        }
    }

    /// What Prometheus scrapes.
    pub(crate) async fn targets(&self) -> Vec<SocketAddr> {
        let sites = [&self.field, &self.deaf, &self.lossy, &self.denied, &self.filling];
        let locked = [self.mistyped.lock().await.gateway.admin, self.expiring.lock().await.gateway.admin];
        sites.iter().map(|site| site.gateway.admin).chain(locked).collect()
    }

    /// Waits until what is normal has been seen everywhere.
    pub(crate) async fn are_known(&self, prometheus: &Prometheus) {
        let query = format!("min(count_over_time(forebay_ready[2m])) >= {SCRAPES}");
        within(Duration::from_secs(120), "all gateways have been scraped often enough", || async {
            (!prometheus.now(&query).await.is_empty()).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        for site in [
            self.field,
            self.mistyped.into_inner(),
            self.deaf,
            self.lossy,
            self.denied,
            self.filling,
            self.expiring.into_inner(),
        ] {
            site.stop().await;
        }
    }
}

/// What the first route of every site takes; `mistyped` gets another.
pub(crate) const TELEMETRY: &str = "devices/+/telemetry";

/// A TLS listener with the plant's certificate.
fn tls(plant: &Plant, revokes: bool) -> String {
    let mut tls = plant.listener_tls();
    if revokes {
        tls = tls.replace('}', &format!(", crl: {}}}", plant.path(expiry::LIST)));
    }
    format!("names: [localhost], tls: {tls}, identity: \"{{cn}}\"")
}

impl Site {
    async fn start(id: &str, listener: Option<&str>, telemetry: &str, max_bytes: &str, boards: &[&str], every: Duration) -> Self {
        let ledger = Ledger::new(LedgerConfig {
            keep_entries: 0,
            keep_payload_bytes: 0,
            ..LedgerConfig::default()
        });
        let cloud = Standin::start(StandinConfig {
            ledger: Some(ledger.into()),
            ..StandinConfig::default()
        })
        .await
        .unwrap();
        let mut gateway = Gateway::new(&config(id, listener, telemetry, max_bytes, cloud.address().port()));
        gateway.start().await;
        let plain = *gateway.listeners.last().unwrap();
        let boards = boards.iter().map(|name| Board::start(plain, name, every)).collect();
        Self { gateway, cloud, boards }
    }

    /// One that nothing will be done to: 50 publishes a second, one of its boards the reference of the others.
    pub(crate) async fn calm() -> Self {
        let boards = ["board-1", "board-2", "board-3", "board-4", "ref-1"];
        Self::start("calm", None, TELEMETRY, "2GiB", &boards, SECOND / 10).await
    }

    /// Its label in Prometheus.
    pub(crate) fn instance(&self) -> String {
        self.gateway.admin.to_string()
    }

    /// Goes on with another first route, as after a correction.
    pub(crate) async fn reroute(&mut self, id: &str, telemetry: &str) {
        let config = config(id, None, telemetry, "256MiB", self.cloud.address().port());
        std::fs::write(self.gateway.folder().join("forebay.yaml"), config).unwrap();
        assert_eq!(self.gateway.stop().await, 0);
        self.gateway.start().await;
    }

    pub(crate) async fn stop(mut self) {
        drop(self.boards);
        assert_eq!(self.gateway.stop().await, 0);
        self.cloud.shutdown().await;
    }
}

/// A gateway's configuration. It plans for an outage of twelve hours at the rate that its boards have.
pub(crate) fn config(id: &str, listener: Option<&str>, telemetry: &str, max_bytes: &str, cloud: u16) -> String {
    // Only these sites have a reference.
    let fields = if ["plant-7", "calm"].contains(&id) {
        "    fields: [{at: /temp, drift: {topic: devices/ref-1/telemetry, at: /temp, more_than: 1.0}}]\n"
    } else {
        ""
    };
    let mut scene = Scene::new(id)
        .set("gateway", "max_disk", "4GiB")
        .set("gateway", "survive", "{outage: 12h, rate: 2/s, size: 256B}")
        .stream(&format!("name: telemetry, max_bytes: {max_bytes}"))
        .more(&format!(
            "watch:\n  - topic: devices/+/telemetry\n    every: 4s\n    sequence: {{counter: /seq, boot: /boot}}\n{fields}"
        ))
        .cloud_on(cloud)
        .set("cloud", "canary", "1m");
    if let Some(keys) = listener {
        scene = scene.listener(keys);
    }
    scene
        .listener("identity: \"{client_id}\"")
        .route(&format!("from: \"{telemetry}\", to: \"dt/{{device}}\", stream: telemetry"))
        .route("from: \"devices/+/alarm\", to: \"alarm/{device}\", stream: telemetry")
        .config()
}
