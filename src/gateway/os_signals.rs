//! Signals of the operating system: what ends the gateway, and what must not.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that the gateway hears. None of them ends the process by itself any more.
pub(crate) struct OsSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl OsSignals {
    /// Listens from now on. To be called before anything else: the first process of a container loses a signal that comes
    /// earlier, and any other dies of it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Cancels `stop` at SIGTERM or SIGINT. SIGHUP and the user-defined ones, which scripts send to whole groups of
    /// processes, change nothing.
    pub(crate) async fn obey(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => end(&stop, "SIGTERM"),
                _ = self.interrupt.recv() => end(&stop, "SIGINT"),
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: this version does not reload its configuration; restart the gateway for changes to take effect");
                }
                _ = self.user_1.recv() => tracing::info!("SIGUSR1 does nothing"),
                _ = self.user_2.recv() => tracing::info!("SIGUSR2 does nothing"),
            }
        }
    }
}

fn end(stop: &CancellationToken, name: &str) {
    if stop.is_cancelled() {
        tracing::info!("{name}: stopping already");
    } else {
        tracing::info!("{name}: stopping");
        stop.cancel();
    }
}
