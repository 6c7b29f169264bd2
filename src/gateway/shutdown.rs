//! The end, in order: devices are gone, the bridge waits for outstanding acks, the rest follows, the log closes cleanly. Every
//! wait has an end and says what it is for, so that neither a hanging disk nor a task keeps the process.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use forebay_broker::FrontError;
use forebay_wal::Log;
use tokio_util::sync::CancellationToken;

use super::Exit;
use crate::monitor::signals::Watch;
use crate::monitor::tasks::{Task, Tasks, wait};

/// How long connections may take to end.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// How long the rest may take after them. With the front's own, a stop takes half a minute at most.
const REST: Duration = Duration::from_secs(12);

/// What runs behind the front.
pub(super) struct Running {
    /// Ends the front, admin, the self-check and the canary.
    pub(super) shutdown: CancellationToken,
    /// The bridge, if there is a cloud.
    pub(super) bridge: Option<Task>,
    /// The export of traces, if there is a collector.
    pub(super) traces: Option<Task>,
    /// The admin server, the self-check and the canary.
    pub(super) others: Vec<Task>,
    /// Stops looking whether threads live.
    pub(super) closing: CancellationToken,
    /// The thread behind the signals.
    pub(super) watch: Watch,
    /// The log.
    pub(super) log: Log,
    /// All tasks.
    pub(super) tasks: Tasks,
}

impl Running {
    /// Ends everything; `ended` is how the front ended.
    ///
    /// # Errors
    /// A part that ended before it was asked to, the front's error, or that the log could not be closed.
    pub(super) async fn end(self, ended: Result<(), FrontError>) -> Result<(), Exit> {
        tracing::info!("devices are disconnected; waiting for the cloud's outstanding acks");
        let by = Instant::now() + REST;
        if let Some(bridge) = self.bridge {
            bridge.end(by).await;
        }
        if let Some(traces) = self.traces {
            traces.end(by).await;
        }
        self.shutdown.cancel();
        for task in self.others {
            task.end(by).await;
        }
        self.closing.cancel();
        let (watch, log) = (self.watch, self.log);
        let stopped = tokio::task::spawn_blocking(move || watch.stop());
        if let Some(Err(error)) = wait("the watch", by, stopped).await {
            tracing::error!(%error, "the thread of `watch` failed at its end");
        }
        let closed = wait("the log", by, tokio::task::spawn_blocking(move || log.close())).await;
        if let Some(dead) = self.tasks.first_dead() {
            return Err(Exit::Internal(anyhow!(
                "{dead}; start the gateway again (nothing that was acked is lost)"
            )));
        }
        match (ended, closed) {
            (Err(error), _) => Err(Exit::Internal(error.into())),
            (Ok(()), Some(Ok(Ok(())))) => Ok(()),
            (Ok(()), Some(Ok(Err(error)))) => Err(Exit::Disk(error.into())),
            (Ok(()), Some(Err(error))) => Err(Exit::Internal(error.into())),
            (Ok(()), None) => Err(Exit::Disk(anyhow!(
                "the log could not be closed in time because the disk does not answer; nothing that was acked is lost"
            ))),
        }
    }
}
