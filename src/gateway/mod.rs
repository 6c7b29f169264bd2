//! The gateway as one process: builds the parts from the configuration, joins them, runs them, and ends them in order.
//!
//! Start: log, front, bridge, admin; then the ready line. End: no more devices, what is committed is answered, the bridge
//! waits for outstanding acks, the log closes cleanly.

mod cloud;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use forebay_broker::tls::{CertificateClock, IdentityTemplate, ServerTls, TlsFiles};
use forebay_broker::{AccessRule, AccessRules, Front, LocalFanout, Route, Routes};
use forebay_wal::{Clock, Log, OpenError, Opened, SystemClock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::{Config, Listener, Otlp, Stream, WhenFull};
use crate::inspect::About;
use crate::monitor::canary::{self, Canary};
use crate::monitor::self_check::{Origin, SelfCheck};
use crate::monitor::signals;
use crate::telemetry::{Sources, Telemetry};
use crate::traces::Tracer;

/// No wall clock before this release can be right: 2026-11-01, in milliseconds since 1970.
const RELEASED_MS: u64 = 1_793_491_200_000;
/// How long connections, and then the bridge, may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Why the gateway ended, sorted by who can act.
pub(crate) enum Exit {
    /// The operator: a file or a setting.
    Configuration(anyhow::Error),
    /// The disk.
    Disk(anyhow::Error),
    /// Us.
    Internal(anyhow::Error),
}

impl Exit {
    /// The error inside.
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Configuration(error) | Self::Disk(error) | Self::Internal(error) => error,
        }
    }
}

