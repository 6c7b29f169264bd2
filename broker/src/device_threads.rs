//! The threads that connections live on. Each has a runtime and a hub of its own, so that all that happens to a connection happens on
//! one core, and one wake serves many.
//!
//! Nothing may block on them, and no connection keeps one for longer than a millisecond (`connection/turn.rs`). A socket belongs to
//! its thread from its accept on; only its TLS handshake is computed elsewhere, where it holds nobody up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_wal::Log;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::Hub;
use crate::retained::Retained;

/// How long after the last connection what lingers may go on: a peer then reads what it was sent last.
const LINGER: Duration = Duration::from_millis(250);

/// All of them. They end when this is dropped.
pub(crate) struct DeviceThreads {
    threads: Vec<Arc<DeviceThread>>,
    joins: Vec<JoinHandle<()>>,
    stop: DropGuard,
}

/// One of them.
pub(crate) struct DeviceThread {
    pub(crate) handle: Handle,
    pub(crate) hub: Arc<Hub>,
    connections: AtomicUsize,
}

/// A connection on its thread, until it is dropped.
pub(crate) struct Seat {
    pub(crate) thread: Arc<DeviceThread>,
}

impl DeviceThreads {
    /// Half as many as there are cores, and at least one: the others have the log, the handshakes, the cloud, and the system's share.
    ///
    /// # Errors
    /// The system gives no thread or no file for it.
    pub(crate) fn start(log: &Log, retained: &Arc<Retained>) -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        let stop = CancellationToken::new();
        let mut all = Self {
            threads: Vec::with_capacity(count),
            joins: Vec::with_capacity(count),
            stop: stop.clone().drop_guard(),
        };
        for number in 0..count {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .on_thread_park(forebay_wal::rest)
                .build()?;
            all.threads.push(Arc::new(DeviceThread {
                handle: runtime.handle().clone(),
                hub: Hub::new(log, retained),
                connections: AtomicUsize::new(0),
            }));
            let stop = stop.clone();
            let run = move || {
                runtime.block_on(async {
                    stop.cancelled().await;
                    tokio::time::sleep(LINGER).await;
                });
                // What still blocks must not keep it.
                runtime.shutdown_background();
            };
            let thread = std::thread::Builder::new().name(format!("devices-{number}")).spawn(run)?;
            all.joins.push(thread);
        }
        Ok(all)
    }

    pub(crate) fn all(&self) -> &[Arc<DeviceThread>] {
        &self.threads
    }

    /// What gives new connections their thread.
    pub(crate) fn seats(&self) -> Seats {
        Seats(self.threads.clone().into())
    }

    /// Ends them and waits for that; false if one had panicked. Blocks.
    pub(crate) fn join(self) -> bool {
        drop(self.stop);
        let panicked = self.joins.into_iter().filter_map(|thread| thread.join().err());
        panicked.count() == 0
    }
}

/// Gives new connections their thread.
#[derive(Clone)]
pub(crate) struct Seats(Arc<[Arc<DeviceThread>]>);

impl Seats {
    /// A seat on the thread with the fewest connections. There is always one.
    pub(crate) fn take(&self) -> Option<Seat> {
        let thread = self.0.iter().min_by_key(|thread| thread.connections.load(Ordering::Relaxed))?;
        thread.connections.fetch_add(1, Ordering::Relaxed);
        Some(Seat {
            thread: Arc::clone(thread),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.thread.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
