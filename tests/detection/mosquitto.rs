//! The same faults against Debian's Mosquitto with a bridge, its `$SYS` topics in Prometheus, and common rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_aws_standin::{Standin, StandinConfig, Which};
use forebay_broker::codec::Version;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::expiry;
use super::fleet::{Board, State};
use super::judge::Judge;
use super::support::device::Device;
use super::support::eventually;
use super::support::plant::Plant;
use super::support::program::program;
use super::support::prometheus::{Job, Prometheus, free_port, root};

/// How long each fault may take to raise something.
const PATIENCE: Duration = Duration::from_secs(90);
/// Two readings a second of each device.
const EVERY: Duration = Duration::from_millis(500);

/// What a fault raised.
pub(crate) struct Raised {
    pub(crate) fault: &'static str,
    pub(crate) alerts: Vec<String>,
    pub(crate) is_named: bool,
}

/// A fault and the alerts that would lead to it.
struct Case {
    fault: &'static str,
    named_by: &'static [&'static str],
    cause: fn(&mut Edge),
}

const CASES: [Case; 14] = [
    Case {
        fault: "1. A device publishes to a mistyped topic",
        named_by: &[],
        cause: |edge| edge.state().topic = "devices/board-1/telemtry".to_owned(),
    },
    Case {
        fault: "2. The bridge's topic is mistyped",
        named_by: &[],
        // It was from the start: see `Edge::start`.
        cause: |_| {},
    },
    Case {
        fault: "3. Devices dial a name that the certificate does not have",
        named_by: &[],
        cause: Edge::dial_wrong_name,
    },
    Case {
        fault: "4. A device falls silent",
        named_by: &["MosquittoNoTraffic", "MosquittoClientsLost"],
        cause: |edge| edge.state().is_mute = true,
    },
    Case {
        fault: "5a. A device reconnects over and over",
        named_by: &["MosquittoConnectionSurge"],
        cause: |edge| {
            let mut state = edge.state();
            (state.flaps, state.every) = (true, Duration::from_secs(3));
        },
    },
    Case {
        fault: "5b. A device reboots",
        named_by: &[],
        cause: |edge| {
            let mut state = edge.state();
            (state.boot, state.seq) = (2, 1);
        },
    },
    Case {
        fault: "6a. A device replays its store",
        named_by: &[],
        cause: |edge| edge.state().replays = 20,
    },
    Case {
        fault: "6b. The cloud has messages twice after a replay",
        named_by: &[],
        cause: |edge| {
            edge.cloud.faults().drop_pubacks(Which::Next(20));
            edge.cloud
                .faults()
                .close_at_publish(20, forebay_aws_standin::Point::AfterCommit, forebay_aws_standin::Cut::Reset);
        },
    },
    Case {
        fault: "7. 17 messages of a device are missing",
        named_by: &[],
        cause: |edge| edge.state().seq += 17,
    },
    Case {
        fault: "8. The cloud is connected but acks nothing",
        named_by: &["MosquittoMessagesPileUp", "MosquittoMessagesDropped"],
        cause: |edge| edge.cloud.faults().drop_pubacks(Which::All),
    },
    Case {
        fault: "9. The cloud refuses one topic by policy",
        named_by: &[],
        cause: |edge| {
            edge.cloud.faults().deny("devices/*/alarm");
            edge.state().topic = "devices/board-1/alarm".to_owned();
        },
    },
    Case {
        fault: "10. The store would be full before the stated outage is over",
        named_by: &[],
        cause: |edge| {
            let mut state = edge.state();
            (state.every, state.fill) = (Duration::from_millis(20), 400);
        },
    },
    Case {
        fault: "11a. A certificate expires within the warning time",
        named_by: &[],
        // It does from the start: see `Edge::start`.
        cause: |_| {},
    },
    Case {
        fault: "12. A temperature climbs 7 degrees against its reference",
        named_by: &[],
        cause: |edge| edge.state().climb = 7.0 / 240.0,
    },
];

/// Runs all at once and gives what each raised.
pub(crate) async fn all() -> Vec<Raised> {
    let mut edges = Vec::new();
    for case in &CASES {
        edges.push(Edge::start(case.fault).await);
    }
    let calm = Edge::start("none").await;
    let targets = edges.iter().chain([&calm]).map(|edge| edge.exporter.address).collect();
    let jobs = [Job {
        name: "mosquitto",
        targets,
    }];
    let prometheus = Arc::new(Prometheus::start(&[root().join("tests/detection/mosquitto-rules.yml")], &jobs).await);
    let judge = Judge::start(Arc::clone(&prometheus));
    // Longer than the longest window that a rule compares with.
    eventually_known(&prometheus).await;
    let caused = Instant::now();
    for (case, edge) in CASES.iter().zip(&mut edges) {
        (case.cause)(edge);
    }
    sleep_until(caused + PATIENCE).await;
    assert!(judge.raised_since(&calm.instance(), caused).is_empty(), "an undisturbed broker");
    let raised = |(case, edge): (&Case, &Edge)| {
        let alerts = judge.raised_since(&edge.instance(), caused);
        Raised {
            fault: case.fault,
            is_named: alerts.iter().any(|alert| case.named_by.contains(&alert.as_str())),
            alerts,
        }
    };
    CASES.iter().zip(&edges).map(raised).collect()
}

