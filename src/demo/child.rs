//! The gateway of the demo: this binary's own `run`, as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long the gateway may take to start, and to stop.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running gateway. Dropping it kills it.
pub(super) struct Gateway {
    child: Child,
    pub(super) devices: SocketAddr,
    pub(super) admin: SocketAddr,
    config: PathBuf,
    log: PathBuf,
}

impl Gateway {
    /// Starts a gateway and waits for its ready line. Ports of 0 in the configuration take free ones.
    pub(super) async fn start(config: &Path, log: &Path) -> anyhow::Result<Self> {
        Self::spawn(config, log, &[]).await
    }

    /// Starts it again on the same ports.
    pub(super) async fn start_again(self) -> anyhow::Result<Self> {
        let set = [format!("listeners.0.bind={}", self.devices), format!("admin.bind={}", self.admin)];
        Self::spawn(&self.config, &self.log, &set).await
    }

    /// SIGKILL: no destructor runs, nothing is flushed.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("the gateway could not be killed")
    }

    /// SIGTERM, and waits for its end.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
            .context("the gateway has ended already")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = tokio::time::timeout(DEADLINE, self.child.wait())
            .await
            .context("the gateway did not stop in time")??;
        if !status.success() {
            bail!("the gateway ended with {status}; its log is in {}", self.log.display());
        }
        Ok(())
    }

    async fn spawn(config: &Path, log: &Path, set: &[String]) -> anyhow::Result<Self> {
        let messages = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg("--config").arg(config);
        for entry in set {
            command.arg("--set").arg(entry);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages)
            .kill_on_drop(true)
            .spawn()
            .context("the gateway could not be started")?;
        let stdout = child.stdout.take().context("the gateway has no stdout")?;
        let mut line = String::new();
        let mut lines = BufReader::new(stdout);
        tokio::time::timeout(DEADLINE, lines.read_line(&mut line))
            .await
            .context("the gateway did not become ready in time")??;
        let Some((devices, admin)) = parse_ready(&line) else {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("the gateway did not start: {line}{said}");
        };
        Ok(Self {
            child,
            devices,
            admin,
            config: config.to_owned(),
            log: log.to_owned(),
        })
    }
}

fn parse_ready(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let rest = line.trim().strip_prefix("ready listeners=")?;
    let (listeners, admin) = rest.split_once(" admin=")?;
    Some((listeners.split(',').next()?.parse().ok()?, admin.parse().ok()?))
}
