//! A gateway under test: the real binary, started, killed and started again on the same ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{DEADLINE, eventually};

/// The binary under test.
pub const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

/// A gateway's folder, configuration and process.
pub struct Gateway {
    folder: TempDir,
    child: Option<Child>,
    pub listeners: Vec<SocketAddr>,
    pub admin: SocketAddr,
    /// Words put before the command, such as a program that changes the clock.
    prefix: Vec<String>,
    /// The argument of `--log`, if there is one.
    filter: Option<String>,
    /// Variables of its environment.
    environment: Vec<(String, String)>,
}

impl Gateway {
    /// Makes a folder with this configuration; `start` runs it. The configuration binds port 0 everywhere.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("forebay.yaml"), config).unwrap();
        Self {
            folder,
            child: None,
            listeners: Vec::new(),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            prefix: Vec::new(),
            filter: None,
            environment: Vec::new(),
        }
    }

    /// With a variable in its environment.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Logs what `--log` of this value wants.
    pub fn logging(self, filter: &str) -> Self {
        Self {
            filter: Some(filter.to_owned()),
            ..self
        }
    }

    /// Runs the gateway through another program.
    pub fn through(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(ToString::to_string).collect();
        self
    }

    /// The folder: `forebay.yaml`, `data/`, `stderr.log`, and what a test puts there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything the gateway has logged, over all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until one line of the log says all of these words.
    pub async fn logs(&self, words: &[&str]) {
        let said = |line: &str| words.iter().all(|word| line.contains(word));
        eventually(&format!("a line that says all of {words:?}"), || async {
            self.log().lines().any(said).then_some(())
        })
        .await;
    }

    /// Starts it and waits for the ready line; later starts take the ports of the first.
    pub async fn start(&mut self) {
        let log = self.log_file();
        self.start_with(log).await;
    }

    /// As [`Gateway::start`], with this stderr.
    pub async fn start_with(&mut self, stderr: Stdio) {
        let ended = self.try_start_with(stderr).await;
        assert!(ended.is_none(), "the gateway ended with {ended:?}:\n{}", self.log());
    }

    /// Starts it; the exit code if it ends instead of becoming ready.
    pub async fn try_start(&mut self) -> Option<i32> {
        let log = self.log_file();
        self.try_start_with(log).await
    }

    /// As [`Gateway::try_start`], with this stderr.
    pub async fn try_start_with(&mut self, stderr: Stdio) -> Option<i32> {
        let mut child = self.spawn(Stdio::piped(), stderr);
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        tokio::time::timeout(DEADLINE, stdout.read_line(&mut line))
            .await
            .expect("ready in time")
            .unwrap();
        let Some(rest) = line.trim().strip_prefix("ready listeners=") else {
            return Some(child.wait().await.unwrap().code().unwrap_or(-1));
        };
        let (listeners, admin) = rest.split_once(" admin=").unwrap();
        self.listeners = listeners.split(',').map(|address| address.parse().unwrap()).collect();
        self.admin = admin.parse().unwrap();
        self.child = Some(child);
        None
    }

    /// Starts it with a stdout that tells the test nothing: on free ports, once its admin page answers.
    pub async fn start_blind(&mut self, stdout: Stdio) {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (self.listeners, self.admin) = (vec![free()], free());
        let log = self.log_file();
        self.child = Some(self.spawn(stdout, log));
        eventually("the gateway is ready", || async {
            (self.get("/readyz").await?.0 == 200).then_some(())
        })
        .await;
    }

    /// Starts it again on the ports of the first start, and waits for nothing.
    pub fn begin(&mut self) {
        let log = self.log_file();
        self.child = Some(self.spawn(Stdio::null(), log));
    }

    fn log_file(&self) -> Stdio {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap()
            .into()
    }

    fn spawn(&self, stdout: Stdio, stderr: Stdio) -> Child {
        let mut words = self.prefix.clone();
        words.push(FOREBAY.to_owned());
        words.extend([
            "run".to_owned(),
            "--config".to_owned(),
            self.folder().join("forebay.yaml").display().to_string(),
        ]);
        for (index, address) in self.listeners.iter().enumerate() {
            words.extend(["--set".to_owned(), format!("listeners.{index}.bind={address}")]);
        }
        if self.admin.port() != 0 {
            words.extend(["--set".to_owned(), format!("admin.bind={}", self.admin)]);
        }
        if let Some(filter) = &self.filter {
            words.extend(["--log".to_owned(), filter.clone()]);
        }
        Command::new(&words[0])
            .args(&words[1..])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// SIGTERM; the exit code.
    pub async fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; the exit code, -1 if a signal ended it.
    pub async fn ended(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("stops in time").unwrap();
        status.code().unwrap_or(-1)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id().unwrap()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// CPU time of the process, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap());
        // USER_HZ is 100 on every Linux that there is.
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// One admin page: its status code and body.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect(self.admin).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
        };
        tokio::time::timeout(Duration::from_secs(10), exchange).await.ok()?
    }

    /// `/status`.
    pub async fn status(&self) -> Value {
        eventually("/status answers", || async {
            serde_json::from_str(&self.get("/status").await?.1).ok()
        })
        .await
    }

    /// Records waiting in all streams.
    pub async fn waiting(&self) -> u64 {
        let status = self.status().await;
        status["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stream| stream["waiting"].as_u64().unwrap())
            .sum()
    }

    /// Waits until nothing waits for the cloud any more, for as long as what waits becomes less.
    pub async fn drained(&self) {
        let mut least = u64::MAX;
        while least > 0 {
            least = eventually("what waits becomes less", || async {
                let waiting = self.waiting().await;
                (waiting < least).then_some(waiting)
            })
            .await;
        }
    }

    /// The sum of a metric's series whose line holds all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = eventually("/metrics answers", || self.get("/metrics")).await;
        let matches = |line: &&str| {
            let is_named = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            is_named && labels.iter().all(|label| line.contains(label))
        };
        text.lines()
            .filter(matches)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("stderr.log")
    }
}

/// Runs a command of the binary to its end: exit code, stdout, stderr.
pub async fn forebay(args: &[&str], folder: &Path) -> (i32, String, String) {
    let output = Command::new(FOREBAY)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
