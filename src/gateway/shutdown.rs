//! The end, in order: devices are gone, the bridge waits for outstanding acks, the rest follows, the log closes cleanly.

use std::time::Duration;

use forebay_broker::FrontError;
use forebay_wal::Log;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Exit;
use crate::monitor::signals::Watch;

/// How long connections, and then the bridge, may take to end.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// A task with an end of its own.
pub(super) struct Task {
    /// The task.
    pub(super) handle: JoinHandle<()>,
    /// Asks it to end.
    pub(super) shutdown: CancellationToken,
}

/// What runs behind the front.
pub(super) struct Running {
    /// Ends the front, admin, the self-check and the canary.
    pub(super) shutdown: CancellationToken,
    /// The bridge, if there is a cloud.
    pub(super) bridge: Option<Task>,
    /// The export of traces, if there is a collector.
    pub(super) traces: Option<Task>,
    /// The admin server.
    pub(super) admin: JoinHandle<()>,
    /// The self-check.
    pub(super) self_check: JoinHandle<()>,
    /// The canary, if it is on.
    pub(super) canary: Option<JoinHandle<()>>,
    /// The thread behind the signals.
    pub(super) watch: Watch,
    /// The log.
    pub(super) log: Log,
}

impl Task {
    /// Starts a task that ends when its token is cancelled.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(task: impl FnOnce(CancellationToken) -> F) -> Self {
        let shutdown = CancellationToken::new();
        Self {
            handle: tokio::spawn(task(shutdown.clone())),
            shutdown,
        }
    }

    async fn end(self, name: &str) {
        self.shutdown.cancel();
        join(name, self.handle).await;
    }
}

impl Running {
    /// Ends everything; `ended` is how the front ended.
    ///
    /// # Errors
    /// The front's, or that the log could not be closed.
    pub(super) async fn end(self, ended: Result<(), FrontError>) -> Result<(), Exit> {
        tracing::info!("devices are disconnected; waiting for the cloud's outstanding acks");
        if let Some(bridge) = self.bridge {
            bridge.end("the bridge").await;
        }
        if let Some(traces) = self.traces {
            traces.end("the export of traces").await;
        }
        self.shutdown.cancel();
        join("admin", self.admin).await;
        join("the self-check", self.self_check).await;
        if let Some(canary) = self.canary {
            join("the canary", canary).await;
        }
        let (watch, log) = (self.watch, self.log);
        if let Err(error) = tokio::task::spawn_blocking(move || watch.stop()).await {
            tracing::error!(%error, "the watch did not end well");
        }
        let closed = tokio::task::spawn_blocking(move || log.close()).await;
        match (ended, closed) {
            (Err(error), _) => Err(Exit::Internal(error.into())),
            (Ok(()), Ok(Ok(()))) => Ok(()),
            (Ok(()), Ok(Err(error))) => Err(Exit::Disk(error.into())),
            (Ok(()), Err(error)) => Err(Exit::Internal(error.into())),
        }
    }
}

async fn join(name: &str, task: JoinHandle<()>) {
    match tokio::time::timeout(GRACE, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "{name} failed"),
        Err(_) => tracing::warn!("{name} did not end within {GRACE:?}"),
    }
}

/// Listens for the signals that end the gateway from now on; what comes before still kills it.
pub(super) fn signals() -> Option<(Signal, Signal)> {
    let heard = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(terminate), Ok(interrupt)) = heard else {
        tracing::error!("signals cannot be heard; stop the process with SIGKILL (nothing that was acked is lost)");
        return None;
    };
    Some((terminate, interrupt))
}

/// Cancels `shutdown` at the first signal.
pub(super) async fn signalled(signals: Option<(Signal, Signal)>, shutdown: CancellationToken) {
    let Some((mut terminate, mut interrupt)) = signals else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    shutdown.cancel();
}