async fn eventually_known(prometheus: &Prometheus) {
    let query = "min(count_over_time(broker_publish_messages_received[2m])) >= 20";
    super::support::within(Duration::from_secs(180), "all brokers have been scraped often enough", || async {
        (!prometheus.now(query).await.is_empty()).then_some(())
    })
    .await;
}

/// A broker with a bridge to a cloud of its own, an exporter and three devices.
struct Edge {
    cloud: Standin,
    exporter: Exporter,
    boards: Vec<Board>,
    plant: Plant,
    tls: SocketAddr,
    dialling: Option<AbortHandle>,
    _folder: TempDir,
    _broker: Child,
}

impl Edge {
    async fn start(fault: &str) -> Self {
        let plant = Plant::new(&["board-1"]);
        if fault.starts_with("11a") {
            expiry::server(&plant, "10");
        }
        let cloud = Standin::start(StandinConfig::default()).await.unwrap();
        let (plain, tls) = (free_port(), free_port());
        let topic = if fault.starts_with("2.") { "telemtry" } else { "telemetry" };
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "per_listener_settings false\nuser root\nallow_anonymous true\npersistence false\nsys_interval 1\n\
             listener {} 127.0.0.1\n\
             listener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
             connection cloud\naddress 127.0.0.1:{}\nbridge_protocol_version mqttv311\nremote_clientid edge\ncleansession false\n\
             try_private false\nrestart_timeout 1\nnotifications true\nnotifications_local_only true\n\
             topic devices/+/{topic} out 1\ntopic devices/+/alarm out 1\n",
            plain.port(),
            tls.port(),
            plant.path("devices-ca.pem"),
            plant.path("server.pem"),
            plant.path("server.key"),
            cloud.address().port(),
        );
        let path = folder.path().join("mosquitto.conf");
        std::fs::write(&path, config).unwrap();
        let broker = Command::new(program("mosquitto", "mosquitto"))
            .args(["-c", &path.display().to_string()])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually("mosquitto listens", || async { tokio::net::TcpStream::connect(plain).await.ok() }).await;
        let boards = ["board-1", "board-2", "board-3"].map(|name| Board::start(plain, name, EVERY));
        Self {
            cloud,
            exporter: Exporter::start(plain).await,
            boards: boards.into(),
            plant,
            tls,
            dialling: None,
            _folder: folder,
            _broker: broker,
        }
    }

    fn instance(&self) -> String {
        self.exporter.address.to_string()
    }

    /// Its first device's state.
    fn state(&mut self) -> std::sync::MutexGuard<'_, State> {
        self.boards[0].state()
    }

    fn dial_wrong_name(&mut self) {
        let (address, tls) = (self.tls, self.plant.device("board-1"));
        let dialling = tokio::spawn(async move {
            loop {
                assert!(
                    Device::connect_tls(address, "gateway.lan", &tls, "board-1", Version::V5)
                        .await
                        .is_err()
                );
                sleep(Duration::from_secs(2)).await;
            }
        });
        self.dialling = Some(dialling.abort_handle());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(dialling) = &self.dialling {
            dialling.abort();
        }
    }
}

/// `$SYS` for Prometheus: every topic whose value is a number is a gauge of its name.
struct Exporter {
    address: SocketAddr,
    tasks: [AbortHandle; 2],
}

impl Exporter {
    async fn start(broker: SocketAddr) -> Self {
        let values = Arc::<Mutex<BTreeMap<String, f64>>>::default();
        let reading = tokio::spawn(read(broker, Arc::clone(&values)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, values));
        Self {
            address,
            tasks: [reading.abort_handle(), serving.abort_handle()],
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn read(broker: SocketAddr, values: Arc<Mutex<BTreeMap<String, f64>>>) {
    let mut subscriber = Command::new(program("mosquitto_sub", "mosquitto-clients"))
        .args(["-p", &broker.port().to_string(), "-v", "-t", "$SYS/#"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let Some((topic, value)) = line.rsplit_once(' ') else { continue };
        if let Ok(value) = value.parse::<f64>() {
            let name = topic.trim_start_matches("$SYS/");
            let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            values.lock().unwrap().insert(name, value);
        }
    }
}

async fn serve(listener: TcpListener, values: Arc<Mutex<BTreeMap<String, f64>>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let page: String = values
            .lock()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name} {value}\n"))
            .collect();
        // The head of the request says nothing that we do not know; a scraper that goes away is its own affair.
        let mut request = BufReader::new(&mut stream).lines();
        while request
            .next_line()
            .await
            .is_ok_and(|line| line.is_some_and(|line| !line.is_empty()))
        {}
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            page.len()
        );
        stream.write_all((head + &page).as_bytes()).await.ok();
    }
}
