//! The device side as a whole: bind, run, drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay_topic::PeerLog;
use forebay_wal::{Clock, Log, Tap};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker_topics;
use crate::budget::Budget;
use crate::connection::resume_will;
use crate::context::Context;
use crate::delivery::Groups;
use crate::device_threads::DeviceThreads;
use crate::fanout::{self, Fanout};
use crate::limits::Limits;
use crate::listener::{self, Gates, Listener, ListenerConfig, PendingConnects};
use crate::local_state::{Checkpointer, StateError, StateFile, StateReport};
use crate::observe::{BrokerTopics, ClosedListeners, Devices, Observer, Stats, WrongNames};
use crate::policy::{AccessRules, Admission, RouteStats, RouteStatus, Routes, UnroutedTopic};
use crate::retained::{self, Retained};
use crate::session::{Registry, SessionKey, SessionStatus, StoredSessions};
use crate::tasks::{Tasks, with_injected_panic};
use crate::wills::{StoredWill, StoredWills, Wills};

/// How often the fan-out is checked.
const WATCH: Duration = Duration::from_secs(1);
/// How long the checkpoint, and then the fan-out, may take to end after the connections have.
const LAST: Duration = Duration::from_secs(5);
const LISTENER: &str = "listener";
const DEVICES: &str = "devices";

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
    /// Those that the process before did not publish.
    wills_found: Vec<StoredWill>,
    fanout_threads: fanout::Threads,
    device_threads: DeviceThreads,
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
    /// Sessions and retained messages could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The local fan-out's router does not run.
    #[error("the local fan-out's router does not respond; restart the gateway (nothing that was acked is lost)")]
    Router,
    /// The threads for connections could not be started.
    #[error("the threads for connections could not be started ({0}); raise the limit of threads and open files")]
    Threads(std::io::Error),
    /// A task or thread of the front ended before shutdown.
    #[error("the task `{task}` of the device side has ended ({how}); restart the gateway (nothing that was acked is lost)")]
    Task {
        /// Its name.
        task: &'static str,
        /// How it ended.
        how: String,
    },
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
    /// Opens the listeners and restores the sessions. A listener whose files or address are not there yet is tried again while the
    /// front runs ([`View::closed_listeners`]). Blocks on the disk for a moment.
    ///
    /// # Errors
    /// See [`FrontError`].
    pub async fn bind(config: Config, parts: Parts, shutdown: CancellationToken) -> Result<Self, FrontError> {
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for config in config.listeners {
            let opened = listener::open(&config).await;
            listeners.push(Listener { config, opened });
        }
        let opened = listeners.iter().filter_map(|listener| listener.opened.as_ref().ok());
        let addresses = opened.filter_map(|opened| opened.socket.local_addr().ok()).collect();
        let state = Arc::new(StateFile::open(&config.state)?);
        let limits = config.limits;
        let budget = Arc::new(Budget::new(&limits));
        let retained = Arc::new(Retained::new(
            limits.max_topics,
            limits.max_retained_bytes,
            Arc::clone(&parts.fanout.stats),
            Arc::clone(&budget),
            Arc::clone(&state),
        ));
        let fixed_words: Vec<String> = listeners
            .iter()
            .filter_map(|listener| Some(listener.config.identity.fixed_word()?.to_owned()))
            .collect();
        let stats = Arc::clone(&parts.fanout.stats);
        let sessions = Arc::new(StoredSessions::new(
            &limits,
            Arc::clone(&budget),
            Arc::clone(&stats),
            fixed_words.clone(),
        ));
        let stored_wills = Arc::<StoredWills>::default();
        let mut checkpointer = Checkpointer::new(
            &parts.log,
            state,
            vec![
                Arc::clone(&retained) as _,
                Arc::clone(&sessions) as _,
                Arc::clone(&stored_wills) as _,
            ],
        );
        let state_report = checkpointer.restore()?;
        let (wills_found, last_will) = stored_wills.take();
        let wills = Wills::new(&parts.log, &parts.clock, last_will);
        let registry = Registry::new(
            &parts.log,
            sessions.take(),
            Arc::clone(&parts.clock),
            &limits,
            (Arc::clone(&budget), stats),
            shutdown.clone(),
        );
        let device_threads = DeviceThreads::start(&parts.log, &retained).map_err(FrontError::Threads)?;
        let gates = Gates {
            pending: PendingConnects::new(&limits, Arc::clone(&budget)),
            seats: device_threads.seats(),
        };
        let context = Arc::new(Context {
            gateway: config.gateway,
            log: parts.log,
            groups: Groups::new(Arc::clone(&budget), Arc::clone(&parts.fanout.stats), limits.max_session_bytes),
            fanout: parts.fanout.fanout,
            registry,
            wills,
            broker_topics: BrokerTopics::new(),
            retained,
            access: config.access,
            fixed_words,
            state_report,
            route_stats: RouteStats::new(&config.routes),
            routes: config.routes,
            admission: parts.admission,
            budget,
            parked_bytes: std::sync::atomic::AtomicUsize::new(0),
            limits,
            stats: parts.fanout.stats,
            observer: parts.observer,
            clock: parts.clock,
            unrouted: Arc::default(),
            wrong_names: WrongNames::default(),
            devices: Arc::default(),
            peer_log: PeerLog::default(),
            fault: OnceLock::new(),
            closed_listeners: ClosedListeners::default(),
            shutdown,
            tasks: TaskTracker::new(),
        });
        Ok(Self {
            listeners,
            addresses,
            gates,
            context,
            checkpointer,
            wills_found,
            fanout_threads: parts.fanout.threads,
            device_threads,
        })
    }

    /// The addresses that are bound already, in the order of the configuration.
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
    /// [`FrontError::Router`] and [`FrontError::Task`] when a part of it dies: the process should end and be started again.
    pub async fn run(self, grace: Duration) -> Result<(), FrontError> {
        let context = self.context;
        let tasks = context.tasks.clone();
        let mut watched = Tasks::default();
        for thread in self.device_threads.all() {
            let answering = Arc::clone(&thread.hub).run(Arc::clone(&context));
            // It ends with its thread, too.
            watched.watch(DEVICES, thread.handle.spawn(with_injected_panic(DEVICES, answering)));
        }
        for will in self.wills_found {
            resume_will(will, &context);
        }
        for listener in self.listeners {
            let accepting = listener::run(listener, self.gates.clone(), Arc::clone(&context));
            watched.watch(LISTENER, tasks.spawn(with_injected_panic(LISTENER, accepting)));
        }
        let checkpoint_shutdown = CancellationToken::new();
        let behind = self.checkpointer.run(checkpoint_shutdown.clone());
        let (retained, clock) = (Arc::clone(&context.retained), Arc::clone(&context.clock));
        let expiring = retained::sweep(retained, context.log.clone(), clock, context.shutdown.clone());
        let sweeping = {
            let context = Arc::clone(&context);
            async move { context.registry.sweep().await }
        };
        let telling = {
            let context = Arc::clone(&context);
            async move { context.tell_repeated_lines().await }
        };
        watched.watch("checkpoint", tokio::spawn(with_injected_panic("checkpoint", behind)));
        watched.watch("retained-expiry", tokio::spawn(with_injected_panic("retained-expiry", expiring)));
        watched.watch("session-expiry", tokio::spawn(with_injected_panic("session-expiry", sweeping)));
        let telling_own = broker_topics::run(Arc::clone(&context));
        watched.watch("broker-topics", tokio::spawn(with_injected_panic("broker-topics", telling_own)));
        watched.watch("peer-log", tokio::spawn(with_injected_panic("peer-log", telling)));
        let ended = until_over(&context, &mut watched, &self.fanout_threads).await;
        if let Err(error) = &ended {
            tracing::error!(%error, "the device side ends");
            context.fault.set(error.to_string()).ok();
        }
        context.shutdown.cancel();
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections did not end within the grace period");
        }
        let device_threads = self.device_threads;
        let joined = tokio::task::spawn_blocking(move || device_threads.join());
        match tokio::time::timeout(LAST, joined).await {
            Ok(Ok(true)) => {}
            Ok(_) => tracing::error!("a thread of connections failed"),
            Err(_) => tracing::warn!("the threads of connections did not end within {LAST:?}"),
        }
        checkpoint_shutdown.cancel();
        if !watched.join(LAST).await {
            tracing::warn!("the checkpoint of sessions and retained messages was not written within {LAST:?}; is the disk slow?");
        }
        context.fanout.stop();
        let threads = self.fanout_threads;
        let joined = tokio::task::spawn_blocking(move || threads.join());
        match tokio::time::timeout(LAST, joined).await {
            Ok(Ok(true)) => {}
            Ok(_) => tracing::error!("a thread of the fan-out failed"),
            Err(_) => tracing::warn!("the fan-out did not end within {LAST:?}"),
        }
        ended
    }
}

