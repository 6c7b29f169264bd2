//! The device side as a whole: bind, run, drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_topic::PeerLog;
use forebay_wal::{Clock, Log, Tap};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::{Context, Limits};
use crate::fanout::{self, Fanout};
use crate::listener::{self, Gates, Listener, ListenerConfig, PendingConnects};
use crate::local_state::{Checkpointer, StateError, StateFile};
use crate::observe::{Devices, Observer, Stats, WrongNames};
use crate::policy::{AccessRules, Admission, RouteStats, RouteStatus, Routes, UnroutedTopic};
use crate::retained::{self, Retained};
use crate::session::{Registry, StoredSessions};

/// Sessions that may be kept for each connection that is allowed.
const SESSIONS_PER_CONNECTION: usize = 4;
/// How often the fan-out is checked.
const WATCH: Duration = Duration::from_secs(1);

/// What the operator decides about the device side.
pub struct Config {
    /// The gateway's id.
    pub gateway: String,
    /// Where devices connect.
    pub listeners: Vec<ListenerConfig>,
    /// The access rules.
    pub access: AccessRules,
    /// The routes.
    pub routes: Routes,
    /// Bounds.
    pub limits: Limits,
    /// The checkpoint of sessions and retained messages (`<data_dir>/state.redb`).
    pub state: PathBuf,
}

/// The local fan-out, started before the log so that the log can feed it.
pub struct LocalFanout {
    fanout: Fanout,
    threads: fanout::Threads,
    stats: Arc<Stats>,
}

/// What the front uses and does not own.
pub struct Parts {
    /// The log, opened with the fan-out's tap.
    pub log: Log,
    /// The fan-out.
    pub fanout: LocalFanout,
    /// The cloud side's check of a publish before it is acked.
    pub admission: Arc<dyn Admission>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Is told what happens as it happens.
    pub observer: Arc<dyn Observer>,
}

/// A bound front, not yet accepting.
pub struct Front {
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
    gates: Gates,
    context: Arc<Context>,
    checkpointer: Checkpointer,
    fanout_threads: fanout::Threads,
}

/// The front's state for status pages and metrics. Cheap to clone.
#[derive(Clone)]
pub struct View {
    context: Arc<Context>,
}

/// Why the front could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// A listener's address cannot be bound.
    #[error("cannot listen on {address}: is another broker running there? `ss -ltnp` shows which")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Sessions and retained messages could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The local fan-out's router does not run.
    #[error("the local fan-out's router does not respond; restart the gateway (nothing that was acked is lost)")]
    Router,
}

impl LocalFanout {
    /// Starts the router and its threads.
    ///
    /// # Errors
    /// [`FrontError::Router`] if it does not start.
    pub fn start() -> Result<Self, FrontError> {
        let stats = Arc::<Stats>::default();
        let (fanout, threads) = fanout::start(Arc::clone(&stats)).map_err(|_| FrontError::Router)?;
        Ok(Self { fanout, threads, stats })
    }

    /// The tap that the log must be opened with.
    #[must_use]
    pub fn tap(&self) -> Box<dyn Tap> {
        self.fanout.tap()
    }
}