/// Runs until SIGTERM, SIGINT, or a fault that only a restart mends.
///
/// # Errors
/// Why it could not start, or had to end.
pub(crate) async fn run(config: Config, origin: Origin) -> Result<(), Exit> {
    let clock = clock();
    let telemetry = Telemetry::new(config.gateway.id.as_str(), &config.fingerprint).map_err(Exit::Internal)?;
    let limits = limits(&config);
    let fanout = LocalFanout::start().map_err(|error| Exit::Internal(error.into()))?;

    let opened = open_log(&config, Arc::clone(&clock), &telemetry, &fanout).await?;
    let log = opened.log;
    let report = opened.report;
    tracing::info!(clean = report.clean, waiting = report.recovered, damaged = report.damaged, took = ?report.took, "the log is open");

    let traces_shutdown = CancellationToken::new();
    let traces_task = match &config.admin.otlp {
        Some(otlp) => Some(trace(otlp, &config, &log, &clock, &telemetry, &traces_shutdown).map_err(Exit::Internal)?),
        None => None,
    };

    let certificate_clock = certificate_clock(log.clone());
    let listeners = listeners(&config, &certificate_clock).map_err(Exit::Configuration)?;
    let mapping = Arc::new(cloud::mapping(&config).map_err(Exit::Configuration)?);
    let bridge = config
        .cloud
        .as_ref()
        .map(|cloud| cloud::bridge(&config, cloud))
        .transpose()
        .map_err(Exit::Configuration)?;

    let (watch, witness) = signals::start(&config, Arc::clone(&clock), telemetry.broker_observer())
        .context("the watch's thread cannot be started")
        .map_err(Exit::Internal)?;
    let shutdown = CancellationToken::new();
    let front = forebay_broker::Config {
        gateway: config.gateway.id.to_string(),
        listeners: listeners.iter().map(|(listener, _)| listener.clone()).collect(),
        access: access(&config),
        routes: routes(&config, &log).map_err(Exit::Internal)?,
        limits,
        state: config.gateway.data_dir.join("state.redb"),
    };
    let parts = forebay_broker::Parts {
        log: log.clone(),
        fanout,
        admission: Arc::new(cloud::MappedAdmission(Arc::clone(&mapping))),
        clock: Arc::clone(&clock),
        observer: Arc::new(witness),
    };
    let front = Front::bind(front, parts, shutdown.clone()).await.map_err(|error| match error {
        error @ forebay_broker::FrontError::Bind { .. } => Exit::Configuration(error.into()),
        error @ forebay_broker::FrontError::State(_) => Exit::Disk(error.into()),
        error => Exit::Internal(error.into()),
    })?;
    let admin = admin::bind(config.admin.bind).await.with_context(|| {
        format!(
            "admin cannot listen on {}: is another gateway running? give admin.bind another port",
            config.admin.bind
        )
    });
    let admin = admin.map_err(Exit::Configuration)?;

    let bridge_handle = bridge.is_some().then(forebay_bridge::Handle::new);
    let canary = canary(&config, &log);
    let self_check = SelfCheck::default();
    let sources = Sources {
        view: front.view(),
        log: log.clone(),
        bridge: bridge_handle.clone(),
        report,
        clock: Arc::clone(&clock),
        certificates: certificates(&listeners),
        watch: watch.clone(),
        canary: canary.clone(),
        check: self_check.clone(),
    };
    let about = About::new(&config, Arc::clone(&clock));
    let state = telemetry
        .observe(sources, &config)
        .map_err(Exit::Internal)?
        .with_log(admin::LogPages::new(log.clone(), about));
    let admin_address = admin.address();
    let admin_task = tokio::spawn(admin.run(state, shutdown.clone()));

    let bridge_shutdown = CancellationToken::new();
    let bridge_task = bridge.zip(bridge_handle).map(|(bridge, handle)| {
        let observer: Arc<dyn forebay_bridge::Observer> = match &canary {
            Some(canary) => Arc::new(canary::Witness {
                inner: telemetry.bridge_observer(),
                canary: canary.clone(),
            }),
            None => telemetry.bridge_observer(),
        };
        let clock = Arc::clone(&clock);
        tokio::spawn(forebay_bridge::run(
            bridge,
            log.clone(),
            mapping,
            handle,
            observer,
            clock,
            bridge_shutdown.clone(),
        ))
    });

    let canary_task = canary.map(|canary| tokio::spawn(canary.run(log.clone(), clock, shutdown.clone())));
    let check_task = tokio::spawn(self_check.run(Arc::new(config), Arc::new(origin), log.clone(), shutdown.clone()));

    let addresses = front.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    // Before the ready line: who has read it may stop the gateway at once.
    let signals = signals();
    crate::logging::announce(format!("ready listeners={addresses} admin={admin_address}"));
    tokio::spawn(signalled(signals, shutdown.clone()));
    let ended = front.run(GRACE).await;

    tracing::info!("devices are disconnected; waiting for the cloud's outstanding acks");
    bridge_shutdown.cancel();
    if let Some(task) = bridge_task {
        join("the bridge", task).await;
    }
    traces_shutdown.cancel();
    if let Some(task) = traces_task {
        join("the export of traces", task).await;
    }
    shutdown.cancel();
    join("admin", admin_task).await;
    join("the self-check", check_task).await;
    if let Some(task) = canary_task {
        join("the canary", task).await;
    }
    let stopped = tokio::task::spawn_blocking(move || watch.stop()).await;
    if let Err(error) = stopped {
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

fn trace(
    otlp: &Otlp,
    config: &Config,
    log: &Log,
    clock: &Arc<dyn Clock>,
    telemetry: &Telemetry,
    shutdown: &CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let (tracer, task) = Tracer::start(otlp, config.gateway.id.as_str(), log, Arc::clone(clock), shutdown.clone())?;
    telemetry.trace(tracer)?;
    Ok(task)
}

/// The canary goes through the first stream: what it tells is whether the way is open, not how long the last backlog is.
fn canary(config: &Config, log: &Log) -> Option<Canary> {
    let interval = config.cloud.as_ref()?.canary?;
    let stream = log.stream(&config.streams.first()?.name)?;
    Some(Canary::new(config.gateway.id.as_str(), interval, stream))
}

/// The machine's clock, believed from this release on.
pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new(RELEASED_MS))
}

/// Where the log lies.
pub(crate) fn log_directory(config: &Config) -> PathBuf {
    config.gateway.data_dir.join("log")
}

/// The log's settings.
pub(crate) fn log_options(config: &Config) -> forebay_wal::Options {
    forebay_wal::Options {
        directory: log_directory(config),
        max_disk: config.gateway.max_disk,
        keep_free: config.gateway.keep_free,
        commit_wait: config.gateway.commit_wait,
        // Every connection's device, and as many again that come and go.
        max_devices: config.limits.max_connections.saturating_mul(2),
        streams: config.streams.iter().map(stream).collect(),
    }
}

async fn open_log(config: &Config, clock: Arc<dyn Clock>, telemetry: &Telemetry, fanout: &LocalFanout) -> Result<Opened, Exit> {
    let options = log_options(config);
    let (observer, tap) = (telemetry.wal_observer(), fanout.tap());
    let opened = tokio::task::spawn_blocking(move || Log::open(options, clock, observer, Some(tap))).await;
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error @ OpenError::OrphanStream { .. })) => Err(Exit::Configuration(error.into())),
        // Locked among them: whoever holds it ends, and then a service manager's next try succeeds. 78 would end the tries.
        Ok(Err(error)) => Err(Exit::Disk(error.into())),
        Err(error) => Err(Exit::Internal(error.into())),
    }
}

