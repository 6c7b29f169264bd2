//! The story: flow, the cloud goes away, the gateway is killed and comes back, the cloud returns, the log drains, the
//! balance is drawn. A row a second shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig, TlsConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use super::balance::{Balance, Sent, recount};
use super::child::Gateway;
use super::devices::Devices;
use super::{CALM, DemoArgs};
use crate::certs::make::{self, Terms};

/// How long the drain may take once devices have stopped, beside one second for each hundred messages.
const DRAIN: Duration = Duration::from_secs(60);
const ROW: Duration = Duration::from_secs(1);
const STREAM_BYTES: u64 = 128 << 20;
const MAX_DISK: u64 = 256 << 20;

/// Tells the story and draws the balance.
pub(super) async fn tell(args: &DemoArgs) -> anyhow::Result<Balance> {
    let folder = tempfile::Builder::new()
        .prefix("forebay-demo-")
        .tempdir()
        .context("no temporary directory could be made")?;
    let mut teller = Teller::set_the_scene(args, folder.path()).await?;
    let result = teller.play().await;
    if result.is_err() {
        let kept = folder.keep();
        teller.say(&format!("the demo failed; its files are in {}", kept.display()));
    }
    result
}

struct Teller<'a> {
    args: &'a DemoArgs,
    cloud: Standin,
    ledger: Arc<Ledger>,
    gateway: Option<Gateway>,
    devices: Devices,
    log: forebay_wal::Options,
    began: Instant,
    cloud_is_there: bool,
    last: Row,
}

/// What a row is made of; rates come from two of them.
#[derive(Clone, Copy, Default)]
struct Row {
    waiting: u64,
    oldest: Option<f64>,
    delivered: u64,
}

impl<'a> Teller<'a> {
    async fn set_the_scene(args: &'a DemoArgs, folder: &Path) -> anyhow::Result<Self> {
        let say = |text: &str| narrate(args.json, text);
        say(&format!("making certificates for {} devices, a gateway and a cloud", args.devices));
        let (devices_dir, cloud_dir) = (folder.join("certs"), folder.join("cloud"));
        let names: Vec<String> = (1..=args.devices).map(|number| format!("demo-{number}")).collect();
        let terms = Terms::from_now(forebay_wal::wall_clock());
        for dir in [&devices_dir, &cloud_dir] {
            make::ca(dir, &terms)?;
            make::server(dir, &["localhost".to_owned()], &terms)?;
        }
        make::devices(&devices_dir, &names, &terms)?;
        make::device(&cloud_dir, "gateway", &terms)?;

        let ledger = Arc::new(Ledger::new(LedgerConfig {
            keep_payload_bytes: 0,
            ..LedgerConfig::default()
        }));
        let read = |name: &str| std::fs::read(cloud_dir.join(name));
        let tls = TlsConfig::from_pem(
            &read("server.pem")?,
            &read("server.key")?,
            &read(make::CA_CERTIFICATE)?,
            Some("localhost"),
        )?;
        let cloud = Standin::start(StandinConfig {
            tls: Some(tls),
            ledger: Some(Arc::clone(&ledger)),
            ..StandinConfig::default()
        })
        .await?;

        let config = folder.join("forebay.yaml");
        std::fs::write(&config, configuration(cloud.address()))?;
        let gateway = Gateway::start(&config, &folder.join("gateway.log")).await?;
        say(&format!(
            "the gateway listens on {} (TLS), its figures are at http://{}/metrics",
            gateway.devices, gateway.admin
        ));
        let file = |name: &str| devices_dir.join(name).display().to_string();
        say(&format!(
            "from another terminal: mosquitto_pub -h localhost -p {} --cafile {} --cert {} --key {} -q 1 -t devices/demo-1/telemetry/hello -m hello",
            gateway.devices.port(),
            file(make::CA_CERTIFICATE),
            file("demo-1.pem"),
            file("demo-1.key"),
        ));

        let devices = Devices::start(&names, &devices_dir, gateway.devices, args.rate)?;
        let log = forebay_wal::Options {
            directory: folder.join("data/log"),
            max_disk: MAX_DISK,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: args.devices.saturating_mul(2),
            streams: vec![forebay_wal::StreamOptions {
                name: "telemetry".to_owned(),
                max_bytes: STREAM_BYTES,
                max_age: None,
                when_full: forebay_wal::WhenFull::Refuse,
            }],
        };
        let (began, gateway, last) = (Instant::now(), Some(gateway), Row::default());
        Ok(Self {
            args,
            cloud,
            ledger,
            gateway,
            devices,
            log,
            began,
            cloud_is_there: true,
            last,
        })
    }

    async fn play(&mut self) -> anyhow::Result<Balance> {
        let total = self.args.devices * self.args.rate;
        self.say(&format!(
            "{} devices publish {total} messages a second; each is acked once it would survive a power cut",
            self.args.devices
        ));
        println_header(self.args.json);
        let away_at = (self.args.length / 4).max(CALM);
        self.rows_until(away_at).await?;

        self.say("the cloud goes away; devices are not affected");
        self.cloud.faults().stop_listening().await?;
        self.cloud_is_there = false;
        self.rows_until(away_at + self.args.outage / 2).await?;
        if !self.args.no_kill {
            self.kill_and_return().await?;
        }
        self.rows_until(away_at + self.args.outage).await?;

        self.say("the cloud is back; waiting records go first, in each device's order");
        self.cloud.faults().resume_listening().await?;
        self.cloud_is_there = true;
        self.rows_until(self.args.length).await?;

        self.say("the devices stop; the log drains");
        let sent = self.devices.stop().await?;
        self.drain().await?;
        self.draw_the_balance(sent).await
    }