impl Front {
    /// Binds all listeners and restores the sessions. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// See [`FrontError`].
    pub async fn bind(config: Config, parts: Parts, shutdown: CancellationToken) -> Result<Self, FrontError> {
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in config.listeners {
            let failed = |source| FrontError::Bind {
                address: listener.bind,
                source,
            };
            let socket = TcpListener::bind(listener.bind).await.map_err(failed)?;
            listeners.push(Listener {
                socket,
                tls: listener.tls,
                identity: Arc::new(listener.identity),
            });
        }
        let addresses = listeners.iter().filter_map(|listener| listener.socket.local_addr().ok()).collect();
        let state = Arc::new(StateFile::open(&config.state)?);
        let limits = config.limits;
        let retained = Arc::new(Retained::new(
            limits.max_topics,
            limits.max_retained_bytes,
            Arc::clone(&parts.fanout.stats),
            Arc::clone(&state),
        ));
        let sessions = Arc::<StoredSessions>::default();
        let mut checkpointer = Checkpointer::new(&parts.log, state, vec![Arc::clone(&retained) as _, Arc::clone(&sessions) as _]);
        checkpointer.restore()?;
        let registry = Registry::new(
            &parts.log,
            sessions.take(),
            Arc::clone(&parts.clock),
            limits.max_connections * SESSIONS_PER_CONNECTION,
            limits.max_session_expiry,
            shutdown.clone(),
        );
        let gates = Gates {
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            pending: PendingConnects::new(limits.max_pending_handshakes),
        };
        let context = Arc::new(Context {
            gateway: config.gateway,
            log: parts.log,
            fanout: parts.fanout.fanout,
            registry,
            retained,
            access: config.access,
            fixed_words: listeners
                .iter()
                .filter_map(|listener| Some(listener.identity.fixed_word()?.to_owned()))
                .collect(),
            route_stats: RouteStats::new(&config.routes),
            routes: config.routes,
            admission: parts.admission,
            budget: Semaphore::new(limits.max_uncommitted_bytes),
            parked_bytes: std::sync::atomic::AtomicUsize::new(0),
            limits,
            stats: parts.fanout.stats,
            observer: parts.observer,
            clock: parts.clock,
            unrouted: Arc::default(),
            wrong_names: WrongNames::default(),
            devices: Arc::default(),
            peer_log: PeerLog::default(),
            shutdown,
            tasks: TaskTracker::new(),
        });
        Ok(Self {
            listeners,
            addresses,
            gates,
            context,
            checkpointer,
            fanout_threads: parts.fanout.threads,
        })
    }

    /// The addresses bound, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The front's state for status pages and metrics.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            context: Arc::clone(&self.context),
        }
    }

    /// Serves devices until shutdown. Then it stops accepting, answers what is committed, sends DISCONNECT, and returns once
    /// every connection has ended or `grace` is over.
    ///
    /// # Errors
    /// [`FrontError::Router`] when the fan-out's router has ended: the process should end and be restarted.
    pub async fn run(self, grace: Duration) -> Result<(), FrontError> {
        let context = self.context;
        let tasks = context.tasks.clone();
        for listener in self.listeners {
            tasks.spawn(listener::run(listener, self.gates.clone(), Arc::clone(&context)));
        }
        let checkpoint_shutdown = CancellationToken::new();
        let behind = tokio::spawn(self.checkpointer.run(checkpoint_shutdown.clone()));
        let expiring = tokio::spawn(retained::sweep(
            Arc::clone(&context.retained),
            context.log.clone(),
            Arc::clone(&context.clock),
            context.shutdown.clone(),
        ));
        let sweeping = {
            let context = Arc::clone(&context);
            tokio::spawn(async move { context.registry.sweep().await })
        };
        let telling = {
            let context = Arc::clone(&context);
            tokio::spawn(async move { context.tell_repeated_lines().await })
        };
        let is_alive = watch(&context).await;
        context.shutdown.cancel();
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections did not end within the grace period");
        }
        checkpoint_shutdown.cancel();
        for task in [behind, sweeping, expiring, telling] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the front failed");
            }
        }
        context.fanout.stop();
        if !self.fanout_threads.join() {
            tracing::error!("a thread of the fan-out failed");
        }
        if is_alive { Ok(()) } else { Err(FrontError::Router) }
    }
}

/// Waits for shutdown; false if the fan-out ended before.
async fn watch(context: &Context) -> bool {
    while tokio::time::timeout(WATCH, context.shutdown.cancelled()).await.is_err() {
        if context.fanout.is_dead() {
            return false;
        }
    }
    true
}

impl View {
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.context.stats
    }

    /// Devices seen since start.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.context.devices
    }

    /// Unrouted topics, most frequent first.
    #[must_use]
    pub fn unrouted(&self, limit: usize) -> Vec<UnroutedTopic> {
        self.context.unrouted.top(limit, &self.context.routes)
    }

    /// The routes in order, with their last matches.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        self.context.route_stats.status(&self.context.routes, &self.context.clock.now())
    }

    /// Names that devices connect to and the certificates lack, with the failed handshakes of each; at most 33.
    #[must_use]
    pub fn wrong_names(&self) -> Vec<(String, u64)> {
        self.context.wrong_names.list()
    }

    /// Sessions, connected or not.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.context.registry.len()
    }

    /// Whether the fan-out to local subscribers works.
    #[must_use]
    pub fn fanout_is_alive(&self) -> bool {
        !self.context.fanout.is_dead()
    }
}