fn stream(stream: &Stream) -> forebay_wal::StreamOptions {
    forebay_wal::StreamOptions {
        name: stream.name.clone(),
        max_bytes: stream.max_bytes,
        max_age: stream.max_age,
        when_full: match stream.when_full {
            WhenFull::Refuse => forebay_wal::WhenFull::Refuse,
            WhenFull::DropOldest => forebay_wal::WhenFull::DropOldest,
        },
    }
}

fn limits(config: &Config) -> forebay_broker::Limits {
    forebay_broker::Limits {
        max_connections: config.limits.max_connections as usize,
        max_packet: config.limits.max_packet as usize,
        max_in_flight: config.limits.max_in_flight,
        max_keep_alive: config.limits.max_keep_alive,
        max_topics: config.limits.max_topics as usize,
        max_retained_bytes: config.sessions.max_bytes,
        max_session_expiry: config.sessions.max_expiry,
        ..forebay_broker::Limits::default()
    }
}

fn access(config: &Config) -> AccessRules {
    let rule = |rule: &crate::config::AccessRule| AccessRule {
        who: rule.who.clone(),
        publish: rule.publish.clone(),
        subscribe: rule.subscribe.clone(),
        deny: rule.deny.clone(),
    };
    AccessRules(config.access.iter().map(rule).collect())
}

fn routes(config: &Config, log: &Log) -> anyhow::Result<Routes> {
    let mut routes = Vec::with_capacity(config.routes.len());
    for route in &config.routes {
        let stream = match route.cloud() {
            None => None,
            Some(cloud) => {
                let name = &config.streams[cloud.stream].name;
                Some(
                    log.stream(name)
                        .with_context(|| format!("the log does not know the stream `{name}`"))?,
                )
            }
        };
        routes.push(Route {
            name: route.name().to_owned(),
            from: route.from.clone(),
            stream,
        });
    }
    Ok(Routes::new(routes))
}

/// Certificates are judged by a clock that never falls behind the release and the newest trusted time on disk: boards
/// boot in the past.
fn certificate_clock(log: Log) -> CertificateClock {
    CertificateClock::system(move || {
        let on_disk = log.status().last_trusted.map_or(0, |time| time.wall_ms);
        SystemTime::UNIX_EPOCH + Duration::from_millis(on_disk.max(RELEASED_MS))
    })
}

type NamedListener = (forebay_broker::ListenerConfig, String);

fn listeners(config: &Config, clock: &CertificateClock) -> anyhow::Result<Vec<NamedListener>> {
    config
        .listeners
        .iter()
        .map(|listener| Ok((listen(listener, clock)?, listener.bind.to_string())))
        .collect()
}

fn listen(listener: &Listener, clock: &CertificateClock) -> anyhow::Result<forebay_broker::ListenerConfig> {
    let tls = match &listener.tls {
        None => None,
        Some(files) => {
            let files = TlsFiles {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                client_ca: files.client_ca.clone(),
                crl: files.crl.clone(),
            };
            let tls = ServerTls::load(&files, clock).with_context(|| format!("listener {}", listener.bind))?;
            for overdue in tls.overdue() {
                tracing::warn!(listener = %listener.bind, "{overdue}");
            }
            Some(Arc::new(tls))
        }
    };
    let identity = IdentityTemplate::parse(&listener.identity.to_string()).with_context(|| format!("listener {}", listener.bind))?;
    Ok(forebay_broker::ListenerConfig {
        bind: listener.bind,
        tls,
        identity,
    })
}

/// When each TLS listener's certificate ends, in seconds since 1970.
fn certificates(listeners: &[NamedListener]) -> Vec<(String, i64)> {
    listeners
        .iter()
        .filter_map(|(listener, name)| Some((name.clone(), listener.tls.as_ref()?.not_after())))
        .collect()
}

async fn join(name: &str, task: JoinHandle<()>) {
    match tokio::time::timeout(GRACE, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "{name} failed"),
        Err(_) => tracing::warn!("{name} did not end within {GRACE:?}"),
    }
}

/// Listens for the signals that end the gateway from now on; what comes before still kills it.
fn signals() -> Option<(Signal, Signal)> {
    let heard = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(terminate), Ok(interrupt)) = heard else {
        tracing::error!("signals cannot be heard; stop the process with SIGKILL (nothing that was acked is lost)");
        return None;
    };
    Some((terminate, interrupt))
}

async fn signalled(signals: Option<(Signal, Signal)>, shutdown: CancellationToken) {
    let Some((mut terminate, mut interrupt)) = signals else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    shutdown.cancel();
}