    async fn kill_and_return(&mut self) -> anyhow::Result<()> {
        self.say("SIGKILL: the gateway is killed under load");
        let mut gateway = self.gateway.take().context("there is no gateway to kill")?;
        gateway.kill().await?;
        self.row(None);
        let began = Instant::now();
        self.gateway = Some(gateway.start_again().await?);
        self.say(&format!(
            "the gateway is back after {:.1} s; its log has all that was acked",
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN + Duration::from_secs(self.last.waiting / 100);
        loop {
            let row = self.look().await.context("the gateway does not answer on its admin port")?;
            self.row(Some(row));
            if row.waiting == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.say("the log did not drain in time; the rest is counted as waiting");
                return Ok(());
            }
            sleep_until(Instant::now() + ROW).await;
        }
    }

    async fn draw_the_balance(&mut self, sent: BTreeMap<String, Sent>) -> anyhow::Result<Balance> {
        self.say("the gateway stops; its log is recounted by reading");
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await?;
        }
        let audit = recount(self.log.clone()).await?;
        let balance = Balance::of(&audit, &sent, &self.ledger);
        for line in balance.lines() {
            narrate(self.args.json, &format!("   {line}"));
        }
        Ok(balance)
    }

    /// A row a second until this moment of the story.
    async fn rows_until(&mut self, moment: Duration) -> anyhow::Result<()> {
        let end = self.began + moment;
        while Instant::now() < end {
            sleep_until((Instant::now() + ROW).min(end)).await;
            let row = self.look().await.ok();
            self.row(row);
        }
        Ok(())
    }

    fn row(&mut self, row: Option<Row>) {
        let figures = self.devices.look();
        let delivered = row.map_or(0, |row| row.delivered.saturating_sub(self.last.delivered));
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        narrate(
            self.args.json,
            &format!(
                "{:>6.0}s {:>8} {:>10} {:>9} {:>8} {:>11} {:>8}  {}",
                self.began.elapsed().as_secs_f64(),
                figures.connected,
                figures.acked,
                text(row.map(|row| row.waiting.to_string())),
                text(row.and_then(|row| row.oldest).map(|age| format!("{age:.1}s"))),
                delivered,
                text(figures.p99.map(|p99| format!("{}ms", p99.as_millis()))),
                if self.cloud_is_there { "there" } else { "away" },
            ),
        );
        if let Some(row) = row {
            self.last = row;
        }
    }

    /// The gateway's own figures, from `/status`; what arrived, from the cloud's ledger.
    async fn look(&self) -> anyhow::Result<Row> {
        let admin = self.gateway.as_ref().context("the gateway is down")?.admin;
        let status: serde_json::Value = serde_json::from_str(&get(admin, "/status").await?)?;
        let streams = status["streams"].as_array().context("/status has no streams")?;
        Ok(Row {
            waiting: streams.iter().filter_map(|stream| stream["waiting"].as_u64()).sum(),
            oldest: streams
                .iter()
                .filter_map(|stream| stream["oldest_seconds"].as_f64())
                .reduce(f64::max),
            delivered: self.ledger.count(),
        })
    }

    fn say(&self, text: &str) {
        narrate(self.args.json, &format!("── {text}"));
    }
}

/// The story goes to stdout, or to stderr when stdout is for the result.
fn narrate(json: bool, text: &str) {
    if json { eprintln!("{text}") } else { println!("{text}") }
}

fn println_header(json: bool) {
    narrate(
        json,
        &format!(
            "{:>7} {:>8} {:>10} {:>9} {:>8} {:>11} {:>8}  cloud",
            "time", "devices", "accepted/s", "waiting", "oldest", "delivered/s", "ack p99"
        ),
    );
}

fn configuration(cloud: SocketAddr) -> String {
    format!(
        "gateway: {{id: demo, data_dir: data, max_disk: {MAX_DISK}B, keep_free: 0B}}\n\
         listeners:\n  - {{bind: \"127.0.0.1:0\", names: [localhost], tls: {{certificate: certs/server.pem, key: certs/server.key, client_ca: certs/devices-ca.pem}}}}\n\
         streams:\n  - {{name: telemetry, max_bytes: {STREAM_BYTES}B, when_full: refuse}}\n\
         routes:\n  - {{from: \"devices/+/telemetry/#\", to: \"dt/{{gateway}}/{{device}}/{{#}}\", stream: telemetry}}\n  - {{from: \"devices/+/health\", to: \"dt/{{gateway}}/{{device}}/health\", stream: telemetry}}\n\
         cloud:\n  profile: mqtt\n  endpoint: localhost\n  port: {}\n  in_flight: 100\n  \
         tls: {{certificate: cloud/gateway.pem, key: cloud/gateway.key, ca: cloud/devices-ca.pem}}\n\
         admin: {{bind: \"127.0.0.1:0\"}}\n",
        cloud.port()
    )
}

/// One HTTP request to the gateway's admin port.
async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(admin).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), exchange)
        .await
        .context("no answer in time")??;
    let (_, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    Ok(body.to_owned())
}
