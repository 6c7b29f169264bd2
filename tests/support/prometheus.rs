//! A real Prometheus with the shipped rules and intervals, over targets of a test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::eventually;
use super::program::program;

/// A Prometheus that runs until it is dropped.
pub struct Prometheus {
    address: SocketAddr,
    folder: TempDir,
    _child: Child,
}

/// A job to scrape.
pub struct Job<'a> {
    pub name: &'a str,
    pub targets: Vec<SocketAddr>,
}

impl Prometheus {
    /// Starts one with the intervals of `dashboards/prometheus.yml`, these rule files and these jobs.
    pub async fn start(rules: &[PathBuf], jobs: &[Job<'_>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(rules, jobs);
        std::fs::write(folder.path().join("prometheus.yml"), serde_yaml::to_string(&config).unwrap()).unwrap();
        let address = free_port();
        let log = std::fs::File::create(folder.path().join("prometheus.log")).unwrap();
        let child = Command::new(program("prometheus", "prometheus"))
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let prometheus = Self {
            address,
            folder,
            _child: child,
        };
        eventually("Prometheus is ready", || async {
            (get(address, "/-/ready").await?.0 == 200).then_some(())
        })
        .await;
        prometheus
    }

    /// The alerts that are pending or firing.
    pub async fn alerts(&self) -> Vec<Value> {
        let answer = self.api("/api/v1/alerts").await;
        answer["data"]["alerts"].as_array().unwrap().clone()
    }

    /// The series of a query now.
    pub async fn now(&self, query: &str) -> Vec<Value> {
        let answer = self.api(&format!("/api/v1/query?query={}", escaped(query))).await;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The series of a query at any moment of the last `back` seconds, five seconds apart.
    pub async fn ranged(&self, query: &str, back: u64) -> Vec<Value> {
        let now = forebay_wal::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let path = format!("/api/v1/query_range?query={}&start={}&end={now}&step=5", escaped(query), now - back);
        let answer = self.api(&path).await;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// What it complained of.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("prometheus.log")).unwrap_or_default()
    }

    async fn api(&self, path: &str) -> Value {
        let (_, body) = eventually("Prometheus answers", || get(self.address, path)).await;
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shipped configuration with other rules and targets: the intervals stay.
fn config(rules: &[PathBuf], jobs: &[Job<'_>]) -> serde_yaml::Value {
    let shipped = std::fs::read_to_string(root().join("dashboards/prometheus.yml")).unwrap();
    let mut config: serde_yaml::Value = serde_yaml::from_str(&shipped).unwrap();
    let map = config.as_mapping_mut().unwrap();
    map.remove("alerting");
    let rules: Vec<_> = rules.iter().map(|path| path.display().to_string()).collect();
    map.insert("rule_files".into(), serde_yaml::to_value(rules).unwrap());
    let jobs: Vec<_> = jobs
        .iter()
        .map(|job| {
            let targets: Vec<_> = job.targets.iter().map(ToString::to_string).collect();
            serde_json::json!({"job_name": job.name, "static_configs": [{"targets": targets}]})
        })
        .collect();
    map.insert("scrape_configs".into(), serde_yaml::to_value(jobs).unwrap());
    config
}

/// A port that was free a moment ago, for a program that cannot be asked which one it took.
pub fn free_port() -> SocketAddr {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// One page by plain HTTP: its status code and body.
pub async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        // Version 1.0: no chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await.ok()?
}

/// A query for a URL.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                (byte as char).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