/// Waits for shutdown, or for the end of something that must not end before.
async fn until_over(context: &Context, tasks: &mut Tasks, threads: &fanout::Threads) -> Result<(), FrontError> {
    loop {
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => return Ok(()),
            (task, how) = tasks.ended() => return Err(FrontError::Task { task, how }),
            () = tokio::time::sleep(WATCH) => {}
        }
        if let Some(task) = threads.ended() {
            let how = "its thread has ended".to_owned();
            return Err(FrontError::Task { task, how });
        }
        if context.fanout.is_dead() {
            return Err(FrontError::Router);
        }
    }
}

impl View {
    /// Bytes of publishes that are accepted and not committed yet.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        self.context.budget.uncommitted.taken()
    }

    /// The listeners that cannot serve now, each with why and what to do.
    #[must_use]
    pub fn closed_listeners(&self) -> Vec<(SocketAddr, String)> {
        self.context.closed_listeners.list()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.context.stats
    }

    /// What peers have left behind, and which bounds on it were reached.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.context.budget
    }

    /// What the start found of sessions and retained messages.
    #[must_use]
    pub fn state_report(&self) -> StateReport {
        self.context.state_report
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

    /// All sessions, in the order of their devices and client ids.
    #[must_use]
    pub fn session_list(&self) -> Vec<SessionStatus> {
        self.context.registry.statuses(None)
    }

    /// The session of this device with this client id.
    #[must_use]
    pub fn session(&self, identity: &str, client_id: &str) -> Option<SessionStatus> {
        self.context.registry.statuses(Some(&key(identity, client_id))).pop()
    }

    /// Ends a session: its connection is closed (0x98), what is kept of it is removed, and its will is published. False if there is none.
    pub async fn drop_session(&self, identity: &str, client_id: &str) -> bool {
        self.context.registry.drop_one(&key(identity, client_id)).await
    }

    /// What of the device side has ended although it must not; none = it is well.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.context.fault.get().map(String::as_str)
    }

    /// Whether the fan-out to local subscribers works.
    #[must_use]
    pub fn fanout_is_alive(&self) -> bool {
        !self.context.fanout.is_dead()
    }
}

fn key(identity: &str, client_id: &str) -> SessionKey {
    SessionKey {
        identity: identity.into(),
        client_id: client_id.into(),
    }
}
